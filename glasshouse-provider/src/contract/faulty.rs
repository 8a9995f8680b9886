//! Troubles over any provider, put in between: for backends that nobody can tell to misbehave, such as real ones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, LaunchSpec, LogChunk, Observation, Offer, OfferFilter,
    Provider, ProviderError, Spend,
};
use tokio::time::Instant;

use super::{Bench, Trouble};
use crate::supervisor::{Patience, RentRequest};

/// A [`Bench`] over a provider that works: its answers are spoilt on their way, what it does is real. Its allocations are
/// agents of this executable, or of another one that calls [`serve_if_launched`](super::serve_if_launched).
pub struct Faulty {
    line: Arc<Line>,
    fresh: Box<dyn Fn() -> Arc<dyn Provider> + Send + Sync>,
    billing: Option<Box<Billing>>,
    request: Box<dyn Fn() -> RentRequest + Send + Sync>,
    patience: Patience,
    at_once: usize,
}

struct Line {
    inner: Arc<dyn Provider>,
    state: Arc<Mutex<State>>,
    hidden: Duration,
}

/// Names of everything that was asked for, to ids of what of it is there.
type Billing = dyn Fn(&[String]) -> Vec<String> + Send + Sync;

struct State {
    trouble: Trouble,
    creates: usize,
    names: Vec<String>,
    looks: usize,
    readings: usize,
    ends: usize,
    born: Option<Instant>,
}

impl Faulty {
    /// Over providers, each of them as a new owner has it, which rent what `request` gives at a price of zero or under its
    /// cap.
    pub fn new(
        provider: impl Fn() -> Arc<dyn Provider> + Send + Sync + 'static,
        request: impl Fn() -> RentRequest + Send + Sync + 'static,
        patience: Patience,
    ) -> Self {
        let state =
            State { trouble: Trouble::None, creates: 0, names: Vec::new(), looks: 0, readings: 0, ends: 0, born: None };
        let line = Line { inner: provider(), state: Arc::new(Mutex::new(state)), hidden: patience.settle / 2 };
        let (fresh, request) = (Box::new(provider), Box::new(request));
        Self { line: Arc::new(line), fresh, billing: None, request, patience, at_once: 1 }
    }

    /// With something that says what of those names is there, whatever the provider says: it is asked in the provider's place.
    #[must_use]
    pub fn billed_by(mut self, told: impl Fn(&[String]) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.billing = Some(Box::new(told));
        self
    }

    /// With so many of its benches in use at a time.
    #[must_use]
    pub fn at_once(mut self, benches: usize) -> Self {
        self.at_once = benches;
        self
    }
}

impl Bench for Faulty {
    fn provider(&self) -> Arc<dyn Provider> {
        self.line.clone()
    }

    fn next_provider(&self) -> Arc<dyn Provider> {
        let Line { state, hidden, .. } = &*self.line;
        Arc::new(Line { inner: (self.fresh)(), state: state.clone(), hidden: *hidden })
    }

    fn arrange(&self, trouble: Trouble) -> bool {
        let filter = (self.request)().filter;
        self.line.state().trouble = trouble;
        match trouble {
            Trouble::WithoutGpus => filter.gpu_count.is_some_and(|count| count > 0),
            Trouble::PriceAboveCap => filter.max_price_per_hour.is_some(),
            _ => true,
        }
    }

    async fn billing(&self) -> Vec<String> {
        let names = self.line.state().names.clone();
        if let Some(told) = &self.billing {
            return told(&names);
        }
        match (self.fresh)().list_owned().await {
            // Others of this account are nobody's business here.
            Ok(owned) => {
                owned.into_iter().filter(|a| names.contains(&a.name)).map(|allocation| allocation.id.0).collect()
            }
            Err(error) => vec![format!("who knows: {error}")],
        }
    }

    fn creates(&self) -> Option<usize> {
        Some(self.line.state().creates)
    }

    fn request(&self) -> RentRequest {
        (self.request)()
    }

    fn patience(&self) -> Patience {
        self.patience
    }

    fn at_once(&self) -> usize {
        self.at_once
    }
}

impl Line {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trouble(&self) -> Trouble {
        self.state().trouble
    }

    fn ambiguous(&self, call: &'static str, allocation: Option<AllocationId>) -> ProviderError {
        ProviderError::Ambiguous { provider: self.name(), call, why: "status 500".to_owned(), allocation }
    }

    /// Also where clocks differ: what says how long it was there already is a clock.
    fn is_hidden(&self) -> bool {
        let state = self.state();
        let hides = matches!(state.trouble, Trouble::HiddenAfterCreate | Trouble::ClockAhead | Trouble::ClockBehind);
        hides && state.born.is_some_and(|born| born.elapsed() < self.hidden)
    }
}

#[async_trait]
impl Provider for Line {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn account(&self) -> Option<String> {
        self.inner.account()
    }

    /// What there is, twice: also where there is but one machine, a second offer can be tried.
    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let offers = self.inner.offers(filter).await?;
        Ok(offers.iter().chain(&offers).cloned().collect())
    }

    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let (trouble, nth, provider) = {
            let mut state = self.state();
            state.creates = state.creates.saturating_add(1);
            state.names.push(spec.name.clone());
            (state.trouble, state.creates, self.name())
        };
        match (trouble, nth) {
            (Trouble::EveryOfferTaken, _) => return Ok(CreateOutcome::NoCapacity),
            (Trouble::FirstOfferRefused, 1) => {
                return Err(ProviderError::Refused { provider, call: "create", why: "status 400".to_owned() });
            }
            (Trouble::TooManyCreates(retry_after), 1) => {
                return Err(ProviderError::RateLimited { provider, call: "create", retry_after });
            }
            _ => {}
        }
        let created = self.inner.create(offer, spec).await?;
        self.state().born = Some(Instant::now());
        match (trouble, nth, created) {
            (Trouble::CreateFailsButHappens | Trouble::CreateBreaksOff, 1, CreateOutcome::Created(_)) => {
                Err(self.ambiguous("create", None))
            }
            (Trouble::CreateNeverAnswers, 1, _) => std::future::pending().await,
            (Trouble::CreateErrorNamesIt, 1, CreateOutcome::Created(made)) => {
                Err(self.ambiguous("create", Some(made.id)))
            }
            (_, _, created) => Ok(created),
        }
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        if self.is_hidden() { Ok(Vec::new()) } else { self.inner.find(name).await }
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let (trouble, nth) = {
            let mut state = self.state();
            state.looks = state.looks.saturating_add(1);
            (state.trouble, state.looks)
        };
        match (trouble, nth) {
            (Trouble::TooManyLooks(retry_after), 1) => {
                return Err(ProviderError::RateLimited { provider: self.name(), call: "observe", retry_after });
            }
            _ if self.is_hidden() => return Err(ProviderError::NotFound { provider: self.name(), id: id.clone() }),
            _ => {}
        }
        let mut seen = self.inner.observe(id).await?;
        match trouble {
            Trouble::StuckInSchedule => seen.state = AllocationState::Scheduling,
            Trouble::StuckInPull => seen.state = AllocationState::Pulling,
            Trouble::StuckInStart => seen.state = AllocationState::Starting,
            Trouble::UnknownState => seen.state = AllocationState::Unknown("HIBERNATING".to_owned()),
            Trouble::ExitsEarly => seen.state = AllocationState::Exited(Some(1)),
            Trouble::WithoutGpus => seen.gpu_count = Some(0),
            Trouble::PriceAboveCap => seen.allocation.price_per_hour = f64::MAX,
            _ => {}
        }
        let has_address = seen.state == AllocationState::Running && trouble != Trouble::WithoutPorts;
        seen.endpoints.retain(|_| has_address);
        Ok(seen)
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        let read = self.inner.logs(id, after).await?;
        let nth = {
            let mut state = self.state();
            state.readings = state.readings.saturating_add(1);
            state.readings
        };
        match self.trouble() {
            // Lost on its way: what was read has to come again, from the position before.
            Trouble::LogBreaksOff if nth.is_multiple_of(2) => Err(self.ambiguous("logs", None)),
            _ => Ok(read),
        }
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        let nth = {
            let mut state = self.state();
            state.ends = state.ends.saturating_add(1);
            state.ends
        };
        match (self.trouble(), nth) {
            (Trouble::EndSaysNotFound, 1) => Err(ProviderError::NotFound { provider: self.name(), id: id.clone() }),
            (Trouble::EndSaysNotFound, 2) => Err(self.ambiguous("request_terminate", None)),
            _ => self.inner.request_terminate(id).await,
        }
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        if self.is_hidden() { Ok(Vec::new()) } else { self.inner.list_owned().await }
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.inner.spend(id).await
    }
}
