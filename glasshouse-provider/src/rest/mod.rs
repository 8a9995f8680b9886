//! The owner's side of a provider's HTTP API: pacing, retries, `Retry-After`, and answers that nobody has to trust.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod account;
mod answer;
mod config;
mod pace;

pub(crate) use answer::{Answer, array, log_line, message, printable, printable_end};
pub use config::{ConfigError, Pacing};
pub(crate) use config::{Connection, is_loopback, is_safe_for_keys};

use std::time::Duration;

use glasshouse_core::fixed::Fixed;
use glasshouse_core::traits::{AllocationId, ProviderError};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Method, StatusCode, Url};
use serde_json::Value;

use pace::Pace;

use crate::roles::OwnEnd;

/// Larger than any listing that an owner of allocations has.
const MAX_ANSWER: usize = 16 << 20;

/// One request.
pub(crate) struct Call {
    /// The call of the trait that it is for.
    pub(crate) name: &'static str,
    /// What is paced together: a method and a path without its ids.
    pub(crate) endpoint: &'static str,
    pub(crate) method: Method,
    /// Path segments; an id in them stays one segment whatever it holds.
    pub(crate) path: Vec<String>,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Value>,
    /// Whether doing it twice is the same as once: only then a request that may have arrived is repeated.
    pub(crate) idempotent: bool,
    /// Least time between two of these, where the provider documents one for this endpoint.
    pub(crate) spacing: Option<Duration>,
}

impl Call {
    /// A request that may be repeated.
    pub(crate) fn new(name: &'static str, endpoint: &'static str, method: Method, path: &[&str]) -> Self {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        Self { name, endpoint, method, path, query: Vec::new(), body: None, idempotent: true, spacing: None }
    }

    pub(crate) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    pub(crate) fn json(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// It is sent once, unless it certainly did not arrive or was turned away at the door.
    pub(crate) fn once(self) -> Self {
        Self { idempotent: false, ..self }
    }
}

/// A provider's API with one account's key.
pub(crate) struct Api {
    provider: &'static str,
    variable: &'static str,
    http: Client,
    base: Url,
    /// Tells the account from others, and nothing of the key.
    account: String,
    /// Marked sensitive: its `Debug` shows nothing.
    bearer: HeaderValue,
    pacing: Pacing,
    pace: Pace,
}

impl Api {
    /// A word for the account.
    pub(crate) fn account(&self) -> String {
        self.account.clone()
    }

    /// Sends it, as often as it may be sent, and gives the last answer. Statuses other than 401 and 429 are answers.
    pub(crate) async fn send(&self, call: &Call) -> Result<Answer, ProviderError> {
        let mut tried = 0_u32;
        loop {
            tried = tried.saturating_add(1);
            let last = tried >= self.pacing.tries;
            self.turn(call).await?;
            match self.once(call).await {
                Ok(answer) if answer.status == StatusCode::TOO_MANY_REQUESTS => {
                    // Turned away before anything was done, so even a create may be repeated.
                    let wait = answer.retry_after.unwrap_or_else(|| self.backoff(tried));
                    self.pace.hold(call.endpoint, wait);
                    if last || wait > self.pacing.longest_wait {
                        return Err(self.rate_limited(call, answer.retry_after));
                    }
                }
                Ok(answer) if answer.status == StatusCode::UNAUTHORIZED => {
                    return Err(self.unauthorized(&answer));
                }
                // A 5xx that says when to come back holds the endpoint as well; what it did with this request it does not say.
                Ok(Answer { status, retry_after: Some(wait), .. }) if status.is_server_error() && call.idempotent => {
                    self.pace.hold(call.endpoint, wait);
                    if last || wait > self.pacing.longest_wait {
                        return Err(self.rate_limited(call, Some(wait)));
                    }
                }
                Ok(answer) if answer.status.is_server_error() && call.idempotent && !last => {
                    tokio::time::sleep(self.backoff(tried)).await;
                }
                Ok(answer) => {
                    self.hold_after(call, &answer);
                    return Ok(answer);
                }
                Err(lost) if (call.idempotent || lost.never_sent) && !last => {
                    tokio::time::sleep(self.backoff(tried)).await;
                }
                Err(lost) => return Err(self.ambiguous(call, lost.why, None)),
            }
        }
    }

    /// A 5xx with a `Retry-After` holds its endpoint, whoever asks it next.
    fn hold_after(&self, call: &Call, answer: &Answer) {
        if let Some(wait) = answer.retry_after.filter(|_| answer.status.is_server_error()) {
            self.pace.hold(call.endpoint, wait);
        }
    }

    /// Waits for the endpoint's turn, unless that would take longer than anybody waits.
    async fn turn(&self, call: &Call) -> Result<(), ProviderError> {
        let (spacing, longest) = (call.spacing.unwrap_or(self.pacing.spacing), self.pacing.longest_wait);
        let turn = self.pace.turn(call.endpoint, spacing, longest).await;
        turn.map_err(|wait| self.rate_limited(call, Some(wait)))
    }

    /// The same for an answer that must be a success with JSON in it. A 404 is about `id`, where one is given.
    pub(crate) async fn json(&self, call: &Call, id: Option<&AllocationId>) -> Result<Value, ProviderError> {
        let answer = self.send(call).await?;
        match (answer.status, id) {
            (status, _) if status.is_success() => answer.value().ok_or_else(|| self.unintelligible(call, "no JSON")),
            (StatusCode::NOT_FOUND, Some(id)) => Err(self.not_found(id)),
            _ => Err(self.failure(call, &answer)),
        }
    }

    /// Opens a stream, without repetition and without reading it.
    pub(crate) async fn open(&self, call: &Call) -> Result<reqwest::Response, ProviderError> {
        self.turn(call).await?;
        let lost = |e: reqwest::Error| self.ambiguous(call, chain(&e), None);
        let response = self.request(call)?.timeout(STREAM_TIMEOUT).send().await.map_err(lost)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let answer = Answer::read(response, MAX_ANSWER).await.map_err(|e| self.ambiguous(call, chain(&e), None))?;
        self.hold_after(call, &answer);
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(self.unauthorized(&answer)),
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = answer.retry_after.unwrap_or_else(|| self.backoff(1));
                self.pace.hold(call.endpoint, wait);
                Err(self.rate_limited(call, answer.retry_after))
            }
            _ => Err(self.failure(call, &answer)),
        }
    }

    /// Reads what is at another address, without the key.
    pub(crate) async fn fetch(&self, call: &Call, url: &str) -> Result<Answer, ProviderError> {
        let url = Url::parse(url).map_err(|_| self.unintelligible(call, "the address in it is none"))?;
        // Where the API itself is on loopback, so may be what it points to; nothing else is read in the clear.
        let allowed = url.scheme() == "https" || (url.scheme() == "http" && url.origin() == self.base.origin());
        if !allowed {
            return Err(self.unintelligible(call, "the address in it is not encrypted"));
        }
        let lost = |e: reqwest::Error| self.ambiguous(call, chain(&e), None);
        let response = self.http.get(url).timeout(self.pacing.timeout).send().await.map_err(lost)?;
        Answer::read(response, MAX_ANSWER).await.map_err(lost)
    }

    /// How an allocation of this API ends itself, given the variables that the provider sets in it.
    pub(crate) fn own_end(&self, collection: &[&str], id_variable: &str, key_variable: &str) -> Option<OwnEnd> {
        let mut url = self.base.clone();
        // The empty segment at the end is the slash that ids go behind.
        url.path_segments_mut().ok()?.pop_if_empty().extend(collection).push("");
        let (id_variable, key_variable) = (id_variable.to_owned(), key_variable.to_owned());
        Some(OwnEnd { collection: url.to_string(), id_variable, key_variable })
    }

    /// Whether this text holds the account's key.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        let key = self.bearer.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
        !key.is_empty() && text.as_bytes().windows(key.len()).any(|part| part == key)
    }

    /// A text for people: the method and the address.
    pub(crate) fn describe(&self, call: &Call) -> String {
        self.url(call).map_or_else(|_| call.path.join("/"), |url| format!("{} {url}", call.method))
    }

    async fn once(&self, call: &Call) -> Result<Answer, Lost> {
        let request = self.request(call).map_err(|e| Lost { never_sent: true, why: e.to_string() })?;
        let response = request
            .timeout(self.pacing.timeout)
            .send()
            .await
            .map_err(|e| Lost { never_sent: e.is_connect() || e.is_builder(), why: chain(&e) })?;
        Answer::read(response, MAX_ANSWER).await.map_err(|e| Lost { never_sent: false, why: chain(&e) })
    }

    fn request(&self, call: &Call) -> Result<reqwest::RequestBuilder, ProviderError> {
        let request = self.http.request(call.method.clone(), self.url(call)?).header(AUTHORIZATION, &self.bearer);
        Ok(match &call.body {
            Some(body) => request.json(body),
            None => request,
        })
    }

    fn url(&self, call: &Call) -> Result<Url, ProviderError> {
        let mut url = self.base.clone();
        // `push` leaves dot segments out, which would make the address another one.
        let odd = call.path.iter().any(|part| matches!(part.as_str(), "." | ".."));
        match url.path_segments_mut() {
            Ok(mut segments) if !odd => {
                segments.pop_if_empty().extend(&call.path);
            }
            _ => return Err(self.refused(call, "the id is not one".to_owned())),
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    /// Doubles with each try; half of it is chance, so that owners who failed together do not come back together.
    fn backoff(&self, tried: u32) -> Duration {
        let doubled = 1_u32.checked_shl(tried.saturating_sub(1).min(16)).unwrap_or(u32::MAX);
        let full = self.pacing.first_pause.saturating_mul(doubled).min(self.pacing.longest_wait);
        let chance = Fixed::<2>::random().map_or(u16::MAX, |bytes| u16::from_be_bytes(bytes.0));
        let half = full.checked_div(2).unwrap_or(full);
        half.saturating_add(half.mul_f64(f64::from(chance) / f64::from(u16::MAX)))
    }
}

/// A stream is read in pieces that have limits of their own.
const STREAM_TIMEOUT: Duration = Duration::from_secs(30);

/// Errors in the words of all providers.
impl Api {
    pub(crate) fn refused(&self, call: &Call, why: String) -> ProviderError {
        ProviderError::Refused { provider: self.provider, call: call.name, why }
    }

    pub(crate) fn unintelligible(&self, call: &Call, why: &str) -> ProviderError {
        ProviderError::Unintelligible { provider: self.provider, call: call.name, why: why.to_owned() }
    }

    pub(crate) fn ambiguous(&self, call: &Call, why: String, allocation: Option<AllocationId>) -> ProviderError {
        ProviderError::Ambiguous { provider: self.provider, call: call.name, why, allocation }
    }

    pub(crate) fn not_found(&self, id: &AllocationId) -> ProviderError {
        ProviderError::NotFound { provider: self.provider, id: id.clone() }
    }

    /// What an answer that is no success comes to.
    pub(crate) fn failure(&self, call: &Call, answer: &Answer) -> ProviderError {
        let why = format!("status {}: {}", answer.status.as_u16(), message(answer));
        if answer.status.is_client_error() && answer.status != StatusCode::REQUEST_TIMEOUT {
            self.refused(call, why)
        } else if answer.status.is_success() {
            self.unintelligible(call, &why)
        } else {
            self.ambiguous(call, why, None)
        }
    }

    pub(crate) fn unauthorized(&self, answer: &Answer) -> ProviderError {
        ProviderError::Unauthorized { provider: self.provider, why: message(answer), variable: self.variable }
    }

    pub(crate) fn out_of_funds(&self, call: &Call, answer: &Answer) -> ProviderError {
        ProviderError::OutOfFunds { provider: self.provider, call: call.name, why: message(answer) }
    }

    fn rate_limited(&self, call: &Call, retry_after: Option<Duration>) -> ProviderError {
        ProviderError::RateLimited { provider: self.provider, call: call.name, retry_after }
    }
}

/// No answer came, and whether the request can have arrived.
struct Lost {
    never_sent: bool,
    why: String,
}

/// An error with its causes, without the address: query strings are nobody's business in a log.
fn chain(error: &reqwest::Error) -> String {
    let kind = match error {
        e if e.is_timeout() => "no answer in time",
        e if e.is_connect() => "no connection",
        e if e.is_body() || e.is_decode() => "the answer broke off",
        _ => "the request failed",
    };
    let mut text = kind.to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    printable(&text)
}
