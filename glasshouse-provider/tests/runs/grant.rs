//! What ends a grant in a real runtime: the lease, at every place where it is looked at, and a panic right after it.

use std::path::Path;
use std::time::Duration;

use glasshouse_core::channel::Phase;
use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest48, Fixed};
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::job::Budget;
use glasshouse_core::record;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::{Appraisal, Binding, Verifier};
use glasshouse_provider::run::{ProtectedRun, RunBuilder, RunError, RunFailure, RunReport};

use crate::support::{DROPPED_BADLY, FIXED_MEASUREMENT, Listener, MEASURES_NOTHING, SLOW_ZEROIZER, Test, block_on};
use crate::whole::composed;

pub(crate) const TESTS: &[Test] = &[
    ("a_lease_ends_by_time", a_lease_ends_by_time),
    ("a_lease_ends_by_units", a_lease_ends_by_units),
    ("a_lease_ends_before_the_package_is_opened", a_lease_ends_before_the_package_is_opened),
    ("a_release_held_back_is_refused", a_release_held_back_is_refused),
    ("a_panic_after_the_grant_is_zeroized", a_panic_after_the_grant_is_zeroized),
];

const SECONDS: u64 = 2;

/// A run that would train for longer than the lease, whose runtime measures in no time.
fn leased(folder: &Path, ttl: u64, max_units: Option<u64>) -> RunBuilder<ProtectedRun> {
    composed(ProtectedRun::builder(), folder, "")
        .env(MEASURES_NOTHING, "1")
        .runtime_measurement(Fixed(FIXED_MEASUREMENT))
        .lease(LeaseTerms { ttl: Duration::from_secs(ttl), max_units })
        .budget(Budget::Millis(2 * 1000 * SECONDS))
}

/// It stopped for this reason, zeroized, and says so in a record that holds.
fn stopped(failure: RunFailure<RunReport>, reason: &Code) -> RunReport {
    let RunError::SegmentStopped { reason: seen, .. } = &failure.error else { panic!("{failure}") };
    assert!(seen.starts_with(reason.as_str()), "{seen}");
    let report = *failure.report.unwrap();
    assert!(report.receipt.is_some(), "it did not zeroize");
    assert!(report.artifacts.is_empty(), "it exported without a lease");
    record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
    report
}

fn a_lease_ends_by_time() {
    let folder = tempfile::tempdir().unwrap();
    let failure = block_on(leased(folder.path(), SECONDS, None).run()).unwrap_err();
    let report = stopped(failure, &Code::LEASE_EXPIRED);
    let (_, seconds) = report.trained.unwrap();
    assert!(seconds < SECONDS as f64 + 0.5, "it trained for {seconds} s");
}

fn a_lease_ends_by_units() {
    let folder = tempfile::tempdir().unwrap();
    let failure = block_on(leased(folder.path(), 3600, Some(25)).run()).unwrap_err();
    let report = stopped(failure, &Code::LEASE_STEPS);
    // Warm-up is training: 4 units of it, and then in launches of two.
    assert_eq!(report.trained.unwrap().0, 20);
}

fn a_lease_ends_before_the_package_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let failure = block_on(leased(folder.path(), SECONDS, None).env(SLOW_ZEROIZER, "3000").run()).unwrap_err();
    let report = stopped(failure, &Code::LEASE_EXPIRED);
    assert!(report.timeline.at(Phase::Released).is_some() && report.timeline.at(Phase::Opened).is_none());
}

/// A gate behind a network that holds what it sends back.
struct Late(Listener);

impl Verifier for Late {
    fn kind(&self) -> EvidenceKind {
        self.0.kind()
    }

    fn policy_digest(&self) -> Digest48 {
        self.0.policy_digest()
    }

    fn appraise(
        &self,
        cpu: &CpuEvidence,
        gpus: &GpuEvidence,
        binding: &Binding<'_>,
        now: UnixMillis,
    ) -> Result<Appraisal, Refusal> {
        std::thread::sleep(Duration::from_secs(SECONDS) + Duration::from_millis(500));
        self.0.appraise(cpu, gpus, binding, now)
    }
}

fn a_release_held_back_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = leased(folder.path(), SECONDS, None).verifier(Late(Listener { refuse: false }));
    let failure = block_on(run.run()).unwrap_err();
    let RunError::Client(error) = &failure.error else { panic!("{failure}") };
    let refusal = error.refused().unwrap().refusal.as_deref().unwrap();
    assert_eq!(refusal.code, Code::LEASE_EXPIRED, "{failure}");
    assert!(failure.report.unwrap().timeline.at(Phase::Released).is_none());
}

fn a_panic_after_the_grant_is_zeroized() {
    let folder = tempfile::tempdir().unwrap();
    let failure = block_on(leased(folder.path(), 3600, None).env(DROPPED_BADLY, "1").run()).unwrap_err();
    assert!(matches!(failure.error, RunError::SegmentFailed { .. }), "{failure}");
    assert!(failure.to_string().contains("panicked"), "{failure}");
    let report = failure.report.unwrap();
    let receipt = report.receipt.expect("the data key was wiped without a receipt");
    assert!(receipt.regions.iter().any(|region| region.label == "data key"), "{receipt:?}");
    record::verify(&std::fs::read(&report.record).unwrap(), Some(report.gate_key), None).unwrap();
}
