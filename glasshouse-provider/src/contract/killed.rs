//! An owner that dies: nothing of it runs on, and the next one has its journal and nothing else.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::traits::{
    Allocation, AllocationId, CreateOutcome, LaunchSpec, LogChunk, Observation, Offer, OfferFilter, Provider,
    ProviderError, Spend,
};
use tokio::sync::Notify;

use super::{Answers, Bench, Trouble, all, end, fresh_owner, holds, nothing_bills, request};
use crate::supervisor::{Journal, JournalError, OwnerTag, Reaped, Supervisor};

/// An owner's life has more calls than this.
const FEWEST: usize = 8;
/// Owners that are killed at once, where any number could be. Nearly all of it is waiting.
const MOST_AT_ONCE: usize = 8;

/// Kills owners before and after each of their calls, `at_once` of them at a time, and has the next one reap.
pub(super) async fn at_every_call<B: Bench>(bench: &impl AsyncFn() -> B, at_once: usize) -> Result<(), String> {
    let mut cases = (1..).flat_map(|call| [(call, When::Before), (call, When::After)]);
    let mut killed = 0;
    loop {
        let wave = cases.by_ref().take(at_once.clamp(1, MOST_AT_ONCE));
        let ends = all(wave.map(|(call, when)| dies_at(bench, call, when))).await;
        let ends: Vec<bool> = ends.into_iter().collect::<Result<_, String>>()?;
        killed += ends.iter().filter(|killed| **killed).count();
        if ends.contains(&false) {
            let calls = killed / 2;
            return holds(calls > FEWEST, || format!("its owner's life had {calls} calls"));
        }
    }
}

/// When in its last call an owner dies.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// Before it went out.
    Before,
    /// After it was carried out, and before its answer came.
    After,
}

/// One owner that dies in a call, and the next one. Gives whether the first lived until then.
async fn dies_at<B: Bench>(bench: &impl AsyncFn() -> B, call: usize, when: When) -> Result<bool, String> {
    let bench = bench().await;
    bench.arrange(Trouble::OwnerKilled);
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (journal, tag) = (folder.path().join("journal"), fresh_owner()?);
    let mortal = Arc::new(Mortal::new(bench.provider(), call, when));
    let at = |broken: String| format!("{when:?} call {call}, {}: {broken}", mortal.last());
    let was_killed = tokio::select! {
        () = mortal.death() => true,
        lived = life(&bench, mortal.clone(), &journal, &tag) => lived.map(|()| false).map_err(at)?,
    };
    let reaped = reap(&bench, &journal, tag).await.map_err(at)?;
    holds(reaped.strays.is_empty(), || at(format!("the journal did not have {:?}", reaped.strays)))?;
    nothing_bills(&bench).await.map_err(at)?;
    Ok(was_killed)
}

/// From the offers to the proof. The answer to its create is lost, so that it has to look for what it made, too.
async fn life(bench: &impl Bench, provider: Arc<Mortal>, journal: &Path, tag: &OwnerTag) -> Result<(), String> {
    let journal = Arc::new(Journal::open(journal).map_err(|error| error.to_string())?);
    let supervisor = Supervisor::new(provider, journal.clone()).patience(bench.patience()).owner(tag.clone());
    let rented = supervisor.dial(Arc::new(Answers(journal))).rent(&request(bench)).await;
    let rented = rented.map_err(|error| format!("it was not rented: {error}"))?;
    end(Ok(rented)).await.map(drop)
}

/// The next owner: a provider and a supervisor of its own, and the journal as it stands.
pub(super) async fn reap(bench: &impl Bench, journal: &Path, tag: OwnerTag) -> Result<Reaped, String> {
    let journal = Arc::new(opened(journal).await?);
    let supervisor = Supervisor::new(bench.next_provider(), journal).patience(bench.patience()).owner(tag);
    let reaped = supervisor.reap().await.map_err(|error| error.to_string())?;
    holds(reaped.is_clean(), || format!("not everything was reaped: {reaped:?}"))?;
    Ok(reaped)
}

/// A dead owner's journal. What other owners of this process start may hold it for the moment until it is a program.
async fn opened(journal: &Path) -> Result<Journal, String> {
    let mut tried = 0;
    loop {
        match Journal::open(journal) {
            Err(JournalError::InUse { .. }) if tried < 100 => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.map_err(|error| error.to_string()),
        }
        tried += 1;
    }
}

/// A provider as one owner sees it, who dies in one of its calls. Looks in a row count as one: nothing is done between.
pub(super) struct Mortal {
    inner: Arc<dyn Provider>,
    last: usize,
    when: When,
    made: Mutex<Vec<&'static str>>,
    is_dead: AtomicBool,
    died: Notify,
}

impl Mortal {
    pub(super) fn new(inner: Arc<dyn Provider>, last: usize, when: When) -> Self {
        Self { inner, last, when, made: Mutex::default(), is_dead: AtomicBool::new(false), died: Notify::new() }
    }

    pub(super) async fn death(&self) {
        self.died.notified().await;
    }

    fn last(&self) -> String {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.last().map_or_else(|| "none".to_owned(), |call| (*call).to_owned())
    }

    /// The number of this call, and whether it is the first of its kind.
    fn count(&self, call: &'static str) -> usize {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if call != "observe" || made.last() != Some(&call) {
            made.push(call);
        }
        made.len()
    }

    async fn die<T>(&self) -> T {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
        std::future::pending().await
    }

    async fn call<T>(
        &self,
        call: &'static str,
        asked: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        if self.is_dead.load(Ordering::SeqCst) {
            // What is dropped with an owner may still ask. A dead one asks nothing.
            return Err(ProviderError::Refused { provider: self.name(), call, why: "its owner is dead".to_owned() });
        }
        let is_last = self.count(call) == self.last;
        match self.when {
            When::Before if is_last => self.die().await,
            When::After if is_last => {
                let _ = asked.await;
                self.die().await
            }
            _ => asked.await,
        }
    }
}

#[async_trait]
impl Provider for Mortal {
    fn name(&self) -> &'static str {
        self.inner.name()
    }
    fn account(&self) -> Option<String> {
        self.inner.account()
    }
    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.call("offers", self.inner.offers(filter)).await
    }
    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        match self.call("create", self.inner.create(offer, spec)).await? {
            CreateOutcome::Created(_) => Err(ProviderError::Ambiguous {
                provider: self.name(),
                call: "create",
                why: "the answer was lost".to_owned(),
                allocation: None,
            }),
            CreateOutcome::NoCapacity => Ok(CreateOutcome::NoCapacity),
        }
    }
    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        self.call("find", self.inner.find(name)).await
    }
    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        self.call("observe", self.inner.observe(id)).await
    }
    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.call("logs", self.inner.logs(id, after)).await
    }
    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        self.call("request_terminate", self.inner.request_terminate(id)).await
    }
    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        self.call("list_owned", self.inner.list_owned()).await
    }
    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.call("spend", self.inner.spend(id)).await
    }
}
