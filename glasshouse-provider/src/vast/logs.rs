//! Logs by polling: each request has the tail of the log put at an address, where it appears after a while.
//!
//! Lines have no numbers there. A position is how many lines were given, with a digest of the last of them: while the
//! whole log fits into what is asked for, the count says where to go on; after that, the digest does.

use std::time::Duration;

use glasshouse_core::traits::{AllocationId, LogChunk, ProviderError};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::VastProvider;
use crate::rest::{Call, log_line};

const TAIL: usize = 10_000;
/// Lines that a position's digest is over.
const MARK: usize = 8;
const LOOKS: u32 = 8;
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

impl VastProvider {
    pub(super) async fn read_logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        let path = ["api", "v0", "instances", "request_logs", self.number(id)?];
        let call = self.call("logs", "PUT request_logs/id", Method::PUT, &path, 2000);
        let call = call.json(json!({ "tail": TAIL.to_string() }));
        let answer = self.api.send(&call).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(self.api.not_found(id));
        }
        let value = self.success(&call, &answer)?;
        let url = value.pointer("/result_url").and_then(Value::as_str);
        let text = match url {
            Some(url) => self.fetch(&call, url).await?,
            None => return Err(self.api.unintelligible(&call, "it tells no address of the log")),
        };
        let lines: Vec<String> = text.lines().map(log_line).collect();
        let from = after.and_then(Position::parse).map_or(0, |position| position.find(&lines));
        let next = Position::at_end(&lines).text();
        Ok(LogChunk { lines: lines.into_iter().skip(from).collect(), next })
    }

    /// The log, once it is there; empty when it is not there in time.
    async fn fetch(&self, call: &Call, url: &str) -> Result<String, ProviderError> {
        for look in 0..LOOKS {
            if look > 0 {
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
            // Without the key: this is another host.
            let answer = self.api.fetch(call, url).await?;
            if answer.status.is_success() {
                return Ok(answer.text());
            }
        }
        Ok(String::new())
    }
}

struct Position {
    given: usize,
    mark: String,
}

impl Position {
    fn at_end(lines: &[String]) -> Self {
        Self { given: lines.len(), mark: mark(lines, lines.len()) }
    }

    fn parse(text: &str) -> Option<Self> {
        let (given, mark) = text.split_once('/')?;
        Some(Self { given: given.parse().ok()?, mark: mark.to_owned() })
    }

    fn text(&self) -> String {
        format!("{}/{}", self.given, self.mark)
    }

    /// Where the lines after this position begin. A log that does not know it has begun anew: all of it is after.
    fn find(&self, lines: &[String]) -> usize {
        if self.given == 0 {
            return 0;
        }
        let knows = |end: &usize| *end > 0 && mark(lines, *end) == self.mark;
        let counted = Some(self.given).filter(|given| *given <= lines.len()).filter(&knows);
        counted.or_else(|| (1..=lines.len()).rev().find(knows)).unwrap_or(0)
    }
}

/// A digest of the lines that end before `end`.
fn mark(lines: &[String], end: usize) -> String {
    let last = lines.get(end.saturating_sub(MARK)..end).unwrap_or_default();
    let digest = last.iter().fold(Sha256::new(), |digest, line| digest.chain_update(line).chain_update("\n"));
    digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(range: std::ops::Range<u32>) -> Vec<String> {
        // Lines repeat, as lines of logs do.
        range.map(|i| format!("step {}", if i % 3 == 0 { 0 } else { i })).collect()
    }

    #[test]
    fn resumed_without_loss_or_repeat() {
        let whole = log(0..100);
        for cut in 0..100 {
            let position = Position::at_end(whole.get(..cut).unwrap());
            let position = Position::parse(&position.text()).unwrap();
            assert_eq!(position.find(&whole), cut);
            // The start of the log has been cut off meanwhile.
            if cut >= 60 {
                let tail = log(50..100);
                assert_eq!(position.find(&tail), cut - 50);
            }
        }
        let elsewhere = Position::at_end(&log(0..30));
        assert_eq!(elsewhere.find(&log(500..520)), 0, "another log is given whole");
        assert!(Position::parse("x/y").is_none() && Position::parse("").is_none());
    }
}
