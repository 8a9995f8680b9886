//! One sealed record: AES-256-GCM, the sequence number as nonce, encrypted once and resent byte-identical.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::fixed::{Blob, Nonce32};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::transcript::Transcript;

/// Which way a record goes. Each direction has a key of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Events.
    ToOwner,
    /// Commands.
    ToRuntime,
}

/// A record as it crosses the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedRecord {
    /// Lease epoch whose key seals it.
    pub epoch: u32,
    /// Sequence number, from 0 in each direction.
    pub seq: u64,
    /// The body and its tag.
    pub ciphertext: Blob,
}

impl SealedRecord {
    /// Largest encoding accepted.
    pub const LIMIT: usize = 1 << 20;
}

/// What an owner can tell a running segment. Every command of one sequence number has the same plaintext whoever
/// seals it, so that an owner who was restarted, and counts from 0 again, repeats a ciphertext but never a nonce under
/// two plaintexts. A command with a payload needs a durable counter first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", from = "CommandIn")]
pub enum Command {
    /// Stop training, export, zeroize.
    Stop,
}

/// A command as it is read. serde's derive lets any members stand beside the tag of a variant without fields, whatever
/// `deny_unknown_fields` says; a struct of the tag alone does not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandIn {
    r#type: CommandName,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CommandName {
    Stop,
}

impl From<CommandIn> for Command {
    fn from(read: CommandIn) -> Self {
        match read.r#type {
            CommandName::Stop => Self::Stop,
        }
    }
}

/// The key of one direction, which also counts.
pub(crate) struct RecordKey {
    key: Secret<32>,
    session: Nonce32,
    direction: Direction,
    epoch: u32,
    next: u64,
}

impl RecordKey {
    pub(crate) fn new(key: Secret<32>, session: Nonce32, direction: Direction, epoch: u32) -> Self {
        Self { key, session, direction, epoch, next: 0 }
    }

    /// The sequence number that comes next.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Seals the next record.
    pub(crate) fn seal(&mut self, plaintext: &[u8]) -> Result<SealedRecord, Refusal> {
        let seq = self.next;
        let aad = self.aad(seq);
        let ciphertext = self
            .cipher()
            .and_then(|cipher| cipher.encrypt(&nonce(seq).into(), Payload { msg: plaintext, aad: &aad }).ok());
        match (ciphertext, seq.checked_add(1)) {
            (Some(ciphertext), Some(next)) => {
                self.next = next;
                Ok(SealedRecord { epoch: self.epoch, seq, ciphertext: Blob(ciphertext) })
            }
            _ => Err(Refusal::new(Code::MESSAGE_TOO_LARGE, "a record that fits the cipher's limits", "a larger one")),
        }
    }

    /// Opens the next record and has it read; one that was taken before, or that comes too early, is refused. It counts
    /// as taken only when `read` takes it.
    pub(crate) fn open<T, E: From<Refusal>>(
        &mut self,
        record: &SealedRecord,
        read: impl FnOnce(&[u8]) -> Result<T, E>,
    ) -> Result<T, E> {
        let expected = self.next;
        if record.seq < expected {
            return Err(Refusal::new(Code::RECORD_REPLAYED, format!("record {expected}"), record.seq).into());
        }
        if record.seq > expected {
            return Err(Refusal::new(Code::RECORD_REORDERED, format!("record {expected}"), record.seq).into());
        }
        let aad = self.aad(expected);
        let forged = || {
            Refusal::new(Code::RECORD_FORGED, format!("record {expected} of this session"), "one that does not open")
        };
        if record.epoch != self.epoch {
            return Err(forged().into());
        }
        let payload = Payload { msg: &record.ciphertext.0, aad: &aad };
        let plaintext = self
            .cipher()
            .and_then(|cipher| cipher.decrypt(&nonce(expected).into(), payload).ok())
            .map(Zeroizing::new)
            .ok_or_else(forged)?;
        let next = expected.checked_add(1).ok_or_else(forged)?;
        let taken = read(&plaintext)?;
        self.next = next;
        Ok(taken)
    }

    fn cipher(&self) -> Option<Aes256Gcm> {
        Aes256Gcm::new_from_slice(self.key.expose()).ok()
    }

    fn aad(&self, seq: u64) -> Vec<u8> {
        let direction = match self.direction {
            Direction::ToOwner => "runtime-to-owner",
            Direction::ToRuntime => "owner-to-runtime",
        };
        Transcript::new("gh/record/1")
            .fixed(self.session)
            .lp(direction)
            .u64(u64::from(self.epoch))
            .u64(seq)
            .into_bytes()
    }
}

// Unique per key: the key belongs to one direction and epoch, and the counter never runs twice through a number.
fn nonce(seq: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    for (to, from) in nonce.iter_mut().skip(4).zip(seq.to_be_bytes()) {
        *to = from;
    }
    nonce
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    fn pair() -> (RecordKey, RecordKey) {
        let mut bytes = [7; 32];
        let mut again = [7; 32];
        let session = Nonce32::from([1; 32]);
        let key = |bytes| RecordKey::new(Secret::take(bytes), session, Direction::ToOwner, 0);
        (key(&mut bytes), key(&mut again))
    }

    fn open(key: &mut RecordKey, record: &SealedRecord) -> Result<Vec<u8>, Refusal> {
        key.open(record, |plaintext| Ok(plaintext.to_vec()))
    }

    #[test]
    fn a_record_that_was_not_taken_is_still_the_next() {
        let (mut sealer, mut opener) = pair();
        let record = sealer.seal(b"no event").unwrap();
        let refuse = |_: &[u8]| Err::<(), _>(Refusal::new(Code::CHAIN_GAP, "event 0", "event 1"));
        assert_eq!(opener.open(&record, refuse).unwrap_err().code, Code::CHAIN_GAP);
        assert_eq!(open(&mut opener, &record).unwrap(), b"no event");
    }

    #[test]
    fn a_command_says_nothing_but_its_name() {
        assert_eq!(serde_json::from_str::<Command>(r#"{"type":"stop"}"#).unwrap(), Command::Stop);
        assert_eq!(serde_json::to_string(&Command::Stop).unwrap(), r#"{"type":"stop"}"#);
        for bad in [r#"{"type":"stop","after":9}"#, r#"{"type":"stop","type":"stop"}"#, r#"{"type":"go"}"#, "{}"] {
            assert!(serde_json::from_str::<Command>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn replay_reorder_and_forgery_have_their_codes() {
        let (mut sealer, mut opener) = pair();
        let records: Vec<_> = (0..3).map(|n| sealer.seal(&[n; 9]).unwrap()).collect();
        assert_eq!(open(&mut opener, &records[1]).unwrap_err().code, Code::RECORD_REORDERED);
        assert_eq!(open(&mut opener, &records[0]).unwrap(), vec![0; 9]);
        assert_eq!(open(&mut opener, &records[0]).unwrap_err().code, Code::RECORD_REPLAYED);
        let mut forged = records[1].clone();
        forged.ciphertext.0[3] ^= 1;
        assert_eq!(open(&mut opener, &forged).unwrap_err().code, Code::RECORD_FORGED);
        let renumbered = SealedRecord { seq: 1, ..records[2].clone() };
        assert_eq!(open(&mut opener, &renumbered).unwrap_err().code, Code::RECORD_FORGED);
        let other_epoch = SealedRecord { epoch: 1, ..records[1].clone() };
        assert_eq!(open(&mut opener, &other_epoch).unwrap_err().code, Code::RECORD_FORGED);
        assert_eq!(open(&mut opener, &records[1]).unwrap(), vec![1; 9]);
    }

    #[test]
    fn a_record_belongs_to_one_session_direction_epoch_and_place() {
        let key = |session: u8, direction, epoch| {
            RecordKey::new(Secret::take(&mut [7; 32]), Nonce32::from([session; 32]), direction, epoch)
        };
        // Under one key and nonce, so that only the associated data tells them apart.
        let record = key(1, Direction::ToOwner, 0).seal(b"body").unwrap();
        open(&mut key(1, Direction::ToOwner, 0), &record).unwrap();
        assert_eq!(open(&mut key(2, Direction::ToOwner, 0), &record).unwrap_err().code, Code::RECORD_FORGED);
        assert_eq!(open(&mut key(1, Direction::ToRuntime, 0), &record).unwrap_err().code, Code::RECORD_FORGED);
        let moved = SealedRecord { epoch: 1, ..record };
        assert_eq!(open(&mut key(1, Direction::ToOwner, 1), &moved).unwrap_err().code, Code::RECORD_FORGED);
    }

    #[test]
    fn nonces_are_the_sequence_number() {
        assert_eq!(nonce(0x0102), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(nonce(u64::MAX)[4..], [0xff; 8]);
    }
}
