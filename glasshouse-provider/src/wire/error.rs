#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fmt;

use glasshouse_core::refusal::one_line;
use serde::{Deserialize, Serialize};

/// The stable name of one reason why an agent did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum WireCode {
    /// The MAC is missing or does not verify.
    Unauthenticated,
    /// This counter was used before, or is too old to tell.
    Replayed,
    /// The request is for an agent that was here before: this one was started anew and knows nothing of it.
    Restarted,
    /// The body is not what the path takes.
    Malformed,
    /// The body is larger than its limit.
    TooLarge,
    /// No such path.
    NoSuchPath,
    /// No such segment.
    NoSuchSegment,
    /// No such package, or not all of it is there.
    NoSuchPackage,
    /// No such artifact.
    NoSuchArtifact,
    /// A piece does not begin where the last one ended.
    OffsetMismatch,
    /// The package that was uploaded has another digest.
    PackageDigestMismatch,
    /// A segment of this id exists with other parameters, or one is running.
    SegmentExists,
    /// The segment is not at a step that takes this.
    WrongStep,
    /// The segment refused; the message holds its refusal.
    SegmentRefused,
    /// The segment ended before it answered.
    SegmentEnded,
    /// The segment did not answer in time.
    SegmentSilent,
    /// The machine could not do it: disk, memory, processes.
    Machine,
    /// The agent is going away.
    ShuttingDown,
    /// A code of a later version.
    #[serde(other)]
    Unknown,
}

impl WireCode {
    /// The HTTP status (RFC 9110) that carries it.
    pub const fn status(self) -> u16 {
        match self {
            Self::Unauthenticated | Self::Replayed | Self::Restarted => 401,
            Self::Malformed => 400,
            Self::TooLarge => 413,
            Self::NoSuchPath | Self::NoSuchSegment | Self::NoSuchPackage | Self::NoSuchArtifact => 404,
            Self::OffsetMismatch | Self::SegmentExists | Self::WrongStep => 409,
            Self::PackageDigestMismatch | Self::SegmentRefused => 422,
            Self::SegmentEnded => 410,
            Self::SegmentSilent => 504,
            Self::Machine | Self::Unknown => 500,
            Self::ShuttingDown => 503,
        }
    }

    /// Whether the same request may do better a little later.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::SegmentSilent | Self::Machine)
    }
}

impl fmt::Display for WireCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// An agent's answer when it did not do what it was asked. One JSON object on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {}", one_line(.message))] // a proxy on the way can write it
pub struct WireError {
    /// The stable reason.
    pub code: WireCode,
    /// One sentence for people.
    pub message: String,
    /// The segment's own refusal, for [`WireCode::SegmentRefused`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Box<glasshouse_core::refusal::Refusal>>,
}

impl WireError {
    /// An error with one sentence for people.
    pub fn new(code: WireCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string(), refusal: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_proxy_writes_is_shown_as_one_clean_line() {
        let json = format!(r#"{{"code":"malformed","message":"\u001b[2J{}"}}"#, "x".repeat(1 << 20));
        let shown = serde_json::from_str::<WireError>(&json).unwrap().to_string();
        assert!(shown.len() < 400 && !shown.contains(char::is_control), "{shown}");
    }
}
