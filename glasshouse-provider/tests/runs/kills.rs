//! SIGKILL of segment, agent and owner: the other side gets a typed error, and nothing outlives its owner by 5 s.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use glasshouse_core::channel::Phase;
use glasshouse_core::job::Budget;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::record;
use glasshouse_provider::client::ClientError;
use glasshouse_provider::run::{ProtectedRun, RunError, RunEvent, RunFailure, RunReport};
use glasshouse_provider::supervisor::{Journal, Supervisor};
use glasshouse_provider::wire::{SegmentStep, WireCode};
use rustix::process::Signal;

use crate::support::{SLOW_QUOTE, Test, block_on, children_of, eventually, kill, runs};
use crate::whole::composed;

pub(crate) const TESTS: &[Test] = &[
    ("segment_killed_in_training", segment_killed_in_training),
    ("segment_killed_while_attesting", segment_killed_while_attesting),
    ("agent_killed_in_training", agent_killed_in_training),
    ("owner_killed_in_training", owner_killed_in_training),
    ("owner_killed_while_attesting", owner_killed_while_attesting),
    ("owner_killed_with_a_workload_that_hangs", owner_killed_with_a_workload_that_hangs),
    ("owner_interrupted", owner_interrupted),
];

/// Makes this executable the owner of a long run in the folder that follows.
pub(crate) const OWNER: &str = "--owner";
const FIVE: Duration = Duration::from_secs(5);

pub(crate) fn owner(folder: &Path) {
    let trouble = std::env::var("TROUBLE").unwrap_or_default();
    let mut builder = composed(ProtectedRun::builder(), folder, &trouble).budget(Budget::Millis(600_000));
    if trouble == "slow-quote" {
        builder = builder.env(SLOW_QUOTE, "1");
    }
    let failure = block_on(builder.run()).unwrap_err();
    assert!(matches!(failure.error, RunError::Interrupted), "{failure}");
    assert!(failure.report.unwrap().timeline.at(Phase::Training).is_some(), "what came home is lost");
}

/// Runs in this process and sends a signal to whatever `pick` picks, once training shows progress.
fn run_and_kill(pick: fn(agent: u32) -> u32) -> (RunFailure<RunReport>, u32) {
    let folder = tempfile::tempdir().unwrap();
    let killed = Arc::new(Mutex::new(None));
    let inside = killed.clone();
    let run = composed(ProtectedRun::builder(), folder.path(), "")
        .budget(Budget::Millis(60_000))
        .on_event(move |event| {
            let mut killed = inside.lock().unwrap();
            if matches!(event, RunEvent::Progress { .. }) && killed.is_none() {
                let agent = children_of(std::process::id())[0];
                let segment = children_of(agent)[0];
                *killed = Some(segment);
                kill(pick(agent), Signal::KILL);
            }
        })
        .run();
    let failure = block_on(run).unwrap_err();
    let report = failure.report.as_ref().unwrap();
    assert_eq!(report.cleanup.as_ref().unwrap().outcome, Cleanup::Observed);
    let missing = record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None);
    println!("the record of what came home: {:?}", missing.map(|_| "verifies").map_err(|e| e.to_string()));
    assert!(report.timeline.at(Phase::Training).is_some(), "acknowledged results are lost");
    let segment = killed.lock().unwrap().unwrap();
    (failure, segment)
}

fn segment_killed_in_training() {
    let (failure, segment) = run_and_kill(|agent| children_of(agent)[0]);
    let RunError::SegmentLost { exit, .. } = &failure.error else { panic!("{failure}") };
    assert_eq!((exit.signal, exit.step), (Some(9), SegmentStep::Train));
    assert!(!runs(segment));
}

fn agent_killed_in_training() {
    let (failure, segment) = run_and_kill(|agent| agent);
    assert!(matches!(&failure.error, RunError::Client(ClientError::Unreachable { step: "records", .. })), "{failure}");
    eventually("the segment goes with its agent", FIVE, || !runs(segment));
}

fn segment_killed_while_attesting() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::spawn(|| {
        eventually("a segment attests", Duration::from_secs(20), || {
            children_of(std::process::id()).into_iter().any(|agent| !children_of(agent).is_empty())
        });
        std::thread::sleep(Duration::from_millis(700));
        let agent = children_of(std::process::id())[0];
        kill(children_of(agent)[0], Signal::KILL);
    });
    let run = composed(ProtectedRun::builder(), folder.path(), "").env(SLOW_QUOTE, "1").run();
    let failure = block_on(run).unwrap_err();
    let RunError::Client(error) = &failure.error else { panic!("{failure}") };
    assert_eq!(error.refused().unwrap().code, WireCode::SegmentEnded);
    assert!(error.to_string().contains("signal 9 in step attest"), "{error}");
}

struct Owner {
    child: Child,
    folder: tempfile::TempDir,
}

/// An owner in its own process, its agent and its segment, once the segment is in its work.
fn start_owner(trouble: &str) -> (Owner, u32, u32) {
    let folder = tempfile::tempdir().unwrap();
    let child = Command::new("/proc/self/exe")
        .arg(OWNER)
        .arg(folder.path())
        .env("TROUBLE", trouble)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let owner = Owner { child, folder };
    let id = owner.child.id();
    let family = || {
        let agent = *children_of(id).first()?;
        Some((agent, *children_of(agent).first()?))
    };
    eventually("the segment starts", Duration::from_secs(20), || family().is_some());
    let (agent, segment) = family().unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    assert!(runs(agent) && runs(segment));
    (owner, agent, segment)
}

fn killed_owner(trouble: &str) {
    let (mut owner, agent, segment) = start_owner(trouble);
    owner.child.kill().unwrap();
    owner.child.wait().unwrap();
    let took = eventually("everything ends", FIVE, || !runs(agent) && !runs(segment));
    println!("gone {took:?} after the owner");
    // The next owner finds the entry, sees that it is gone, and closes it.
    let journal = Arc::new(Journal::open(owner.folder.path().join("out/journal.jsonl")).unwrap());
    assert_eq!(journal.open_entries().len(), 1);
    let provider = Arc::new(glasshouse_provider::LocalProvider::new());
    let proofs = block_on(Supervisor::new(provider, journal.clone()).recover()).unwrap();
    assert_eq!(proofs.len(), 1);
    assert_eq!(proofs[0].outcome, Cleanup::Observed);
    assert!(journal.open_entries().is_empty());
}

fn owner_killed_in_training() {
    killed_owner("");
}

fn owner_killed_while_attesting() {
    killed_owner("slow-quote");
}

fn owner_killed_with_a_workload_that_hangs() {
    killed_owner("hang");
}

fn owner_interrupted() {
    let (mut owner, agent, segment) = start_owner("");
    kill(owner.child.id(), Signal::INT);
    assert!(owner.child.wait().unwrap().success());
    assert!(!runs(agent) && !runs(segment));
    let journal = Journal::open(owner.folder.path().join("out/journal.jsonl")).unwrap();
    assert!(journal.open_entries().is_empty());
}
