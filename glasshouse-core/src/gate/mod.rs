//! The gate: the only place that can release a key.
//!
//! [`OwnerSession`] burns the nonce in a durable [`GateStore`], checks what the runtime says against the owner's own
//! values, recomputes T, calls the [`Verifier`](crate::Verifier), makes the release durable, and only then returns the
//! bytes to send.

mod appraise;
mod channel_keys;
mod config;
mod file_store;
mod memory_store;
mod session;
mod store;
mod stored;

pub(crate) use appraise::check_claims;
pub use config::{GateError, LeaseTerms, OwnerConfig, PackageKey};
pub use file_store::FileGateStore;
pub use memory_store::MemoryGateStore;
pub use session::OwnerSession;
pub use store::{BurnOutcome, CommittedRelease, GateStore, StoreError};
pub use stored::{SessionRecordParts, StoredSession};
