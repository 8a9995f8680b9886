//! From an offer to an agent that answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasshouse_core::claims::ContainerId;
use glasshouse_core::fixed::{Digest32, Fixed, PublicKey32};
use glasshouse_core::record::CleanupProof;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{
    Allocation, AllocationState, CreateOutcome, Endpoint, LaunchSpec, Observation, Offer, OfferFilter, Provider,
    ProviderError,
};

use super::{Journal, OpenEntry, Patience, Supervisor, SupervisorError, end};
use crate::client::{AgentClient, ClientError};

/// What to rent.
pub struct RentRequest {
    /// What fits.
    pub filter: OfferFilter,
    /// Image pinned by digest, where the provider runs images.
    pub image: Option<(String, Digest32)>,
    /// The only gate that the runtime obeys.
    pub gate_key: PublicKey32,
    /// How long the agent goes on without its owner.
    pub linger: Duration,
    /// Further environment; never a secret.
    pub env: BTreeMap<String, String>,
    /// Disk wanted, GiB.
    pub disk_gib: Option<u32>,
    /// After this the provider may end the allocation by itself.
    pub time_limit: Option<Duration>,
}

/// An allocation whose agent answers. [`Rented::end`] ends it and proves it; dropping it only asks for the end.
pub struct Rented {
    provider: Arc<dyn Provider>,
    journal: Arc<Journal>,
    patience: Patience,
    entry: OpenEntry,
    ended: bool,
    /// The allocation.
    pub allocation: Allocation,
    /// The container id that evidence from there must name, as the provider knows it.
    pub container: Option<ContainerId>,
    /// What the allocation was launched with.
    pub launch_secret: Arc<Secret<32>>,
    /// Its agent.
    pub client: AgentClient,
}

impl Supervisor {
    /// Rents the cheapest offer that fits and waits until its agent answers. Whatever goes wrong after `create`, the
    /// allocation is ended before this returns.
    ///
    /// # Errors
    /// [`SupervisorError`].
    pub async fn rent(&self, request: &RentRequest) -> Result<Rented, SupervisorError> {
        let mut offers = self.provider.offers(&request.filter).await?;
        let cap = request.filter.max_price_per_hour;
        offers.retain(|offer| cap.is_none_or(|cap| offer.price_per_hour <= cap));
        offers.sort_by(|a, b| a.price_per_hour.total_cmp(&b.price_per_hour));
        for offer in &offers {
            if let Some(rented) = self.try_offer(offer, request).await? {
                return Ok(rented);
            }
        }
        let why = if offers.is_empty() { "no offer matches" } else { "every offer was taken" };
        Err(SupervisorError::NoOffer { provider: self.provider.name(), why: why.to_owned() })
    }

    async fn try_offer(&self, offer: &Offer, request: &RentRequest) -> Result<Option<Rented>, SupervisorError> {
        let spec = launch_spec(request)?;
        let mut entry = self.journal.asking(self.provider.name(), &spec.name)?;
        let created = match self.provider.create(offer, &spec).await {
            Ok(CreateOutcome::Created(allocation)) => Ok(allocation),
            Ok(CreateOutcome::NoCapacity) => {
                self.journal.gone(&entry.name)?;
                return Ok(None);
            }
            Err(error) => self.adopt(&mut entry, error).await,
        };
        let secret = Arc::new(spec.launch_secret);
        let allocation = created?;
        entry.id = Some(allocation.id.clone());
        if let Err(error) = self.journal.created(&entry.name, &allocation.id) {
            // Nothing goes on running that the journal cannot follow. It still has the name, should this not end it.
            let _ = end::end(&*self.provider, &self.journal, self.patience, &entry).await;
            return Err(error.into());
        }
        match self.wait_reachable(&allocation, request, &secret).await {
            Ok((client, container)) => Ok(Some(Rented {
                provider: self.provider.clone(),
                journal: self.journal.clone(),
                patience: self.patience,
                entry,
                ended: false,
                allocation,
                container,
                launch_secret: secret,
                client,
            })),
            Err(error) => {
                // An end that cannot be journalled is still open there: the next run looks again.
                let _ = end::end(&*self.provider, &self.journal, self.patience, &entry).await;
                Err(error)
            }
        }
    }

    /// A create that went wrong may have made an allocation: it is looked for, and taken or ruled out, never repeated.
    async fn adopt(&self, entry: &mut OpenEntry, error: ProviderError) -> Result<Allocation, SupervisorError> {
        match &error {
            // Definite: the provider understood and did nothing.
            ProviderError::Refused { .. } | ProviderError::Unauthorized { .. } | ProviderError::RateLimited { .. } => {
                self.journal.gone(&entry.name)?;
                return Err(error.into());
            }
            ProviderError::Ambiguous { allocation: Some(id), .. } => entry.id = Some(id.clone()),
            _ => {}
        }
        let deadline = Instant::now() + self.patience.settle;
        loop {
            if let Ok(found) = self.provider.find(&entry.name).await
                && let Some(allocation) = found.into_iter().next()
            {
                return Ok(allocation);
            }
            if let Some(id) = &entry.id
                && let Ok(seen) = self.provider.observe(id).await
            {
                return Ok(seen.allocation);
            }
            if Instant::now() >= deadline {
                break;
            }
            tokio::time::sleep(self.patience.poll).await;
        }
        // Not seen over the whole time in which it would have shown. Still, only two sightings of absence close it.
        let ended = end::end(&*self.provider, &self.journal, self.patience, entry).await;
        if ended.is_ok_and(|proof| proof.outcome == glasshouse_core::overhead::Cleanup::Observed) {
            return Err(error.into());
        }
        let (provider, name) = (self.provider.name(), entry.name.clone());
        Err(SupervisorError::InDoubt { provider, name, why: error.to_string() })
    }

    async fn wait_reachable(
        &self,
        allocation: &Allocation,
        request: &RentRequest,
        secret: &Secret<32>,
    ) -> Result<(AgentClient, Option<ContainerId>), SupervisorError> {
        let id = &allocation.id;
        if let Some(cap) = request.filter.max_price_per_hour.filter(|cap| allocation.price_per_hour > *cap) {
            return Err(SupervisorError::TooExpensive { id: id.clone(), price: allocation.price_per_hour, cap });
        }
        let began = Instant::now();
        let (mut state, mut why) = (AllocationState::Scheduling, "it was not seen yet".to_owned());
        while began.elapsed() < self.patience.boot {
            match self.provider.observe(id).await {
                Ok(seen) => {
                    state = seen.state.clone();
                    if let AllocationState::Exited(code) = seen.state {
                        return Err(SupervisorError::EndedEarly {
                            id: id.clone(),
                            code,
                            log: self.log_tail(allocation).await,
                        });
                    }
                    match reach(&seen, secret, &allocation.name).await {
                        Ok(client) => return Ok((client, seen.container)),
                        Err(Reach::Foreign(error)) => return Err(error.into()),
                        Err(Reach::NotYet(reason)) => why = reason,
                    }
                }
                Err(ProviderError::NotFound { .. }) if began.elapsed() < self.patience.settle => {}
                Err(error @ (ProviderError::NotFound { .. } | ProviderError::Unauthorized { .. })) => {
                    return Err(error.into());
                }
                Err(error) => why = error.to_string(),
            }
            tokio::time::sleep(self.patience.poll).await;
        }
        Err(SupervisorError::NotReachable { id: id.clone(), after: self.patience.boot, state, why })
    }

    async fn log_tail(&self, allocation: &Allocation) -> String {
        match self.provider.logs(&allocation.id, None).await {
            Ok(log) if !log.lines.is_empty() => {
                let skip = log.lines.len().saturating_sub(5);
                log.lines.get(skip..).unwrap_or_default().join("; ")
            }
            _ => "it has no log".to_owned(),
        }
    }
}

enum Reach {
    NotYet(String),
    /// Something answers that will never be this agent.
    Foreign(ClientError),
}

/// The first endpoint behind which this allocation's agent answers.
async fn reach(seen: &Observation, secret: &Secret<32>, name: &str) -> Result<AgentClient, Reach> {
    let mut why = "it has no address yet".to_owned();
    for endpoint in &seen.endpoints {
        let client = AgentClient::new(endpoint, secret).map_err(Reach::Foreign)?;
        match client.try_hello().await {
            Ok(hello) if hello.name == name => return Ok(client),
            Ok(hello) => why = format!("{} answers instead", hello.name),
            Err(error @ ClientError::Unreachable { .. }) => why = error.to_string(),
            // A proxy shows pages of its own while the agent behind it starts.
            Err(error @ ClientError::Nonsense { .. }) if matches!(endpoint, Endpoint::Proxy(_)) => {
                why = error.to_string();
            }
            Err(error) => return Err(Reach::Foreign(error)),
        }
    }
    Err(Reach::NotYet(why))
}

fn launch_spec(request: &RentRequest) -> Result<LaunchSpec, SupervisorError> {
    let tag = Fixed::<8>::random().map_err(|_| SupervisorError::NoRandomness)?;
    Ok(LaunchSpec {
        name: format!("gh-{tag}"),
        image: request.image.as_ref().map(|(image, _)| image.clone()),
        image_digest: request.image.as_ref().map(|(_, digest)| *digest),
        launch_secret: Secret::random().map_err(|_| SupervisorError::NoRandomness)?,
        gate_key: request.gate_key,
        linger: request.linger,
        env: request.env.clone(),
        disk_gib: request.disk_gib,
        time_limit: request.time_limit,
    })
}

impl Rented {
    /// Ends the allocation and gives the proof; its outcome says whether absence was seen. What was not seen to be
    /// gone stays in the journal.
    ///
    /// # Errors
    /// [`SupervisorError::Unjournalled`], with the proof, when the journal cannot be written.
    pub async fn end(mut self) -> Result<CleanupProof, SupervisorError> {
        let ended = end::end(&*self.provider, &self.journal, self.patience, &self.entry).await;
        // Asked for and looked for, whatever the journal took.
        self.ended = true;
        ended
    }
}

impl Drop for Rented {
    /// The last resort of a run that was dropped: asks for the end, without proof; the journal keeps the entry.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (provider, id) = (self.provider.clone(), self.allocation.id.clone());
        // A runtime of its own: the one that this is dropped in may be shutting down.
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let asked = async { tokio::time::timeout(Duration::from_secs(10), provider.request_terminate(&id)).await };
            runtime.block_on(asked).ok()?.ok()
        });
        let _ = asked.join();
    }
}
