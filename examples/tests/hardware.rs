//! Whole runs on this machine, with real processes, whose evidence is a TD's and a GPU's that do not exist: released
//! under the generator's roots, refused under the vendors'; and a package that asks for a CPU TEE gets no key here.
//! This executable is the owner, the agent and every segment.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

#[path = "../verify_evidence.rs"]
mod verify_evidence;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use examples::HardwareArguments;
use glasshouse_attest::collateral::Bundle;
use glasshouse_attest::hardware::{HardwareRoots, HardwareVerifier};
use glasshouse_attest::software::{
    ContainerSource, RuntimeStateCell, SoftwarePolicy, SoftwareVerifier, container_id, harden,
};
use glasshouse_attest::tee::TeeAttestor;
use glasshouse_attest_gen::nvidia::OcspDraft;
use glasshouse_attest_gen::{GeneratedAttestor, Platform, bundle};
use glasshouse_core::claims::{Assurance, EvidenceKind};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Blob, Digest32, Digest64, PublicKey32};
use glasshouse_core::gate::GateError;
use glasshouse_core::job::Budget;
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::record;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{
    ArtifactSink, AttestError, Attestor, ClaimSource, Device, Inputs, Progress, Unit, Verifier, Workload, WorkloadError,
};
use glasshouse_core::transcript::sha256;
use glasshouse_provider::run::{Gate, RunError, RunFailure, RunReport};
use glasshouse_provider::{LocalProvider, ProtectedRun, Registry, SegmentContext, serve_if_launched};

/// Which attestor a segment makes: the generator's, unless this asks for the machine's own.
const ATTESTOR: &str = "GLASSHOUSE_TEST_ATTESTOR";

/// Makes this executable `verify_evidence`.
const AUDITOR: &str = "GLASSHOUSE_TEST_AUDITOR";

fn main() -> ExitCode {
    serve_if_launched(registry());
    if std::env::var_os(AUDITOR).is_some() {
        return verify_evidence::main();
    }
    let tests: [(&str, fn()); 5] = [
        ("released_under_the_generators_roots", released_under_the_generators_roots),
        ("refused_under_the_vendors_roots", refused_under_the_vendors_roots),
        ("flags_of_the_programs_reach_the_gate", flags_of_the_programs_reach_the_gate),
        ("no_key_for_a_machine_that_reports_itself", no_key_for_a_machine_that_reports_itself),
        ("no_key_where_there_is_no_tee", no_key_where_there_is_no_tee),
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
    audited_from_files(folder.path(), &bytes, report.gate_key, &report.record);
}

/// The same from files: policy, bundle and key as an auditor has them, under the generator's roots; and the command, which
/// knows the vendors' roots only, does not take what it did not appraise for appraised.
fn audited_from_files(folder: &Path, record: &[u8], gate: PublicKey32, path: &Path) {
    let signer = SigningSecret::from_seed(Secret::take(&mut [9; 32]));
    let now = record::verify_with(record, Some(gate), None, None).unwrap().time.time();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let of = |version: u64, change: &dyn Fn(&mut Bundle)| {
        let mut bundle = bundle(version);
        (bundle.issued_at, bundle.not_after) = (UnixMillis(now.0 - 1000), UnixMillis(now.0 + 1000));
        change(&mut bundle);
        file(&format!("bundle-{version}.json"), &bundle.sign(&signer))
    };
    let policy = file("policy.json", &serde_json::to_vec(&Platform::tdx(1).policy()).unwrap());
    let with = |bundle: PathBuf, key: PublicKey32| HardwareArguments {
        policy: Some(policy.clone()),
        bundle: Some(bundle),
        bundle_key: Some(key),
        dangerous_at: None,
    };
    let good = with(of(5, &|_| {}), signer.public());
    let verifier = good.for_an_audit(Platform::roots(), now).unwrap().unwrap();
    let verified = record::verify_with(record, Some(gate), None, Some(&verifier)).unwrap();
    assert!(verified.sessions[0].appraised_again && record::explain(&verified).contains("appraised again here"));
    let why =
        |arguments: &HardwareArguments, at| arguments.for_an_audit(Platform::roots(), at).unwrap_err().to_string();
    assert!(why(&with(good.bundle.clone().unwrap(), gate), now).contains("another signature"));
    assert!(why(&good, UnixMillis(now.0 + 10_000)).contains("bundle"));
    // Whatever day it is here.
    let always =
        OcspDraft { from: "20240101000000Z", until: Some("20391231235959Z"), ..OcspDraft::revoked("family", 3) };
    let revoking = with(of(6, &|b| b.nvidia.ocsp = vec![Blob(always.der())]), signer.public());
    let verifier = revoking.for_an_audit(Platform::roots(), now).unwrap().unwrap();
    let told = record::verify_with(record, Some(gate), None, Some(&verifier)).unwrap_err().to_string();
    assert!(told.contains("revoked"), "{told}");
    // A run remembers the newest bundle; an audit does not care.
    let store = folder.join("collateral");
    assert!(revoking.for_a_run(Platform::roots(), &store, now).unwrap().is_some());
    let older = good.for_a_run(Platform::roots(), &store, now).unwrap_err().to_string();
    assert!(older.contains("version 6 or newer"), "{older}");
    assert!(HardwareArguments::default().for_a_run(Platform::roots(), &store, now).unwrap().is_none());
    // A bundle that has run out is of use at a time of one's own, by a policy that is another one and says so. That brings
    // no older bundle back.
    let later = UnixMillis(now.0 + 10_000);
    assert!(revoking.for_a_run(Platform::roots(), &store, later).unwrap_err().to_string().contains("bundle-expired"));
    let kept = HardwareArguments { dangerous_at: Some(now), ..revoking };
    let pinned = kept.for_a_run(Platform::roots(), &store, later).unwrap().unwrap();
    assert_eq!(pinned.policy().relaxations(), [format!("dangerous_at {now}")]);
    assert_ne!(pinned.policy_digest(), verifier.policy_digest());
    let audited = kept.for_an_audit(Platform::roots(), later).unwrap().unwrap();
    assert_eq!(audited.policy_digest(), pinned.policy_digest());
    let rolled = HardwareArguments { dangerous_at: Some(now), ..good.clone() };
    assert!(rolled.for_a_run(Platform::roots(), &store, later).unwrap_err().to_string().contains("version 6 or newer"));

    let command = |more: &[&std::ffi::OsStr]| {
        let mut command = Command::new("/proc/self/exe");
        command.env(AUDITOR, "").arg(path);
        let output = command.args(["--trust", &gate.to_string()]).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let (code, told) = command(&[]);
    assert!(code == Some(0) && told.contains("not appraised again here"), "{told}");
    let (key, bundle) = (signer.public().to_string(), good.bundle.clone().unwrap());
    let flags = ["--policy".as_ref(), policy.as_os_str(), "--bundle".as_ref(), bundle.as_os_str()];
    let (code, told) = command(&[&flags[..], &["--bundle-key".as_ref(), key.as_ref()]].concat());
    assert!(code == Some(1) && told.contains("under other roots than the vendors'"), "{told}");
    let stranger = gate.to_string();
    let (code, told) = command(&[&flags[..], &["--bundle-key".as_ref(), stranger.as_ref()]].concat());
    assert!(code == Some(1) && told.contains("bundle-signature"), "{told}");
    assert_eq!(command(&flags).0, Some(2), "a bundle without its key");
    assert_eq!(command(&flags[..2]).0, Some(2), "a policy without a bundle");
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
