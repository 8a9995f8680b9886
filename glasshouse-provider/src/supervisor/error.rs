use std::time::Duration;

use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::{AllocationId, AllocationState, ProviderError};

use super::{BootPhase, JournalError, Tried};
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
        /// What else was ended with it, journalled or not: an outcome that is `observed` was.
        others: Box<[CleanupProof]>,
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
    /// A phase took longer than its budget. Its end was asked for.
    #[error("{id} was stuck in phase {phase} for more than {} s, last in state {state:?}: {why}", budget.as_secs_f64())]
    Stuck {
        /// Which one.
        id: AllocationId,
        /// The phase.
        phase: BootPhase,
        /// What it had.
        budget: Duration,
        /// The state seen last.
        state: AllocationState,
        /// What happened last.
        why: String,
    },
    /// The offer was taken by someone else.
    #[error("offer {offer} is taken")]
    NoCapacity {
        /// Which one.
        offer: String,
    },
    /// Several offers came to nothing, each in its own way.
    #[error("{} offers of {provider} came to nothing: {}", tried.len(), each(tried))]
    GaveUp {
        /// Which provider.
        provider: &'static str,
        /// Each of them, in order.
        tried: Vec<Tried>,
    },
    /// It could cost more than there is.
    #[error(
        "it could come to {worst:.2} $, and {left:.2} $ of {budget:.2} $ are left; shorten its time limit, or spend more"
    )]
    OverBudget {
        /// Price until its time limit, US dollars.
        worst: f64,
        /// What is not spent or promised, US dollars.
        left: f64,
        /// The whole budget, US dollars.
        budget: f64,
    },
    /// There is a budget, and nothing says how long the allocation may run.
    #[error("a budget needs a time limit: without one nobody can tell what an allocation comes to; set one")]
    NoTimeLimit,
    /// It ran for as long as it may. Its end was asked for.
    #[error("{id} ran into its time limit of {} s", limit.as_secs_f64())]
    OutOfTime {
        /// Which one.
        id: AllocationId,
        /// The limit.
        limit: Duration,
    },
    /// What answers is not this allocation's agent.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness; nothing was asked for")]
    NoRandomness,
}

fn each(tried: &[Tried]) -> String {
    tried.iter().map(|tried| format!("{} ({})", tried.error, tried.offer)).collect::<Vec<_>>().join("; ")
}
