//! An allocation whose agent dies and is started again under the same id, as a container's is: same name, same secret, same
//! address, and nothing of what the one before knew.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer,
    OfferFilter, Provider, ProviderError, Spend,
};
use glasshouse_provider::LocalProvider;
use rustix::process::Signal;

use crate::support::{container, kill};
use crate::tapped::Tapped;

pub(super) struct Restarting {
    inner: Tapped,
    again: LocalProvider,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    launched: Option<(Offer, LaunchSpec)>,
    first: Option<AllocationId>,
    second: Option<AllocationId>,
    /// Where the owner finds it, before and after.
    endpoints: Vec<Endpoint>,
    down: bool,
}

impl Restarting {
    pub(super) fn new(inner: Tapped) -> Self {
        Self { inner, again: LocalProvider::new().container(container()), state: Mutex::default() }
    }

    /// The secret that the allocation was launched with.
    pub(super) fn launch_secret(&self) -> Option<Secret<32>> {
        let state = self.state.lock().unwrap();
        state.launched.as_ref().map(|(_, spec)| Secret::take(&mut spec.launch_secret.expose().clone()))
    }

    /// Kills the agent, and starts another one `after` that. Gives its address.
    pub(super) async fn restart(&self, after: Duration) -> Option<SocketAddr> {
        let (offer, spec, first) = {
            let mut state = self.state.lock().unwrap();
            let first = state.first.clone()?;
            state.down = true;
            let (offer, spec) = state.launched.as_ref()?;
            (offer.clone(), copy(spec), first)
        };
        let pid = first.0.split('-').nth(1).and_then(|pid| pid.parse().ok()).unwrap();
        kill(pid, Signal::KILL);
        tokio::time::sleep(after).await;
        let CreateOutcome::Created(allocation) = self.again.create(&offer, &spec).await.ok()? else { return None };
        let seen = self.again.observe(&allocation.id).await.ok()?;
        self.state.lock().unwrap().second = Some(allocation.id);
        match seen.endpoints.first()? {
            Endpoint::Direct(address) => Some(*address),
            Endpoint::Proxy(_) => None,
        }
    }

    /// It is one allocation, whichever of the two runs.
    fn as_one(&self, found: Vec<Allocation>) -> Vec<Allocation> {
        let state = self.state.lock().unwrap();
        let mut all: Vec<Allocation> = Vec::new();
        for mut allocation in found {
            if let (Some(first), true) = (&state.first, state.second.as_ref() == Some(&allocation.id)) {
                allocation.id = first.clone();
            }
            if all.iter().all(|other| other.id != allocation.id) {
                all.push(allocation);
            }
        }
        all
    }
}

fn copy(spec: &LaunchSpec) -> LaunchSpec {
    LaunchSpec {
        name: spec.name.clone(),
        image: spec.image.clone(),
        image_digest: spec.image_digest,
        launch_secret: Secret::take(&mut spec.launch_secret.expose().clone()),
        gate_key: spec.gate_key,
        linger: spec.linger,
        env: spec.env.clone(),
        disk_gib: spec.disk_gib,
        time_limit: spec.time_limit,
    }
}

#[async_trait]
impl Provider for Restarting {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.inner.offers(filter).await
    }

    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let outcome = self.inner.create(offer, spec).await?;
        let mut state = self.state.lock().unwrap();
        state.launched = Some((offer.clone(), copy(spec)));
        if let CreateOutcome::Created(allocation) = &outcome {
            state.first = Some(allocation.id.clone());
        }
        Ok(outcome)
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        Ok(self.as_one(self.inner.find(name).await?))
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let (second, down, endpoints) = {
            let state = self.state.lock().unwrap();
            (state.second.clone(), state.down, state.endpoints.clone())
        };
        if let Some(second) = second {
            match self.again.observe(&second).await {
                Ok(seen) => {
                    let allocation = Allocation { id: id.clone(), ..seen.allocation };
                    let endpoints = if seen.endpoints.is_empty() { Vec::new() } else { endpoints };
                    return Ok(Observation { allocation, endpoints, ..seen });
                }
                Err(ProviderError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let seen = self.inner.observe(id).await?;
        if down && matches!(seen.state, AllocationState::Exited(_)) {
            // Whoever starts it again has not done so yet.
            return Ok(Observation { state: AllocationState::Running, endpoints, ..seen });
        }
        if !seen.endpoints.is_empty() {
            self.state.lock().unwrap().endpoints.clone_from(&seen.endpoints);
        }
        Ok(seen)
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.inner.logs(id, after).await
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        let second = self.state.lock().unwrap().second.clone();
        if let Some(second) = second {
            self.again.request_terminate(&second).await?;
        }
        self.inner.request_terminate(id).await
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        Ok(self.as_one(self.inner.list_owned().await?))
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.inner.spend(id).await
    }
}
