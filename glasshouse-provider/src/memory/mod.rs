//! A provider in memory whose failures are scripted, for tests of what lives above the trait.

mod calls;
mod fault;

pub use fault::{Call, Fault};

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glasshouse_core::traits::{Allocation, AllocationId, AllocationState, Endpoint};
use tokio::time::Instant;

const NAME: &str = "memory";

/// A [`Provider`](glasshouse_core::traits::Provider) in memory. Calls answer truthfully, except those that a fault was scripted for.
pub struct MemoryProvider {
    inner: Mutex<Inner>,
}

struct Inner {
    faults: BTreeMap<Call, VecDeque<Fault>>,
    account: Option<String>,
    /// States that `observe` goes through, one a call; the last one stays.
    boot: Vec<AllocationState>,
    endpoint: Option<Endpoint>,
    /// Model of the GPU that each offer has.
    card: Option<String>,
    offers: usize,
    /// GPUs that running allocations show.
    gpus: Option<u32>,
    hidden: Duration,
    /// What the offers say.
    offered: f64,
    price: f64,
    next: u64,
    living: BTreeMap<AllocationId, Life>,
    calls: Vec<Call>,
    spent: f64,
}

impl Inner {
    fn shown(&self) -> impl Iterator<Item = Allocation> {
        let lives = self.living.values().filter(|life| life.born.elapsed() >= self.hidden);
        lives.map(|life| Allocation { price_per_hour: self.price, ..life.allocation.clone() })
    }
}

struct Life {
    allocation: Allocation,
    born: Instant,
    seen: usize,
    terminating: bool,
}

impl Default for MemoryProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryProvider {
    /// A provider whose allocations run at once.
    pub fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                faults: BTreeMap::new(),
                account: None,
                boot: vec![AllocationState::Running],
                endpoint: None,
                card: None,
                offers: 1,
                gpus: None,
                hidden: Duration::ZERO,
                offered: 0.5,
                price: 0.5,
                next: 1,
                living: BTreeMap::new(),
                calls: Vec::new(),
                spent: 0.0,
            }),
        }
    }

    /// With an account of that name.
    #[must_use]
    pub fn of_account(self, account: impl Into<String>) -> Self {
        self.lock().account = Some(account.into());
        self
    }

    /// Another name for the account from now on, as after its key was changed.
    pub fn set_account(&self, account: impl Into<String>) {
        self.lock().account = Some(account.into());
    }

    /// Scripts the faults of a call from now on, in place of those that it still had.
    pub fn fail(&self, call: Call, faults: impl IntoIterator<Item = Fault>) {
        self.lock().faults.insert(call, faults.into_iter().collect());
    }

    /// How long allocations are in no answer after their creation, from now on.
    pub fn hide(&self, hidden: Duration) {
        self.lock().hidden = hidden;
    }

    /// Scripts faults of a call, first one first; calls after them are answered well.
    #[must_use]
    pub fn fault(self, call: Call, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.lock().faults.entry(call).or_default().extend(faults);
        self
    }

    /// States that `observe` shows one after the other; the last one stays.
    #[must_use]
    pub fn boot(self, states: impl IntoIterator<Item = AllocationState>) -> Self {
        self.lock().boot = states.into_iter().collect();
        self
    }

    /// Where running allocations can be reached.
    #[must_use]
    pub fn endpoint(self, endpoint: Endpoint) -> Self {
        self.lock().endpoint = Some(endpoint);
        self
    }

    /// So many offers, each with one GPU of this model.
    #[must_use]
    pub fn cards(self, model: impl Into<String>, offers: usize) -> Self {
        {
            let mut inner = self.lock();
            (inner.card, inner.offers, inner.gpus) = (Some(model.into()), offers, Some(1));
        }
        self
    }

    /// GPUs that running allocations show, whatever their offer says.
    #[must_use]
    pub fn gpus(self, count: u32) -> Self {
        self.lock().gpus = Some(count);
        self
    }

    /// For so long a fresh allocation is neither found nor listed.
    #[must_use]
    pub fn hidden(self, hidden: Duration) -> Self {
        self.lock().hidden = hidden;
        self
    }

    /// Price per hour, as offered and as it is.
    #[must_use]
    pub fn price(self, price: f64) -> Self {
        {
            let mut inner = self.lock();
            (inner.offered, inner.price) = (price, price);
        }
        self
    }

    /// Price per hour that created allocations come to have once they are looked at, whatever their offer says.
    #[must_use]
    pub fn real_price(self, price: f64) -> Self {
        self.lock().price = price;
        self
    }

    /// Changes the price per hour of everything, from now on.
    pub fn set_price(&self, price: f64) {
        self.lock().price = price;
    }

    /// Ids of everything that exists, whatever the faults say.
    pub fn existing(&self) -> Vec<AllocationId> {
        self.lock().living.keys().cloned().collect()
    }

    /// Every call so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the call and takes its next fault.
    #[allow(clippy::panic, reason = "the fault that is scripted")]
    fn enter(&self, call: Call) -> (MutexGuard<'_, Inner>, Option<Fault>) {
        let mut inner = self.lock();
        inner.calls.push(call);
        let fault = inner.faults.get_mut(&call).and_then(VecDeque::pop_front);
        if fault == Some(Fault::Panics) {
            drop(inner);
            panic!("scripted: {} panics", call.name());
        }
        (inner, fault)
    }
}
