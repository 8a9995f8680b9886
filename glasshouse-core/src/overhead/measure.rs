//! From samples to a row.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;

use super::bar::{Exclusion, exclusions};
use super::figure::{Figure, Label};
use super::order::Mode;
use super::row::{Figures, Lifecycle, Observed, Outcome, PhaseMean, Row, RowFacts, mean};
use super::sample::{Attestation, Measurement, SegmentKind, SegmentSample};
use super::stats::{Estimate, Pair, RESAMPLES, estimate_pairs};
use crate::claims::RuntimeState;
use crate::traits::Device;

impl Measurement {
    /// Computes the row. Everything that keeps it from counting stands in its reasons.
    pub fn into_row(mut self) -> Row {
        self.segments.sort_by_key(|s| s.position);
        let facts = facts(&self);
        let mut reasons = exclusions(&self, &facts);
        let outcome = match figures(&self) {
            Some(figures) if reasons.is_empty() => Outcome::Counted(figures),
            _ => {
                if reasons.is_empty() {
                    reasons.push(Exclusion::OrderNotFollowed);
                }
                Outcome::Excluded { reasons, observed: observed(&self) }
            }
        };
        Row { facts, outcome }
    }
}

fn facts(run: &Measurement) -> RowFacts {
    let protections: Vec<_> = run
        .segments
        .iter()
        .filter_map(|s| match &s.kind {
            SegmentKind::Raw => None,
            SegmentKind::Protected(p) => Some(p),
        })
        .collect();
    let sessions = |mode| run.segments.iter().filter(|s| s.mode() == mode).map(|s| s.session).collect();
    let first = run.segments.first();
    let place = |s: &SegmentSample| (s.instance.clone(), s.device, s.gpu.clone());
    let state =
        protections.iter().map(|p| p.runtime_state).reduce(|a, b| if a == RuntimeState::Zeroized { b } else { a });
    RowFacts {
        run: run.run,
        sessions: sessions(Mode::Protected),
        raw_sessions: sessions(Mode::Raw),
        provider: run.provider.clone(),
        machine: run.machine.clone(),
        workload: run.workload.clone(),
        unit: run.unit,
        device: first.map_or(Device::Cpu, |s| s.device),
        gpu: first.and_then(|s| s.gpu.clone()),
        same_instance: first.is_some_and(|f| run.segments.iter().all(|s| place(s) == place(f))),
        duration_sec: Figure::new(run.duration_seconds).unwrap_or_default(),
        order: run.order,
        repeats: run.repeats,
        attestation: protections.iter().map(|p| p.attestation.clone()).reduce(weaker).unwrap_or(Attestation::Missing),
        runtime_state: state,
        cleanup: run.cleanup,
    }
}

fn weaker(a: Attestation, b: Attestation) -> Attestation {
    match (a, b) {
        (Attestation::Verified(a), Attestation::Verified(b)) => Attestation::Verified(a.min(b)),
        (Attestation::Verified(_), other) | (other, _) => other,
    }
}

/// The numbers, when every pair of the plan has both rates.
fn figures(run: &Measurement) -> Option<Figures> {
    let at = |i: usize| run.segments.iter().find(|s| s.position == i);
    let mut compared = Vec::new();
    for (raw, protected) in run.order.pairs(run.repeats) {
        compared.push((at(raw)?, at(protected)?));
    }
    let figure_rate = |s: &SegmentSample| s.rate().and_then(Figure::new);
    let pairs: Vec<_> =
        compared.iter().map(|(r, p)| Some((figure_rate(r)?, figure_rate(p)?))).collect::<Option<_>>()?;
    // The estimate starts from the rounded rates that the row publishes, so that a reader gets the same one.
    let inputs: Vec<_> = compared
        .iter()
        .zip(&pairs)
        .map(|((r, p), (raw, protected))| Pair {
            raw: raw.value(),
            protected: protected.value(),
            raw_stretches: &r.intervals,
            protected_stretches: &p.intervals,
        })
        .collect();
    let Estimate { overhead_pct, interval, method } = estimate_pairs(&inputs, RESAMPLES)?;
    let interval_pct = match interval {
        Some(i) => Some((Figure::new(i.low)?, Figure::new(i.high)?)),
        None => None,
    };
    Some(Figures {
        raw_rate: Figure::new(mean(pairs.iter().map(|(r, _)| r.value()))?)?,
        protected_rate: Figure::new(mean(pairs.iter().map(|(_, p)| p.value()))?)?,
        overhead_pct: Figure::new(overhead_pct)?,
        interval_pct,
        method,
        lifecycle: lifecycle(run)?,
        pairs,
    })
}

fn lifecycle(run: &Measurement) -> Option<Lifecycle> {
    let of = |mode| run.segments.iter().filter(move |s| s.mode() == mode);
    let phase = |mode, name: &Label| {
        let seconds = |s: &SegmentSample| s.phases.iter().filter(|p| p.name == *name).map(|p| p.seconds).sum::<f64>();
        Figure::new(mean(of(mode).map(seconds))?)
    };
    let whole = |mode| Figure::new(mean(of(mode).map(SegmentSample::lifecycle_seconds))?);
    let mut seen = BTreeSet::new();
    // Protected segments first: they have the phases of raw ones, and their own in between.
    let names = of(Mode::Protected).chain(of(Mode::Raw)).flat_map(|s| &s.phases).map(|p| &p.name);
    let phases = names
        .filter(|n| seen.insert((*n).clone()))
        .map(|name| {
            let (raw_sec, protected_sec) = (phase(Mode::Raw, name)?, phase(Mode::Protected, name)?);
            Some(PhaseMean { name: name.clone(), raw_sec, protected_sec })
        })
        .collect::<Option<_>>()?;
    Some(Lifecycle { raw_sec: whole(Mode::Raw)?, protected_sec: whole(Mode::Protected)?, phases })
}

fn observed(run: &Measurement) -> Observed {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let of = |mode| run.segments.iter().filter(move |s| s.mode() == mode);
    let rate = |mode| mean(of(mode).filter_map(SegmentSample::rate)).and_then(Figure::new);
    let digests: BTreeSet<_> = run.segments.iter().filter_map(|s| s.weights_after_warm_up).collect();
    Observed {
        segments_planned: count(run.order.plan(run.repeats).len()),
        raw_completed: count(of(Mode::Raw).filter(|s| s.completed).count()),
        protected_completed: count(of(Mode::Protected).filter(|s| s.completed).count()),
        distinct_weights: count(digests.len()),
        raw_rate: rate(Mode::Raw),
        protected_rate: rate(Mode::Protected),
    }
}
