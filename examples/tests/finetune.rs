//! Fine-tuning in whole runs on this machine, with real processes: what comes home, that raw and protected train alike,
//! that a run resumes, and what a run that fails leaves. This executable is the owner, the agent and every segment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use examples::{demo_data, latest_checkpoint, registry};
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_core::claims::Assurance;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::record;
use glasshouse_core::transcript::sha256;
use glasshouse_provider::run::{RunBuilder, RunError, RunReport};
use glasshouse_provider::{LocalProvider, ProtectedRun, RawRun, serve_if_launched};
use glasshouse_train::finetune::{Schedule, Settings, Start, package_entries};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

fn main() {
    serve_if_launched(registry());
    let tests: [(&str, fn()); 4] = [
        ("the_adapter_is_in_the_evidence", the_adapter_is_in_the_evidence),
        ("raw_and_protected_train_alike", raw_and_protected_train_alike),
        ("a_protected_run_resumes", a_protected_run_resumes),
        ("a_loss_that_is_none_leaves_the_last_good_checkpoint", a_loss_that_is_none_leaves_the_last_good_checkpoint),
    ];
    let mut failed = 0;
    for (name, test) in tests {
        let began = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, began.elapsed());
        failed += i32::from(!passed);
    }
    std::process::exit(failed.min(1));
}

/// A checkpoint's header has it.
const CHECKPOINT_MARK: &[u8] = b"glasshouse_checkpoint";

fn settings() -> Settings {
    Settings { steps: 6, sequence: 64, learning_rate: 1e-2, ..Settings::default() }
}

fn composed<K>(run: RunBuilder<K>, folder: &Path, settings: &Settings, start: Start) -> RunBuilder<K> {
    let package = folder.join("job.package");
    let mut builder = PackageBuilder::new("qwen-lora").minimum_assurance(Assurance::SelfReported);
    for (name, bytes) in package_entries(settings, demo_data(), start).unwrap() {
        builder = builder.entry(name, Source::Memory(bytes));
    }
    let sealed = builder.seal_to_file(&package).unwrap();
    run.provider(LocalProvider::new().container(container_id(ContainerSource::Kernel).unwrap()))
        .verifier(SoftwareVerifier::new(SoftwarePolicy::default()))
        .package(package, sealed)
        .out_dir(folder.join("out"))
        .warmup_units(1)
        .budget(Budget::Units(1000))
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

fn protected(folder: &Path, settings: &Settings, start: Start) -> RunReport {
    block_on(composed(ProtectedRun::builder(), folder, settings, start).run()).unwrap()
}

fn the_adapter_is_in_the_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let report = protected(folder.path(), &settings(), Start::Fresh);
    let verified = record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
    let names = ["adapter_config.json", "adapter_model.safetensors", "eval.json", "training_log.jsonl"];
    assert_eq!(report.artifacts.iter().map(|artifact| artifact.name.as_str()).collect::<Vec<_>>(), names);
    for name in names {
        let digest = sha256(std::fs::read(folder.path().join("out").join(name)).unwrap());
        let subject = verified.subjects.iter().find(|subject| subject.name.ends_with(&format!("/{name}"))).unwrap();
        assert_eq!(subject.digest.sha256, digest, "{name}");
    }
    assert!(report.receipt.is_some());
}

fn raw_and_protected_train_alike() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let with_protection = protected(a.path(), &settings(), Start::Fresh);
    let without = block_on(composed(RawRun::builder(), b.path(), &settings(), Start::Fresh).run()).unwrap();
    assert_eq!(with_protection.weights.unwrap(), without.weights.unwrap());
    let files =
        |report: &RunReport| report.artifacts.iter().map(|a| (a.name.clone(), a.sha256, a.bytes)).collect::<Vec<_>>();
    assert_eq!(files(&with_protection), files(&without));
    assert!(without.receipt.is_none());
}

fn a_protected_run_resumes() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let settings = Settings { checkpoint_every: 4, ..settings() };
    let whole = protected(a.path(), &settings, Start::Fresh);
    let (start, state) = latest_checkpoint(&a.path().join("out")).unwrap();
    assert_eq!(state.step, 4);
    let resumed = protected(b.path(), &settings, start);
    assert_eq!(whole.weights.unwrap(), resumed.weights.unwrap());
    // What is resumed from leaves the owner sealed: its plaintext says what it is, and the package does not.
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(CHECKPOINT_MARK.len()).any(|part| part == CHECKPOINT_MARK)
    };
    assert!(holds(&a.path().join("out/checkpoint-000004.safetensors")));
    assert!(!holds(&b.path().join("job.package")));
}

fn a_loss_that_is_none_leaves_the_last_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    // The learning rate grows until nothing is finite any more.
    let settings = Settings {
        steps: 40,
        warmup: 40,
        learning_rate: 1e38,
        clip: 0.0,
        schedule: Schedule::Constant,
        checkpoint_every: 1,
        ..settings()
    };
    let failure =
        block_on(composed(ProtectedRun::builder(), folder.path(), &settings, Start::Fresh).run()).unwrap_err();
    assert!(matches!(failure.error, RunError::SegmentFailed { .. }), "{failure}");
    assert!(failure.to_string().contains("lower the learning rate"), "{failure}");
    let report = failure.report.unwrap();
    assert!(report.receipt.is_some(), "it did not zeroize");
    assert_eq!(report.cleanup.unwrap().outcome, Cleanup::Observed);
    let (start, state) = latest_checkpoint(&folder.path().join("out")).unwrap();
    assert!(state.step >= 1 && state.step < 40, "{state:?}");
    // The same run takes it, and comes to the same wall: what is refused is refused before anything is computed.
    let again = tempfile::tempdir().unwrap();
    let failure = block_on(composed(ProtectedRun::builder(), again.path(), &settings, start).run()).unwrap_err();
    assert!(failure.to_string().contains("lower the learning rate"), "{failure}");
}
