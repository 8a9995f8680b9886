//! What the gate must remember over a crash.

use serde::{Deserialize, Serialize};

use crate::channel::SealedRecord;
use crate::fixed::{Blob, Nonce32};

/// What became of a nonce that was presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BurnOutcome {
    /// It was fresh and is burned now.
    Fresh,
    /// It was burned before.
    Replayed,
    /// It was never issued.
    Unknown,
}

/// A release as it was made durable: all that a restarted gate needs, and no secret in the clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommittedRelease {
    /// The session.
    pub session: Nonce32,
    /// The signed challenge.
    pub challenge: Blob,
    /// The signed evidence.
    pub evidence: Blob,
    /// The release, byte for byte as it was or will be sent.
    pub release: Blob,
    /// The channel keys, sealed to the owner's result key.
    pub channel: Blob,
}

/// Why the gate's memory failed. The gate then releases nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another owner has the store open.
    #[error("the gate store {path} is in use by another process; end it, or use another store")]
    InUse {
        /// Its path.
        path: String,
    },
    /// It cannot be read or written.
    #[error("the gate store {path} cannot be {what}: {why}")]
    Io {
        /// Its path.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What happened.
        why: String,
    },
    /// It holds something that this version did not write.
    #[error("the gate store {path} is damaged at line {line}: {why}; move it away, its sessions are lost")]
    Damaged {
        /// Its path.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
    /// The session has a release already.
    #[error("session {session} has had its release; only the same bytes may be sent again")]
    AlreadyReleased {
        /// The session.
        session: String,
    },
}

/// The gate's memory.
///
/// # Contract
/// - When a call that changes something returns, the change survives a crash of this process and, for a durable store,
///   of the machine.
/// - `burn` gives [`BurnOutcome::Fresh`] at most once for a nonce, over all crashes.
/// - `commit` succeeds at most once for a session; afterwards `committed` gives exactly what was committed
///   and `sessions` names the session.
/// - `keep` and `kept` are first in, first out, by session. A record that is the last one kept already is not kept twice:
///   after a `keep` that failed nobody knows what became of it, and the record comes again.
pub trait GateStore: Send + Sync {
    /// Remembers a nonce as issued. Gives how many were issued for the session, this one included.
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError>;

    /// Burns a nonce.
    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError>;

    /// Makes a release durable.
    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError>;

    /// The sessions that have a release, in no order.
    fn sessions(&self) -> Result<Vec<Nonce32>, StoreError>;

    /// The release of a session.
    fn committed(&self, session: &Nonce32) -> Result<Option<CommittedRelease>, StoreError>;

    /// Makes a sealed record durable, before it is acknowledged.
    fn keep(&self, session: &Nonce32, record: &SealedRecord) -> Result<(), StoreError>;

    /// The records kept, in order.
    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError>;
}
