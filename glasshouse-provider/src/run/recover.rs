//! What a restarted owner can still finish: a record of what came home, and the end of what was left running.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glasshouse_core::fixed::Nonce32;
use glasshouse_core::gate::StoredSession;
use glasshouse_core::record::{CleanupProof, EvidenceRecord, SessionRecord, VERSION};
use glasshouse_core::traits::{ClaimSource, LabelledClaim, Provider};

use super::files::{Readers, prepare_folder, write_whole};
use super::record::write_key;
use super::{Gate, ProtectedRun, RunError};
use crate::clock;
use crate::supervisor::{Journal, Supervisor};

/// Name of the record's file. Not the name of a run's own record, so that neither takes the other's place.
const RECOVERED_FILE: &str = "recovered.json";

/// What was left of runs whose owner did not see their end.
#[derive(Debug)]
pub struct Recovered {
    /// The file with the record; absent when no session had come to a release. Offline verification says of a session
    /// whose terminal event did not come home that its end was not seen.
    pub record: Option<PathBuf>,
    /// The sessions in it.
    pub sessions: Vec<Nonce32>,
    /// The end of each allocation that the journal had. One whose outcome is not `observed` stays in the journal.
    pub cleanup: Vec<CleanupProof>,
}

impl ProtectedRun {
    /// After an owner was killed: ends what it left running, as its journal tells, and writes `recovered.json` and
    /// `gate.pub` into `out`, with those sessions of the gate that `pick` picks. It does not attach to what still runs.
    ///
    /// The record says what was made durable before the crash and no more: whatever was not kept is lost.
    ///
    /// # Errors
    /// [`RunError`]; leftovers are ended before anything can go wrong with the record.
    pub async fn recover(
        gate: &Gate,
        provider: Arc<dyn Provider>,
        journal: Arc<Journal>,
        out: &Path,
        pick: impl Fn(&StoredSession) -> bool,
    ) -> Result<Recovered, RunError> {
        crate::roles::ensure_owner()?;
        let cleanup = Supervisor::new(provider, journal).recover().await?;
        let stored: Vec<_> = gate.sessions()?.into_iter().filter(pick).collect();
        let sessions = stored.iter().map(|stored| stored.verdict().session).collect();
        let record = match stored.is_empty() {
            true => None,
            false => Some(write(gate, out, &stored, &cleanup)?),
        };
        Ok(Recovered { record, sessions, cleanup })
    }
}

fn write(gate: &Gate, out: &Path, stored: &[StoredSession], cleanup: &[CleanupProof]) -> Result<PathBuf, RunError> {
    prepare_folder(out)?;
    let sessions = stored
        .iter()
        .map(|stored| Ok(SessionRecord::from_parts(&stored.record_parts(), stored.reference()?)?))
        .collect::<Result<_, RunError>>()?;
    let record = EvidenceRecord {
        version: VERSION.to_owned(),
        run: Nonce32::random().map_err(|_| RunError::NoRandomness)?,
        signer: gate.public(),
        created_at: clock::wall(),
        sessions,
        refused: Vec::new(),
        raw_segments: Vec::new(),
        rows: Vec::new(),
        // Of several, nobody can tell any more which one a session ran on.
        cleanup: match cleanup {
            [only] => Some(only.clone()),
            _ => None,
        },
        timeline: Vec::new(),
        claims: vec![LabelledClaim {
            name: "recovered".to_owned(),
            value: "made from the gate's store after the run's owner was gone; what was not kept is lost".to_owned(),
            source: ClaimSource::OwnerAsserted,
        }],
    };
    let bytes = record.sign(&gate.signing)?;
    write_key(gate, out)?;
    write_whole(out, RECOVERED_FILE, &bytes, Readers::Everyone)
}
