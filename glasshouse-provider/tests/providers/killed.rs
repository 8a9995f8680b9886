//! An owner that is killed with -9 between any two of its calls, and in the middle of any one: the next one's `reap` finds
//! and ends everything.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{
    Allocation, AllocationId, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer, OfferFilter, Provider,
    ProviderError, Spend,
};
use glasshouse_provider::client::{AgentClient, ClientError};
use glasshouse_provider::supervisor::{Dial, Journal, OwnerTag, Supervisor};

use crate::fakes::runpod::RunPod;
use crate::fakes::server::{Fake, Fault, Served, lock};
use crate::fakes::vast::Vast;
use crate::supervised::{QUICK, request, runpod, vast};

/// `BACKEND URL JOURNAL CALL before|after`: what makes this executable the owner.
const OWNER: &str = "GLASSHOUSE_TEST_KILLED_OWNER";

/// Not a test: the process that the others start and that kills itself.
#[tokio::test]
#[ignore = "the owner of the tests below, which start it themselves"]
async fn owner() {
    let Ok(told) = std::env::var(OWNER) else { return };
    let [backend, url, journal, call, when] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let inner: Arc<dyn Provider> = if backend == "runpod" { runpod(url) } else { vast(url) };
    let left = AtomicU64::new(call.parse().unwrap());
    let killer = Arc::new(Killer { inner, left, after: when == "after", name: Mutex::default() });
    let supervisor = supervisor(killer.clone(), Path::new(journal)).dial(killer);
    supervisor.reap().await.unwrap();
    // The first offer comes to nothing, the second one runs.
    let rented = supervisor.rent(&request()).await.unwrap();
    assert_eq!(rented.tried.len(), 1);
    let watched = tokio::time::timeout(Duration::from_millis(150), rented.watch()).await;
    assert!(watched.is_err(), "all is well there");
    assert_eq!(rented.end().await.unwrap().outcome, Cleanup::Observed);
}

fn supervisor(provider: Arc<dyn Provider>, journal: &Path) -> Supervisor {
    let journal = Arc::new(Journal::open(journal).unwrap());
    Supervisor::new(provider, journal).patience(QUICK).owner(OwnerTag::new("killed").unwrap())
}

/// Kills this process before or after one of its calls.
struct Killer {
    inner: Arc<dyn Provider>,
    left: AtomicU64,
    after: bool,
    /// Of the last create.
    name: Mutex<String>,
}

impl Killer {
    async fn call<T>(&self, call: impl Future<Output = T>) -> T {
        let is_last = self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        let die = || rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        if is_last && !self.after {
            die();
        }
        let answer = call.await;
        if is_last {
            die();
        }
        answer
    }
}

#[async_trait]
impl Provider for Killer {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.call(self.inner.offers(filter)).await
    }
    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        lock(&self.name).clone_from(&spec.name);
        self.call(self.inner.create(offer, spec)).await
    }
    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        self.call(self.inner.find(name)).await
    }
    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        self.call(self.inner.observe(id)).await
    }
    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.call(self.inner.logs(id, after)).await
    }
    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        self.call(self.inner.request_terminate(id)).await
    }
    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        self.call(self.inner.list_owned()).await
    }
    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.call(self.inner.spend(id)).await
    }
}

/// Every agent answers: this is about providers.
#[async_trait]
impl Dial for Killer {
    async fn dial(&self, at: &Endpoint, secret: &Secret<32>) -> Result<(AgentClient, String), ClientError> {
        Ok((AgentClient::new(at, secret)?, lock(&self.name).clone()))
    }
}

/// Kills an owner at this call and cleans up after it. Gives whether it lived long enough to be killed.
async fn kill_and_reap<F: Fake>(
    served: Served<F>,
    backend: &str,
    billing: impl Fn(&F) -> Vec<String>,
    at: (u64, &str),
) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal");
    let (call, when) = at;
    let told = format!("{backend} {} {} {call} {when}", served.url(), journal.display());
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "killed::owner", "--ignored", "--nocapture"]).env(OWNER, told).kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(60), child.output()).await.unwrap().unwrap();
    let was_killed = ended.status.signal() == Some(9);
    let said = || String::from_utf8_lossy(&ended.stderr).into_owned() + &String::from_utf8_lossy(&ended.stdout);
    assert!(was_killed || ended.status.success(), "call {call}: {}", said());
    let provider: Arc<dyn Provider> = if backend == "runpod" { runpod(&served.url()) } else { vast(&served.url()) };
    let reaped = supervisor(provider, &journal).reap().await.unwrap();
    assert!(reaped.is_clean() && reaped.strays.is_empty(), "{when} call {call}: {reaped:?}");
    assert_eq!(billing(&served.fake), Vec::<String>::new(), "{when} call {call}");
    was_killed
}

/// Kills at every call there is, a few owners at a time. Gives how many calls there were.
async fn at_every_call<W: Future<Output = bool> + Send + 'static>(run: impl Fn((u64, &'static str)) -> W) -> u64 {
    const AT_ONCE: u64 = 3;
    let mut first = 1;
    loop {
        let mut running = tokio::task::JoinSet::new();
        for call in first..first + AT_ONCE {
            for when in ["before", "after"] {
                running.spawn(run((call, when)));
            }
        }
        let killed = running.join_all().await.into_iter().filter(|killed| *killed).count() as u64;
        if killed < 2 * AT_ONCE {
            return first + killed / 2 - 1;
        }
        first += AT_ONCE;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_calls_on_runpod() {
    let calls = at_every_call(async |at| {
        let served = Served::start(RunPod::new(Default::default())).await;
        // The first pod was made although the answer was an error, and then is taken for dead.
        served.fault("POST pods", [Fault::HappensBut { status: 500, names_it: false }]);
        served.fake.behave(|behaviour| behaviour.first_exits = true);
        kill_and_reap(served, "runpod", RunPod::billing, at).await
    });
    let calls = calls.await;
    println!("killed before and after each of {calls} calls");
    assert!(calls > 12, "{calls}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_any_two_calls_on_vast() {
    let calls = at_every_call(async |at| {
        let served = Served::start(Vast::new(Default::default())).await;
        *lock(&served.fake.address) = served.url();
        served.fault("PUT asks/id", [Fault::HappensBut { status: 400, names_it: true }]);
        served.fake.behave(|behaviour| behaviour.first_exits = true);
        kill_and_reap(served, "vast", Vast::billing, at).await
    });
    let calls = calls.await;
    println!("killed before and after each of {calls} calls");
    assert!(calls > 12, "{calls}");
}
