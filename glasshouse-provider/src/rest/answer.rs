use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use serde_json::Value;

/// What a provider says may be this long in a message for people.
const MAX_TOLD: usize = 300;

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Seconds of `Retry-After` (RFC 9110 section 10.2.3); a date there counts as none.
    pub(crate) retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads it up to a limit; what is larger is no answer of use and reads as empty.
    pub(super) async fn read(mut response: Response, limit: usize) -> Result<Self, reqwest::Error> {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await? {
            if body.len().saturating_add(piece.len()) > limit {
                body.clear();
                break;
            }
            body.extend_from_slice(&piece);
        }
        let retry_after = retry_after.or_else(|| threshold(&body).filter(|_| status == StatusCode::TOO_MANY_REQUESTS));
        Ok(Self { status, retry_after, body })
    }

    /// Its JSON. The parser's own limit bounds how deep it may nest.
    pub(crate) fn value(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Its text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What an answer says went wrong, wherever it says so: problem details (RFC 9457), `msg`, `error`, plain text.
pub(crate) fn message(answer: &Answer) -> String {
    let Some(value) = answer.value() else {
        let text = printable(&answer.text());
        return if text.is_empty() { "no reason given".to_owned() } else { text };
    };
    let mut parts: Vec<&str> = ["/detail", "/msg", "/message", "/error", "/title"]
        .iter()
        .filter_map(|at| value.pointer(at)?.as_str())
        .collect();
    parts.truncate(1);
    parts.extend(array(&value, "/errors").filter_map(Value::as_str));
    if parts.is_empty() { "no reason given".to_owned() } else { printable(&parts.join("; ")) }
}

/// Seconds out of `API requests too frequent endpoint threshold=4.5`: Vast.ai tells them there and not in a header.
fn threshold(body: &[u8]) -> Option<Duration> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("threshold=")?;
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').take(12).collect();
    Duration::try_from_secs_f64(number.parse().ok()?).ok()
}

/// The elements of the array at a place; none when there is none.
pub(crate) fn array<'a>(value: &'a Value, at: &str) -> impl Iterator<Item = &'a Value> {
    value.pointer(at).and_then(Value::as_array).into_iter().flatten()
}

/// A provider's text, safe to print: one line, no control characters, not too long.
pub(crate) fn printable(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_TOLD).collect();
    line.trim().to_owned()
}
