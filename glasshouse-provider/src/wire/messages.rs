#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fmt;

use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::fixed::{Blob, Digest48, Nonce32};
use glasshouse_core::refusal::one_line;
use serde::{Deserialize, Serialize};

/// The owner's name for a segment: 1 to 64 of `a-z`, `0-9` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct SegmentId(String);

impl SegmentId {
    /// A segment's name, when it is one.
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=64).contains(&name.len());
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (fits && plain).then(|| Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SegmentId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::new(&name).ok_or_else(|| serde::de::Error::custom("a segment id is 1 to 64 of a-z, 0-9 and -"))
    }
}

/// Whether a segment goes through the protected lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SegmentMode {
    /// No attestation, no release, no zeroization: the baseline. Exposes its data to the allocation.
    Raw,
    /// The whole lifecycle.
    Protected,
}

impl fmt::Display for SegmentMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// The step that a segment is in, as it last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum SegmentStep {
    /// The process is being started.
    Start,
    /// It applies and reads back its protections.
    Harden,
    /// It waits for a challenge.
    AwaitChallenge,
    /// It makes evidence.
    Attest,
    /// It waits for the release.
    AwaitRelease,
    /// It opens the package.
    OpenPackage,
    /// It prepares the workload.
    Prepare,
    /// It does the uncounted units.
    WarmUp,
    /// It trains.
    Train,
    /// It hands out artifacts.
    Export,
    /// It wipes what it held.
    Zeroize,
    /// It waits for its results to be acknowledged.
    AwaitAck,
    /// It is done.
    Done,
}

impl fmt::Display for SegmentStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// When a segment entered a step, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepMark {
    /// The step.
    pub step: SegmentStep,
    /// The allocation's boot clock, microseconds.
    pub boot_micros: u64,
}

/// How a segment's process ended, and in which step. The agent saw this; the runtime did not sign it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentExit {
    /// Exit code, when it ended by itself.
    pub code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// The step that it was in.
    pub step: SegmentStep,
    /// The last sequence number in the outbox, so that what is lost has a bound.
    pub last_seq: Option<u64>,
    /// What the process said of its end, when it could.
    pub reason: Option<String>,
}

impl fmt::Display for SegmentExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.code, self.signal) {
            (_, Some(signal)) => write!(f, "killed by signal {signal} in step {}", self.step)?,
            (Some(code), None) => write!(f, "ended with exit code {code} in step {}", self.step)?,
            (None, None) => write!(f, "ended in step {}", self.step)?,
        }
        match &self.reason {
            Some(reason) => write!(f, ": {}", one_line(reason)),
            None => Ok(()),
        }
    }
}

/// Answer to `GET /v1/hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Always `glasshouse-agent`.
    pub service: String,
    /// Version of the crate.
    pub version: String,
    /// The allocation's name, as it was launched.
    pub name: String,
    /// Random for each start of the agent. Every later request is for the process that has this id.
    pub boot: Nonce32,
    /// The agent's process id, in its own namespace.
    pub pid: u32,
    /// Boot clock of the machine, milliseconds.
    pub boot_millis: u64,
    /// The segments that there are, in the order in which they were started.
    pub segments: Vec<SegmentStatus>,
}

/// Where one segment stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentStatus {
    /// Its id.
    pub id: SegmentId,
    /// Its mode.
    pub mode: SegmentMode,
    /// Its process id, in the agent's namespace.
    pub pid: Option<u32>,
    /// Its step.
    pub step: SegmentStep,
    /// Every step so far, in order.
    pub steps: Vec<StepMark>,
    /// The last sequence number in the outbox.
    pub last_seq: Option<u64>,
    /// How it ended, once it did.
    pub exit: Option<SegmentExit>,
}

/// Body of `POST /v1/segments`. The same body again is answered like the first time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartSegment {
    /// Its id.
    pub id: SegmentId,
    /// Its mode.
    pub mode: SegmentMode,
    /// The session that it is started for.
    pub session: Nonce32,
    /// The attestor that it attests with; a raw one only runs under its protections.
    pub attestor: EvidenceKind,
    /// SHA-384 of the uploaded file that it opens.
    pub package: Digest48,
    /// For a raw segment: its job, with the key of its package sealed under the launch secret. A protected one has both
    /// out of the release.
    pub job: Option<Blob>,
}

/// Answer to `GET` and `PUT /v1/packages/{digest}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageStatus {
    /// Bytes that are there; the next piece begins here.
    pub size: u64,
    /// Whether the digest was checked and the package can be opened.
    pub complete: bool,
}

/// One record in the outbox: sealed, resent byte-identical.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutboxRecord {
    /// Its sequence number.
    pub seq: u64,
    /// The sealed record, as core encodes it.
    pub record: Blob,
}

/// An artifact that can be downloaded: sealed in a protected run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArtifactEntry {
    /// Its name.
    pub name: String,
    /// Its size as it is downloaded, bytes.
    pub size: u64,
}

/// Answer to `GET /v1/segments/{id}/records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordsPage {
    /// Records after the one asked for, oldest first; as many as fit.
    pub records: Vec<OutboxRecord>,
    /// Where the segment stands.
    pub status: SegmentStatus,
    /// What can be downloaded.
    pub artifacts: Vec<ArtifactEntry>,
}

/// Body of `POST /v1/segments/{id}/ack`: everything up to `through` is durable at the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AckRequest {
    /// The last sequence number that the owner has.
    pub through: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_ids() {
        for good in ["a", "raw-0", "0"] {
            assert!(SegmentId::new(good).is_some(), "{good}");
        }
        for bad in ["", "A", "a/b", "..", "a b", &"x".repeat(65)] {
            assert!(SegmentId::new(bad).is_none(), "{bad}");
            assert!(serde_json::from_value::<SegmentId>(serde_json::json!(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_exit_names_its_step() {
        let mut exit =
            SegmentExit { code: None, signal: Some(9), step: SegmentStep::Train, last_seq: Some(4), reason: None };
        assert_eq!(exit.to_string(), "killed by signal 9 in step train");
        (exit.signal, exit.code, exit.step) = (None, Some(3), SegmentStep::AwaitRelease);
        assert_eq!(exit.to_string(), "ended with exit code 3 in step await-release");
        exit.reason = Some(format!("\u{1b}[2J{}", "x".repeat(1 << 20)));
        let shown = exit.to_string();
        assert!(shown.len() < 400 && !shown.contains(char::is_control), "{shown}");
    }
}
