//! What must hold for every provider: nothing is rented without a journal entry, every phase has its deadline and every
//! dollar its budget, everything rented is ended, and its absence is seen, not assumed.
#![deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod attempt;
mod boot;
mod dial;
mod end;
mod error;
mod journal;
mod money;
mod owner;
mod patience;
mod pause;
mod reap;
mod rent;
mod rented;

pub(crate) use boot::STOPPING;
pub use dial::Dial;
pub use error::SupervisorError;
pub use journal::{Journal, JournalError, OpenEntry};
pub use money::dollars_for;
pub use owner::{BadOwnerTag, OwnerTag, OwnerTagError};
pub use patience::{BootBudgets, BootPhase, Patience};
pub use reap::Reaped;
pub use rent::{RentRequest, Tried};
pub use rented::Rented;

use std::sync::Arc;

use glasshouse_core::traits::Provider;

use end::Core;
use money::Ledger;
use owner::Whose;

/// Offers that one [`Supervisor::rent`] tries, when nothing else is said.
const ATTEMPTS: usize = 5;

/// Rents allocations of one provider and sees to their end. One may rent many at once.
pub struct Supervisor {
    core: Core,
    dial: Arc<dyn Dial>,
    owner: Whose,
    attempts: usize,
}

impl Supervisor {
    /// A supervisor that writes to `journal` before it asks for anything, with the patience that suits this provider.
    pub fn new(provider: Arc<dyn Provider>, journal: Arc<Journal>) -> Self {
        let patience = Patience::of(provider.name());
        Self {
            core: Core { provider, journal, ledger: Arc::new(Ledger::new(None)), patience },
            dial: Arc::new(dial::Network),
            owner: Whose::OfThisUser,
            attempts: ATTEMPTS,
        }
    }

    /// With other patience.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.core.patience = patience;
        self
    }

    /// Whose allocations these are; [`OwnerTag::of_this_user`] when not given.
    #[must_use]
    pub fn owner(mut self, owner: OwnerTag) -> Self {
        self.owner = Whose::Given(owner);
        self
    }

    /// How many creates one `rent` may make, each of another offer; 5 when not given, and never less than 1.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// US dollars for everything that this supervisor rents. What is rented counts with its worst case, its price up to
    /// its time limit, until its end was seen: nothing is asked for that could go beyond. What is billed by volume is not in
    /// it, until it is on the provider's bill.
    #[must_use]
    pub fn budget(mut self, dollars: f64) -> Self {
        self.core.ledger = Arc::new(Ledger::new(Some(dollars)));
        self
    }

    /// With another way to agents.
    #[must_use]
    pub fn dial(mut self, dial: Arc<dyn Dial>) -> Self {
        self.dial = dial;
        self
    }

    /// US dollars that everything rented here came to so far, by price and time; the provider's bill where it is higher.
    pub fn spent(&self) -> f64 {
        self.core.ledger.spent()
    }
}
