//! The end of an allocation from inside, when its owner has been gone too long: with the key that the provider gave this
//! allocation alone. The account's key is not here.
//!
//! Sources: RunPod, "Environment variables" (`RUNPOD_API_KEY`: "Pod-scoped API key"); Vast.ai, "Docker Execution
//! Environment" (`CONTAINER_API_KEY`: "Per-instance API key"; "you can also stop or destroy the instance from within"). What a
//! 404 means: "Vast.ai API" 1.0.0, destroy instance (`error: not_found`, "Instance not found"; elsewhere in that document a
//! 404 is about the key, `auth_error`); "Runpod API v2" 2.9.0, NotFoundError ("was not found or is not accessible").
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Response, Url};
use serde_json::Value;

use crate::rest::{is_loopback, is_safe_for_keys};
use crate::roles::{OwnEnd, note};

const TRIES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(30);
/// More than any reason that a provider gives.
const MAX_REASON: usize = 64 << 10;

/// Asks the provider to end this allocation, for up to a quarter of an hour. Returns when it accepted, when it refuses,
/// or when there is no key; most of the time it does not return, because the allocation is gone.
pub(super) async fn end_allocation(own_end: &OwnEnd) {
    let request = match Request::new(own_end, |name| std::env::var(name).ok()) {
        Ok(request) => request,
        Err(why) => return note(format_args!("this allocation cannot end itself: {why}; its owner or provider must")),
    };
    let mut wait = FIRST_PAUSE;
    for _ in 0..TRIES {
        match request.send().await {
            Ok(()) => return note(format_args!("the provider was asked to end this allocation")),
            Err(Refusal::Final(why)) => return note(format_args!("this allocation cannot end itself: {why}")),
            Err(Refusal::Passing(why)) => note(format_args!("ending this allocation: {why}; asking again")),
        }
        tokio::time::sleep(wait).await;
        wait = wait.saturating_mul(2).min(LONGEST_PAUSE);
    }
    note(format_args!("this allocation may still be there, and cost money: its owner or provider must end it"));
}

#[derive(Debug)]
struct Request {
    http: Client,
    url: Url,
    /// Marked sensitive: its `Debug` shows nothing.
    bearer: HeaderValue,
}

enum Refusal {
    Passing(String),
    Final(String),
}

impl Request {
    fn new(own_end: &OwnEnd, environment: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let there = |name: &str| environment(name).ok_or_else(|| format!("the provider set no {name}"));
        let id = there(&own_end.id_variable)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if id.is_empty() || !id.bytes().all(is_plain) {
            return Err(format!("{} is no id", own_end.id_variable));
        }
        let url = Url::parse(&own_end.collection).and_then(|base| base.join(&id)).map_err(|e| e.to_string())?;
        if !is_safe_for_keys(&url) {
            return Err("the provider's address is not encrypted".to_owned());
        }
        let key = there(&own_end.key_variable)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| format!("{} is no key", own_end.key_variable))?;
        bearer.set_sensitive(true);
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
        let http = if is_loopback(&url) { http.no_proxy() } else { http };
        let http = http.build().map_err(|e| format!("no HTTP client: {e}"))?;
        Ok(Self { http, url, bearer })
    }

    async fn send(&self) -> Result<(), Refusal> {
        let sent = self.http.delete(self.url.clone()).header(AUTHORIZATION, &self.bearer).send().await;
        let answer = sent.map_err(|e| Refusal::Passing(e.without_url().to_string()))?;
        let status = answer.status();
        match status.as_u16() {
            200..300 => Ok(()),
            404 if says_not_found(answer).await => Ok(()),
            // About the key, or no proof of anything: RunPod says it too of what exists and is not accessible.
            404 => Err(Refusal::Passing(format!("the provider answers {status}, and not that the allocation is gone"))),
            400 | 401 | 403 | 405 => Err(Refusal::Final(format!("the provider answers {status}"))),
            _ => Err(Refusal::Passing(format!("the provider answers {status}"))),
        }
    }
}

/// Whether a 404 is the one that a provider documents for an allocation that is not there.
async fn says_not_found(mut answer: Response) -> bool {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = answer.chunk().await {
        if body.len().saturating_add(piece.len()) > MAX_REASON {
            return false;
        }
        body.extend_from_slice(&piece);
    }
    let reason: Option<Value> = serde_json::from_slice(&body).ok();
    reason.is_some_and(|reason| reason.pointer("/error").and_then(Value::as_str) == Some("not_found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(collection: &str, id: Option<&str>, key: Option<&str>) -> Result<Request, String> {
        let own_end = OwnEnd {
            collection: collection.to_owned(),
            id_variable: "POD_ID".to_owned(),
            key_variable: "POD_KEY".to_owned(),
        };
        let value = |value: Option<&str>| value.map(str::to_owned);
        Request::new(&own_end, |name| if name == "POD_ID" { value(id) } else { value(key) })
    }

    #[test]
    fn it_is_this_allocation_or_none() {
        let request_url = |id| request("https://api.example/v2/pods/", Some(id), Some("k")).map(|r| r.url.to_string());
        assert_eq!(request_url("abc-1").unwrap(), "https://api.example/v2/pods/abc-1");
        for id in ["", "..", "a/b", "//evil.example/x", "https://evil.example/", "a?x=1", "a b"] {
            request_url(id).unwrap_err();
        }
        for address in ["http://api.example/v2/pods/", "", "ftp://127.0.0.1.example/"] {
            request(address, Some("a"), Some("k")).unwrap_err();
        }
        assert!(request("https://a/", None, Some("k")).unwrap_err().contains("POD_ID"));
        assert!(request("https://a/", Some("a"), None).unwrap_err().contains("POD_KEY"));
        assert!(request("https://a/", Some("a"), Some("a\nb")).unwrap_err().contains("POD_KEY"));
        request("http://127.8.9.10:1/v2/pods/", Some("a"), Some("k")).unwrap();
        let sound = request("http://127.0.0.1:1/v2/pods/", Some("a"), Some("SECRET")).unwrap();
        assert!(!format!("{sound:?}").contains("SECRET"));
    }

    /// What one request comes to when it is answered so: accepted, final, or worth another one.
    async fn outcome(status: u16, body: &'static str) -> &'static str {
        use axum::http::StatusCode;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collection = format!("http://{}/v2/pods/", listener.local_addr().unwrap());
        let answer = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        match request(&collection, Some("a"), Some("k")).unwrap().send().await {
            Ok(()) => "done",
            Err(Refusal::Passing(_)) => "passing",
            Err(Refusal::Final(_)) => "final",
        }
    }

    #[tokio::test]
    async fn a_404_is_the_end_only_where_it_is_documented_so() {
        assert_eq!(outcome(204, "").await, "done");
        let gone = r#"{"success":false,"error":"not_found","msg":"Instance not found"}"#;
        assert_eq!(outcome(404, gone).await, "done");
        // Vast.ai of a bad key, RunPod of anything that the key does not reach, and a page of somebody else's.
        let bad_key = r#"{"success":false,"error":"auth_error","msg":"Invalid user key"}"#;
        let runpod = r#"{"title":"Not Found","status":404,"detail":"resource not found"}"#;
        for unclear in [bad_key, runpod, "<html>404</html>", ""] {
            assert_eq!(outcome(404, unclear).await, "passing", "{unclear}");
        }
        assert_eq!(
            (outcome(410, "").await, outcome(500, "").await, outcome(403, "").await),
            ("passing", "passing", "final")
        );
    }
}
