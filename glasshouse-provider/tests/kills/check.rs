//! What is left on disk after a case: the gate's memory, the journal, the record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, AntiDebugLevel, Assurance, EvidenceKind, ReferenceValues};
use glasshouse_core::clock::{Now, UnixMillis};
use glasshouse_core::fixed::{Fixed, Nonce32, PublicKey32};
use glasshouse_core::gate::{
    BurnOutcome, CommittedRelease, FileGateStore, GateStore as _, LeaseTerms, OwnerConfig, OwnerSession, PackageKey,
};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::overhead::{Cleanup, Outcome, OverheadFile};
use glasshouse_core::record::{self, RecordError};
use glasshouse_core::refusal::Code;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Device, Verifier as _};
use glasshouse_provider::LocalProvider;
use glasshouse_provider::run::{Gate, ProtectedRun};
use glasshouse_provider::supervisor::Journal;

use crate::owner::{MEASUREMENT, keys};
use crate::support::{Listener, block_on, container};
use crate::tap;

/// What must be left.
pub(crate) struct Left {
    pub(crate) owner_died: bool,
    /// Whether a release is durable.
    pub(crate) released: bool,
    /// Whether every event is, and the artifacts with them.
    pub(crate) complete: bool,
    /// Whether the owner had the time to acknowledge something while the segment worked.
    pub(crate) acknowledges: bool,
    /// Whether it was the raw segment of an overhead run.
    pub(crate) raw: bool,
}

/// Checks the folder of a case. Gives how many records were kept.
pub(crate) fn leftovers(folder: &Path, left: &Left) -> usize {
    let memory = Memory::read(&folder.join("gate/gate.store"));
    assert_eq!(memory.releases.len(), usize::from(left.released), "releases");
    one_release(&folder.join("gate"), &memory);
    let kept = memory.kept.values().sum();
    let (times, acknowledged) = tap::acknowledged(folder);
    assert!(left.raw || acknowledged <= kept, "{acknowledged} records were acknowledged, and {kept} are durable");
    assert!(times > 0 || !left.acknowledges, "nothing was acknowledged while the segment worked");
    let record = if left.owner_died { recovered(folder, left) } else { written(folder) };
    if left.released {
        assert_eq!(events_in(&record, &keys(&folder.join("gate")).0.public(), left.complete), kept, "records");
    }
    if left.raw && !left.owner_died {
        a_raw_row_that_does_not_count(folder, &record);
    }
    if left.complete {
        assert_eq!(std::fs::read(folder.join("out/sum.bin")).unwrap().len(), 1_600_000, "an artifact is lost");
    }
    let scratch: Vec<_> = std::fs::read_dir(folder.join("tmp")).unwrap().map(|e| e.unwrap().path()).collect();
    // The owner removes its agent's folder; when both are killed, only what they hold can stay, and it is sealed.
    assert!(scratch.is_empty(), "{scratch:?} stayed behind");
    kept
}

/// The gate's memory as it lies on disk, read without the code that wrote it.
struct Memory {
    releases: Vec<CommittedRelease>,
    burned: Vec<(Nonce32, Nonce32)>,
    kept: BTreeMap<String, usize>,
}

impl Memory {
    fn read(path: &Path) -> Self {
        let mut memory = Self { releases: Vec::new(), burned: Vec::new(), kept: BTreeMap::new() };
        for line in std::fs::read_to_string(path).unwrap().lines() {
            let mut entry: serde_json::Value = serde_json::from_str(line).unwrap();
            match entry["entry"].as_str().unwrap() {
                "released" => memory.releases.push(serde_json::from_value(entry["release"].take()).unwrap()),
                "burned" => {
                    let mut nonce = |name: &str| serde_json::from_value(entry[name].take()).unwrap();
                    memory.burned.push((nonce("session"), nonce("nonce")));
                }
                "kept" => *memory.kept.entry(entry["session"].as_str().unwrap().to_owned()).or_default() += 1,
                _ => {}
            }
        }
        memory
    }
}

/// No nonce twice; and a second owner over the same memory can only send the same bytes again.
fn one_release(gate: &Path, memory: &Memory) {
    let mut once = memory.burned.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), memory.burned.len(), "a nonce was burned twice");
    let store = Arc::new(FileGateStore::open(gate.join("gate.store")).unwrap());
    for (session, nonce) in &memory.burned {
        assert_eq!(store.burn(session, nonce).unwrap(), BurnOutcome::Replayed);
    }
    for release in &memory.releases {
        let mut second = OwnerSession::new(config(gate, release.session), store.clone(), Arc::new(ACCEPTS)).unwrap();
        assert_eq!(second.release_bytes(), Some(release.release.0.as_slice()));
        let now = Now { wall: UnixMillis(0), boot: Duration::ZERO };
        for refused in [second.challenge(now).unwrap_err(), second.evidence(&release.evidence.0, now).unwrap_err()] {
            assert_eq!(refused.code(), Some(&Code::ALREADY_RELEASED), "{refused}");
        }
        store.commit(release).unwrap_err();
    }
}

const ACCEPTS: Listener = Listener { refuse: false };

/// A second owner of a session, with another data key: it must not get to use it.
fn config(gate: &Path, session: Nonce32) -> OwnerConfig {
    let (signing, result) = keys(gate);
    OwnerConfig {
        session,
        gate_key: Arc::new(signing),
        result_key: Arc::new(result),
        launch_secret: Arc::new(Secret::take(&mut [1; 32])),
        package: PackageKey {
            package_digest: Fixed([2; 48]),
            manifest_digest: Fixed([3; 48]),
            data_key: Secret::take(&mut [4; 32]),
        },
        job: JobSpec {
            workload: "counting".to_owned(),
            device: Device::Cpu,
            warmup_units: 0,
            budget: Budget::Units(1),
            progress_millis: 1,
            export: false,
        },
        reference: ReferenceValues {
            kind: EvidenceKind::Software,
            image_digest: None,
            container: container(),
            runtime_measurement: MEASUREMENT,
            anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
            anti_debug_level: AntiDebugLevel::Basic,
            policy_digest: ACCEPTS.policy_digest(),
            minimum_assurance: Assurance::SelfReported,
        },
        lease: LeaseTerms { ttl: Duration::from_secs(60), max_units: None },
        challenge_ttl: Duration::from_secs(60),
        max_skew: Duration::from_secs(60),
        max_challenges: 3,
    }
}

/// What a living owner wrote; its journal has nothing left.
fn written(folder: &Path) -> Vec<u8> {
    let journal = Journal::open(folder.join("out/journal.jsonl")).unwrap();
    assert!(journal.open_entries().is_empty(), "{:?}", journal.open_entries());
    std::fs::read(folder.join("out/evidence.json")).unwrap_or_default()
}

/// What a restarted owner makes of it: the journal tells what was left, and it is seen to be gone.
fn recovered(folder: &Path, left: &Left) -> Vec<u8> {
    let journal = Arc::new(Journal::open(folder.join("out/journal.jsonl")).unwrap());
    assert_eq!(journal.open_entries().len(), 1);
    let gate = Gate::open(&folder.join("gate")).unwrap();
    let provider = Arc::new(LocalProvider::new());
    let recovered =
        block_on(ProtectedRun::recover(&gate, provider, journal.clone(), &folder.join("out"), |_| true)).unwrap();
    assert_eq!(recovered.cleanup.iter().map(|proof| proof.outcome).collect::<Vec<_>>(), [Cleanup::Observed]);
    assert!(journal.open_entries().is_empty());
    assert_eq!(recovered.sessions.len(), usize::from(left.released));
    recovered.record.map(|path| std::fs::read(path).unwrap()).unwrap_or_default()
}

/// What an owner who lives on writes of a raw segment that died: its events, and a row that does not count.
fn a_raw_row_that_does_not_count(folder: &Path, record: &[u8]) {
    let file = OverheadFile::parse(&std::fs::read(folder.join("out/overhead.json")).unwrap()).unwrap();
    assert!(matches!(file.rows[0].outcome(), Outcome::Excluded { .. }), "{:?}", file.rows);
    let key = keys(&folder.join("gate")).0.public();
    match record::verify(record, Some(key), None) {
        Ok(verified) => assert!(verified.record.raw_segments[0].events.len() > 2, "what came home is lost"),
        Err(RecordError::TerminalMissing { events, .. }) => assert!(events > 2, "what came home is lost"),
        Err(error) => panic!("{error}"),
    }
}

/// The events of a record's one session, however it ended. An end that was not seen is said.
fn events_in(record: &[u8], key: &PublicKey32, complete: bool) -> usize {
    let events = match record::verify(record, Some(*key), None) {
        Ok(verified) => {
            assert!(complete && verified.sessions.len() == 1, "it must not pass as a whole run");
            verified.sessions[0].events.count
        }
        Err(RecordError::TerminalMissing { events, .. }) => {
            assert!(!complete, "its terminal event is lost");
            events
        }
        Err(error) => panic!("{error}"),
    };
    usize::try_from(events).unwrap()
}
