use std::time::Duration;

use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::{AllocationId, AllocationState, ProviderError};

use super::JournalError;
use crate::client::ClientError;

/// Why there is no allocation, or no proof of its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupervisorError {
    /// The journal cannot be written; nothing was asked for, or its end was.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The allocation was ended, but the journal does not say so.
    #[error("{}: what was seen of its end cannot be journalled: {error}; it stays in the journal as unconfirmed", proof.allocation)]
    Unjournalled {
        /// The proof, unconfirmed as in the journal.
        proof: Box<CleanupProof>,
        /// Why it could not be written.
        #[source]
        error: JournalError,
    },
    /// The provider said no, or nothing.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// Nothing fits the request.
    #[error("{provider} offers nothing that fits: {why}; ask for less, or pay more")]
    NoOffer {
        /// Which provider.
        provider: &'static str,
        /// What was asked for.
        why: String,
    },
    /// It may exist or not. It stays in the journal.
    #[error("whether {provider} created {name} is not known: {why}; it stays in the journal, run again to end it")]
    InDoubt {
        /// Which provider.
        provider: &'static str,
        /// The name that it was asked for under.
        name: String,
        /// What happened.
        why: String,
    },
    /// It costs more than was agreed. Its end was asked for.
    #[error("{id} costs {price} $/h, more than the cap of {cap} $/h; it is being ended")]
    TooExpensive {
        /// Which one.
        id: AllocationId,
        /// What it costs.
        price: f64,
        /// What it may cost.
        cap: f64,
    },
    /// It ended before its agent could be reached.
    #[error("{id} ended before its agent answered{}: {log}", code.map(|code| format!(" (exit code {code})")).unwrap_or_default())]
    EndedEarly {
        /// Which one.
        id: AllocationId,
        /// Its exit code, when the provider tells one.
        code: Option<i32>,
        /// The end of its log.
        log: String,
    },
    /// The agent did not answer in time.
    #[error("the agent on {id} did not answer within {} s, last in state {state:?}: {why}", after.as_secs())]
    NotReachable {
        /// Which one.
        id: AllocationId,
        /// How long it was waited for.
        after: Duration,
        /// The state seen last.
        state: AllocationState,
        /// What happened last.
        why: String,
    },
    /// What answers is not this allocation's agent.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness; nothing was asked for")]
    NoRandomness,
}
