//! The public suite over allocations that are agents: all of it on this machine, and on the other backends what takes
//! segments. `tests/providers` has the rest of theirs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::traits::{
    Allocation, AllocationId, CreateOutcome, LaunchSpec, LogChunk, Observation, Offer, OfferFilter, Provider,
    ProviderError, Spend,
};
use glasshouse_provider::contract::{Bench, Faulty, Trouble, supervised};
use glasshouse_provider::supervisor::{BootBudgets, Patience, RentRequest};
use glasshouse_provider::{LocalProvider, MemoryProvider};

use crate::fakes::runpod::RunPod;
use crate::fakes::server::{Fake, Served, lock};
use crate::fakes::vast::Vast;
use crate::rented::{IMAGE, PATIENCE, filter, runpod, vast};
use crate::supervisor::request;
use crate::support::{Test, block_on};

pub(crate) const TESTS: &[Test] = &[
    ("local_keeps_the_supervisors_contract", local_keeps_the_supervisors_contract),
    ("segments_on_runpod", segments_on_runpod),
    ("segments_on_vast", segments_on_vast),
    ("segments_in_memory", segments_in_memory),
];

/// For troubles that last for ever.
const BRIEF: Patience = Patience {
    boot: BootBudgets::each(Duration::from_secs(5)),
    settle: Duration::from_millis(300),
    absence_spacing: Duration::from_millis(50),
    ..Patience::LOCAL
};

fn local_keeps_the_supervisors_contract() {
    let with_gpu = || {
        let request = request(Some(1.0));
        RentRequest { filter: OfferFilter { gpu_count: Some(1), ..request.filter }, ..request }
    };
    let local = || -> Arc<dyn Provider> { Arc::new(LocalProvider::new().gpu("4090")) };
    let bench = async || Faulty::new(local, with_gpu, BRIEF).billed_by(processes).at_once(4);
    assert_eq!(block_on(supervised(bench)), Trouble::ALL);
}

/// Processes whose command line has one of these names, by what the kernel says of them.
fn processes(names: &[String]) -> Vec<String> {
    let living = |folder: &std::path::Path| {
        let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        state.is_some_and(|state| !"ZXx".contains(state))
    };
    let named = |folder: &std::path::Path| {
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| names.iter().any(|name| name.as_bytes() == word))
    };
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    all.filter(|folder| named(folder) && living(folder)).map(|folder| folder.display().to_string()).collect()
}

fn of_segments() -> Vec<Trouble> {
    Trouble::ALL.into_iter().filter(|trouble| trouble.needs_agent()).collect()
}

fn segments_on_runpod() {
    let arranged = block_on(supervised(async || {
        let served = Served::start(RunPod::with_machines(Default::default())).await;
        let provider = Arc::new(runpod(&served));
        let break_logs = |fake: &RunPod| fake.behave(|behaviour| behaviour.log_breaks = true);
        Manned { served, provider, billing: RunPod::billing, create: "POST pods", break_logs }
    }));
    assert_eq!(arranged, of_segments());
}

fn segments_on_vast() {
    let arranged = block_on(supervised(async || {
        let served = Served::start(Vast::with_machines(Default::default())).await;
        let provider = Arc::new(vast(&served));
        // At once where it is to be read, so that it is read more than once while it grows.
        let break_logs = |fake: &Vast| fake.behave(|behaviour| (behaviour.log_breaks, behaviour.log_looks) = (true, 0));
        Manned { served, provider, billing: Vast::billing, create: "PUT asks/id", break_logs }
    }));
    assert_eq!(arranged, of_segments());
}

fn segments_in_memory() {
    let arranged = block_on(supervised(async || {
        let memory = Crew { memory: MemoryProvider::new(), agents: LocalProvider::new(), ids: Mutex::default() };
        let memory: Arc<dyn Provider> = Arc::new(memory);
        // What it has is in memory, so the next owner's is this one.
        OfSegments(Faulty::new(move || memory.clone(), || request(Some(1.0)), BRIEF))
    }));
    assert_eq!(arranged, of_segments());
}

/// A fake whose allocations are processes.
struct Manned<F: Fake> {
    served: Served<F>,
    provider: Arc<dyn Provider>,
    billing: fn(&F) -> Vec<String>,
    create: &'static str,
    break_logs: fn(&F),
}

impl<F: Fake> Bench for Manned<F> {
    fn provider(&self) -> Arc<dyn Provider> {
        self.provider.clone()
    }

    fn arrange(&self, trouble: Trouble) -> bool {
        if trouble == Trouble::LogBreaksOff {
            (self.break_logs)(&self.served.fake);
        }
        trouble.needs_agent()
    }

    async fn billing(&self) -> Vec<String> {
        (self.billing)(&self.served.fake)
    }

    fn creates(&self) -> Option<usize> {
        Some(self.served.count(self.create))
    }

    fn request(&self) -> RentRequest {
        RentRequest { filter: filter(), image: Some((IMAGE.into(), Fixed([7; 32]))), ..request(None) }
    }

    fn patience(&self) -> Patience {
        PATIENCE
    }

    fn at_once(&self) -> usize {
        3
    }
}

/// What a bench has for segments.
struct OfSegments(Faulty);

impl Bench for OfSegments {
    fn provider(&self) -> Arc<dyn Provider> {
        self.0.provider()
    }

    fn arrange(&self, trouble: Trouble) -> bool {
        trouble.needs_agent() && self.0.arrange(trouble)
    }

    async fn billing(&self) -> Vec<String> {
        self.0.billing().await
    }

    fn creates(&self) -> Option<usize> {
        self.0.creates()
    }

    fn request(&self) -> RentRequest {
        self.0.request()
    }

    fn patience(&self) -> Patience {
        self.0.patience()
    }

    fn at_once(&self) -> usize {
        3
    }
}

/// The provider in memory with an agent of this machine behind each of its allocations.
struct Crew {
    memory: MemoryProvider,
    agents: LocalProvider,
    ids: Mutex<BTreeMap<AllocationId, AllocationId>>,
}

impl Crew {
    fn agent(&self, id: &AllocationId) -> Result<AllocationId, ProviderError> {
        let missing = || ProviderError::NotFound { provider: "memory", id: id.clone() };
        lock(&self.ids).get(id).cloned().ok_or_else(missing)
    }
}

#[async_trait]
impl Provider for Crew {
    fn name(&self) -> &'static str {
        self.memory.name()
    }
    fn account(&self) -> Option<String> {
        self.memory.account()
    }
    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.memory.offers(filter).await
    }
    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let outcome = self.memory.create(offer, spec).await?;
        if let CreateOutcome::Created(made) = &outcome
            && let CreateOutcome::Created(agent) = self.agents.create(offer, spec).await?
        {
            lock(&self.ids).insert(made.id.clone(), agent.id);
        }
        Ok(outcome)
    }
    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        self.memory.find(name).await
    }
    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let seen = self.memory.observe(id).await?;
        let Observation { state, endpoints, .. } = self.agents.observe(&self.agent(id)?).await?;
        Ok(Observation { state, endpoints, ..seen })
    }
    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.agents.logs(&self.agent(id)?, after).await
    }
    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        self.memory.request_terminate(id).await?;
        self.agents.request_terminate(&self.agent(id)?).await
    }
    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        self.memory.list_owned().await
    }
    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.memory.spend(id).await
    }
}
