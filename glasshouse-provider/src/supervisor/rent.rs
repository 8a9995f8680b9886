//! From a request to an allocation, over as many offers as it may take.

use std::collections::BTreeMap;
use std::time::Duration;

use glasshouse_core::fixed::{Digest32, PublicKey32};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{LaunchSpec, Offer, OfferFilter, ProviderError};
use tokio::time::Instant;

use super::pause::{asked_wait, from_now, pause};
use super::{Rented, Supervisor, SupervisorError};

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
    /// After this it is ended: by the owner's [`Rented::watch`], and by the provider where it can.
    pub time_limit: Option<Duration>,
}

impl RentRequest {
    /// What one try is launched with, under a name and a secret of its own.
    pub(crate) fn launch(&self, name: String) -> Result<LaunchSpec, SupervisorError> {
        Ok(LaunchSpec {
            name,
            image: self.image.as_ref().map(|(image, _)| image.clone()),
            image_digest: self.image.as_ref().map(|(_, digest)| *digest),
            launch_secret: Secret::random().map_err(|_| SupervisorError::NoRandomness)?,
            gate_key: self.gate_key,
            linger: self.linger,
            env: self.env.clone(),
            disk_gib: self.disk_gib,
            time_limit: self.time_limit,
        })
    }
}

/// An offer that came to nothing.
#[derive(Debug)]
pub struct Tried {
    /// The offer.
    pub offer: String,
    /// The name that it was asked for under; each try has its own.
    pub name: String,
    /// Why it came to nothing.
    pub error: SupervisorError,
}

/// What a try came to, and whether another one may follow: not while this one could still be there.
pub(super) struct Failed {
    pub(super) name: String,
    pub(super) error: SupervisorError,
    pub(super) over: bool,
}

impl Supervisor {
    /// Rents the cheapest offer that fits and waits until its agent answers and its GPUs are there. An offer that is
    /// taken, refused, stuck in a phase, too expensive or dead is followed by the next one, [`Supervisor::attempts`] in
    /// all, once its end was seen. Whatever goes wrong after `create`, the allocation is ended before this returns.
    ///
    /// # Errors
    /// [`SupervisorError`]; of several tries [`SupervisorError::GaveUp`] has each one's.
    pub async fn rent(&self, request: &RentRequest) -> Result<Rented, SupervisorError> {
        let cap = request.filter.max_price_per_hour;
        let mut offers = self.offers(&request.filter).await?;
        offers.retain(|offer| cap.is_none_or(|cap| offer.price_per_hour <= cap));
        offers.sort_by(|a, b| a.price_per_hour.total_cmp(&b.price_per_hour));
        let mut offers = offers.iter().peekable();
        let mut tried: Vec<Tried> = Vec::new();
        while let Some(offer) = offers.peek()
            && tried.len() < self.attempts
        {
            match self.attempt(offer, request).await {
                Ok(mut rented) => {
                    rented.tried = tried;
                    return Ok(rented);
                }
                Err(Failed { name, error, over }) => {
                    let asked = asked_wait_of(&error);
                    let is_limited = is_limited(&error);
                    tried.push(Tried { offer: offer.id.clone(), name, error });
                    if !over || asked.is_some_and(|wait| wait > self.core.patience.boot.schedule) {
                        break;
                    }
                    if is_limited {
                        // Nothing is wrong with the offer.
                        self.wait(asked).await;
                    } else {
                        offers.next();
                    }
                }
            }
        }
        Err(self.gave_up(tried))
    }

    /// What is on offer, asked again for a while when the provider does not answer.
    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, SupervisorError> {
        let deadline = from_now(self.core.patience.settle);
        loop {
            match self.core.answer("offers", self.core.provider.offers(filter)).await {
                Ok(offers) => return Ok(offers),
                Err(error @ (ProviderError::Refused { .. } | ProviderError::Unauthorized { .. })) => {
                    return Err(error.into());
                }
                Err(error) if Instant::now() >= deadline => return Err(error.into()),
                Err(error) => pause(self.core.patience.poll, Some(&error), deadline).await,
            }
        }
    }

    async fn wait(&self, asked: Option<Duration>) {
        // Never shorter than asked for; and by chance a little longer, so that owners do not come back together.
        tokio::time::sleep_until(from_now(asked.unwrap_or_default())).await;
        let poll = self.core.patience.poll;
        pause(poll, None, from_now(poll.saturating_mul(2))).await;
    }

    fn gave_up(&self, mut tried: Vec<Tried>) -> SupervisorError {
        let provider = self.core.provider.name();
        let no_offer = |why: &str| SupervisorError::NoOffer { provider, why: why.to_owned() };
        if tried.is_empty() {
            return no_offer("no offer matches");
        }
        if tried.iter().all(|tried| matches!(tried.error, SupervisorError::NoCapacity { .. })) {
            return no_offer("every offer was taken");
        }
        match tried.pop() {
            Some(only) if tried.is_empty() => only.error,
            last => {
                tried.extend(last);
                SupervisorError::GaveUp { provider, tried }
            }
        }
    }
}

fn is_limited(error: &SupervisorError) -> bool {
    matches!(error, SupervisorError::Provider(ProviderError::RateLimited { .. }))
}

const fn asked_wait_of(error: &SupervisorError) -> Option<Duration> {
    match error {
        SupervisorError::Provider(error) => asked_wait(error),
        _ => None,
    }
}
