//! Whole runs on this machine, with real processes, whose evidence is a TD's and a GPU's that do not exist: released
//! under the generator's roots, refused under the vendors'; and a package that asks for a CPU TEE gets no key here.
//! This executable is the owner, the agent and every segment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

mod audit;
mod runtime;
#[path = "../../verify_evidence.rs"]
mod verify_evidence;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use glasshouse_attest::hardware::{HardwarePolicy, HardwareRoots, HardwareVerifier, MinimumAssurance};
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_attest_gen::{Platform, bundle};
use glasshouse_core::claims::Assurance;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::gate::GateError;
use glasshouse_core::job::Budget;
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::record;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{ClaimSource, Provider as _, Verifier};
use glasshouse_provider::run::{Gate, RunBuilder, RunError, RunEvent, RunFailure, RunReport};
use glasshouse_provider::{LocalProvider, ProtectedRun, serve_if_launched};

use audit::AUDITOR;
use runtime::{ATTESTOR, GPU_OFF};

fn main() -> ExitCode {
    serve_if_launched(runtime::registry());
    if std::env::var_os(AUDITOR).is_some() {
        return verify_evidence::main();
    }
    let tests: [(&str, fn()); 6] = [
        ("released_under_the_generators_roots", released_under_the_generators_roots),
        ("refused_under_the_vendors_roots", refused_under_the_vendors_roots),
        ("flags_of_the_programs_reach_the_gate", flags_of_the_programs_reach_the_gate),
        ("no_key_for_a_machine_that_reports_itself", no_key_for_a_machine_that_reports_itself),
        ("no_key_where_there_is_no_tee", no_key_where_there_is_no_tee),
        ("a_gpu_that_does_not_attest_is_told", a_gpu_that_does_not_attest_is_told),
    ];
    let mut failed = 0_u8;
    for (name, test) in tests {
        let began = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, began.elapsed());
        failed += u8::from(!passed);
    }
    ExitCode::from(failed.min(1))
}

/// One run of a package that asks for `minimum`, in a folder whose gate is looked into afterwards.
fn run(
    folder: &Path,
    verifier: impl Verifier + 'static,
    minimum: Assurance,
    attestor: &str,
) -> Result<RunReport, RunFailure<RunReport>> {
    tokio::runtime::Runtime::new().unwrap().block_on(composed(folder, verifier, minimum, attestor).run())
}

fn composed(
    folder: &Path,
    verifier: impl Verifier + 'static,
    minimum: Assurance,
    attestor: &str,
) -> RunBuilder<ProtectedRun> {
    let package = folder.join("job.package");
    let sealed = PackageBuilder::new("counting")
        .entry("data", Source::Slice(&[7; 1000]))
        .minimum_assurance(minimum)
        .seal_to_file(&package)
        .unwrap();
    ProtectedRun::builder()
        .provider(LocalProvider::new().container(container_id(ContainerSource::Kernel).unwrap()))
        .verifier(verifier)
        .gate(Gate::open(&folder.join("out")).unwrap())
        .package(package, sealed)
        .env(ATTESTOR, attestor)
        .out_dir(folder.join("out"))
        .budget(Budget::Units(5))
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
    audit::audited_from_files(folder.path(), &bytes, report.gate_key, &report.record);
}

fn refused_under_the_vendors_roots() {
    refused("chain", run_in_folder(vendors(), Assurance::CpuTeeGpuCc, "generated"));
}

/// `--policy`, `--bundle` and `--bundle-key` of the programs: the package asks for what the policy reaches, and the gate
/// appraises by it, under the vendors' roots.
fn flags_of_the_programs_reach_the_gate() {
    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        provider: examples::ProviderArguments,
    }
    let folder = tempfile::tempdir().unwrap();
    let signer = SigningSecret::from_seed(Secret::take(&mut [9; 32]));
    let now = examples::time("now").unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let mut bundle = bundle(3);
    (bundle.issued_at, bundle.not_after) = (now, UnixMillis(now.0 + 60_000));
    let policy = file("policy.json", &serde_json::to_vec(&Platform::tdx(1).policy()).unwrap());
    let (bundle, key) = (file("bundle.json", &bundle.sign(&signer)), signer.public().to_string());
    let store = folder.path().join("collateral").display().to_string();
    let open = |flags: &[&str]| {
        let program = <Program as clap::Parser>::try_parse_from([&["program"], flags].concat());
        program.map(|program| program.provider.open(Some(examples::DeviceName::Cpu)))
    };
    assert_eq!(open(&[]).unwrap().unwrap().minimum_assurance(), Assurance::SelfReported);
    assert!(open(&["--dangerous-at", "2026-11-23T00:00:00Z"]).is_err(), "there is nothing to appraise");
    assert!(open(&["--at", "now"]).is_err(), "a run is appraised at its own time");
    assert!(open(&["--policy", &policy]).is_err() && open(&["--policy", &policy, "--bundle", &bundle]).is_err());
    let flags = ["--policy", &policy, "--bundle", &bundle, "--bundle-key", &key, "--collateral", &store];
    let rental = open(&flags).unwrap().unwrap();
    assert_eq!(rental.minimum_assurance(), Assurance::CpuTeeGpuCc);
    let package = folder.path().join("job.package");
    let builder = PackageBuilder::new("counting").entry("data", Source::Slice(&[7; 1000]));
    let sealed = builder.minimum_assurance(rental.minimum_assurance()).seal_to_file(&package).unwrap();
    let run = rental
        .compose(ProtectedRun::builder())
        .package(package, sealed)
        .env(ATTESTOR, "generated")
        .out_dir(folder.path().join("out"))
        .budget(Budget::Units(5));
    let failure = tokio::runtime::Runtime::new().unwrap().block_on(run.run()).unwrap_err();
    refused("chain", failure);
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

/// A machine with a CPU TEE whose GPU is not confidential: refused with the reason where a confidential GPU is asked for, and
/// where it is not a CPU TEE, with the reason in the allocation's log.
fn a_gpu_that_does_not_attest_is_told() {
    let asks = |minimum_assurance| {
        let policy = HardwarePolicy { minimum_assurance, ..Platform::tdx(1).policy() };
        HardwareVerifier::new(policy, Platform::roots(), Platform::collateral()).unwrap()
    };
    let failure = run_in_folder(asks(MinimumAssurance::CpuTeeGpuCc), Assurance::CpuTeeGpuCc, "gpu-off");
    assert!(failure.to_string().contains(GPU_OFF), "{failure}");
    refused("gpu-missing", run_in_folder(asks(MinimumAssurance::CpuTeeGpuCc), Assurance::CpuTee, "gpu-off"));

    let folder = tempfile::tempdir().unwrap();
    let provider = Arc::new(LocalProvider::new().container(container_id(ContainerSource::Kernel).unwrap()));
    let (verifier, log) = (asks(MinimumAssurance::CpuTee), Arc::new(Mutex::new(Vec::new())));
    let (of, lines, mut id) = (Arc::clone(&provider), Arc::clone(&log), None);
    let run = composed(folder.path(), verifier, Assurance::CpuTee, "gpu-off").shared_provider(provider);
    let run = run.on_event(move |event| match event {
        RunEvent::Rented { id: rented } => id = Some(rented),
        RunEvent::Released { .. } => {
            let (of, lines, id) = (Arc::clone(&of), Arc::clone(&lines), id.clone().unwrap());
            tokio::spawn(async move {
                let said = of.logs(&id, None).await.unwrap().lines;
                lines.lock().unwrap().extend(said);
            });
        }
        _ => {}
    });
    let report = tokio::runtime::Runtime::new().unwrap().block_on(run.run()).unwrap();
    let bytes = std::fs::read(&report.record).unwrap();
    let verified = record::verify(&bytes, Some(report.gate_key), None).unwrap();
    assert_eq!(verified.sessions[0].verdict.appraisal.assurance, Assurance::CpuTee);
    let log = log.lock().unwrap();
    assert!(log.iter().any(|line| line.contains(GPU_OFF) && line.contains("the CPU's evidence alone")), "{log:?}");
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
