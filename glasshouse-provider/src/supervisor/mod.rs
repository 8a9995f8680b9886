//! What must hold for every provider: nothing is rented without a journal entry, everything rented is ended, and its
//! absence is seen, not assumed.

mod end;
mod error;
mod journal;
mod rent;

pub use error::SupervisorError;
pub use journal::{Journal, JournalError, OpenEntry};
pub use rent::{RentRequest, Rented};

use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::Provider;

/// How patient the supervisor is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From `create` until the agent answers.
    pub boot: Duration,
    /// How long a fresh allocation may be unknown to its own provider.
    pub settle: Duration,
    /// Between two looks.
    pub poll: Duration,
    /// Between the two sightings of absence.
    pub absence_spacing: Duration,
    /// From the request to end until absence must have been seen.
    pub end: Duration,
}

impl Patience {
    /// For a provider on the network.
    pub const REMOTE: Self = Self {
        boot: Duration::from_secs(15 * 60),
        settle: Duration::from_secs(60),
        poll: Duration::from_secs(3),
        absence_spacing: Duration::from_secs(10),
        end: Duration::from_secs(5 * 60),
    };

    /// For processes of this machine.
    pub const LOCAL: Self = Self {
        boot: Duration::from_secs(20),
        settle: Duration::from_secs(1),
        poll: Duration::from_millis(50),
        absence_spacing: Duration::from_millis(200),
        end: Duration::from_secs(15),
    };
}

/// Rents allocations of one provider and sees to their end.
pub struct Supervisor {
    provider: Arc<dyn Provider>,
    journal: Arc<Journal>,
    patience: Patience,
}

impl Supervisor {
    /// A supervisor that writes to `journal` before it asks for anything.
    pub fn new(provider: Arc<dyn Provider>, journal: Arc<Journal>) -> Self {
        let patience = if provider.name() == "local" { Patience::LOCAL } else { Patience::REMOTE };
        Self { provider, journal, patience }
    }

    /// With other patience.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Ends everything that the journal has of this provider and that nobody saw the end of: what an owner who was
    /// killed left behind. Gives a proof for each; one whose outcome is not `observed` stays in the journal.
    ///
    /// # Errors
    /// [`SupervisorError::Unjournalled`], after everything was asked to end; a provider that does not answer leaves its
    /// allocations unconfirmed.
    pub async fn recover(&self) -> Result<Vec<CleanupProof>, SupervisorError> {
        let (mut proofs, mut first) = (Vec::new(), None);
        for entry in self.journal.open_entries() {
            if entry.provider == self.provider.name() {
                match end::end(&*self.provider, &self.journal, self.patience, &entry).await {
                    Ok(proof) => proofs.push(proof),
                    Err(error) => first = first.or(Some(error)),
                }
            }
        }
        first.map_or(Ok(proofs), Err)
    }
}
