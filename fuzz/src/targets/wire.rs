//! The protocol's messages, as they cross the wire and as they lie inside their signatures.

use std::fmt::Debug;

use glasshouse_core::channel::{Command, Event, EventBody, EventHeader, SealedRecord};
use glasshouse_core::job::JobSpec;
use glasshouse_core::protocol::{
    Challenge, EvidenceMessage, Message, Release, SealedArtifact, Signed, Verdict, decode, encode,
};
use glasshouse_core::refusal::Code;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::mode;
use crate::check;
use crate::keys::{EVENTS, GATE, OTHER};

/// `a` to `d`: signed messages. `e` to `h`: the same without signature. `i` and on: the rest.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', bytes)) => signed::<Challenge>(bytes),
        Some((b'b', bytes)) => signed::<EvidenceMessage>(bytes),
        Some((b'c', bytes)) => signed::<Verdict>(bytes),
        Some((b'd', bytes)) => signed::<EventHeader>(bytes),
        Some((b'e', bytes)) => inside::<Challenge>(bytes),
        Some((b'f', bytes)) => inside::<EvidenceMessage>(bytes),
        Some((b'g', bytes)) => inside::<Verdict>(bytes),
        Some((b'h', bytes)) => inside::<EventHeader>(bytes),
        Some((b'i', bytes)) => release(bytes),
        Some((b'j', bytes)) => drop(plain::<SealedRecord>(bytes, SealedRecord::LIMIT)),
        Some((b'k', bytes)) => drop(plain::<Command>(bytes, 1024)),
        Some((b'l', bytes)) => drop(plain::<Event>(bytes, SealedRecord::LIMIT)),
        Some((b'm', bytes)) => drop(plain::<EventBody>(bytes, EventBody::LIMIT)),
        Some((b'n', bytes)) => drop(plain::<JobSpec>(bytes, JobSpec::LIMIT)),
        Some((b'o', bytes)) => drop(plain::<SealedArtifact>(bytes, SealedRecord::LIMIT)),
        _ => {}
    }
}

/// Reads; refuses in one line of at most so many characters; what is read is all that stood there.
fn plain<T: DeserializeOwned + Serialize + Debug>(bytes: &[u8], limit: usize) -> Option<T> {
    match decode::<T>("message", bytes, limit) {
        Ok(message) => {
            assert!(bytes.len() <= limit);
            check::faithful(&message, bytes);
            Some(message)
        }
        Err(refusal) => {
            check::refusal(&refusal);
            let known =
                [Code::MESSAGE_MALFORMED, Code::MESSAGE_TOO_LARGE, Code::MESSAGE_TOO_DEEP, Code::MESSAGE_DUPLICATE_KEY];
            assert!(known.contains(&refusal.code));
            None
        }
    }
}

fn signed<M: Message + Debug + PartialEq>(bytes: &[u8]) {
    let signed = match Signed::<M>::from_bytes(bytes) {
        Ok(signed) => signed,
        Err(refusal) => return check::refusal(&refusal),
    };
    check::faithful(&signed, bytes);
    let again = Signed::<M>::from_bytes(&signed.to_bytes()).expect("a signed message reads back");
    assert_eq!((&again, again.digest()), (&signed, signed.digest()));
    let peeked = signed.peek();
    for key in [&*GATE, &*EVENTS] {
        match signed.verify(&key.public()) {
            Ok(message) => {
                assert_eq!(Ok(&message), peeked.as_ref());
                assert!(signed.verify(&OTHER.public()).is_err(), "one signature under two keys");
            }
            Err(refusal) => check::refusal(&refusal),
        }
    }
    if let Err(refusal) = peeked {
        check::refusal(&refusal);
    }
}

/// The message itself, then signed: whoever signs what was read is read again.
fn inside<M: Message + Debug + PartialEq>(bytes: &[u8]) {
    let Some(message) = plain::<M>(bytes, M::LIMIT) else { return };
    // Members that were absent are written as null, which may take it over the limit.
    if encode(&message).len() > M::LIMIT {
        return;
    }
    let signed = Signed::sign(&message, &OTHER);
    let read = Signed::<M>::from_bytes(&signed.to_bytes()).expect("a signed message reads back");
    assert_eq!(read.verify(&OTHER.public()), Ok(message));
    let refusal = read.verify(&GATE.public()).expect_err("signed with another key");
    assert_eq!(refusal.code, Code::SIGNATURE_INVALID);
    check::refusal(&refusal);
}

fn release(bytes: &[u8]) {
    let Some(release) = plain::<Release>(bytes, Release::LIMIT) else { return };
    match release.verdict.verify(&GATE.public()) {
        Ok(verdict) => drop(verdict.lease.aad()),
        Err(refusal) => check::refusal(&refusal),
    }
}
