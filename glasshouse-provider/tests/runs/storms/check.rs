//! What has to hold however a storm ends.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use glasshouse_core::channel::Outcome;
use glasshouse_core::fixed::{Fixed, PublicKey32};
use glasshouse_core::gate::CommittedRelease;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::protocol::{EvidenceMessage, Signed};
use glasshouse_core::record::{self, RecordError};
use glasshouse_provider::LocalProvider;
use glasshouse_provider::run::{Gate, ProtectedRun, RunFailure, RunReport};
use glasshouse_provider::supervisor::Journal;

use super::net::Storm;
use crate::support::{FIXED_MEASUREMENT, block_on};

/// Units that a run is asked for.
pub(super) const UNITS: u64 = 200;

pub(super) type Ran = Result<RunReport, RunFailure<RunReport>>;

/// The lines of a log that were written whole: what a full disk or a crash cut short does not count.
pub(super) fn whole_lines(log: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned).collect()
}

pub(super) fn no_key_but_to_an_attested_runtime(store: &Path, storm: &Storm, attested: bool) {
    let lines = whole_lines(store);
    let entries = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let released = entries.filter(|entry| entry["entry"] == "released").map(|mut entry| entry["release"].take());
    let released: Vec<CommittedRelease> = released.map(|release| serde_json::from_value(release).unwrap()).collect();
    assert!(released.len() <= 1, "{} keys were released", released.len());
    let sent = storm.releases.load(SeqCst);
    assert!(sent == 0 || released.len() == 1, "a release was sent that is not durable");
    assert!(attested || (released.is_empty() && sent == 0), "a runtime that is not attested got a key");
    for release in &released {
        let claims = Signed::<EvidenceMessage>::from_bytes(&release.evidence.0).unwrap().peek().unwrap().claims;
        assert_eq!(claims.runtime_measurement, Fixed(FIXED_MEASUREMENT));
    }
}

/// That each was durable when it was acknowledged the network has seen; here, that it came into the record, and that the
/// artifacts were there before the end was acknowledged. A run that could not write its record is recovered first.
pub(super) fn nothing_acknowledged_is_lost(folder: &Path, storm: &Storm, outcome: &Ran) {
    let acknowledged = storm.acknowledged.load(SeqCst);
    let report = outcome.as_ref().map_or_else(|failure| failure.report.as_deref(), Some);
    let (record, key) = match report {
        Some(report) => (report.record.clone(), report.gate_key),
        None if acknowledged == 0 => return,
        None => recovered(folder).expect("records were acknowledged, and there is nothing to be recovered"),
    };
    let bytes = std::fs::read(record).unwrap();
    let (events, exported) = match record::verify(&bytes, Some(key), None) {
        Ok(verified) => {
            let exported = verified.subjects.iter().any(|subject| subject.name.ends_with("/sum.bin"));
            (verified.sessions.first().map_or(0, |session| session.events.count), exported)
        }
        Err(RecordError::TerminalMissing { events, .. }) => (events, false),
        Err(error) => panic!("{error}"),
    };
    assert!(acknowledged <= events, "{acknowledged} records were acknowledged and {events} are in the record");
    let (told, sum) = (acknowledged > 0 && acknowledged == events, folder.join("out/sum.bin"));
    assert!(!told || !exported || sum.exists(), "the end was acknowledged and an artifact is not there");
}

/// What the owner makes of it who comes next: everything that was left is seen to be gone. Gives the record of what was
/// released, where something was.
pub(super) fn recovered(folder: &Path) -> Option<(std::path::PathBuf, PublicKey32)> {
    let out = folder.join("out");
    let gate = Gate::open(&Gate::folder_in(&out)).unwrap();
    let journal = Arc::new(Journal::open(out.join("journal.jsonl")).unwrap());
    let provider = Arc::new(LocalProvider::new());
    let recovered = block_on(ProtectedRun::recover(&gate, provider, journal.clone(), &out, |_| true)).unwrap();
    assert!(recovered.cleanup.iter().all(|proof| proof.outcome == Cleanup::Observed), "{:?}", recovered.cleanup);
    assert!(journal.open_entries().is_empty(), "{:?}", journal.open_entries());
    recovered.record.map(|record| (record, gate.public()))
}

pub(super) fn it_is_done(folder: &Path, report: &RunReport) {
    let bytes = std::fs::read(&report.record).unwrap();
    let verified = record::verify(&bytes, Some(report.gate_key), None).unwrap();
    let said = &verified.sessions[0].events;
    assert_eq!(said.outcome, Some(Outcome::Completed));
    assert!(said.receipt.is_some() && report.receipt.is_some(), "done without a receipt");
    let (warm, measured) = (said.warm.unwrap().0, said.measured.unwrap().0.units);
    assert_eq!((warm + measured, report.trained.unwrap().0), (UNITS, measured));
    // What was trained tells how often: each unit adds up 100,000 sevens.
    let sum = std::fs::read(folder.join("out/sum.bin")).unwrap();
    let one = u64::from_le_bytes(sum[..8].try_into().unwrap());
    assert_eq!((sum.len(), one), (1_600_000, (warm + measured) * 700_000));
    assert_eq!(report.cleanup.as_ref().unwrap().outcome, Cleanup::Observed);
}

pub(super) fn it_says_that_it_is_not(failure: &RunFailure<RunReport>) {
    let Some(report) = &failure.report else { return };
    assert_eq!(report.cleanup.as_ref().unwrap().outcome, Cleanup::Observed, "{failure}");
}
