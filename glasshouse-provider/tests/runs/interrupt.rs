//! Ctrl-C at the owner: the segment stops and zeroizes, and the allocation is ended, all in good order. What a SIGKILL does stands in the test `kills`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use glasshouse_core::channel::Phase;
use glasshouse_core::job::Budget;
use glasshouse_provider::run::{ProtectedRun, RunError, RunEvent};
use glasshouse_provider::supervisor::Journal;
use rustix::process::Signal;

use crate::support::{Test, block_on, children_of, eventually, kill, runs};
use crate::whole::composed;

pub(crate) const TESTS: &[Test] = &[("owner_interrupted", owner_interrupted)];

/// Makes this executable the owner of a long run in the folder that follows.
pub(crate) const OWNER: &str = "--owner";

pub(crate) fn owner(folder: &Path) {
    let run = composed(ProtectedRun::builder(), folder, "").budget(Budget::Millis(600_000));
    let flag = folder.join("trains");
    let failure = block_on(
        run.on_event(move |event| {
            if matches!(event, RunEvent::Progress { .. }) {
                std::fs::write(&flag, "").unwrap();
            }
        })
        .run(),
    )
    .unwrap_err();
    assert!(matches!(failure.error, RunError::Interrupted), "{failure}");
    let report = failure.report.unwrap();
    assert!(report.timeline.at(Phase::Training).is_some(), "what came home is lost");
    // It stopped in good order: what it had trained is home, and it said that it wiped the rest.
    assert!(report.receipt.is_some() && !report.artifacts.is_empty(), "{report:?}");
}

fn owner_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [OWNER.as_ref(), folder.path().as_os_str()];
    let mut owner = Command::new("/proc/self/exe").args(arguments).stdin(Stdio::null()).spawn().unwrap();
    let trains = folder.path().join("trains");
    eventually("it trains", Duration::from_secs(60), || trains.exists());
    let agent = children_of(owner.id())[0];
    let segment = children_of(agent)[0];
    kill(owner.id(), Signal::INT);
    assert!(owner.wait().unwrap().success());
    assert!(!runs(agent) && !runs(segment));
    let journal = Journal::open(folder.path().join("out/journal.jsonl")).unwrap();
    assert!(journal.open_entries().is_empty());
}
