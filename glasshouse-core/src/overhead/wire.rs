//! A row as it is written: the published field names, flat, and every derived field checked when read back.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use super::bar::{Exclusion, fact_exclusions};
use super::figure::{Figure, Label};
use super::order::Order;
use super::row::{Figures, Lifecycle, Observed, Outcome, Row, RowFacts, Status, mean, plain};
use super::sample::{Attestation, Cleanup, GpuIdentity};
use super::stats::{IntervalMethod, MIN_PAIRS, overhead};
use crate::claims::{Assurance, RuntimeState};
use crate::fixed::Nonce32;
use crate::refusal::Code;
use crate::traits::{Device, Unit};

/// The most pairs or sessions of one row.
const MAX_PAIRS: usize = 1024;
/// The most phases of one row.
const MAX_PHASES: usize = 64;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RowWire {
    provider: Label,
    machine: Label,
    device: Device,
    gpu_model: Option<Label>,
    gpu_driver: Option<Label>,
    gpu_uuid: Option<Label>,
    same_instance: bool,
    workload: Label,
    unit: Unit,
    duration_sec: Figure,
    order: Order,
    repeats: u16,
    protected_epochs_per_sec: Option<Figure>,
    raw_epochs_per_sec: Option<Figure>,
    overhead_pct: Option<Figure>,
    interval_pct: Option<(Figure, Figure)>,
    method: IntervalMethod,
    pairs: Vec<PairWire>,
    lifecycle: Option<Lifecycle>,
    attestation: AttestationWord,
    assurance: Option<Assurance>,
    attestation_refusal: Option<Code>,
    runtime_state: Option<RuntimeState>,
    cleanup: Cleanup,
    status: Status,
    valid: bool,
    decision: Decision,
    reason: Option<String>,
    reasons: Vec<Exclusion>,
    observed: Option<Observed>,
    run_id: Nonce32,
    sessions: Vec<Nonce32>,
    raw_sessions: Vec<Nonce32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct PairWire {
    raw_epochs_per_sec: Figure,
    protected_epochs_per_sec: Figure,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AttestationWord {
    Verified,
    Refused,
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Decision {
    Counted,
    Excluded,
}

/// What is inconsistent in a row that was read.
#[derive(Debug, thiserror::Error)]
#[error("row of run {run}: {what}")]
pub(super) struct RowInconsistent {
    run: String,
    what: &'static str,
}

impl From<Row> for RowWire {
    fn from(row: Row) -> Self {
        let status = row.status();
        let Row { facts: f, outcome } = row;
        let (attestation, assurance, attestation_refusal) = match f.attestation {
            Attestation::Verified(assurance) => (AttestationWord::Verified, Some(assurance), None),
            Attestation::Refused(code) => (AttestationWord::Refused, None, Some(code)),
            Attestation::Missing => (AttestationWord::Missing, None, None),
        };
        let (gpu_model, gpu_driver, gpu_uuid) = match f.gpu {
            Some(gpu) => (Some(gpu.model), Some(gpu.driver), Some(gpu.uuid)),
            None => (None, None, None),
        };
        let (figures, reasons, observed) = match outcome {
            Outcome::Counted(figures) => (Some(figures), Vec::new(), None),
            Outcome::Excluded { reasons, observed } => (None, reasons, Some(observed)),
        };
        let valid = figures.is_some();
        let pair = |(raw, protected): &(Figure, Figure)| PairWire {
            raw_epochs_per_sec: *raw,
            protected_epochs_per_sec: *protected,
        };
        Self {
            provider: f.provider,
            machine: f.machine,
            device: f.device,
            gpu_model,
            gpu_driver,
            gpu_uuid,
            same_instance: f.same_instance,
            workload: f.workload,
            unit: f.unit,
            duration_sec: f.duration_sec,
            order: f.order,
            repeats: f.repeats,
            protected_epochs_per_sec: figures.as_ref().map(|f| f.protected_rate),
            raw_epochs_per_sec: figures.as_ref().map(|f| f.raw_rate),
            overhead_pct: figures.as_ref().map(|f| f.overhead_pct),
            interval_pct: figures.as_ref().and_then(|f| f.interval_pct),
            method: figures.as_ref().map_or(IntervalMethod::None, |f| f.method),
            pairs: figures.iter().flat_map(|f| &f.pairs).map(pair).collect(),
            lifecycle: figures.map(|f| f.lifecycle),
            attestation,
            assurance,
            attestation_refusal,
            runtime_state: f.runtime_state,
            cleanup: f.cleanup,
            status,
            valid,
            decision: if valid { Decision::Counted } else { Decision::Excluded },
            reason: reason(&reasons),
            reasons,
            observed,
            run_id: f.run,
            sessions: f.sessions,
            raw_sessions: f.raw_sessions,
        }
    }
}

impl TryFrom<RowWire> for Row {
    type Error = RowInconsistent;

    fn try_from(w: RowWire) -> Result<Self, RowInconsistent> {
        let run = w.run_id.short();
        check(&w).map_err(|what| RowInconsistent { run: run.clone(), what })?;
        let counted = figures(&w);
        let facts = facts(&w).map_err(|what| RowInconsistent { run: run.clone(), what })?;
        let outcome = match (w.decision, counted, w.observed) {
            (Decision::Counted, Some(figures), None) if w.reasons.is_empty() && fact_exclusions(&facts).is_empty() => {
                Outcome::Counted(figures)
            }
            (Decision::Excluded, None, Some(observed)) if !w.reasons.is_empty() => {
                if fact_exclusions(&facts).iter().any(|r| !w.reasons.contains(r)) {
                    return Err(RowInconsistent { run, what: "its facts exclude it for more reasons than it gives" });
                }
                Outcome::Excluded { reasons: w.reasons, observed }
            }
            _ => {
                return Err(RowInconsistent {
                    run,
                    what: "it counts without meeting the evidence bar, or the reverse",
                });
            }
        };
        Ok(Self { facts, outcome })
    }
}

/// Everything that one field says of another.
fn check(w: &RowWire) -> Result<(), &'static str> {
    let phases = w.lifecycle.as_ref().map_or(0, |l| l.phases.len());
    let planned = usize::from(w.repeats).saturating_mul(if w.order == Order::Abba { 2 } else { 1 });
    let size = w.pairs.len().max(w.sessions.len()).max(w.raw_sessions.len());
    let code = w.attestation_refusal.as_ref().is_none_or(|c| is_code(c.as_str()));
    let sorted = w.reasons.is_sorted_by(|a, b| a < b);
    let bars = [
        (size <= MAX_PAIRS && phases <= MAX_PHASES, "it is too large"),
        (w.status == Status::of(w.duration_sec.value()), "status does not follow from durationSec"),
        (w.duration_sec.value() >= 0.0, "durationSec is negative"),
        (w.valid == (w.decision == Decision::Counted), "valid and decision disagree"),
        (sorted && w.reason == reason(&w.reasons), "reason does not follow from reasons"),
        (!w.valid || w.pairs.len() == planned, "it has not the pairs that its order plans"),
        (!w.valid || w.sessions.len() == w.pairs.len(), "it has not one session for each protected segment"),
        (!w.valid || w.raw_sessions.len() == w.pairs.len(), "it has not one raw session for each raw segment"),
        (code, "attestationRefusal is no code"),
        (
            w.valid || w.pairs.is_empty() && w.lifecycle.is_none() && w.interval_pct.is_none(),
            "it is excluded but has figures",
        ),
    ];
    bars.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))?;
    if w.valid { check_figures(w) } else { Ok(()) }
}

/// Rates, overhead and interval against the pairs that they were computed from.
fn check_figures(w: &RowWire) -> Result<(), &'static str> {
    let pairs: Vec<_> = w.pairs.iter().map(|p| (p.raw_epochs_per_sec, p.protected_epochs_per_sec)).collect();
    let pairs = plain(&pairs);
    let is = |field: Option<Figure>, value: Option<f64>| {
        field.zip(value).is_some_and(|(f, v)| (f.value() - v).abs() <= 1e-9 * v.abs().max(1.0))
    };
    let (raw, protected) = (mean(pairs.iter().map(|p| p.0)), mean(pairs.iter().map(|p| p.1)));
    let pct = raw.zip(protected).map(|(r, p)| overhead(r, p));
    let holds_estimate = match (w.interval_pct, w.overhead_pct) {
        (Some((low, high)), Some(pct)) => low <= pct && pct <= high,
        _ => true,
    };
    let method = match (w.interval_pct, w.pairs.len() >= MIN_PAIRS) {
        (None, false) => IntervalMethod::None,
        (Some(_), true) => IntervalMethod::PairedBootstrap,
        (Some(_), false) => IntervalMethod::MovingBlockWithinRun,
        (None, true) => return Err("it has pairs enough for an interval and none"),
    };
    let bars = [
        (pairs.iter().all(|p| p.0 > 0.0 && p.1 > 0.0), "a rate is not positive"),
        (is(w.raw_epochs_per_sec, raw), "rawEpochsPerSec is not the mean of its pairs"),
        (is(w.protected_epochs_per_sec, protected), "protectedEpochsPerSec is not the mean of its pairs"),
        (is(w.overhead_pct, pct), "overheadPct does not follow from the rates"),
        (holds_estimate, "intervalPct does not hold overheadPct"),
        (w.method == method, "method does not follow from the pairs"),
    ];
    bars.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, what)| Err(what))
}

fn figures(w: &RowWire) -> Option<Figures> {
    Some(Figures {
        pairs: w.pairs.iter().map(|p| (p.raw_epochs_per_sec, p.protected_epochs_per_sec)).collect(),
        raw_rate: w.raw_epochs_per_sec?,
        protected_rate: w.protected_epochs_per_sec?,
        overhead_pct: w.overhead_pct?,
        interval_pct: w.interval_pct,
        method: w.method,
        lifecycle: w.lifecycle.clone()?,
    })
}

fn facts(w: &RowWire) -> Result<RowFacts, &'static str> {
    let attestation = match (w.attestation, w.assurance, &w.attestation_refusal) {
        (AttestationWord::Verified, Some(assurance), None) => Attestation::Verified(assurance),
        (AttestationWord::Refused, None, Some(code)) => Attestation::Refused(code.clone()),
        (AttestationWord::Missing, None, None) => Attestation::Missing,
        _ => return Err("attestation is verified exactly when assurance stands beside it"),
    };
    let gpu = match (&w.gpu_model, &w.gpu_driver, &w.gpu_uuid) {
        (Some(model), Some(driver), Some(uuid)) => {
            Some(GpuIdentity { model: model.clone(), driver: driver.clone(), uuid: uuid.clone() })
        }
        (None, None, None) => None,
        _ => return Err("gpuModel, gpuDriver and gpuUuid come together"),
    };
    Ok(RowFacts {
        run: w.run_id,
        sessions: w.sessions.clone(),
        raw_sessions: w.raw_sessions.clone(),
        provider: w.provider.clone(),
        machine: w.machine.clone(),
        workload: w.workload.clone(),
        unit: w.unit,
        device: w.device,
        gpu,
        same_instance: w.same_instance,
        duration_sec: w.duration_sec,
        order: w.order,
        repeats: w.repeats,
        attestation,
        runtime_state: w.runtime_state,
        cleanup: w.cleanup,
    })
}

/// Codes are lower-case words joined by hyphens: nothing else can ride in one.
fn is_code(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn reason(reasons: &[Exclusion]) -> Option<String> {
    let sentences: Vec<_> = reasons.iter().map(|r| r.sentence()).collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}
