//! What is durable survives: owners killed while they make keys and while they train, and disks that fill up in the
//! middle of a line.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::overhead::Cleanup;
use glasshouse_core::record;
use glasshouse_core::traits::LaunchSpec;
use glasshouse_provider::run::{Gate, ProtectedRun, RunError, RunEvent};
use glasshouse_provider::supervisor::{Journal, JournalError, OwnerTag, Supervisor, SupervisorError};
use glasshouse_provider::{LocalProvider, MemoryProvider, memory};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};

use crate::interrupt;
use crate::local::{created, spec};
use crate::supervisor::{QUICK, request};
use crate::support::{Test, block_on, eventually, kill};
use crate::whole::composed;

pub(crate) const TESTS: &[Test] = &[
    ("keys_of_an_owner_killed_while_it_makes_them", keys_of_an_owner_killed_while_it_makes_them),
    ("a_killed_owner_recovers_without_having_asked", a_killed_owner_recovers_without_having_asked),
    ("an_id_that_cannot_be_journalled_ends_its_allocation", an_id_that_cannot_be_journalled_ends_its_allocation),
    ("an_end_that_cannot_be_journalled_is_recorded", an_end_that_cannot_be_journalled_is_recorded),
    ("a_line_that_cannot_be_written_costs_no_proof", a_line_that_cannot_be_written_costs_no_proof),
];

/// Makes this executable open one gate after the other in the folder that follows.
pub(crate) const GATES: &str = "--gates";

pub(crate) fn gates(folder: &Path) {
    for n in 0.. {
        drop(Gate::open(&folder.join(n.to_string())).unwrap());
    }
}

fn keys_of_an_owner_killed_while_it_makes_them() {
    for round in 0..12 {
        let folder = tempfile::tempdir().unwrap();
        let arguments = [GATES.as_ref(), folder.path().as_os_str()];
        let mut owner = Command::new("/proc/self/exe").args(arguments).stdin(Stdio::null()).spawn().unwrap();
        eventually("it makes keys", Duration::from_secs(60), || folder.path().join("1").exists());
        std::thread::sleep(Duration::from_micros(700 * round));
        kill(owner.id(), Signal::KILL);
        owner.wait().unwrap();
        for entry in std::fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let key = Gate::open(&path).unwrap().public();
            assert_eq!(Gate::open(&path).unwrap().public(), key);
            let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
            names.sort();
            assert_eq!(names, ["gate.key", "gate.store", "result.key"]);
        }
    }
}

fn a_killed_owner_recovers_without_having_asked() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [interrupt::OWNER.as_ref(), folder.path().as_os_str()];
    let mut owner = Command::new("/proc/self/exe").args(arguments).stdin(Stdio::null()).spawn().unwrap();
    let trains = folder.path().join("trains");
    eventually("it trains", Duration::from_secs(60), || trains.exists());
    kill(owner.id(), Signal::KILL);
    owner.wait().unwrap();
    let out = folder.path().join("out");
    // The run named no gate: it is in the output folder.
    let gate = Gate::open(&Gate::folder_in(&out)).unwrap();
    let journal = Arc::new(Journal::open(out.join("journal.jsonl")).unwrap());
    let recovered =
        block_on(ProtectedRun::recover(&gate, Arc::new(LocalProvider::new()), journal.clone(), &out, |_| true));
    let recovered = recovered.unwrap();
    assert_eq!(recovered.sessions.len(), 1);
    assert!(recovered.cleanup.iter().all(|proof| proof.outcome == Cleanup::Observed));
    assert!(journal.open_entries().is_empty());
    let bytes = std::fs::read(recovered.record.unwrap()).unwrap();
    let error = record::verify(&bytes, Some(gate.public()), None).unwrap_err();
    assert_eq!(error.code(), "terminal-event-missing", "{error}");
}

/// Lets no file of this process grow beyond so many bytes, as a full disk would not; `None` ends that.
pub(crate) fn full_beyond(bytes: Option<u64>) {
    // The signal that comes with it is taken, so that the write fails instead.
    let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(Signal::XFSZ.as_raw())).unwrap();
    setrlimit(Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

fn an_id_that_cannot_be_journalled_ends_its_allocation() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let none_left = MemoryProvider::new().fault(memory::Call::Create, [memory::Fault::NoCapacity]);
    let (provider, journal) = (Arc::new(none_left), Arc::new(Journal::open(&path).unwrap()));
    let supervisor = Supervisor::new(provider.clone(), journal.clone()).patience(QUICK);
    block_on(supervisor.rent(&request(None))).err().unwrap();
    let before = std::fs::read(&path).unwrap();
    let announcement = before.iter().position(|byte| *byte == b'\n').unwrap() + 1;

    // Now with room for the announcement, and for half of the line with the id.
    let error = block_on(async {
        full_beyond(Some((before.len() + announcement + 20) as u64));
        let error = supervisor.rent(&request(None)).await.err().unwrap();
        full_beyond(None);
        error
    });
    assert!(matches!(error, SupervisorError::Journal(JournalError::Io { .. })), "{error}");
    assert!(provider.existing().is_empty(), "it goes on running unseen");
    // Closed for good: nothing is rented with a journal of which nobody knows what is in it.
    let error = block_on(supervisor.rent(&request(None))).err().unwrap();
    assert!(error.to_string().contains("open it again"), "{error}");
    assert!(provider.existing().is_empty());

    drop((supervisor, journal));
    let journal = Arc::new(Journal::open(&path).unwrap());
    assert_eq!(journal.open_entries().len(), 1);
    let proofs = block_on(Supervisor::new(provider, journal.clone()).patience(QUICK).recover()).unwrap();
    assert_eq!(proofs[0].outcome, Cleanup::Observed);
    assert!(journal.open_entries().is_empty());
}

fn an_end_that_cannot_be_journalled_is_recorded() {
    for trouble in ["", "error"] {
        let folder = tempfile::tempdir().unwrap();
        let run = composed(ProtectedRun::builder(), folder.path(), trouble).on_event(|event| match event {
            RunEvent::Ending => full_beyond(Some(1)),
            RunEvent::Ended { cleanup } => {
                full_beyond(None);
                assert_eq!(cleanup, Cleanup::Unconfirmed);
            }
            _ => {}
        });
        let failure = block_on(run.budget(glasshouse_core::job::Budget::Units(30)).run()).unwrap_err();
        let mut errors = std::iter::once(&failure.error).chain(failure.further.iter());
        if trouble == "error" {
            assert!(matches!(errors.next(), Some(RunError::SegmentFailed { .. })), "{failure}");
        }
        let unjournalled = errors.next();
        assert!(
            matches!(unjournalled, Some(RunError::Supervisor(SupervisorError::Unjournalled { .. }))),
            "{failure}: {unjournalled:?}"
        );
        assert!(errors.next().is_none() && failure.to_string().contains("cannot be journalled"), "{failure}");
        // Everything else is there, and record and journal say the same of the end.
        let report = failure.report.unwrap();
        assert!(report.receipt.is_some());
        let record = std::fs::read(&report.record).unwrap();
        let verified = record::verify(&record, Some(report.gate_key), None).unwrap();
        assert_eq!(verified.record.cleanup.unwrap().outcome, Cleanup::Unconfirmed);
        assert_eq!(Journal::open(folder.path().join("out/journal.jsonl")).unwrap().open_entries().len(), 1);
    }
}

fn a_line_that_cannot_be_written_costs_no_proof() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let asking = |name| format!("{{\"event\":\"asking\",\"provider\":\"memory\",\"name\":\"{name}\",\"at\":1}}\n");
    let text = ["gh-a-1", "gh-a-2", "gh-a-3"].map(asking).concat();
    let line = "{'event':'gone','name':'gh-a-1','at':1700000000000}\n".len();
    std::fs::write(&path, &text).unwrap();
    let (provider, journal) = (Arc::new(MemoryProvider::new()), Arc::new(Journal::open(&path).unwrap()));
    let owner =
        || Supervisor::new(provider.clone(), journal.clone()).patience(QUICK).owner(OwnerTag::new("a").unwrap());
    // Room for one of them, and for half of the next.
    let error = block_on(async {
        full_beyond(Some((text.len() + line + line / 2) as u64));
        let error = owner().recover().await.unwrap_err();
        full_beyond(None);
        error
    });
    let SupervisorError::Unjournalled { proof, others, .. } = error else { panic!("{error}") };
    let proofs: Vec<_> = others.iter().chain([&*proof]).collect();
    assert_eq!(proofs.len(), 3, "{proofs:?}");
    assert_eq!(proofs.iter().filter(|proof| proof.outcome == Cleanup::Observed).count(), 1, "{proofs:?}");
    let open = journal.open_entries();
    assert!(open.len() == 2 && open.iter().all(|entry| proofs.iter().any(|proof| proof.allocation == entry.name)));
    // A stray that the journal takes no line of is ended like the others.
    block_on(async {
        let launch = LaunchSpec { name: "gh-a-stray".to_owned(), ..spec(1) };
        created(&*provider, &launch).await;
        let error = owner().reap().await.unwrap_err();
        let SupervisorError::Unjournalled { others, .. } = error else { panic!("{error}") };
        assert_eq!(others.len(), 2, "{others:?}");
    });
    assert!(provider.existing().is_empty(), "a stray runs on");
}
