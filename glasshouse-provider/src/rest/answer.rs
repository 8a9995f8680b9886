use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::clock;

/// What a provider says may be this long in a message for people.
const MAX_TOLD: usize = 300;
/// Characters of a line of a log.
const MAX_LOG_LINE: usize = 4096;

/// A whole answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// `Retry-After` (RFC 9110 section 10.2.3).
    pub(crate) retry_after: Option<Duration>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads it up to a limit; what is larger is no answer of use and reads as empty.
    pub(super) async fn read(mut response: Response, limit: usize) -> Result<Self, reqwest::Error> {
        let status = response.status();
        let now = UNIX_EPOCH.checked_add(Duration::from_millis(clock::wall().0)).unwrap_or(UNIX_EPOCH);
        let retry_after = retry_after(response.headers(), now);
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

/// Seconds, or until a date: by the clock of who wrote the answer (`Date`), by this machine's where that is not told. A date
/// that is past is no wait.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let wanted = text(RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(wanted).ok()?;
    let said_at = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
    Some(until.duration_since(said_at).unwrap_or_default())
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

/// The same of a longer text's end, where programs say why they failed.
pub(crate) fn printable_end(text: &str) -> String {
    let text = text.trim_end();
    let skipped = text.chars().count().saturating_sub(MAX_TOLD);
    printable(&text.chars().skip(skipped).collect::<String>())
}

/// A line of a log, safe to print: it may hold anything, and be longer than a message for people.
pub(crate) fn log_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).take(MAX_LOG_LINE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_one_line_of_some_length() {
        let long = format!("begin\u{1b}[31m{}\nend\n", "x".repeat(5000));
        assert!(printable(&long).starts_with("begin [31m") && printable(&long).chars().count() == MAX_TOLD);
        assert!(printable_end(&long).ends_with("x end") && printable_end(&long).chars().count() == MAX_TOLD);
        assert_eq!((printable_end(" a\nb \n"), log_line("a\tb\u{7}c")), ("a b".into(), "a\tb c".into()));
        assert_eq!(log_line(&long).chars().count(), MAX_LOG_LINE);
    }

    #[test]
    fn a_wait_is_in_seconds_or_until_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:00 GMT").unwrap();
        let wait = |after: &str, date: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, after.parse().unwrap());
            date.map(|date| headers.insert(DATE, date.parse().unwrap()));
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(
            (wait("12", None), wait(" 0 ", None), retry_after(&HeaderMap::new(), now)),
            (Some(12), Some(0), None)
        );
        // The three forms of RFC 9110 section 5.6.7.
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(wait(date, None), Some(37), "{date}");
        }
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wait(date, Some("Sun, 06 Nov 1994 08:49:30 GMT")), Some(7), "by the server's clock");
        assert_eq!(wait(date, Some("Mon, 07 Nov 1994 08:49:30 GMT")), Some(0), "it is over");
        for nonsense in ["soon", "-1", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT", ""] {
            assert_eq!(wait(nonsense, None), None, "{nonsense}");
        }
    }
}
