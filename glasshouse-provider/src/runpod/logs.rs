//! Logs as Server-Sent Events (WHATWG HTML section 9.2), read for a moment at a time.
//!
//! RunPod's document calls the id of an event a timestamp, and its example adds a counter to it; whether a stream
//! resumed there gives that line again is not said. So a position here is a timestamp and how many lines of it were
//! given, and the stream is resumed a second earlier: what was given is left out by count, and nothing is lost.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glasshouse_core::traits::{AllocationId, LogChunk, ProviderError};
use reqwest::Method;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use super::RunPodProvider;
use crate::rest::{Call, log_line};

/// The stream never ends by itself: it is read until it has been quiet for this long.
const QUIET: Duration = Duration::from_millis(400);
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 16 << 20;
/// The most that RunPod gives of the past.
const TAIL: &str = "5000";

impl RunPodProvider {
    pub(super) async fn read_logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        let position = after.and_then(Position::parse);
        let events = self.stream(id, "container", position.as_ref()).await?;
        let (mut lines, next) = since(events, position);
        if lines.is_empty() && after.is_none() {
            // Nothing of the container yet: what the host says tells why.
            let events = self.stream(id, "system", None).await?;
            lines = events.into_iter().map(|event| format!("[system] {}", event.line)).collect();
        }
        Ok(LogChunk { lines, next: next.map_or_else(String::new, |next| next.text()) })
    }

    async fn stream(
        &self,
        id: &AllocationId,
        source: &str,
        position: Option<&Position>,
    ) -> Result<Vec<Event>, ProviderError> {
        let mut call =
            Call::new("logs", "GET pods/logs", Method::GET, &["v2", "pods", &id.0, "logs"]).query("source", source);
        call = match position {
            Some(position) => call.query("since", position.a_second_before()),
            None => call.query("tail", TAIL),
        };
        let mut response = match self.api.open(&call).await {
            Err(ProviderError::Refused { why, .. }) if why.starts_with("status 404") => {
                return Err(self.api.not_found(id));
            }
            other => other?,
        };
        let (began, mut bytes) = (Instant::now(), Vec::new());
        while bytes.len() < MAX_BYTES {
            let patience = if bytes.is_empty() { FIRST } else { QUIET };
            let left = LONGEST.saturating_sub(began.elapsed()).min(patience);
            // Silence, the end and a broken connection all leave the whole events so far.
            let Ok(Ok(Some(piece))) = timeout(left, response.chunk()).await else { break };
            bytes.extend_from_slice(&piece);
        }
        Ok(parse(&bytes))
    }
}

/// One line of a log.
struct Event {
    at: Option<SystemTime>,
    line: String,
}

/// Whole events: one without the blank line after it is not whole (section 9.2.6).
fn parse(bytes: &[u8]) -> Vec<Event> {
    let text = String::from_utf8_lossy(bytes);
    let (mut events, mut data) = (Vec::new(), String::new());
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            events.extend(event(&std::mem::take(&mut data)));
        } else if let Some(rest) = line.strip_prefix("data:") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(rest.strip_prefix(' ').unwrap_or(rest));
        }
    }
    events
}

fn event(data: &str) -> Option<Event> {
    let value: Value = serde_json::from_str(data).ok()?;
    let at = value.pointer("/ts").and_then(Value::as_str).and_then(|ts| humantime::parse_rfc3339_weak(ts).ok());
    Some(Event { at, line: log_line(value.pointer("/line")?.as_str()?) })
}

/// Lines up to and with the `given`-th one of this time were given.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    at: SystemTime,
    given: usize,
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let (at, given) = text.rsplit_once('/')?;
        Some(Self { at: humantime::parse_rfc3339(at).ok()?, given: given.parse().ok()? })
    }

    fn text(&self) -> String {
        format!("{}/{}", humantime::format_rfc3339_nanos(self.at), self.given)
    }

    fn a_second_before(&self) -> String {
        let earlier = self.at.checked_sub(Duration::from_secs(1)).filter(|at| *at >= UNIX_EPOCH);
        humantime::format_rfc3339_seconds(earlier.unwrap_or(UNIX_EPOCH)).to_string()
    }
}

/// What comes after a position, and the position after that. A line without a time has that of the line before it.
fn since(events: Vec<Event>, position: Option<Position>) -> (Vec<String>, Option<Position>) {
    let mut lines = Vec::new();
    // Where the reading is, counted from the first line of its time on.
    let mut here: Option<Position> = None;
    let mut reached = position.clone();
    for event in events {
        let before = here.as_ref().map_or(UNIX_EPOCH, |here| here.at);
        let at = event.at.unwrap_or(before).max(before).max(UNIX_EPOCH);
        let given = match &here {
            Some(here) if here.at == at => here.given.saturating_add(1),
            _ => 1,
        };
        here = Some(Position { at, given });
        let is_new = position.as_ref().is_none_or(|known| (at, given) > (known.at, known.given));
        if is_new {
            lines.push(event.line);
            reached = Some(Position { at, given });
        }
    }
    (lines, reached)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stream(lines: &[(u32, &str)]) -> Vec<u8> {
        let event = |(second, line): &(u32, &str)| {
            let ts = format!("2026-06-01T12:00:{second:02}Z");
            format!("id: {ts}/1\ndata: {}\n\n", serde_json::json!({ "ts": ts, "source": "container", "line": line }))
        };
        lines.iter().map(event).collect::<String>().into_bytes()
    }

    #[test]
    fn resumed_without_loss_or_repeat() {
        let all = [(1, "a"), (2, "b"), (2, "b"), (2, "c"), (3, "d")];
        let whole: Vec<&str> = all.iter().map(|(_, line)| *line).collect();
        for cut in 0..=all.len() {
            let (mut lines, at) = since(parse(&stream(&all[..cut])), None);
            let at = at.map(|at| Position::parse(&at.text()).unwrap());
            // From the second before on, as `since` asks for; or less, should the provider take it to be exclusive.
            let from = at.as_ref().map_or(0, |at| {
                all.iter().position(|(s, _)| stream_time(*s) >= at.at - Duration::from_secs(1)).unwrap()
            });
            let (rest, end) = since(parse(&stream(&all[from..])), at);
            lines.extend(rest);
            assert_eq!(lines, whole, "cut at {cut}");
            assert_eq!(since(parse(&stream(&all[2..])), None).1.is_some(), end.is_some());
        }
    }

    fn stream_time(second: u32) -> SystemTime {
        humantime::parse_rfc3339(&format!("2026-06-01T12:00:{second:02}Z")).unwrap()
    }

    #[test]
    fn a_broken_event_waits_for_its_end() {
        let mut bytes = stream(&[(1, "whole")]);
        bytes.extend_from_slice(b"id: x\ndata: {\"line\":\"half\"");
        assert_eq!(parse(&bytes).len(), 1);
        let odd = b": comment\r\ndata: {\"line\":\r\ndata: \"two\\nlines\"}\r\n\r\ndata: no json\n\n";
        let events = parse(odd);
        assert_eq!(events.first().map(|event| event.line.as_str()), Some("two lines"));
        assert_eq!(events.len(), 1);
    }

    proptest! {
        #[test]
        fn nothing_in_a_stream_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), position in ".*") {
            let _ = since(parse(&bytes), Position::parse(&position));
        }
    }
}
