//! What can go wrong with a call.

use std::time::Duration;

use glasshouse_core::traits::{AllocationId, ProviderError};

use super::NAME;

/// One call of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Call {
    /// `offers`.
    Offers,
    /// `create`.
    Create,
    /// `find`.
    Find,
    /// `observe`.
    Observe,
    /// `logs`.
    Logs,
    /// `request_terminate`.
    Terminate,
    /// `list_owned`.
    ListOwned,
    /// `spend`.
    Spend,
}

impl Call {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Offers => "offers",
            Self::Create => "create",
            Self::Find => "find",
            Self::Observe => "observe",
            Self::Logs => "logs",
            Self::Terminate => "request_terminate",
            Self::ListOwned => "list_owned",
            Self::Spend => "spend",
        }
    }
}

/// What goes wrong with the next call of a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A 5xx or a broken connection, and nothing happened.
    Fails,
    /// A 5xx, and it happened all the same; for `create` the answer may name what it made.
    FailsButHappens {
        /// Whether the error names the allocation.
        names_it: bool,
    },
    /// It happens, and is never answered; for `create` alone.
    HappensUnanswered,
    /// It is answered as if the allocation did not exist.
    NotFound,
    /// It is answered well, and nothing happens.
    Ignored,
    /// Nothing to be had.
    NoCapacity,
    /// Too many requests.
    RateLimited {
        /// How long to wait, when it says.
        retry_after: Option<Duration>,
    },
    /// It is understood, and not done.
    Refused,
    /// An answer that nobody can read.
    Nonsense,
    /// The provider panics: a defect in a backend.
    Panics,
}

/// The error that a fault without an effect gives.
pub(super) fn failure(call: Call, fault: &Fault, id: Option<&AllocationId>) -> ProviderError {
    let call = call.name();
    match fault {
        Fault::RateLimited { retry_after } => {
            ProviderError::RateLimited { provider: NAME, call, retry_after: *retry_after }
        }
        Fault::Refused => ProviderError::Refused { provider: NAME, call, why: "scripted".to_owned() },
        Fault::Nonsense => {
            ProviderError::Unintelligible { provider: NAME, call, why: "the answer is not JSON".to_owned() }
        }
        Fault::NotFound => {
            let id = id.cloned().unwrap_or_else(|| AllocationId("none".to_owned()));
            ProviderError::NotFound { provider: NAME, id }
        }
        _ => ProviderError::Ambiguous { provider: NAME, call, why: "status 500".to_owned(), allocation: None },
    }
}
