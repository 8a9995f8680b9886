//! Whole runs on this machine, with real processes, whose evidence is a TD's and a GPU's that do not exist: released
//! under the generator's roots, refused under the vendors'; and a package that asks for a CPU TEE gets no key here.
//! This executable is the owner, the agent and every segment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Instant;

use glasshouse_attest::hardware::{HardwareRoots, HardwareVerifier};
use glasshouse_attest::software::{
    ContainerSource, RuntimeStateCell, SoftwarePolicy, SoftwareVerifier, container_id, harden,
};
use glasshouse_attest::tee::TeeAttestor;
use glasshouse_attest_gen::{GeneratedAttestor, Platform};
use glasshouse_core::claims::{Assurance, EvidenceKind};
use glasshouse_core::fixed::{Digest32, Digest64};
use glasshouse_core::gate::GateError;
use glasshouse_core::job::Budget;
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::record;
use glasshouse_core::traits::{
    ArtifactSink, AttestError, Attestor, ClaimSource, Device, Inputs, Progress, Unit, Verifier, Workload, WorkloadError,
};
use glasshouse_core::transcript::sha256;
use glasshouse_provider::run::{Gate, RunError, RunFailure, RunReport};
use glasshouse_provider::{LocalProvider, ProtectedRun, Registry, SegmentContext, serve_if_launched};

/// Which attestor a segment makes: the generator's, unless this asks for the machine's own.
const ATTESTOR: &str = "GLASSHOUSE_TEST_ATTESTOR";

fn main() {
    serve_if_launched(registry());
    let tests: [(&str, fn()); 4] = [
        ("released_under_the_generators_roots", released_under_the_generators_roots),
        ("refused_under_the_vendors_roots", refused_under_the_vendors_roots),
        ("no_key_for_a_machine_that_reports_itself", no_key_for_a_machine_that_reports_itself),
        ("no_key_where_there_is_no_tee", no_key_where_there_is_no_tee),
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

fn registry() -> Registry {
    examples::registry().workload(Counting::default).attestor(EvidenceKind::Tdx, |context: &SegmentContext| {
        harden(context.anti_debug)?;
        Ok(match std::env::var(ATTESTOR).as_deref() {
            Ok("machine") => Either::Machine(Box::new(TeeAttestor::tdx(RuntimeStateCell::new())?)),
            _ => Either::Generated(Box::new(GeneratedAttestor::new(Platform::tdx(1)))),
        })
    })
}

/// The machine's own attestor, or the generator's.
enum Either {
    Machine(Box<TeeAttestor>),
    Generated(Box<GeneratedAttestor>),
}

impl Either {
    fn get(&self) -> &dyn Attestor {
        match self {
            Self::Machine(attestor) => &**attestor,
            Self::Generated(attestor) => &**attestor,
        }
    }
}

impl Attestor for Either {
    fn measure(&self) -> Result<glasshouse_core::claims::Claims, AttestError> {
        self.get().measure()
    }
    fn gpu_evidence(&self, nonce: &Digest32) -> Result<glasshouse_core::evidence::GpuEvidence, AttestError> {
        self.get().gpu_evidence(nonce)
    }
    fn quote(&self, report_data: &Digest64) -> Result<glasshouse_core::evidence::CpuEvidence, AttestError> {
        self.get().quote(report_data)
    }
}

/// Adds up what was sealed.
#[derive(Default)]
struct Counting {
    sum: u64,
    done: u64,
}

impl Workload for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }
    fn unit(&self) -> Unit {
        Unit::Step
    }
    fn launch_batch(&self) -> u64 {
        1
    }
    fn prepare(&mut self, mut inputs: Inputs, _device: Device) -> Result<(), WorkloadError> {
        self.sum = inputs.take("data")?.iter().map(|byte| u64::from(*byte)).sum();
        Ok(())
    }
    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        self.done += units;
        Ok(Progress { done: self.done, loss: Some(0.0), ..Progress::default() })
    }
    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        Ok(sha256(self.sum.to_le_bytes()))
    }
    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        sink.put("sum.txt", self.sum.to_string().as_bytes())
    }
    fn release(&mut self) -> Result<(), WorkloadError> {
        self.sum = 0;
        Ok(())
    }
}

/// One run of a package that asks for `minimum`, in a folder whose gate is looked into afterwards.
fn run(
    folder: &Path,
    verifier: impl Verifier + 'static,
    minimum: Assurance,
    attestor: &str,
) -> Result<RunReport, RunFailure<RunReport>> {
    let package = folder.join("job.package");
    let sealed = PackageBuilder::new("counting")
        .entry("data", Source::Slice(&[7; 1000]))
        .minimum_assurance(minimum)
        .seal_to_file(&package)
        .unwrap();
    let run = ProtectedRun::builder()
        .provider(LocalProvider::new().container(container_id(ContainerSource::Kernel).unwrap()))
        .verifier(verifier)
        .gate(Gate::open(&folder.join("out")).unwrap())
        .package(package, sealed)
        .env(ATTESTOR, attestor)
        .out_dir(folder.join("out"))
        .budget(Budget::Units(5));
    tokio::runtime::Runtime::new().unwrap().block_on(run.run())
}

fn released_under_the_generators_roots() {
    let folder = tempfile::tempdir().unwrap();
    let report = run(folder.path(), Platform::tdx(1).verifier(), Assurance::CpuTeeGpuCc, "generated").unwrap();
    assert_eq!(String::from_utf8_lossy(&report.artifacts[0].read().unwrap()), "7000");
    let bytes = std::fs::read(&report.record).unwrap();
    let verified =
        record::verify_with(&bytes, Some(report.gate_key), None, Some(&Platform::tdx(1).verifier())).unwrap();
    let appraisal = &verified.sessions[0].verdict.appraisal;
    assert_eq!(appraisal.assurance, Assurance::CpuTeeGpuCc);
    let hardware = |name: &str| {
        let mut claims = appraisal.claims.iter().filter(|claim| claim.source == ClaimSource::HardwareVerified);
        claims.any(|claim| claim.name.contains(name))
    };
    assert!(hardware("tdx-mrtd") && hardware("-driver-version"), "{appraisal:?}");
    // An auditor with the vendors' roots has another policy, and does not appraise it as a real machine's.
    assert!(verified.sessions[0].appraised_again);
    let audited = record::verify_with(&bytes, Some(report.gate_key), None, Some(&vendors())).unwrap();
    assert!(!audited.sessions[0].appraised_again);
}

fn refused_under_the_vendors_roots() {
    refused("chain", run_in_folder(vendors(), Assurance::CpuTeeGpuCc, "generated"));
}

/// The gate appraises what this machine can say of itself, and it is not enough.
fn no_key_for_a_machine_that_reports_itself() {
    let software = SoftwareVerifier::new(SoftwarePolicy::default());
    refused("assurance-too-low", run_in_folder(software, Assurance::CpuTee, "generated"));
}

/// The machine's own attestor of TDX finds no TDX, and says so.
fn no_key_where_there_is_no_tee() {
    if Path::new("/dev/tdx_guest").exists() {
        println!("SKIPPED: this machine is a TD");
        return;
    }
    let failure = run_in_folder(vendors(), Assurance::CpuTee, "machine");
    assert!(failure.to_string().contains("Intel TDX is not available here"), "{failure}");
}

fn vendors() -> HardwareVerifier {
    HardwareVerifier::new(Platform::tdx(1).policy(), HardwareRoots::vendors(), Platform::collateral()).unwrap()
}

/// Runs what must fail, and looks whether a key left the gate all the same.
fn run_in_folder(verifier: impl Verifier + 'static, minimum: Assurance, attestor: &str) -> RunFailure<RunReport> {
    let folder = tempfile::tempdir().unwrap();
    let failure = run(folder.path(), verifier, minimum, attestor).unwrap_err();
    let gate = Gate::open(&folder.path().join("out")).unwrap();
    assert!(gate.sessions().unwrap().is_empty(), "a key left the gate");
    if let Some(report) = &failure.report {
        assert!(report.artifacts.is_empty());
        let bytes = std::fs::read(&report.record).unwrap();
        let verified = record::verify(&bytes, Some(report.gate_key), None).unwrap();
        assert!(verified.sessions.is_empty());
    }
    failure
}

#[track_caller]
fn refused(code: &str, failure: RunFailure<RunReport>) {
    let RunError::Gate(GateError::Refused(refusal)) = &failure.error else { panic!("{failure}") };
    assert_eq!(refusal.code.as_str(), code, "{refusal}");
}
