//! What a run brings home, before anything is computed from it.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use super::figure::{Figure, Label};
use super::order::{Mode, Order};
use crate::claims::{Assurance, RuntimeState};
use crate::fixed::{Digest32, Nonce32};
use crate::refusal::Code;
use crate::traits::{Device, Unit};

/// The outcome of an appraisal. It cannot say "verified" without saying how far that can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// The owner's verifier accepted the evidence.
    Verified(Assurance),
    /// It refused, for this reason.
    Refused(Code),
    /// No evidence was seen.
    Missing,
}

/// Whether the allocation was seen to be gone after the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cleanup {
    /// It was asked to end and its absence was observed.
    Observed,
    /// It was asked to end, but nobody saw that it did.
    Unconfirmed,
    /// It was left running on purpose.
    Kept,
}

impl Cleanup {
    /// The name as it stands in rows.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Unconfirmed => "unconfirmed",
            Self::Kept => "kept",
        }
    }
}

/// What a protected segment ended with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protection {
    /// Its appraisal.
    pub attestation: Attestation,
    /// The last state that its signed events report.
    pub runtime_state: RuntimeState,
}

/// Raw, or protected with what protection left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// The training loop alone.
    Raw,
    /// The same loop inside the protected lifecycle.
    Protected(Protection),
}

/// Which GPU computed, as its driver names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct GpuIdentity {
    /// Marketing name, `NVIDIA H200`.
    pub model: Label,
    /// Driver version.
    pub driver: Label,
    /// The driver's unique id of the device.
    pub uuid: Label,
}

/// A stretch of steady-state training, the unit of the moving-block bootstrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateInterval {
    /// Units done in it.
    pub units: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// One phase of a segment's whole life: `boot`, `attest`, `open`, `warm-up`, `steady`, `export`, `zeroize`, …
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Its name.
    pub name: Label,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// One segment, measured in a fresh process.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentSample {
    /// Its session; raw segments have one too, for their event chain.
    pub session: Nonce32,
    /// Raw or protected.
    pub kind: SegmentKind,
    /// Its place in [`Order::plan`], from 0.
    pub position: usize,
    /// Whether it trained for its whole duration and ended by itself.
    pub completed: bool,
    /// Units done in the steady state; warm-up does not count.
    pub units: u64,
    /// Length of the steady state, in seconds.
    pub seconds: f64,
    /// The steady state in stretches, in order.
    pub intervals: Vec<RateInterval>,
    /// The whole life, phase by phase, in order.
    pub phases: Vec<Phase>,
    /// SHA-256 of the weights after exactly K uncounted warm-up units.
    pub weights_after_warm_up: Option<Digest32>,
    /// SHA-256 of the weights at the end.
    pub weights_at_end: Option<Digest32>,
    /// How it trained, in the workload's words (`cpu-fused`); nothing when it measured nothing. Compared.
    pub method: Option<String>,
    /// Where it computed.
    pub device: Device,
    /// The GPU, on a GPU.
    pub gpu: Option<GpuIdentity>,
    /// What tells this instance from any other (container id with its source, boot id). Compared, never published.
    pub instance: String,
    /// Peak resident memory, where it can be read.
    pub peak_rss_bytes: Option<u64>,
}

impl SegmentSample {
    /// Raw or protected.
    pub const fn mode(&self) -> Mode {
        match self.kind {
            SegmentKind::Raw => Mode::Raw,
            SegmentKind::Protected(_) => Mode::Protected,
        }
    }

    /// Steady-state rate in units per second; nothing when it is not a positive finite number.
    pub fn rate(&self) -> Option<f64> {
        let rate = self.units as f64 / self.seconds;
        (self.seconds > 0.0 && rate > 0.0 && Figure::new(rate).is_some_and(|r| r.value() > 0.0)).then_some(rate)
    }

    /// Length of the whole life, in seconds.
    pub fn lifecycle_seconds(&self) -> f64 {
        self.phases.iter().map(|p| p.seconds).sum()
    }
}

/// One run of an order on one allocation: everything that a row is computed from.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// The run; a record that carries the row has the same.
    pub run: Nonce32,
    /// The provider's stable name.
    pub provider: Label,
    /// What the machine is (`2 x Xeon 8481C`), never what it is called.
    pub machine: Label,
    /// Name of the workload, with its shape: `mlp/reference`.
    pub workload: Label,
    /// What a unit is.
    pub unit: Unit,
    /// The order of the segments.
    pub order: Order,
    /// How often the order was repeated.
    pub repeats: u16,
    /// The steady state that each segment was asked for, in seconds.
    pub duration_seconds: f64,
    /// The segments that were started, in any order.
    pub segments: Vec<SegmentSample>,
    /// What became of the allocation.
    pub cleanup: Cleanup,
}
