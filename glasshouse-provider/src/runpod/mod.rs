//! RunPod over its REST API v2: pods, actions, logs, the catalogue with availability, billing.
//!
//! Source: RunPod's OpenAPI document "Runpod API v2" (`https://api.runpod.io`, v2.9.0). Tested against a fake that
//! speaks that document; see the crate's README for what was not tried on a paid pod.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod builder;
mod logs;
mod offers;
mod pod;

pub use builder::{Reach, RunPodBuilder};

use std::net::{Ipv4Addr, SocketAddr};

use async_trait::async_trait;
use glasshouse_core::traits::{
    Allocation, AllocationId, CreateOutcome, LaunchSpec, LogChunk, Observation, Offer, OfferFilter, Provider,
    ProviderError, Spend,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::plan::{Plan, id_to_be};
use crate::rest::{Answer, Api, Call, ConfigError, array, message};
use crate::roles::{Hold, Launch, launch_environment};
use crate::{clock, image};
use builder::Settings;
use offers::{Cloud, OfferId};
use pod::Pod;

const NAME: &str = "runpod";
const CONTAINER_SOURCE: &str = "runpod-pod-id";

/// Something that a pod can be told; ending it is [`Provider::request_terminate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PodAction {
    /// Boots a stopped pod.
    Start,
    /// Stops it: compute is released, the disk stays and is billed.
    Stop,
    /// Restarts the container in place.
    Restart,
}

/// A [`Provider`] whose allocations are RunPod pods.
///
/// The account's key stays with the owner: it is in no pod, no error and no `Debug`.
#[derive(Debug)]
pub struct RunPodProvider {
    api: Api,
    settings: Settings,
}

impl RunPodProvider {
    /// Starts from the defaults, without reading the environment.
    pub fn builder() -> RunPodBuilder {
        RunPodBuilder::new()
    }

    /// With the key in `RUNPOD_API_KEY`, and every other setting at its default.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no usable key.
    pub fn from_env() -> Result<Self, ConfigError> {
        RunPodBuilder::from_env().build()
    }

    /// The requests that renting this offer and ending it would make, without making them. Neither the account's key nor
    /// the launch secret is in them.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] as `create` would.
    pub fn plan(&self, filter: &OfferFilter, offer: &Offer, spec: &LaunchSpec) -> Result<Plan, ProviderError> {
        let id = id_to_be();
        let clouds = self.settings.clouds.iter().filter(|cloud| cloud.fits(filter));
        let count = filter.gpu_count.unwrap_or(1);
        let calls = clouds.map(|cloud| offers::call(*cloud, count, filter)).chain([
            self.create_call(offer, spec)?,
            pod_call("observe", &id),
            terminate_call(&id),
            pods_call("find"),
            spend_call(&id),
        ]);
        Ok(calls
            .fold(Plan::new(offer, spec), |plan, call| plan.with(call.name, self.api.describe(&call), call.body, spec)))
    }

    /// Stops, starts or restarts a pod.
    ///
    /// # Errors
    /// [`ProviderError`]; an action that the pod's state does not allow is [`ProviderError::Refused`].
    pub async fn act(&self, id: &AllocationId, action: PodAction) -> Result<(), ProviderError> {
        let word = match action {
            PodAction::Start => "start",
            PodAction::Stop => "stop",
            PodAction::Restart => "restart",
        };
        // A restart that is repeated restarts twice.
        let call = self.action_call("act", id, word);
        let call = if action == PodAction::Restart { call.once() } else { call };
        let answer = self.api.send(&call).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND => Err(self.api.not_found(id)),
            _ => Err(self.api.failure(&call, &answer)),
        }
    }

    fn action_call(&self, name: &'static str, id: &AllocationId, action: &str) -> Call {
        Call::new(name, "POST pods/action", Method::POST, &["v2", "pods", &id.0, "action"])
            .json(json!({ "action": action }))
    }

    fn create_call(&self, offer: &Offer, spec: &LaunchSpec) -> Result<Call, ProviderError> {
        // Not idempotent: RunPod has no idempotency key, and an answer of 500 may have made a pod.
        let call = Call::new("create", "POST pods", Method::POST, &["v2", "pods"]).once();
        let refused = |why: String| self.api.refused(&call, why);
        let wanted = OfferId::parse(&offer.id).ok_or_else(|| refused(format!("{:?} is no offer of it", offer.id)))?;
        let image = image::pinned(spec).map_err(refused)?;
        let bind = SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.settings.port));
        // "Pod-scoped API key": what RunPod's documentation of environment variables calls it.
        let own_end = self.api.own_end(&["v2", "pods"], "RUNPOD_POD_ID", "RUNPOD_API_KEY");
        let launch = Launch { own_end, ..Launch::new(spec, bind, Hold::Linger) };
        let env = launch_environment(spec, &launch, Some(CONTAINER_SOURCE));
        if let Some((name, _)) = env.iter().find(|(_, value)| self.api.is_in(value)) {
            return Err(refused(format!("{name} holds the account's API key; it must not leave the owner")));
        }
        let mut gpu = json!({ "id": wanted.gpu, "count": wanted.count });
        if let (Some(floor), Some(gpu)) = (wanted.min_cuda, gpu.as_object_mut()) {
            gpu.insert("minCudaVersion".to_owned(), Value::String(offers::cuda_text(floor)));
        }
        let disk = [spec.disk_gib, wanted.min_disk].into_iter().flatten().max().unwrap_or(self.settings.disk_gib);
        let mut body = json!({
            "name": spec.name,
            "image": image,
            "cloud": wanted.cloud.text(),
            "gpu": gpu,
            "disk": disk.max(1),
            "ports": self.settings.reach.ports(self.settings.port),
            "env": env,
        });
        if let (false, Some(body)) = (self.settings.data_centers.is_empty(), body.as_object_mut()) {
            body.insert("dataCenterIds".to_owned(), json!(self.settings.data_centers));
        }
        Ok(call.json(body))
    }

    /// Every pod that is not `TERMINATED`. One that cannot be read is an error: leaving it out would look like absence.
    async fn pods(&self, name: &'static str) -> Result<Vec<Pod>, ProviderError> {
        let call = pods_call(name);
        let value = self.api.json(&call, None).await?;
        let listed = value.pointer("/pods").and_then(Value::as_array);
        let listed = listed.ok_or_else(|| self.api.unintelligible(&call, "there is no list of pods in it"))?;
        let pods: Option<Vec<Pod>> = listed.iter().map(Pod::read).collect();
        let pods = pods.ok_or_else(|| self.api.unintelligible(&call, "a pod in it has no id or no name"))?;
        Ok(pods.into_iter().filter(|pod| !pod.is_gone()).collect())
    }

    async fn pod(&self, name: &'static str, id: &AllocationId) -> Result<Pod, ProviderError> {
        let call = pod_call(name, id);
        let value = self.api.json(&call, Some(id)).await?;
        match Pod::read(&value) {
            Some(pod) if pod.allocation.id != *id => Err(self.api.unintelligible(&call, "it is about another pod")),
            Some(pod) if pod.is_gone() => Err(self.api.not_found(id)),
            Some(pod) => Ok(pod),
            None => Err(self.api.unintelligible(&call, "it has no id or no name")),
        }
    }

    fn created(&self, call: &Call, answer: &Answer, offer: &Offer, name: &str) -> Result<CreateOutcome, ProviderError> {
        let value = answer.value();
        let read = value.as_ref().and_then(Pod::read);
        let named = || value.as_ref().and_then(pod::id_anywhere);
        match (answer.status, read) {
            (status, Some(pod)) if status.is_success() && pod.allocation.name == name => {
                let mut allocation = pod.allocation;
                if !pod.has_price {
                    allocation.price_per_hour = offer.price_per_hour;
                }
                Ok(CreateOutcome::Created(allocation))
            }
            (StatusCode::BAD_REQUEST, _) if named().is_none() && offers::is_capacity(&message(answer)) => {
                Ok(CreateOutcome::NoCapacity)
            }
            // Turned away, and nothing is named that could exist all the same.
            (status, _) if status.is_client_error() && status != StatusCode::REQUEST_TIMEOUT && named().is_none() => {
                Err(self.api.failure(call, answer))
            }
            (status, _) => {
                let why = format!("status {}: {}", status.as_u16(), message(answer));
                Err(self.api.ambiguous(call, why, named()))
            }
        }
    }
}

#[async_trait]
impl Provider for RunPodProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let mut found = Vec::new();
        for cloud in self.settings.clouds.iter().copied().filter(|cloud| cloud.fits(filter)) {
            found.extend(self.offers_of(cloud, filter).await?);
        }
        found.sort_by(|a: &Offer, b| a.price_per_hour.total_cmp(&b.price_per_hour));
        Ok(found)
    }

    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let call = self.create_call(offer, spec)?;
        let answer = self.api.send(&call).await?;
        self.created(&call, &answer, offer, &spec.name)
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        let pods = self.pods("find").await?;
        Ok(pods.into_iter().map(|pod| pod.allocation).filter(|allocation| allocation.name == name).collect())
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let pod = self.pod("observe", id).await?;
        Ok(pod.observation(self.settings.port, self.settings.proxy.as_deref()))
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.read_logs(id, after).await
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        let call = terminate_call(id);
        let answer = self.api.send(&call).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        // A 404 here is no proof of anything, and a 5xx may pass: the action is the documented other way to the same.
        let call = self.action_call("request_terminate", id, "terminate");
        let second = self.api.send(&call).await?;
        match second.status {
            status if status.is_success() || status == StatusCode::NOT_FOUND => Ok(()),
            _ => Err(self.api.failure(&call, &second)),
        }
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        let pods = self.pods("list_owned").await?;
        let owned = pods.into_iter().map(|pod| pod.allocation);
        Ok(owned.filter(|allocation| allocation.name.starts_with(&self.settings.tag)).collect())
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        let value = self.api.json(&spend_call(id), None).await?;
        let amounts: Vec<f64> = array(&value, "/records")
            .filter(|record| record.pointer("/podId").and_then(Value::as_str) == Some(&id.0))
            .filter_map(|record| record.pointer("/totalAmount")?.as_f64())
            .filter(|amount| amount.is_finite() && *amount >= 0.0)
            .collect();
        // Buckets are filled late, and nothing says when they are complete.
        let spend = Spend { dollars: amounts.iter().sum(), read_at: clock::wall(), is_final: false };
        Ok((!amounts.is_empty()).then_some(spend))
    }
}

fn pods_call(name: &'static str) -> Call {
    Call::new(name, "GET pods", Method::GET, &["v2", "pods"])
}

fn pod_call(name: &'static str, id: &AllocationId) -> Call {
    Call::new(name, "GET pods/id", Method::GET, &["v2", "pods", &id.0])
}

fn terminate_call(id: &AllocationId) -> Call {
    Call::new("request_terminate", "DELETE pods/id", Method::DELETE, &["v2", "pods", &id.0])
}

fn spend_call(id: &AllocationId) -> Call {
    Call::new("spend", "GET billing/pods", Method::GET, &["v2", "billing", "pods"])
        .query("podId", id.0.as_str())
        .query("bucketSize", "day")
}
