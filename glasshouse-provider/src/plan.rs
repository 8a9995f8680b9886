//! What renting would do, for people who want to see it first.

use glasshouse_core::fixed::Fixed;
use glasshouse_core::traits::{AllocationId, LaunchSpec, Offer, TrafficPrice};
use serde_json::Value;

use crate::supervisor::dollars_for;

/// Renting that was not done: every request of an allocation's life, in order, as the backend would make them.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The requests.
    pub requests: Vec<PlannedRequest>,
    /// The most that this offer can cost until the launch's time limit, US dollars; absent without a limit. Its price by the
    /// hour, and nothing that is billed by volume: neither [`traffic`](Self::traffic), nor the disk that RunPod bills beside
    /// the price in its catalogue, nor what is left stored there.
    pub worst_case_dollars: Option<f64>,
    /// What traffic costs beside that, where the offer tells. How much of it there will be is not known: the image's size is
    /// the registry's to tell.
    pub traffic: Option<TrafficPrice>,
}

/// A request that was not made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PlannedRequest {
    /// The call of [`Provider`](glasshouse_core::traits::Provider) that makes it.
    pub call: &'static str,
    /// Method and address, or the command. The account's key is not in it.
    pub request: String,
    /// Its body, or what the command reads; the launch secret is replaced by `[launch secret]`.
    pub body: Option<Value>,
}

impl Plan {
    pub(crate) fn new(offer: &Offer, spec: &LaunchSpec) -> Self {
        let worst_case_dollars = spec.time_limit.map(|limit| dollars_for(offer.price_per_hour, limit));
        Self { requests: Vec::new(), worst_case_dollars, traffic: offer.traffic }
    }

    pub(crate) fn with(mut self, call: &'static str, request: String, body: Option<Value>, spec: &LaunchSpec) -> Self {
        let secret = Fixed(*spec.launch_secret.expose()).to_string();
        let body = body.map(|body| hide(body, &secret));
        self.requests.push(PlannedRequest { call, request: request.replace(&secret, HIDDEN), body });
        self
    }

    /// The request that would make the allocation.
    pub fn create(&self) -> Option<&PlannedRequest> {
        self.requests.iter().find(|request| request.call == "create")
    }
}

/// Stands for the id that the provider would give.
pub(crate) fn id_to_be() -> AllocationId {
    AllocationId("ID".to_owned())
}

const HIDDEN: &str = "[launch secret]";

fn hide(value: Value, secret: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace(secret, HIDDEN)),
        Value::Array(items) => items.into_iter().map(|item| hide(item, secret)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, hide(field, secret))).collect(),
        other => other,
    }
}
