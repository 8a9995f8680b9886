//! Vast.ai over its REST API: offers, instances, logs by polling, charges, and its rules on how often one may ask.
//!
//! Source: Vast.ai's OpenAPI document "Vast.ai API" 1.0.0 (`https://console.vast.ai`). Tested against a fake that speaks
//! that document; see the crate's README for what was not tried on a paid instance.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod builder;
mod create;
mod instance;
mod logs;
mod offers;

pub use builder::VastBuilder;

use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::traits::{
    Allocation, AllocationId, CreateOutcome, LaunchSpec, LogChunk, Observation, Offer, OfferFilter, Provider,
    ProviderError, Spend,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::clock;
use crate::plan::{Plan, id_to_be};
use crate::rest::{Answer, Api, Call, ConfigError, array, message};
use builder::Settings;
use instance::Instance;

const NAME: &str = "vast";
const CONTAINER_SOURCE: &str = "vast-container-id";
/// More pages than any owner's instances or charges fill; a listing that goes on is no listing.
const MAX_PAGES: usize = 200;

/// A [`Provider`] whose allocations are Vast.ai instances. Their label is the allocation's name.
///
/// The account's key stays with the owner: it is in no instance, no error and no `Debug`.
#[derive(Debug)]
pub struct VastProvider {
    api: Api,
    settings: Settings,
}

impl VastProvider {
    /// Starts from the defaults, without reading the environment.
    pub fn builder() -> VastBuilder {
        VastBuilder::new()
    }

    /// With the key in `VAST_API_KEY`, and every other setting at its default.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no usable key.
    pub fn from_env() -> Result<Self, ConfigError> {
        VastBuilder::from_env().build()
    }

    /// The requests that renting this offer and ending it would make, without making them. Neither the account's key nor
    /// the launch secret is in them.
    ///
    /// # Errors
    /// [`ProviderError::Refused`] as `create` would.
    pub fn plan(&self, filter: &OfferFilter, offer: &Offer, spec: &LaunchSpec) -> Result<Plan, ProviderError> {
        let id = id_to_be();
        let calls = self.search_call(filter).into_iter().chain([
            self.create_call(offer, spec)?,
            self.instance_call("observe", &id.0),
            self.destroy_call(&id.0),
            self.instances_call("find", &labelled(&spec.name), None),
            self.charges_call(clock::wall(), None),
        ]);
        Ok(calls
            .fold(Plan::new(offer, spec), |plan, call| plan.with(call.name, self.api.describe(&call), call.body, spec)))
    }

    /// A request with the pace that Vast.ai documents for it, unless the builder was given another.
    fn call(&self, name: &'static str, endpoint: &'static str, method: Method, path: &[&str], millis: u64) -> Call {
        let spacing = self.settings.documented_pace.then(|| Duration::from_millis(millis));
        Call { spacing, ..Call::new(name, endpoint, method, path) }
    }

    fn instance_call(&self, name: &'static str, number: &str) -> Call {
        self.call(name, "GET instances/id", Method::GET, &["api", "v0", "instances", number], 2000)
    }

    fn destroy_call(&self, number: &str) -> Call {
        let path = ["api", "v0", "instances", number];
        self.call("request_terminate", "DELETE instances/id", Method::DELETE, &path, 3000)
    }

    fn instances_call(&self, name: &'static str, filters: &Value, token: Option<&str>) -> Call {
        let call = self.call(name, "GET instances", Method::GET, &["api", "v1", "instances"], 1000);
        let call = call.query("limit", "25").query("select_filters", filters.to_string());
        token.into_iter().fold(call, |call, token| call.query("after_token", token))
    }

    /// Of the last thirty days and today.
    fn charges_call(&self, now: UnixMillis, token: Option<&str>) -> Call {
        const DAY: u64 = 24 * 3600;
        let second = now.0.checked_div(1000).unwrap_or(0);
        let (from, to) = (second.saturating_sub(DAY.saturating_mul(30)), second.saturating_add(DAY));
        let filters = json!({ "day": { "gte": from, "lte": to }, "type": { "in": ["instance"] } });
        let call = self.call("spend", "GET charges", Method::GET, &["api", "v0", "charges"], 1000);
        let call = call.query("select_filters", filters.to_string()).query("limit", "500");
        token.into_iter().fold(call, |call, token| call.query("after_token", token))
    }

    /// The JSON of a success. Vast.ai says in several ways that a key is none, and some successes say they are not.
    fn success(&self, call: &Call, answer: &Answer) -> Result<Value, ProviderError> {
        if is_bad_key(answer) {
            return Err(self.api.unauthorized(answer));
        }
        if !answer.status.is_success() {
            return Err(self.api.failure(call, answer));
        }
        let value = answer.value().ok_or_else(|| self.api.unintelligible(call, "no JSON"))?;
        if value.pointer("/success") == Some(&Value::Bool(false)) {
            return Err(self.api.refused(call, message(answer)));
        }
        Ok(value)
    }

    /// Every instance that fits; an entry that cannot be read is an error: leaving it out would look like absence.
    async fn instances(&self, name: &'static str, filters: &Value) -> Result<Vec<Allocation>, ProviderError> {
        let call = |token: Option<&str>| self.instances_call(name, filters, token);
        let mut found = Vec::new();
        for page in self.pages(&call, "/instances").await? {
            let instance = Instance::read(&page);
            found.push(
                instance.ok_or_else(|| self.api.unintelligible(&call(None), "an instance has no id"))?.allocation,
            );
        }
        Ok(found)
    }

    /// The elements of a paged listing.
    async fn pages(&self, call: &impl Fn(Option<&str>) -> Call, at: &str) -> Result<Vec<Value>, ProviderError> {
        let (mut found, mut token) = (Vec::new(), None::<String>);
        for _ in 0..MAX_PAGES {
            let call = call(token.as_deref());
            let value = self.success(&call, &self.api.send(&call).await?)?;
            if value.pointer(at).and_then(Value::as_array).is_none() {
                return Err(self.api.unintelligible(&call, "there is no list in it"));
            }
            found.extend(array(&value, at).cloned());
            match value.pointer("/next_token").and_then(Value::as_str).filter(|next| !next.is_empty()) {
                Some(next) if token.as_deref() == Some(next) => {
                    return Err(self.api.unintelligible(&call, "the next page is the same page"));
                }
                Some(next) => token = Some(next.to_owned()),
                None => return Ok(found),
            }
        }
        Err(self.api.unintelligible(&call(None), "the listing does not end"))
    }

    /// The id as Vast.ai writes it: another spelling names nothing.
    fn number<'a>(&self, id: &'a AllocationId) -> Result<&'a str, ProviderError> {
        let canonical = id.0.parse::<u64>().is_ok_and(|number| number.to_string() == id.0);
        if canonical { Ok(&id.0) } else { Err(self.api.not_found(id)) }
    }
}

fn labelled(name: &str) -> Value {
    json!({ "label": { "eq": name } })
}

/// 401, or a 403 or 404 that is about the key and not about what was asked for.
fn is_bad_key(answer: &Answer) -> bool {
    let says = |words: &str| message(answer).contains(words);
    answer.status.is_client_error() && (says("Invalid user key") || says("auth_error") || says("requires login"))
}

#[async_trait]
impl Provider for VastProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn account(&self) -> Option<String> {
        Some(self.api.account())
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.search(filter).await
    }

    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let call = self.create_call(offer, spec)?;
        let answer = self.api.send(&call).await?;
        self.created(&call, &answer, offer, &spec.name)
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        let found = self.instances("find", &labelled(name)).await?;
        Ok(found.into_iter().filter(|allocation| allocation.name == name).collect())
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let call = self.instance_call("observe", self.number(id)?);
        let answer = self.api.send(&call).await?;
        if answer.status == StatusCode::NOT_FOUND && !is_bad_key(&answer) {
            return Err(self.api.not_found(id));
        }
        let value = self.success(&call, &answer)?;
        match value.pointer("/instances") {
            // Not an error at Vast.ai, and all the same: there is no such instance.
            Some(Value::Null) => Err(self.api.not_found(id)),
            Some(instance) => match Instance::read(instance) {
                Some(instance) if instance.allocation.id == *id => Ok(instance.observation(self.settings.port)),
                Some(_) => Err(self.api.unintelligible(&call, "it is about another instance")),
                None => Err(self.api.unintelligible(&call, "the instance has no id")),
            },
            None => Err(self.api.unintelligible(&call, "there is no instance in it")),
        }
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.read_logs(id, after).await
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        let Ok(number) = self.number(id) else { return Ok(()) };
        let call = self.destroy_call(number);
        let answer = self.api.send(&call).await?;
        if answer.status == StatusCode::NOT_FOUND && !is_bad_key(&answer) {
            return Ok(());
        }
        self.success(&call, &answer).map(drop)
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        let all = self.instances("list_owned", &json!({})).await?;
        Ok(all.into_iter().filter(|allocation| allocation.name.starts_with(&self.settings.tag)).collect())
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        let now = clock::wall();
        let call = |token: Option<&str>| self.charges_call(now, token);
        let source = format!("instance-{id}");
        let charges = self.pages(&call, "/results").await?;
        let amounts: Vec<f64> = charges
            .iter()
            .filter(|charge| charge.pointer("/source").and_then(Value::as_str) == Some(&source))
            .filter_map(|charge| charge.pointer("/amount")?.as_f64())
            .filter(|amount| amount.is_finite() && *amount >= 0.0)
            .collect();
        // Charges come in behind what they are for, and nothing says when they are complete.
        let spend = Spend { dollars: amounts.iter().sum(), read_at: now, is_final: false };
        Ok((!amounts.is_empty()).then_some(spend))
    }
}
