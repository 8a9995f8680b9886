//! Runs that go well, and runs whose segment fails or is stopped.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use glasshouse_core::channel::Phase;
use glasshouse_core::job::Budget;
use glasshouse_core::overhead::{Cleanup, Exclusion, Order, Outcome, OverheadFile};
use glasshouse_core::record;
use glasshouse_provider::local::LocalProvider;
use glasshouse_provider::run::{Gate, OverheadRun, ProtectedRun, RunBuilder, RunError, RunEvent, StopHandle};
use rustix::process::Signal;

use crate::support::{
    LOG, Listener, PANIC_QUOTES, Test, block_on, children_of, container, eventually, kill, runs, seal,
};

pub(crate) const TESTS: &[Test] = &[
    ("a_protected_run", a_protected_run),
    ("an_overhead_run", an_overhead_run),
    ("a_refusal_is_recorded", a_refusal_is_recorded),
    ("a_panic_is_zeroized", a_panic_is_zeroized),
    ("a_panic_quotes_nothing_in_the_log", a_panic_quotes_nothing_in_the_log),
    ("a_hanging_workload_ends_with_its_owner", a_hanging_workload_ends_with_its_owner),
    ("an_error_is_zeroized", an_error_is_zeroized),
    ("a_failed_run_leaves_its_checkpoints", a_failed_run_leaves_its_checkpoints),
    ("a_stop_exports_and_zeroizes", a_stop_exports_and_zeroizes),
    ("artifact_names_stay_in_their_folder", artifact_names_stay_in_their_folder),
    ("segments_that_trained_differently_do_not_count", segments_that_trained_differently_do_not_count),
];

pub(crate) fn composed<K>(builder: RunBuilder<K>, folder: &Path, trouble: &str) -> RunBuilder<K> {
    let (path, sealed) = seal(folder, trouble);
    builder
        .provider(LocalProvider::new().container(container()))
        .verifier(Listener { refuse: false })
        .package(path, sealed)
        .out_dir(folder.join("out"))
        .progress_every(Duration::from_millis(50))
}

fn a_protected_run() {
    let folder = tempfile::tempdir().unwrap();
    let report =
        block_on(composed(ProtectedRun::builder(), folder.path(), "").budget(Budget::Millis(300)).run()).unwrap();
    let (units, seconds) = report.trained.unwrap();
    assert!(units > 10 && seconds >= 0.3, "{units} in {seconds} s");
    assert_eq!(report.cleanup.as_ref().unwrap().outcome, Cleanup::Observed);
    assert!(report.receipt.is_some());
    assert_eq!(report.artifacts.len(), 2);
    assert_eq!(std::fs::read(folder.path().join("out/sum.bin")).unwrap().len(), 1_600_000);
    let verified = record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
    assert_eq!(verified.sessions.len(), 1);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    std::fs::File::create(folder.path().join("plain")).unwrap();
    let plain = mode(&folder.path().join("plain"));
    let out = folder.path().join("out");
    assert_eq!([mode(&report.record), mode(&out.join("gate.pub")), mode(&out.join("sum.bin"))], [plain, plain, 0o600]);
    let latency = report.timeline.between(Phase::Challenged, Phase::FirstStep).unwrap();
    println!("challenge to first step: {latency:?}, most of it the test's own way to measure its executable");
}

fn an_overhead_run() {
    let folder = tempfile::tempdir().unwrap();
    let report = block_on(
        composed(OverheadRun::builder(), folder.path(), "")
            .order(Order::Abba)
            .repeats(1)
            .duration(Duration::from_millis(300))
            .run(),
    )
    .unwrap();
    assert!(report.row.figures().is_some(), "{:?}", report.row);
    assert_eq!(report.samples.len(), 4);
    assert_eq!(report.row.facts().workload.as_str(), "counting, adding");
    let file = OverheadFile::parse(&std::fs::read(&report.overhead).unwrap()).unwrap();
    assert_eq!(file.rows, [report.row]);
    record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
}

fn a_refusal_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let failure =
        block_on(composed(ProtectedRun::builder(), folder.path(), "").verifier(Listener { refuse: true }).run())
            .unwrap_err();
    assert!(matches!(failure.error, RunError::Gate(_)), "{failure}");
    let report = failure.report.unwrap();
    assert_eq!(report.cleanup.unwrap().outcome, Cleanup::Observed);
    let verified = record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
    assert_eq!((verified.sessions.len(), verified.record.refused.len()), (0, 1));
}

fn fails_but_zeroizes(trouble: &str, says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let failure = block_on(composed(ProtectedRun::builder(), folder.path(), trouble).run()).unwrap_err();
    assert!(matches!(failure.error, RunError::SegmentFailed { .. }), "{failure}");
    assert!(failure.to_string().contains(says), "{failure}");
    let report = failure.report.unwrap();
    assert!(report.receipt.is_some(), "it did not zeroize");
    assert_eq!(report.cleanup.unwrap().outcome, Cleanup::Observed);
    record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
}

fn a_panic_is_zeroized() {
    fails_but_zeroizes("panic", "panicked");
}

fn a_panic_quotes_nothing_in_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let run = composed(ProtectedRun::builder(), folder.path(), "panic").env(LOG, log.to_str().unwrap());
    let failure = block_on(run.run()).unwrap_err();
    assert!(matches!(failure.error, RunError::SegmentFailed { .. }), "{failure}");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("a panic at ") && log.contains("support.rs:"), "{log}");
    assert!(!log.contains("boundary") && !log.contains(PANIC_QUOTES), "{log}");
}

fn a_hanging_workload_ends_with_its_owner() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let flag = folder.path().join("trains");
    let trains = flag.clone();
    let run = composed(ProtectedRun::builder(), folder.path(), "hang").env(LOG, log.to_str().unwrap());
    let run = run.budget(Budget::Units(100)).progress_every(Duration::from_millis(1)).on_event(move |event| {
        if matches!(event, RunEvent::Progress { .. }) {
            std::fs::write(&flag, "").unwrap();
        }
    });
    let owner = std::thread::spawn(move || block_on(run.leave_signals().run()).unwrap_err());
    eventually("it trains", Duration::from_secs(60), || trains.exists());
    let agent = children_of(std::process::id())[0];
    let segment = children_of(agent)[0];
    std::thread::sleep(Duration::from_millis(100));
    kill(agent, Signal::KILL);
    let took = eventually("it ends", Duration::from_secs(6), || !runs(segment));
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("did not end in time"), "something else ended it after {took:?}: {log}");
    let failure = owner.join().unwrap();
    assert!(matches!(failure.error, RunError::AgentLost { .. }), "{failure}");
}

fn an_error_is_zeroized() {
    fails_but_zeroizes("error", "learning rate");
}

fn a_failed_run_leaves_its_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let failure = block_on(composed(ProtectedRun::builder(), folder.path(), "checkpoints").run()).unwrap_err();
    assert!(matches!(failure.error, RunError::SegmentFailed { .. }), "{failure}");
    let report = failure.report.unwrap();
    assert!(report.receipt.is_some(), "it did not zeroize");
    let names: Vec<_> = report.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(names, ["checkpoint-4", "checkpoint-8"]);
    let kept = std::fs::read(folder.path().join("out/checkpoint-8")).unwrap();
    assert_eq!(kept, (8 * 7 * 100_000_u64).to_le_bytes());
    // Bound into the record like any artifact.
    let verified = record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
    assert!(verified.subjects.iter().any(|subject| subject.name.ends_with("/checkpoint-8")));
}

fn a_stop_exports_and_zeroizes() {
    let folder = tempfile::tempdir().unwrap();
    let (stop, seen) = (StopHandle::new(), StopHandle::new());
    let from_listener = stop.clone();
    let failure = block_on(
        composed(ProtectedRun::builder(), folder.path(), "")
            .budget(Budget::Millis(60_000))
            .stop_handle(stop)
            .on_event(move |event| {
                if matches!(event, RunEvent::Progress { .. }) {
                    from_listener.stop();
                    seen.stop();
                }
            })
            .run(),
    )
    .unwrap_err();
    assert!(matches!(failure.error, RunError::SegmentStopped { .. }), "{failure}");
    let report = failure.report.unwrap();
    assert!(report.receipt.is_some());
    assert_eq!(report.artifacts.len(), 2);
}

fn artifact_names_stay_in_their_folder() {
    for name in ["../gate.key", "Gate.Key"] {
        let folder = tempfile::tempdir().unwrap();
        let run = composed(ProtectedRun::builder(), folder.path(), &format!("artifact {name}"))
            .budget(Budget::Units(10))
            .gate(Gate::open(&folder.path().join("out")).unwrap());
        let key = std::fs::read(folder.path().join("out/gate.key")).unwrap();
        let failure = block_on(run.run()).unwrap_err();
        assert!(matches!(failure.error, RunError::SegmentFailed { .. }), "{failure}");
        assert!(failure.to_string().contains("its name is"), "{failure}");
        assert_eq!(std::fs::read(folder.path().join("out/gate.key")).unwrap(), key);
        let report = failure.report.unwrap();
        record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
        assert!(report.artifacts.is_empty() && !folder.path().join("gate.key").exists());
    }
}

fn segments_that_trained_differently_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let run = composed(OverheadRun::builder(), folder.path(), "method").order(Order::RawFirst).repeats(1);
    let report = block_on(run.duration(Duration::from_millis(200)).run()).unwrap();
    let Outcome::Excluded { reasons, .. } = report.row.outcome() else { panic!("{:?}", report.row) };
    assert_eq!(*reasons, [Exclusion::MethodDiffers]);
    let label = report.row.facts().workload.as_str();
    assert_eq!(label.matches("fallback of process").count(), 2, "{label}");
    record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
}
