//! What a create would do, for people who want to see it first.

use std::time::Duration;

use glasshouse_core::fixed::Fixed;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{LaunchSpec, Offer};
use serde_json::Value;

/// A create that was not made.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// Method and address, or the command.
    pub request: String,
    /// Its body; the launch secret is replaced by `[launch secret]`.
    pub body: Option<Value>,
    /// The most that it can cost until its time limit, US dollars; absent without a limit.
    pub worst_case_dollars: Option<f64>,
}

impl Plan {
    pub(crate) fn new(
        request: String,
        body: Option<Value>,
        secret: &Secret<32>,
        offer: &Offer,
        spec: &LaunchSpec,
    ) -> Self {
        const HOUR: Duration = Duration::from_secs(3600);
        let hidden = Fixed(*secret.expose()).to_string();
        let worst_case_dollars = spec.time_limit.map(|limit| offer.price_per_hour * limit.div_duration_f64(HOUR));
        Self { request, body: body.map(|body| hide(body, &hidden)), worst_case_dollars }
    }
}

fn hide(value: Value, secret: &str) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace(secret, "[launch secret]")),
        Value::Array(items) => items.into_iter().map(|item| hide(item, secret)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, hide(field, secret))).collect(),
        other => other,
    }
}
