use std::fmt::Display;
use std::time::Duration;

use crate::Provider;
use crate::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, LaunchSpec, Offer, OfferFilter, ProviderError,
};

/// What to rent for the test, and how patiently.
pub struct ProviderCase {
    /// The first offer that it gives is rented, once, until the test ends.
    pub filter: OfferFilter,
    /// What to start; its name must be new.
    pub launch: LaunchSpec,
    /// How long between two looks.
    pub poll: Duration,
    /// How long until something must have come about: running, gone.
    pub patience: Duration,
}

/// Checks a [`Provider`] with one allocation: offers, create, find, list, observe, logs, spend, terminate, absence.
///
/// Knows no async runtime: it awaits the provider's calls and `sleep`. When a clause fails, it asks for the end of every
/// allocation of the case's name before it panics. On a real provider this costs money; give it the cheapest offer.
///
/// # Panics
/// With the clause that does not hold.
pub async fn provider<S: AsyncFn(Duration)>(provider: &dyn Provider, case: ProviderCase, sleep: S) {
    let mut clauses = Clauses { provider, case: &case, sleep: &sleep };
    if let Err(broken) = clauses.run().await {
        let left = clauses.end_everything().await;
        panic!("clause {broken}; {left}");
    }
}

struct Clauses<'a, S> {
    provider: &'a dyn Provider,
    case: &'a ProviderCase,
    sleep: &'a S,
}

/// The clause and what was seen.
type Outcome<T = ()> = Result<T, String>;

impl<S: AsyncFn(Duration)> Clauses<'_, S> {
    async fn run(&mut self) -> Outcome {
        holds("a provider has a stable name", super::is_stable_name(self.provider.name()), self.provider.name())?;
        let offer = self.offers_are_filtered().await?;
        let name = self.case.launch.name.as_str();
        let before = promised("find looks a name up", self.provider.find(name).await)?;
        holds("an unknown name finds nothing", before.is_empty(), format_args!("{before:?}"))?;

        let created = self.create(&offer).await?;
        self.it_is_found_and_listed(&created).await?;
        self.it_runs(&created).await?;
        self.it_has_logs_and_a_price(&created.id).await?;
        self.it_ends(&created.id).await
    }

    async fn offers_are_filtered(&self) -> Outcome<Offer> {
        let nothing = OfferFilter { gpu: Some("no such gpu".into()), ..OfferFilter::default() };
        let none = promised("offers answers", self.provider.offers(&nothing).await)?;
        holds("offers are filtered", none.is_empty(), format_args!("{none:?} for a GPU that does not exist"))?;
        let offers = promised("offers answers", self.provider.offers(&self.case.filter).await)?;
        offers
            .into_iter()
            .next()
            .ok_or_else(|| "`there is an offer to test with` is broken: the filter gives none".to_owned())
    }

    async fn create(&self, offer: &Offer) -> Outcome<Allocation> {
        match promised("create rents an offer", self.provider.create(offer, &self.case.launch).await)? {
            CreateOutcome::Created(created) => {
                holds("an allocation has the name it was given", created.name == self.case.launch.name, &created.name)?;
                holds("an allocation has an id", !created.id.0.is_empty(), "it is empty")?;
                let price = created.price_per_hour;
                holds("an allocation has a price", price.is_finite() && price >= 0.0, price)?;
                Ok(created)
            }
            CreateOutcome::NoCapacity => {
                Err("`create rents an offer` is broken: no capacity; try another offer".into())
            }
        }
    }

    async fn it_is_found_and_listed(&self, created: &Allocation) -> Outcome {
        let name = created.name.as_str();
        self.wait("find gives every allocation of a name", async || {
            let found = promised("find looks a name up", self.provider.find(name).await)?;
            if found.len() > 1 {
                return Err(format!("`create makes one allocation` is broken: {found:?}"));
            }
            Ok(found.iter().any(|a| a.id == created.id))
        })
        .await?;
        self.wait("list_owned gives everything that exists", async || {
            let owned = promised("list_owned answers", self.provider.list_owned().await)?;
            Ok(owned.iter().any(|a| a.id == created.id))
        })
        .await?;
        let part: String = name.chars().take(name.chars().count().saturating_sub(1)).collect();
        let found = promised("find looks a name up", self.provider.find(&part).await)?;
        let strangers = found.iter().any(|a| a.name != part);
        holds("find takes the whole name", !strangers, format_args!("{part:?} found {found:?}"))
    }

    async fn it_runs(&self, created: &Allocation) -> Outcome {
        self.wait("an allocation comes to run", async || match self.provider.observe(&created.id).await {
            Ok(seen) => {
                holds("observe is of the allocation asked for", seen.allocation.id == created.id, &seen.allocation.id)?;
                let exited = matches!(seen.state, AllocationState::Exited(_));
                holds("an allocation comes to run", !exited, format_args!("{:?}", seen.state))?;
                Ok(seen.state == AllocationState::Running)
            }
            // Right after a create, no answer is an answer.
            Err(ProviderError::NotFound { .. } | ProviderError::RateLimited { .. }) => Ok(false),
            Err(error) => Err(format!("`observe answers` is broken: {error}")),
        })
        .await
    }

    async fn it_has_logs_and_a_price(&self, id: &AllocationId) -> Outcome {
        let first = promised("logs answers", self.provider.logs(id, None).await)?;
        promised("logs goes on from the position it gave", self.provider.logs(id, Some(&first.next)).await)?;
        if let Some(spend) = promised("spend answers", self.provider.spend(id).await)? {
            holds("spend is an amount", spend.dollars.is_finite() && spend.dollars >= 0.0, spend.dollars)?;
        }
        Ok(())
    }

    async fn it_ends(&self, id: &AllocationId) -> Outcome {
        for _ in 0..2 {
            promised("request_terminate is idempotent", self.provider.request_terminate(id).await)?;
        }
        self.wait("observe of an allocation that is gone is NotFound", async || {
            match self.provider.observe(id).await {
                Ok(_) | Err(ProviderError::RateLimited { .. }) => Ok(false),
                Err(ProviderError::NotFound { id: named, .. }) => {
                    holds("NotFound names the allocation", named == *id, named)?;
                    Ok(true)
                }
                Err(error) => Err(format!("`observe of an allocation that is gone is NotFound` is broken: {error}")),
            }
        })
        .await?;
        self.wait("list_owned does not give what is gone", async || {
            let owned = promised("list_owned answers", self.provider.list_owned().await)?;
            Ok(!owned.iter().any(|a| a.id == *id))
        })
        .await?;
        let found = promised("find looks a name up", self.provider.find(&self.case.launch.name).await)?;
        holds("find does not give what is gone", found.is_empty(), format_args!("{found:?}"))?;
        match self.provider.request_terminate(id).await {
            Ok(()) | Err(ProviderError::NotFound { .. }) => Ok(()),
            Err(error) => Err(format!("`request_terminate is idempotent` is broken: once gone, it says {error}")),
        }
    }

    /// Looks until it is so, for as long as the case is patient.
    async fn wait(&self, clause: &str, mut look: impl AsyncFnMut() -> Outcome<bool>) -> Outcome {
        let mut waited = Duration::ZERO;
        while !look().await? {
            holds(clause, waited < self.case.patience, format_args!("not within {:?}", self.case.patience))?;
            (self.sleep)(self.case.poll).await;
            waited = waited.saturating_add(self.case.poll.max(Duration::from_millis(1)));
        }
        Ok(())
    }

    async fn end_everything(&self) -> String {
        let Ok(left) = self.provider.find(&self.case.launch.name).await else {
            return format!("look for allocations named {} and end them", self.case.launch.name);
        };
        for allocation in &left {
            if let Err(error) = self.provider.request_terminate(&allocation.id).await {
                return format!("end {} yourself, it was not taken: {error}", allocation.id);
            }
        }
        format!("the end of {} allocations was asked for", left.len())
    }
}

fn holds(clause: &str, holds: bool, seen: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(format!("`{clause}` is broken: {seen}")) }
}

fn promised<T>(clause: &str, result: Result<T, ProviderError>) -> Outcome<T> {
    result.map_err(|error| format!("`{clause}` is broken: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::task::{Context, Poll, Waker};

    use crate::fixed::PublicKey32;
    use crate::secret::Secret;
    use crate::traits::{LogChunk, Observation, Spend};

    /// Ways to break the contract.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Fault {
        None,
        FindsByPrefix,
        NeverEnds,
        TerminatesOnce,
        ListsTheDead,
        CreatesTwo,
        ObservesTheDead,
        NeverRuns,
        IgnoresFilter,
    }

    /// Allocations in memory that need two looks to start and two to end.
    struct Memory {
        fault: Fault,
        allocations: Mutex<BTreeMap<AllocationId, Item>>,
    }

    struct Item {
        allocation: Allocation,
        looks: u32,
        ending: bool,
        gone: bool,
    }

    impl Memory {
        fn new(fault: Fault) -> Self {
            Self { fault, allocations: Mutex::default() }
        }

        fn not_found(id: &AllocationId) -> ProviderError {
            ProviderError::NotFound { provider: "memory", id: id.clone() }
        }

        fn listed(&self, wanted: impl Fn(&Allocation) -> bool) -> Vec<Allocation> {
            let items = self.allocations.lock().unwrap();
            let alive = items.values().filter(|i| !i.gone || self.fault == Fault::ListsTheDead);
            alive.map(|i| i.allocation.clone()).filter(|a| wanted(a)).collect()
        }
    }

    #[async_trait::async_trait]
    impl Provider for Memory {
        fn name(&self) -> &'static str {
            "memory"
        }
        async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
            if filter.gpu.is_some() && self.fault != Fault::IgnoresFilter {
                return Ok(vec![]);
            }
            Ok(vec![Offer {
                id: "cpu".into(),
                gpu: None,
                gpu_count: 0,
                price_per_hour: 0.0,
                location: None,
                traffic: None,
            }])
        }
        async fn create(&self, _: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
            let mut items = self.allocations.lock().unwrap();
            let mut last = None;
            for _ in 0..if self.fault == Fault::CreatesTwo { 2 } else { 1 } {
                let id = AllocationId(format!("a{}", items.len()));
                let allocation = Allocation { id: id.clone(), name: spec.name.clone(), price_per_hour: 0.0 };
                items.insert(id, Item { allocation: allocation.clone(), looks: 0, ending: false, gone: false });
                last = Some(allocation);
            }
            Ok(last.map_or(CreateOutcome::NoCapacity, CreateOutcome::Created))
        }
        async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
            Ok(self.listed(|a| a.name == name || (self.fault == Fault::FindsByPrefix && a.name.starts_with(name))))
        }
        async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
            let mut items = self.allocations.lock().unwrap();
            let item = items.get_mut(id).filter(|i| !i.gone).ok_or_else(|| Self::not_found(id))?;
            item.looks += 1;
            let state = match (item.ending, item.looks) {
                (true, 0..3) => AllocationState::Terminating,
                (true, _) if self.fault == Fault::ObservesTheDead => AllocationState::Exited(None),
                (true, _) if self.fault != Fault::NeverEnds => {
                    item.gone = true;
                    return Err(Self::not_found(id));
                }
                (false, 0..3) => AllocationState::Starting,
                _ if self.fault == Fault::NeverRuns => AllocationState::Starting,
                _ => AllocationState::Running,
            };
            let allocation = item.allocation.clone();
            Ok(Observation { allocation, state, endpoints: vec![], container: None, gpu_count: None })
        }
        async fn logs(&self, _: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
            let lines = if after.is_none() { vec!["started".into()] } else { vec![] };
            Ok(LogChunk { lines, next: "1".into() })
        }
        async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
            let mut items = self.allocations.lock().unwrap();
            let item = items.get_mut(id).ok_or_else(|| Self::not_found(id))?;
            if item.ending && self.fault == Fault::TerminatesOnce {
                return Err(Self::not_found(id));
            }
            (item.ending, item.looks) = (true, 0);
            Ok(())
        }
        async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
            Ok(self.listed(|_| true))
        }
        async fn spend(&self, _: &AllocationId) -> Result<Option<Spend>, ProviderError> {
            Ok(None)
        }
    }

    /// Runs a future that never waits for anything but itself.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return value;
            }
        }
    }

    fn case() -> ProviderCase {
        ProviderCase {
            filter: OfferFilter::default(),
            launch: LaunchSpec {
                name: "gh-contract".into(),
                image: None,
                image_digest: None,
                launch_secret: Secret::random().unwrap(),
                gate_key: PublicKey32::from([0; 32]),
                linger: Duration::ZERO,
                env: BTreeMap::new(),
                disk_gib: None,
                time_limit: None,
            },
            poll: Duration::from_secs(1),
            patience: Duration::from_secs(10),
        }
    }

    fn run(fault: Fault) {
        block_on(provider(&Memory::new(fault), case(), async |_| {}));
    }

    #[test]
    fn a_good_one_passes() {
        run(Fault::None);
    }

    #[test]
    #[should_panic(expected = "clause `find takes the whole name`")]
    fn finds_strangers() {
        run(Fault::FindsByPrefix);
    }

    #[test]
    #[should_panic(expected = "clause `observe of an allocation that is gone is NotFound`")]
    fn never_ends() {
        run(Fault::NeverEnds);
    }

    #[test]
    #[should_panic(expected = "clause `observe of an allocation that is gone is NotFound`")]
    fn goes_on_to_observe_the_dead() {
        run(Fault::ObservesTheDead);
    }

    #[test]
    #[should_panic(expected = "clause `request_terminate is idempotent`")]
    fn terminates_only_once() {
        run(Fault::TerminatesOnce);
    }

    #[test]
    #[should_panic(expected = "clause `list_owned does not give what is gone`")]
    fn lists_the_dead() {
        run(Fault::ListsTheDead);
    }

    #[test]
    #[should_panic(expected = "clause `create makes one allocation`")]
    fn creates_two() {
        run(Fault::CreatesTwo);
    }

    #[test]
    #[should_panic(expected = "clause `an allocation comes to run`")]
    fn never_runs() {
        run(Fault::NeverRuns);
    }

    #[test]
    #[should_panic(expected = "clause `offers are filtered`")]
    fn ignores_the_filter() {
        run(Fault::IgnoresFilter);
    }

    #[test]
    fn a_failed_clause_leaves_nothing_running() {
        let memory = Memory::new(Fault::CreatesTwo);
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            block_on(provider(&memory, case(), async |_| {}));
        }));
        assert!(failed.is_err());
        assert!(memory.allocations.lock().unwrap().values().all(|item| item.ending));
    }
}
