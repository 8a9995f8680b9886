//! An owner's line to the world: slow, unreliable, and dead once its owner is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer,
    OfferFilter, Provider, ProviderError, Spend,
};
use glasshouse_provider::client::{AgentClient, ClientError};
use glasshouse_provider::supervisor::Dial;
use tokio::sync::Notify;

use crate::plan::Sabotage;
use crate::world::{Fate, PRICE, World};

const NAME: &str = "storm";

pub(crate) struct Line {
    world: Arc<Mutex<World>>,
    /// Calls until this owner is killed.
    left: AtomicU64,
    pub(crate) killed: Notify,
}

impl Line {
    pub(crate) fn new(world: Arc<Mutex<World>>, dies_after: Option<u64>) -> Self {
        Self { world, left: AtomicU64::new(dies_after.unwrap_or(u64::MAX)), killed: Notify::new() }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// The way there: time passes, and the owner may die with the request on its way.
    async fn enter(&self, call: &'static str) -> Result<(), ProviderError> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(ambiguous(call, None));
        }
        let (wait, arrives) = {
            let mut world = self.world();
            world.calls += 1;
            (Duration::from_millis(world.rng.between(20, 800)), world.rng.chance(500))
        };
        self.left.store(left - 1, Ordering::Relaxed);
        let dies = left == 1;
        if dies {
            self.killed.notify_one();
        }
        if dies && !arrives {
            std::future::pending::<()>().await;
        }
        if !dies {
            tokio::time::sleep(wait).await;
        }
        let mut world = self.world();
        let fails = world.plan.fails;
        if !world.goes_wrong(fails) {
            return Ok(());
        }
        let retry_after = world.rng.chance(500).then(|| Duration::from_secs(world.rng.between(1, 20)));
        let why = "the answer is not JSON".to_owned();
        Err(match world.rng.below(3) {
            0 => ambiguous(call, None),
            1 => ProviderError::RateLimited { provider: NAME, call, retry_after },
            _ => ProviderError::Unintelligible { provider: NAME, call, why },
        })
    }

    /// The way back, which a dead owner does not see the end of.
    async fn back(&self) {
        if self.left.load(Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
    }

    /// Whether something happens and the answer is an error all the same.
    fn happens_all_the_same(&self) -> bool {
        let mut world = self.world();
        let rate = world.plan.happens_all_the_same;
        world.goes_wrong(rate)
    }
}

const fn ambiguous(call: &'static str, allocation: Option<AllocationId>) -> ProviderError {
    ProviderError::Ambiguous { provider: NAME, call, why: String::new(), allocation }
}

fn not_found(id: &AllocationId) -> ProviderError {
    ProviderError::NotFound { provider: NAME, id: id.clone() }
}

#[async_trait]
impl Provider for Line {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn offers(&self, _: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.enter("offers").await?;
        self.back().await;
        let offer = |n: u32| Offer {
            id: format!("offer-{n}"),
            gpu: Some("card".to_owned()),
            gpu_count: 1,
            price_per_hour: PRICE,
            location: None,
            traffic: None,
        };
        Ok((0..8).map(offer).collect())
    }

    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        self.enter("create").await?;
        let turned_away = {
            let mut world = self.world();
            let rate = world.plan.turned_away;
            world.goes_wrong(rate).then(|| world.rng.chance(500))
        };
        match turned_away {
            Some(true) => return Ok(CreateOutcome::NoCapacity),
            Some(false) => {
                return Err(ProviderError::Refused { provider: NAME, call: "create", why: offer.id.clone() });
            }
            None => {}
        }
        let job = (spec.env["JOB"].clone(), spec.env["TRY"].clone());
        let made = {
            let mut world = self.world();
            let made = world.create(&spec.name, job.clone());
            if world.plan.sabotage == Some(Sabotage::CreatesTwice) && world.rng.chance(100) {
                world.create(&spec.name, job);
            }
            made
        };
        self.back().await;
        if self.happens_all_the_same() {
            let names_it = self.world().rng.chance(500);
            return Err(ambiguous("create", names_it.then_some(made.id)));
        }
        // As some providers do, it answers without the price that it will take.
        Ok(CreateOutcome::Created(Allocation { price_per_hour: offer.price_per_hour, ..made }))
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        self.enter("find").await?;
        self.back().await;
        Ok(self.world().named(name).map(|thing| thing.allocation.clone()).into_iter().collect())
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        self.enter("observe").await?;
        self.back().await;
        let world = self.world();
        let thing = world.find(id).ok_or_else(|| not_found(id))?;
        let state = thing.state();
        let gpus = if thing.fate == Fate::WithoutGpus { 0 } else { 1 };
        let runs = state == AllocationState::Running;
        Ok(Observation {
            allocation: thing.allocation.clone(),
            endpoints: runs.then(|| endpoint(id)).into_iter().collect(),
            state,
            container: None,
            gpu_count: runs.then_some(gpus),
        })
    }

    async fn logs(&self, id: &AllocationId, _: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.enter("logs").await?;
        self.back().await;
        self.world().find(id).map(|_| LogChunk { lines: Vec::new(), next: "0".to_owned() }).ok_or_else(|| not_found(id))
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        self.enter("request_terminate").await?;
        let forgotten = {
            let mut world = self.world();
            let rate = world.plan.forgotten;
            world.goes_wrong(rate)
        };
        // What is hidden cannot be ended, and a 404 for it is no proof of anything.
        let known = forgotten || self.world().end(id);
        self.back().await;
        if self.happens_all_the_same() {
            return Err(ambiguous("request_terminate", None));
        }
        if known { Ok(()) } else { Err(not_found(id)) }
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        self.enter("list_owned").await?;
        self.back().await;
        let world = self.world();
        Ok(world.shown().map(|thing| thing.allocation.clone()).collect())
    }

    async fn spend(&self, _: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.enter("spend").await?;
        self.back().await;
        Ok(Some(Spend { dollars: 0.01, read_at: UnixMillis(0), is_final: false }))
    }
}

/// Agents in this world answer, or do not; nobody connects to anything.
#[async_trait]
impl Dial for Line {
    async fn dial(&self, at: &Endpoint, secret: &Secret<32>) -> Result<(AgentClient, String), ClientError> {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let name = {
            let mut world = self.world();
            let fails = world.plan.fails;
            let answers = !world.goes_wrong(fails);
            let thing = world.find(&behind(at)).filter(|thing| thing.fate != Fate::WithoutAgent && answers);
            thing.map(|thing| thing.allocation.name.clone())
        };
        let silence = || ClientError::Unreachable { step: "hello", at: format!("{at:?}"), why: "silence".to_owned() };
        let name = name.ok_or_else(silence)?;
        Ok((AgentClient::new(at, secret)?, name))
    }
}

const NETWORK: u32 = 0x0a00_0000;

fn endpoint(id: &AllocationId) -> Endpoint {
    let number: u32 = id.0.trim_start_matches("thing-").parse().unwrap();
    Endpoint::Direct(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(NETWORK | number)), 9443))
}

fn behind(at: &Endpoint) -> AllocationId {
    let Endpoint::Direct(SocketAddr::V4(address)) = at else { panic!("{at:?}") };
    AllocationId(format!("thing-{}", address.ip().to_bits() & !NETWORK))
}
