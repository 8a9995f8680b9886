//! The end of an allocation from inside, when its owner has been gone too long: with the key that the provider gave this
//! allocation alone. The account's key is not here.
//!
//! Sources: RunPod, "Environment variables" (`RUNPOD_API_KEY`: "Pod-scoped API key"); Vast.ai, "Docker Execution
//! Environment" (`CONTAINER_API_KEY`: "Per-instance API key"; "you can also stop or destroy the instance from within").
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Url};

use crate::roles::{OwnEnd, note};

const TRIES: u32 = 12;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(30);

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
        let is_loopback = url.host_str().is_some_and(|host| matches!(host, "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !is_loopback {
            return Err("the provider's address is not encrypted".to_owned());
        }
        let key = there(&own_end.key_variable)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {key}"))
            .map_err(|_| format!("{} is no key", own_end.key_variable))?;
        bearer.set_sensitive(true);
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(TIMEOUT);
        let http = http.build().map_err(|e| format!("no HTTP client: {e}"))?;
        Ok(Self { http, url, bearer })
    }

    async fn send(&self) -> Result<(), Refusal> {
        let sent = self.http.delete(self.url.clone()).header(AUTHORIZATION, &self.bearer).send().await;
        let status = sent.map_err(|e| Refusal::Passing(e.without_url().to_string()))?.status();
        match status.as_u16() {
            200..300 | 404 | 410 => Ok(()),
            400 | 401 | 403 | 405 => Err(Refusal::Final(format!("the provider answers {status}"))),
            _ => Err(Refusal::Passing(format!("the provider answers {status}"))),
        }
    }
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
        let sound = request("http://127.0.0.1:1/v2/pods/", Some("a"), Some("SECRET")).unwrap();
        assert!(!format!("{sound:?}").contains("SECRET"));
    }
}
