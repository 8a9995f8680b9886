//! What owner, agent and segment say to each other around the protocol.

use std::fmt::Debug;

use glasshouse_core::fixed::Nonce32;
use glasshouse_core::protocol::decode;
use glasshouse_core::secret::Secret;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::mode;
use crate::check;
use crate::frames::{FromSegment, ToSegment, encode, read};
use crate::raw::RawOrder;
use crate::wire::{AckRequest, Hello, PackageStatus, RecordsPage, SegmentStatus, StartSegment, WireError};

/// `a` to `f`: bodies of requests and answers. `g`: an agent's error. `h`, `i`: frames of a segment's pipe. `j`: the
/// order of a raw segment.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', bytes)) => body::<Hello>(bytes),
        Some((b'b', bytes)) => body::<SegmentStatus>(bytes),
        Some((b'c', bytes)) => body::<StartSegment>(bytes),
        Some((b'd', bytes)) => body::<PackageStatus>(bytes),
        Some((b'e', bytes)) => body::<RecordsPage>(bytes),
        Some((b'f', bytes)) => body::<AckRequest>(bytes),
        Some((b'g', bytes)) => error(bytes),
        Some((b'h', bytes)) => frames::<ToSegment>(bytes),
        Some((b'i', bytes)) => frames::<FromSegment>(bytes),
        Some((b'j', bytes)) => raw_order(bytes),
        _ => {}
    }
}

fn body<T: DeserializeOwned + Serialize + Debug>(bytes: &[u8]) {
    if let Ok(message) = serde_json::from_slice::<T>(bytes) {
        check::faithful(&message, bytes);
    }
}

/// An owner prints it, and a proxy can write it: one clean line.
fn error(bytes: &[u8]) {
    let Ok(error) = serde_json::from_slice::<WireError>(bytes) else { return };
    check::one_line(&error.to_string(), 1000);
    if let Some(refusal) = &error.refusal {
        check::one_line(&refusal.to_string(), 1200);
    }
    let written = serde_json::to_vec(&error).unwrap();
    assert_eq!(serde_json::from_slice::<WireError>(&written).unwrap(), error);
}

/// Frame after frame until one is refused or the bytes end; what was read is written as what is read again.
fn frames<T: DeserializeOwned + Serialize>(mut bytes: &[u8]) {
    for _ in 0..16 {
        let Ok(Some(message)) = read::<T>(&mut bytes) else { return };
        let written = encode(&message).expect("a message that was read fits");
        let again: T = read(written.as_slice()).unwrap().unwrap();
        assert_eq!(encode(&again).unwrap(), written);
    }
}

/// Read as a segment reads it, and opened by who has the wrong launch secret.
fn raw_order(bytes: &[u8]) {
    let Ok(order) = decode::<RawOrder>("raw order", bytes, RawOrder::LIMIT) else { return };
    check::faithful(&order, bytes);
    assert!(order.open(&Secret::take(&mut [1; 32]), &Nonce32::from([2; 32])).is_err());
}
