//! The event chain and the sealed channel around it, against a model of what they must say.

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use glasshouse_core::channel::{
    ChainVerifier, Event, EventBody, EventHeader, OwnerChannel, SealedRecord, check_body, raw_genesis,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Blob, Digest48, Fixed};
use glasshouse_core::protocol::{LaunchKeys, Signed, SigningSecret, decode, encode};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::secret::Secret;
use glasshouse_core::transcript::{Transcript, sha384};

use super::line;
use crate::check;
use crate::keys::{BOOT, OTHER, SESSION, secret};

/// A runtime that holds its keys and tells lies. Each line is one event: a letter whose bits choose what is wrong with
/// its header, then its body. After `!` the last accepted event comes again; after `?` a record is replayed, early,
/// changed, or of another epoch. Nothing refused may change the owner's state.
pub fn run(mut data: &[u8]) {
    let mut world = World::new();
    let mut events = 0;
    while !data.is_empty() && events < 64 {
        let (now, rest) = line(data);
        data = rest;
        match now.split_first() {
            Some((b'!', _)) => world.again(),
            Some((b'?', body)) => world.forged_records(body),
            Some((flags, body)) => world.event(*flags, body),
            None => {}
        }
        events += 1;
    }
    assert_eq!(world.chain.finish().is_ok(), world.ended);
    if let Err(refusal) = world.chain.finish() {
        assert_eq!(refusal.code, Code::TERMINAL_EVENT_MISSING);
    }
}

struct World {
    signer: SigningSecret,
    record_key: Secret<32>,
    owner: OwnerChannel,
    chain: ChainVerifier,
    previous: Digest48,
    next: u64,
    ended: bool,
    last: Option<(Signed<EventHeader>, Vec<u8>)>,
}

impl World {
    fn new() -> Self {
        let launch_secret = secret(9);
        let bound = Transcript::new("gh/raw-keys/1").fixed(SESSION).fixed(BOOT).sha256();
        let launch = LaunchKeys::new(&launch_secret, bound);
        let signer = SigningSecret::from_seed(launch.derive("gh/raw/events/1"));
        let genesis = raw_genesis(&SESSION);
        Self {
            record_key: launch.derive("gh/raw/runtime-to-owner/1"),
            owner: OwnerChannel::raw(&launch_secret, SESSION, &BOOT),
            chain: ChainVerifier::new(SESSION, signer.public(), genesis),
            signer,
            previous: genesis,
            next: 0,
            ended: false,
            last: None,
        }
    }

    fn event(&mut self, flags: u8, body: &[u8]) {
        let bit = |n: u8| flags & (1 << n) != 0;
        let read = decode::<EventBody>("event", body, EventBody::LIMIT);
        let is_terminal = read.as_ref().is_ok_and(EventBody::is_terminal);
        let header = EventHeader {
            session: if bit(2) { Fixed([8; 32]) } else { SESSION },
            seq: if bit(0) { self.next + 1 } else { self.next },
            previous: if bit(1) { Fixed([0; 48]) } else { self.previous },
            body: if bit(3) { Fixed([1; 48]) } else { sha384(body) },
            terminal: is_terminal != bit(4),
            at: UnixMillis(0),
            boot_micros: self.next,
        };
        let signed = Signed::sign(&header, if bit(5) { &OTHER } else { &self.signer });
        let expected = match () {
            () if bit(5) => Err(Code::CHAIN_SIGNATURE),
            () if bit(2) => Err(Code::SESSION_MISMATCH),
            () if self.ended => Err(Code::EVENT_AFTER_TERMINAL),
            () if bit(0) => Err(Code::CHAIN_GAP),
            () if bit(1) => Err(Code::CHAIN_FORK),
            () if bit(3) => Err(Code::CHAIN_BODY),
            () => match read {
                Err(refusal) => Err(refusal.code),
                Ok(_) if bit(4) => Err(Code::CHAIN_BODY),
                Ok(body) => Ok((header, body)),
            },
        };
        self.deliver(&signed, body, expected);
    }

    /// The last accepted event once more.
    fn again(&mut self) {
        let Some((signed, body)) = self.last.clone() else { return };
        let code = if self.ended { Code::EVENT_AFTER_TERMINAL } else { Code::CHAIN_FORK };
        self.deliver(&signed, &body, Err(code));
    }

    fn deliver(&mut self, signed: &Signed<EventHeader>, body: &[u8], expected: Result<(EventHeader, EventBody), Code>) {
        let plaintext = encode(&Event { header: signed.clone(), body: Blob(body.to_vec()) });
        let record = self.seal(self.owner.next(), 0, &plaintext);
        let sizes = (self.owner.next(), self.owner.chain().len(), self.owner.events().len());
        let accepted = self.chain.accept(signed, body);
        // A record may hold less than an event of the largest size.
        if plaintext.len() <= SealedRecord::LIMIT {
            assert_eq!(text(&self.owner.accept(&record)), text(&accepted));
        }
        match (&accepted, expected) {
            (Ok(seen), Ok(expected)) => {
                assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
                check::faithful(&seen.1, body);
                assert_eq!(check_body(&seen.0, body).map(|b| format!("{b:?}")), Ok(format!("{:?}", seen.1)));
                (self.next, self.previous, self.ended) = (self.next + 1, signed.digest(), seen.0.terminal);
                self.last = Some((signed.clone(), body.to_vec()));
            }
            (Err(refusal), Err(code)) => {
                check::refusal(refusal);
                assert_eq!(refusal.code, code);
                let now = (self.owner.next(), self.owner.chain().len(), self.owner.events().len());
                assert_eq!(now, sizes, "a refused event changed the owner's end: {refusal}");
            }
            (seen, expected) => panic!("{seen:?} instead of {expected:?}"),
        }
        assert_eq!((self.chain.len(), self.chain.is_ended()), (self.next, self.ended));
        assert_eq!((self.owner.chain().len(), self.owner.next()), (self.next, self.next));
    }

    /// Records that were not made by the runtime for this place: each refused by its code, none changes anything.
    fn forged_records(&mut self, plaintext: &[u8]) {
        let next = self.owner.next();
        let mut changed = self.seal(next, 0, plaintext);
        let at = plaintext.len() / 2;
        if let Some(byte) = changed.ciphertext.0.get_mut(at) {
            *byte ^= 1;
        }
        let renumbered = SealedRecord { seq: next, ..self.seal(next + 1, 0, plaintext) };
        let relabelled = SealedRecord { epoch: 1, ..self.seal(next, 0, plaintext) };
        let bytes_alone = SealedRecord { epoch: 0, seq: next, ciphertext: Blob(plaintext.to_vec()) };
        let mut bad = vec![
            (self.seal(next + 1, 0, plaintext), Code::RECORD_REORDERED),
            (changed, Code::RECORD_FORGED),
            (renumbered, Code::RECORD_FORGED),
            (relabelled, Code::RECORD_FORGED),
            (self.seal(next, 1, plaintext), Code::RECORD_FORGED),
            (bytes_alone, Code::RECORD_FORGED),
        ];
        if let Some(before) = next.checked_sub(1) {
            bad.push((self.seal(before, 0, plaintext), Code::RECORD_REPLAYED));
        }
        for (record, code) in bad {
            let refusal = self.owner.accept(&record).expect_err("a forged record was taken");
            check::refusal(&refusal);
            assert_eq!(refusal.code, code);
            assert_eq!(self.owner.next(), next);
        }
    }

    fn seal(&self, seq: u64, epoch: u32, plaintext: &[u8]) -> SealedRecord {
        let aad = Transcript::new("gh/record/1")
            .fixed(SESSION)
            .lp("runtime-to-owner")
            .u64(u64::from(epoch))
            .u64(seq)
            .into_bytes();
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&seq.to_be_bytes());
        let cipher = Aes256Gcm::new_from_slice(self.record_key.expose()).expect("32 bytes");
        let sealed = cipher.encrypt(&nonce.into(), Payload { msg: plaintext, aad: &aad }).expect("short enough");
        SealedRecord { epoch, seq, ciphertext: Blob(sealed) }
    }
}

/// Floats that are not equal to themselves aside, what two ends said.
fn text(result: &Result<(EventHeader, EventBody), Refusal>) -> String {
    format!("{result:?}")
}
