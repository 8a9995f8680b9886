//! The evidence record of a run, and the files it leaves.

use std::path::{Path, PathBuf};

use glasshouse_core::overhead::Row;
use glasshouse_core::record::{EvidenceRecord, RefusedSession, VERSION};

use super::execute::Executed;
use super::files::{Readers, write_whole};
use super::result::Protocol;
use super::setup::Setup;
use super::{Gate, RunError};
use crate::clock;

/// Name of the record's file.
pub(super) const RECORD_FILE: &str = "evidence.json";
/// Name of the file with the gate's public key, in hex.
pub(super) const KEY_FILE: &str = "gate.pub";

/// Signs the record and writes it, and the key that verifies it. Takes what belongs into the record out of `executed`.
pub(super) fn write_record(setup: &Setup, executed: &mut Executed, rows: Vec<Row>) -> Result<PathBuf, RunError> {
    let (mut sessions, mut refused, mut raw_segments) = (Vec::new(), Vec::new(), Vec::new());
    for result in &mut executed.results {
        match std::mem::replace(&mut result.protocol, Protocol::Nothing) {
            Protocol::Raw(record) => raw_segments.push(*record),
            Protocol::Released(record, _) => sessions.push(*record),
            Protocol::Refused { refusal, at } => {
                refused.push(RefusedSession { session: result.session, at, refusal });
            }
            Protocol::Nothing => {}
        }
    }
    let record = EvidenceRecord {
        version: VERSION.to_owned(),
        run: executed.run,
        signer: setup.gate.public(),
        created_at: clock::wall(),
        sessions,
        refused,
        raw_segments,
        rows,
        cleanup: executed.cleanup.clone(),
        timeline: std::mem::take(&mut executed.moments),
        claims: Vec::new(),
    };
    let bytes = record.sign(&setup.gate.signing)?;
    write_key(&setup.gate, &setup.out)?;
    write_whole(&setup.out, RECORD_FILE, &bytes, Readers::Everyone)
}

/// Writes the key that verifies a gate's records beside them.
pub(super) fn write_key(gate: &Gate, folder: &Path) -> Result<(), RunError> {
    let text = format!("{}\n", gate.public());
    write_whole(folder, KEY_FILE, text.as_bytes(), Readers::Everyone).map(drop)
}
