//! What a runtime says while it runs, each saying signed and chained to the one before.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;
use crate::fixed::{Blob, Digest32, Digest48, Nonce32};
use crate::protocol::{Message, Signed};
use crate::traits::{Progress, Receipt};

/// The signed part of an event. The body is bound by its hash, so that a record can leave bodies out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventHeader {
    /// The session.
    pub session: Nonce32,
    /// From 0.
    pub seq: u64,
    /// Digest of the signed header before this one; of the genesis for the first.
    pub previous: Digest48,
    /// SHA-384 of the body's bytes.
    pub body: Digest48,
    /// Whether this event ends the chain.
    pub terminal: bool,
    /// The runtime's wall clock.
    pub at: UnixMillis,
    /// The runtime's boot clock, microseconds; differences of it are the timeline.
    pub boot_micros: u64,
}

impl Message for EventHeader {
    const LABEL: &'static str = "gh/event/1";
    const NAME: &'static str = "event header";
    const LIMIT: usize = 2048;
}

/// A signed header and its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Signed with the runtime's event key.
    pub header: Signed<EventHeader>,
    /// The encoded [`EventBody`].
    pub body: Blob,
}

/// Steps of the lifecycle, as they are entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The challenge arrived.
    Challenged,
    /// Evidence was made.
    Attested,
    /// The release was opened.
    Released,
    /// The package was opened.
    Opened,
    /// The workload is built on the device.
    Prepared,
    /// The first unit of training is done.
    FirstStep,
    /// Steady-state training began.
    Training,
    /// Training ended, artifacts are going out.
    Exporting,
    /// Wiping.
    Zeroizing,
}

/// Units done in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Units.
    pub units: u64,
    /// Microseconds on the boot clock.
    pub micros: u64,
}

/// How a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All that was asked.
    Completed,
    /// Stopped by the owner, by a signal or by the lease.
    Stopped,
    /// An error; the `Failed` event says which.
    Failed,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EventBody {
    /// A phase was entered, at this moment of the boot clock.
    Phase {
        /// Which.
        phase: Phase,
        /// Boot clock, microseconds; may lie before the header's when it was entered before events could be sent.
        boot_micros: u64,
    },
    /// Warm-up is over: the weights after exactly this many units.
    Warm {
        /// Uncounted units.
        units: u64,
        /// SHA-256 of the weights.
        weights: Digest32,
    },
    /// Progress.
    Progress {
        /// Where training stands.
        progress: Progress,
        /// Units and time since the last progress event.
        interval: Interval,
    },
    /// Steady-state training is over.
    Measured {
        /// All of it.
        total: Interval,
        /// SHA-256 of the weights at the end.
        weights: Digest32,
        /// The last loss known.
        loss: Option<f64>,
        /// How training ran, such as `eager` or `cuda-graph`.
        method: String,
    },
    /// The device it ran on.
    Device {
        /// `cpu`, or the GPU's model.
        model: String,
        /// Driver version; absent on a CPU.
        driver: Option<String>,
        /// The GPU's UUID; absent on a CPU.
        uuid: Option<String>,
    },
    /// An artifact waits in the outbox.
    Artifact {
        /// File name.
        name: String,
        /// SHA-256 of the artifact.
        sha256: Digest32,
        /// Its size.
        bytes: u64,
        /// SHA-256 of it as it was sealed; absent when it was not.
        sealed_sha256: Option<Digest32>,
    },
    /// Something failed.
    Failed {
        /// In which phase, in words.
        step: String,
        /// What and what to do.
        message: String,
    },
    /// Wiped and checked.
    Zeroized {
        /// What exactly.
        receipt: Receipt,
    },
    /// The end of the chain.
    End {
        /// How.
        outcome: Outcome,
        /// Why, unless completed.
        reason: Option<String>,
    },
}

impl EventBody {
    /// Largest encoding accepted.
    pub const LIMIT: usize = 1 << 18;

    /// Whether this ends the chain.
    pub const fn is_terminal(&self) -> bool {
        matches!(self, Self::End { .. })
    }
}
