//! One row of a report: a run's overhead, or why it has none.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::bar::Exclusion;
use super::figure::{Figure, Label};
use super::order::Order;
use super::sample::{Attestation, Cleanup, GpuIdentity};
use super::stats::IntervalMethod;
use crate::claims::{Assurance, RuntimeState};
use crate::fixed::Nonce32;
use crate::traits::{Device, Unit};

/// One run's result. Made by [`Measurement::into_row`](super::Measurement::into_row) or read from a file, and held to the evidence bar in both:
/// an excluded row has no figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "super::wire::RowWire", into = "super::wire::RowWire")]
pub struct Row {
    pub(super) facts: RowFacts,
    pub(super) outcome: Outcome,
}

/// What is known of a run whether it counts or not.
#[derive(Clone, Debug, PartialEq)]
pub struct RowFacts {
    /// The run; a record that carries the row has the same.
    pub run: Nonce32,
    /// Sessions of its protected segments, in order: the session of each pair, when it counts.
    pub sessions: Vec<Nonce32>,
    /// Sessions of its raw segments, likewise.
    pub raw_sessions: Vec<Nonce32>,
    /// The provider's stable name.
    pub provider: Label,
    /// What the machine is.
    pub machine: Label,
    /// Name of the workload, with its shape.
    pub workload: Label,
    /// What a unit is; the published fields call it an epoch.
    pub unit: Unit,
    /// Where it computed.
    pub device: Device,
    /// The GPU, on a GPU.
    pub gpu: Option<GpuIdentity>,
    /// Whether every segment ran on one instance and device.
    pub same_instance: bool,
    /// The steady state of each segment, in seconds.
    pub duration_sec: Figure,
    /// The order of the segments.
    pub order: Order,
    /// How often the order was repeated.
    pub repeats: u16,
    /// The weakest appraisal of its protected segments.
    pub attestation: Attestation,
    /// The state that its protected segments ended in, the first that is not zeroized; nothing when none ran.
    pub runtime_state: Option<RuntimeState>,
    /// What became of the allocation.
    pub cleanup: Cleanup,
}

/// Whether a row counts.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It meets the evidence bar.
    Counted(Figures),
    /// It does not.
    Excluded {
        /// Why; never empty.
        reasons: Vec<Exclusion>,
        /// What was seen all the same.
        observed: Observed,
    },
}

/// The numbers of a row that counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Rates of each pair in units per second: (raw, protected).
    pub pairs: Vec<(Figure, Figure)>,
    /// Mean rate of the raw segments, units per second.
    pub raw_rate: Figure,
    /// Mean rate of the protected segments, units per second.
    pub protected_rate: Figure,
    /// `(raw - protected) / raw * 100`; negative when protected happened to be faster, and then noise.
    pub overhead_pct: Figure,
    /// Its 95 % interval, (low, high); nothing when too little was measured.
    pub interval_pct: Option<(Figure, Figure)>,
    /// How the interval was made.
    pub method: IntervalMethod,
    /// The whole life of a segment, apart from the steady state.
    pub lifecycle: Lifecycle,
}

impl Figures {
    /// Whether the overhead cannot be told from none: it is not positive, or its interval holds zero.
    pub fn is_within_noise(&self) -> bool {
        self.overhead_pct.value() <= 0.0 || self.interval_pct.is_some_and(|(low, _)| low.value() <= 0.0)
    }
}

/// Mean length of a segment's whole life, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Lifecycle {
    /// Raw segments.
    pub raw_sec: Figure,
    /// Protected segments.
    pub protected_sec: Figure,
    /// Phase by phase, in the order of their first appearance.
    pub phases: Vec<PhaseMean>,
}

/// One phase's mean length, in seconds; zero where a mode has no such phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PhaseMean {
    /// Its name.
    pub name: Label,
    /// Raw segments.
    pub raw_sec: Figure,
    /// Protected segments.
    pub protected_sec: Figure,
}

/// What was seen of a run that does not count. Rates stand here and nowhere else in its row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Observed {
    /// Segments that the order plans.
    pub segments_planned: u32,
    /// Raw segments that ran their course.
    pub raw_completed: u32,
    /// Protected segments that ran their course.
    pub protected_completed: u32,
    /// Distinct weights digests after warm-up; 1 when all computed the same.
    pub distinct_weights: u32,
    /// Mean raw rate of the segments that had one, units per second.
    pub raw_rate: Option<Figure>,
    /// Mean protected rate of the segments that had one, units per second.
    pub protected_rate: Option<Figure>,
}

/// How much a row's duration lets one conclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Under 300 s a segment: shows that nothing is badly wrong, no more.
    NoiseCheck,
    /// From 300 s.
    Extended,
    /// From 900 s: thermal and clock behaviour has settled.
    Sustained,
}

impl Status {
    /// The status of a segment duration in seconds.
    pub fn of(seconds: f64) -> Self {
        match seconds {
            s if s >= 900.0 => Self::Sustained,
            s if s >= 300.0 => Self::Extended,
            _ => Self::NoiseCheck,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoiseCheck => "noise check",
            Self::Extended => "extended",
            Self::Sustained => "sustained",
        })
    }
}

impl Row {
    /// What is known of the run whether it counts or not.
    pub fn facts(&self) -> &RowFacts {
        &self.facts
    }

    /// Whether it counts, with its numbers or its reasons.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Its numbers; nothing when it does not count.
    pub fn figures(&self) -> Option<&Figures> {
        match &self.outcome {
            Outcome::Counted(figures) => Some(figures),
            Outcome::Excluded { .. } => None,
        }
    }

    /// Whether it counts.
    pub fn is_valid(&self) -> bool {
        self.figures().is_some()
    }

    /// How far its attestation can be believed, when it was verified.
    pub fn assurance(&self) -> Option<Assurance> {
        match self.facts.attestation {
            Attestation::Verified(assurance) => Some(assurance),
            Attestation::Refused(_) | Attestation::Missing => None,
        }
    }

    /// How much its duration lets one conclude.
    pub fn status(&self) -> Status {
        Status::of(self.facts.duration_sec.value())
    }

    /// Computes the paired interval again from the pairs and compares; a row whose interval was not made by this
    /// bootstrap from these pairs gives `false`. Moving-block intervals rest on stretches that a row does not carry.
    pub fn interval_is_reproducible(&self) -> bool {
        let Some(figures) = self.figures() else { return true };
        if figures.method != IntervalMethod::PairedBootstrap {
            return true;
        }
        let again = super::stats::estimate(&plain(&figures.pairs)).and_then(|e| e.interval);
        let (Some(again), Some((low, high))) = (again, figures.interval_pct) else { return false };
        // Another platform's `exp` may move a percentile by one place.
        let tolerance = 1e-6 + 0.02 * (again.high - again.low);
        (again.low - low.value()).abs() <= tolerance && (again.high - high.value()).abs() <= tolerance
    }
}

/// The headline: the longest raw-first row that counts.
pub fn headline(rows: &[Row]) -> Option<&Row> {
    let longest = |best: Option<_>, row| match best {
        Some(b) if duration(b) >= duration(row) => Some(b),
        _ => Some(row),
    };
    rows.iter().filter(|r| r.is_valid() && r.facts.order == Order::RawFirst).fold(None, longest)
}

/// Median overhead of the rows that count, in percent.
pub fn median_overhead(rows: &[Row]) -> Option<f64> {
    let mut all: Vec<_> = rows.iter().filter_map(Row::figures).map(|f| f.overhead_pct.value()).collect();
    all.sort_unstable_by(f64::total_cmp);
    let upper = *all.get(all.len() / 2)?;
    let lower = *all.get(all.len().saturating_sub(1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

pub(super) fn plain(pairs: &[(Figure, Figure)]) -> Vec<(f64, f64)> {
    pairs.iter().map(|(r, p)| (r.value(), p.value())).collect()
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, n) = values.fold((0.0, 0u32), |(s, n), v| (s + v, n.saturating_add(1)));
    (n > 0).then(|| sum / f64::from(n))
}

fn duration(row: &Row) -> f64 {
    row.facts.duration_sec.value()
}
