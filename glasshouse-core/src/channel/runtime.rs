//! The runtime's end: signs, chains and seals events; opens commands.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use super::chain::raw_genesis;
use super::event::{Event, EventBody, EventHeader};
use super::fit::fitted;
use super::record::{Command, Direction, RecordKey, SealedRecord};
use crate::clock::Now;
use crate::fixed::{Blob, Digest48, Nonce32};
use crate::protocol::{LaunchKeys, ReleaseKeys, Signed, SigningSecret, decode, encode};
use crate::refusal::{Code, Refusal};
use crate::secret::Secret;
use crate::transcript::{Transcript, sha384};

/// The runtime's end of one session's channel.
pub struct RuntimeChannel {
    session: Nonce32,
    signer: SigningSecret,
    outgoing: RecordKey,
    incoming: RecordKey,
    previous: Digest48,
    next: u64,
    ended: bool,
}

impl RuntimeChannel {
    pub(crate) fn new(
        session: Nonce32,
        signer: SigningSecret,
        keys: ReleaseKeys,
        epoch: u32,
        genesis: Digest48,
    ) -> Self {
        Self {
            session,
            // These three sign and seal the receipt itself: the ledger knows them, and the receipt names them.
            signer: signer.into_session_key(),
            outgoing: RecordKey::new(keys.to_owner.into_session_key(), session, Direction::ToOwner, epoch),
            incoming: RecordKey::new(keys.to_runtime.into_session_key(), session, Direction::ToRuntime, epoch),
            previous: genesis,
            next: 0,
            ended: false,
        }
    }

    /// The channel of a raw segment: the same records and chain, with keys out of the launch secret. `boot` is the random
    /// id of the agent's process: a session that is started again by another one has other keys.
    pub fn raw(launch_secret: &Secret<32>, session: Nonce32, boot: &Nonce32) -> Self {
        let (signer, keys) = raw_keys(launch_secret, session, boot);
        Self::new(session, signer, keys, 0, raw_genesis(&session))
    }

    /// Signs, chains and seals the next event. The result is what is kept and resent until it is acknowledged. Texts are
    /// clipped and a receipt's surplus lines folded where they would not fit, so that every event gets home.
    ///
    /// # Errors
    /// `event-after-terminal` once an [`EventBody::End`] was emitted; `message-too-large` for an artifact's name beyond
    /// any file's. The chain goes on as if it had not been asked.
    pub fn emit(&mut self, body: &EventBody, now: Now) -> Result<SealedRecord, Refusal> {
        if self.ended {
            return Err(Refusal::new(Code::EVENT_AFTER_TERMINAL, "nothing", "another event"));
        }
        let body_bytes = encode(&fitted(body.clone()));
        if body_bytes.len() > EventBody::LIMIT {
            let expected = format!("an event of at most {} bytes", EventBody::LIMIT);
            return Err(Refusal::new(Code::MESSAGE_TOO_LARGE, expected, format!("{} bytes", body_bytes.len())));
        }
        let header = EventHeader {
            session: self.session,
            seq: self.next,
            previous: self.previous,
            body: sha384(&body_bytes),
            terminal: body.is_terminal(),
            at: now.wall,
            boot_micros: u64::try_from(now.boot.as_micros()).unwrap_or(u64::MAX),
        };
        let signed = Signed::sign(&header, &self.signer);
        let digest = signed.digest();
        let record = self.outgoing.seal(&encode(&Event { header: signed, body: Blob(body_bytes) }))?;
        self.previous = digest;
        self.next = self.outgoing.next();
        self.ended = header.terminal;
        Ok(record)
    }

    /// Opens the owner's next command.
    ///
    /// # Errors
    /// `record-replayed`, `record-reordered`, `record-forged`, or as [`decode`].
    pub fn command(&mut self, record: &SealedRecord) -> Result<Command, Refusal> {
        self.incoming.open(record, |plaintext| decode("command", plaintext, 1024))
    }

    /// How many events were emitted.
    pub const fn emitted(&self) -> u64 {
        self.next
    }

    /// Whether the terminal event was emitted.
    pub const fn is_ended(&self) -> bool {
        self.ended
    }
}

/// Keys of a raw segment: both ends derive them, for one session under one process of the agent. Without the latter, a
/// start that was overheard and sent to a restarted agent would seal other events under the same keys and nonces.
pub(super) fn raw_keys(launch_secret: &Secret<32>, session: Nonce32, boot: &Nonce32) -> (SigningSecret, ReleaseKeys) {
    let bound = Transcript::new("gh/raw-keys/1").fixed(session).fixed(boot).sha256();
    let launch = LaunchKeys::new(launch_secret, bound);
    let keys = ReleaseKeys {
        to_owner: launch.derive("gh/raw/runtime-to-owner/1"),
        to_runtime: launch.derive("gh/raw/owner-to-runtime/1"),
    };
    (SigningSecret::from_seed(launch.derive("gh/raw/events/1")), keys)
}
