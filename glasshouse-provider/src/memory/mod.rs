//! A provider in memory whose failures are scripted, for tests of what lives above the trait.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer,
    OfferFilter, Provider, ProviderError, Spend,
};

use tokio::time::Instant;

use crate::clock;

const NAME: &str = "memory";

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
    const fn name(self) -> &'static str {
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
}

/// A [`Provider`] in memory. Calls answer truthfully, except those that a fault was scripted for.
pub struct MemoryProvider {
    inner: Mutex<Inner>,
}

struct Inner {
    faults: BTreeMap<Call, VecDeque<Fault>>,
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
    fn enter(&self, call: Call) -> (MutexGuard<'_, Inner>, Option<Fault>) {
        let mut inner = self.lock();
        inner.calls.push(call);
        let fault = inner.faults.get_mut(&call).and_then(VecDeque::pop_front);
        (inner, fault)
    }
}

/// The error that a fault without an effect gives.
fn failure(call: Call, fault: &Fault, id: Option<&AllocationId>) -> ProviderError {
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

#[async_trait]
impl Provider for MemoryProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let (inner, fault) = self.enter(Call::Offers);
        match fault {
            Some(Fault::NoCapacity) => Ok(Vec::new()),
            Some(fault) => Err(failure(Call::Offers, &fault, None)),
            None => {
                let gpu_count = u32::from(inner.card.is_some());
                let has = |wanted: &String| inner.card.as_ref().is_some_and(|card| card.contains(wanted.as_str()));
                let fits = filter.gpu.as_ref().is_none_or(has) && filter.gpu_count.is_none_or(|n| n == gpu_count);
                let offer = |n: usize| Offer {
                    id: format!("memory-offer-{n}"),
                    gpu: inner.card.clone(),
                    gpu_count,
                    price_per_hour: inner.offered,
                    location: None,
                };
                Ok(if fits { (1..=inner.offers).map(offer).collect() } else { Vec::new() })
            }
        }
    }

    async fn create(&self, _offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let (id, allocation, fault) = {
            let (mut inner, fault) = self.enter(Call::Create);
            match fault {
                None | Some(Fault::FailsButHappens { .. } | Fault::HappensUnanswered) => {}
                Some(Fault::NoCapacity) => return Ok(CreateOutcome::NoCapacity),
                Some(fault) => return Err(failure(Call::Create, &fault, None)),
            }
            let id = AllocationId(format!("memory-{}", inner.next));
            inner.next = inner.next.saturating_add(1);
            let allocation = Allocation { id: id.clone(), name: spec.name.clone(), price_per_hour: inner.offered };
            let life = Life { allocation: allocation.clone(), born: Instant::now(), seen: 0, terminating: false };
            inner.living.insert(id.clone(), life);
            (id, allocation, fault)
        };
        match fault {
            Some(Fault::HappensUnanswered) => std::future::pending().await,
            Some(Fault::FailsButHappens { names_it }) => Err(ProviderError::Ambiguous {
                provider: NAME,
                call: Call::Create.name(),
                why: "status 500".to_owned(),
                allocation: names_it.then_some(id),
            }),
            _ => Ok(CreateOutcome::Created(allocation)),
        }
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        let (inner, fault) = self.enter(Call::Find);
        match fault {
            Some(Fault::NotFound | Fault::Ignored) => Ok(Vec::new()),
            Some(fault) => Err(failure(Call::Find, &fault, None)),
            None => Ok(inner.shown().filter(|allocation| allocation.name == name).collect()),
        }
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let (mut inner, fault) = self.enter(Call::Observe);
        if let Some(fault) = fault {
            return Err(failure(Call::Observe, &fault, Some(id)));
        }
        let (boot, endpoint, gpus, price) = (inner.boot.clone(), inner.endpoint.clone(), inner.gpus, inner.price);
        let hidden = inner.hidden;
        let life = inner.living.get_mut(id).filter(|life| life.born.elapsed() >= hidden);
        let life = life.ok_or_else(|| failure(Call::Observe, &Fault::NotFound, Some(id)))?;
        let state = if life.terminating {
            AllocationState::Terminating
        } else {
            boot.get(life.seen).or(boot.last()).cloned().unwrap_or(AllocationState::Running)
        };
        life.seen = life.seen.saturating_add(1);
        Ok(Observation {
            allocation: Allocation { price_per_hour: price, ..life.allocation.clone() },
            endpoints: endpoint.filter(|_| state == AllocationState::Running).into_iter().collect(),
            gpu_count: gpus.filter(|_| state == AllocationState::Running),
            state,
            container: None,
        })
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        let (inner, fault) = self.enter(Call::Logs);
        match fault {
            None if inner.living.contains_key(id) => {
                Ok(LogChunk { lines: Vec::new(), next: after.unwrap_or("0").to_owned() })
            }
            fault => Err(failure(Call::Logs, &fault.unwrap_or(Fault::NotFound), Some(id))),
        }
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        let (mut inner, fault) = self.enter(Call::Terminate);
        match fault {
            Some(Fault::Ignored) => {
                // Accepted, and it stays: the stuck `terminating` that some providers show for hours.
                if let Some(life) = inner.living.get_mut(id) {
                    life.terminating = true;
                }
                Ok(())
            }
            Some(Fault::FailsButHappens { .. }) => {
                inner.living.remove(id);
                Err(failure(Call::Terminate, &Fault::Fails, Some(id)))
            }
            Some(fault) => Err(failure(Call::Terminate, &fault, Some(id))),
            None => {
                if inner.living.remove(id).is_some() {
                    inner.spent += inner.price / 60.0;
                }
                Ok(())
            }
        }
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        let (inner, fault) = self.enter(Call::ListOwned);
        match fault {
            Some(Fault::NotFound | Fault::Ignored) => Ok(Vec::new()),
            Some(fault) => Err(failure(Call::ListOwned, &fault, None)),
            None => Ok(inner.shown().collect()),
        }
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        let (inner, fault) = self.enter(Call::Spend);
        match fault {
            Some(fault) => Err(failure(Call::Spend, &fault, Some(id))),
            None => Ok(Some(Spend {
                dollars: inner.spent,
                read_at: clock::wall(),
                is_final: !inner.living.contains_key(id),
            })),
        }
    }
}
