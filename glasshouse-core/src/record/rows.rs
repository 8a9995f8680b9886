//! Whether overhead rows belong to this record, and whether its sessions show what the rows say.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::{BTreeMap, BTreeSet};

use super::error::RecordError;
use super::model::EvidenceRecord;
use super::session::{SessionEvents, VerifiedSession};
use crate::channel::Outcome;
use crate::fixed::Nonce32;
use crate::overhead::{Attestation, Cleanup, Figures, Label, Row, RowFacts};
use crate::traits::Device;

/// Rates in a row are rounded to twelve digits; more than this is another measurement.
const RATE_TOLERANCE: f64 = 1e-6;
/// A segment may stop this much before its duration.
const DURATION_TOLERANCE: f64 = 0.95;

/// What the rows are held against.
pub(super) struct Ground<'a> {
    sessions: BTreeMap<Nonce32, &'a VerifiedSession>,
    raw: BTreeMap<Nonce32, &'a SessionEvents>,
    refused: BTreeSet<Nonce32>,
    cleanup: Option<Cleanup>,
}

impl<'a> Ground<'a> {
    pub(super) fn new(
        record: &'a EvidenceRecord,
        sessions: &'a [VerifiedSession],
        raw: &'a [(Nonce32, SessionEvents)],
    ) -> Self {
        Self {
            sessions: sessions.iter().map(|s| (s.id(), s)).collect(),
            raw: raw.iter().map(|(id, events)| (*id, events)).collect(),
            refused: record.refused.iter().map(|r| r.session).collect(),
            cleanup: record.cleanup.as_ref().map(|c| c.outcome),
        }
    }
}

/// Checks every row. A row that was moved here is told from one that is wrong.
pub(super) fn verify_rows(record: &EvidenceRecord, ground: &Ground<'_>) -> Result<(), RecordError> {
    let mut used = BTreeSet::new();
    for (index, row) in record.rows.iter().enumerate() {
        let number = index.saturating_add(1);
        belongs(record, row, ground, &mut used).map_err(|why| RecordError::RowForeign { row: number, why })?;
        if let Some(figures) = row.figures() {
            shown(row, figures, ground).map_err(|why| RecordError::RowUnproven { row: number, why })?;
        }
    }
    Ok(())
}

fn belongs(
    record: &EvidenceRecord,
    row: &Row,
    ground: &Ground<'_>,
    used: &mut BTreeSet<Nonce32>,
) -> Result<(), &'static str> {
    let facts = row.facts();
    if facts.run != record.run {
        return Err("it names another run");
    }
    // Nothing may have come home of a segment of a row that does not count; one that counts rests on all of them.
    let counts = row.is_valid();
    if counts && facts.sessions.iter().any(|s| !ground.sessions.contains_key(s) && !ground.refused.contains(s)) {
        return Err("it names a session that is not in this record");
    }
    if counts && facts.raw_sessions.iter().any(|s| !ground.raw.contains_key(s)) {
        return Err("it names a raw segment that is not in this record");
    }
    match facts.sessions.iter().chain(&facts.raw_sessions).all(|s| used.insert(*s)) {
        true => Ok(()),
        false => Err("it names a session that another row names too"),
    }
}

fn shown(row: &Row, figures: &Figures, ground: &Ground<'_>) -> Result<(), &'static str> {
    let facts = row.facts();
    let sessions: Option<Vec<_>> = facts.sessions.iter().map(|s| ground.sessions.get(s).copied()).collect();
    let sessions = sessions.ok_or("a session of it was refused")?;
    let raw: Vec<_> = facts.raw_sessions.iter().filter_map(|s| ground.raw.get(s).copied()).collect();
    let weakest = sessions.iter().map(|s| s.verdict.appraisal.assurance).min();
    let attested = matches!(facts.attestation, Attestation::Verified(a) if Some(a) == weakest);
    let places: BTreeSet<_> = sessions
        .iter()
        .map(|s| (s.evidence.claims.container.source.as_str(), s.evidence.claims.container.value.as_str()))
        .collect();
    let mut all = sessions.iter().map(|s| &s.events).chain(raw.iter().copied());
    let warm: BTreeSet<_> = all.clone().map(|e| e.warm).collect();
    let (raw_rates, rates): (Vec<_>, Vec<_>) = figures.pairs.iter().map(|(r, p)| (r.value(), p.value())).unzip();
    let bars = [
        (attested, "its assurance is not that of the verdicts"),
        (ground.cleanup == Some(facts.cleanup), "its cleanup is not that of the record"),
        (places.len() == 1, "its sessions ran in different places"),
        (sessions.iter().all(|s| s.events.receipt.is_some()), "a session of it has no receipt"),
        (all.clone().all(|e| e.outcome == Some(Outcome::Completed)), "a segment of it did not complete"),
        (warm.len() == 1 && !warm.contains(&None), "its segments did not compute the same weights in warm-up"),
        (rates_match(sessions.iter().map(|s| &s.events), &rates), "a protected rate is not what the runtime signed"),
        (rates_match(raw.iter().copied(), &raw_rates), "a raw rate is not what the raw segment reported"),
        (all.clone().all(|e| lasted(e, facts)), "a segment of it was shorter than its duration"),
        (all.all(|e| on_device(e, facts)), "a segment of it ran on another device"),
        (row.interval_is_reproducible(), "its interval does not follow from its pairs"),
    ];
    bars.into_iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
}

fn rates_match<'a>(events: impl ExactSizeIterator<Item = &'a SessionEvents>, rates: &[f64]) -> bool {
    let close = |seen: Option<f64>, rate: f64| seen.is_some_and(|seen| (seen - rate).abs() <= rate * RATE_TOLERANCE);
    events.len() == rates.len() && events.zip(rates).all(|(e, rate)| close(e.rate(), *rate))
}

fn lasted(events: &SessionEvents, facts: &RowFacts) -> bool {
    let seconds = |micros: u64| micros as f64 / 1e6;
    events.measured.is_some_and(|(t, _)| seconds(t.micros) >= facts.duration_sec.value() * DURATION_TOLERANCE)
}

/// A row that says `cpu` for a GPU, or names another GPU, is about something else. A GPU without a name is no lie.
fn on_device(events: &SessionEvents, facts: &RowFacts) -> bool {
    match (&events.device, &facts.gpu) {
        (Some(model), Some(gpu)) => Label::lossy(model) == gpu.model,
        (Some(model), None) => (model == "cpu") == (facts.device == Device::Cpu),
        (None, Some(_)) => false,
        (None, None) => true,
    }
}
