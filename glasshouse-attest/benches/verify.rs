//! How long evidence takes to verify, on one core: `cargo bench -p glasshouse-attest --bench verify`.
//!
//! Evidence is real where the shared corpus lies beside the repository, and the generator's otherwise; whole sessions
//! are the generator's. Processor time is what counts; the wall's is beside it to show how busy the machine was. The
//! program fails where a budget is not met.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program for people, over files that are as they are"
)]

use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use glasshouse_attest::ReportData;
use glasshouse_attest::nvidia::{Device, NvidiaCollateral, NvidiaPolicy, NvidiaRoots, NvidiaVerifier, verify_rim};
use glasshouse_attest::snp::{SnpEvidence, SnpPolicy, SnpRoots, SnpVerifier};
use glasshouse_attest::tdx::{Collateral, DcapPolicy, DcapVerifier, IntelRoot};
use glasshouse_attest_gen::{AUDIT_TIME, Platform};
use glasshouse_core::claims::{AntiDebug, AntiDebugLevel, Claims, ContainerId, ReferenceValues, RuntimeState};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{DeviceKind, gpu_nonce, report_data};
use glasshouse_core::fixed::{Digest32, Nonce32};
use glasshouse_core::traits::{Binding, Verifier as _};
use glasshouse_core::transcript::sha384;
use rustix::time::{ClockId, clock_gettime};

const RUNS: usize = 200;
const NVIDIA_BUDGET: Duration = Duration::from_millis(15);
const CPU_BUDGET: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let mut within = true;
    if corpus().join("cases.json").is_file() {
        within &= nvidia();
        within &= tdx();
        within &= snp();
    } else {
        println!("SKIPPED: no corpus of real evidence at {}", corpus().display());
    }
    for (platform, what, budget) in [
        (Platform::tdx(0), "session: TDX", CPU_BUDGET),
        (Platform::snp(0), "session: SEV-SNP with its chain", CPU_BUDGET),
        (Platform::tdx(1), "session: TDX and one GPU", CPU_BUDGET + NVIDIA_BUDGET),
        (Platform::tdx(8), "session: TDX and eight GPUs", CPU_BUDGET + 8 * NVIDIA_BUDGET),
    ] {
        within &= session(&platform, what, budget);
    }
    if within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An H100's report with both manifests.
fn nvidia() -> bool {
    let report = hex::decode(String::from_utf8(read("nvidia/h100_full/report.hex")).unwrap().trim()).unwrap();
    let chain = read("nvidia/h100_full/chain.pem");
    let driver = read("nvidia/h100_full/driver_rim_545.00.swidtag");
    let vbios = read("nvidia/h100_full/vbios_rim_96.00.5E.00.01.swidtag");
    let nonce = Nonce32::from_hex("4cff7f5380ead8fad8ec2c531c110aca4302a88f603792801a8ca29ee151af2e").unwrap();
    let at = UnixMillis(1_704_067_200_000); // 2024-01-01T00:00:00Z
    let verifier = |dangerous_no_measurements| {
        let policy = NvidiaPolicy { allow_missing_fwid: true, dangerous_no_measurements, ..NvidiaPolicy::default() };
        NvidiaVerifier::new(policy, NvidiaRoots::nvidia())
    };
    let device = Device { kind: DeviceKind::NvidiaGpu, report: &report, chain: &chain };
    let alone = verifier(true);
    measure("NVIDIA: report and chain", None, || {
        alone.verify_device(device, NvidiaCollateral::default(), &nonce, at).is_ok()
    });
    measure("NVIDIA: one manifest", None, || verify_rim(&driver, &NvidiaRoots::nvidia().rim, at).is_ok());
    let whole = verifier(false);
    measure("NVIDIA: report, chain and both manifests", Some(NVIDIA_BUDGET), || {
        let collateral = NvidiaCollateral { rims: &[&driver, &vbios], crls: &[], ocsp: &[] };
        whole.verify_device(device, collateral, &nonce, at).is_ok()
    })
}

/// A real quote, its collateral read anew each time.
fn tdx() -> bool {
    let (quote, json) = (read("tdx/uptodate/quote.bin"), read("tdx/uptodate/collateral.json"));
    let policy =
        DcapPolicy { dangerous_no_measurements: true, dangerous_no_report_data: true, ..DcapPolicy::default() };
    let verifier = DcapVerifier::new(policy, IntelRoot::intel());
    let at = UnixMillis(1_750_408_000_000); // 2025-06-20T08:26:40Z
    measure("TDX: quote and collateral", Some(CPU_BUDGET), || {
        let collateral = Collateral::parse(&json).unwrap();
        verifier.verify_tdx(&quote, &collateral, ReportData::Unknown, at).is_ok()
    })
}

/// A real report of Genoa under its VCEK.
fn snp() -> bool {
    let (report, vek) = (read("snp/genoa_v5/report.bin"), read("snp/genoa_v5/vcek.der"));
    let policy = SnpPolicy { dangerous_no_measurements: true, dangerous_no_report_data: true, ..SnpPolicy::default() };
    let verifier = SnpVerifier::new(policy, SnpRoots::amd());
    let at = UnixMillis(1_780_272_000_000); // 2026-06-01T00:00:00Z
    measure("SEV-SNP: report and VCEK", Some(CPU_BUDGET), || {
        let evidence = SnpEvidence { report: &report, vek: &vek, chain: &[] };
        verifier.verify(evidence, ReportData::Unknown, at).is_ok()
    })
}

/// The whole appraisal as the gate calls it.
fn session(platform: &Platform, what: &str, budget: Duration) -> bool {
    let verifier = platform.verifier();
    let claims = Claims {
        kind: verifier.kind(),
        image_digest: None,
        container: ContainerId { source: "boot-id".into(), value: "host:1".into() },
        runtime_measurement: Digest32::from([3; 32]),
        anti_debug: AntiDebug {
            profile: String::new(),
            level: AntiDebugLevel::Off,
            not_dumpable: true,
            no_core_files: true,
            no_tracer: true,
            no_preload: true,
            ptrace_scope: None,
        },
        state: RuntimeState::Ready,
    };
    let reference = ReferenceValues {
        kind: claims.kind,
        image_digest: None,
        container: claims.container.clone(),
        runtime_measurement: claims.runtime_measurement,
        anti_debug_profile: String::new(),
        anti_debug_level: AntiDebugLevel::Off,
        policy_digest: verifier.policy_digest(),
        minimum_assurance: platform.policy().minimum_assurance.level(),
    };
    let t = sha384("a session");
    let nonce = gpu_nonce(&t);
    let gpus = platform.gpu_evidence(&nonce);
    let data = report_data(&t, &gpus.digest());
    let cpu = platform.quote(&data);
    let binding = Binding { gpu_nonce: &nonce, report_data: &data, reference: &reference, claims: &claims };
    measure(what, Some(budget), || verifier.appraise(&cpu, &gpus, &binding, AUDIT_TIME).is_ok())
}

fn corpus() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation-vectors")
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(corpus().join(name)).unwrap()
}

/// Median processor time of one call, held to a budget.
fn measure(what: &str, budget: Option<Duration>, call: impl Fn() -> bool) -> bool {
    let (mut processor, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (cpu, clock) = (thread_time(), Instant::now());
        assert!(black_box(call()), "{what} is refused");
        wall.push(clock.elapsed());
        processor.push(thread_time() - cpu);
    }
    processor.sort();
    wall.sort();
    let (half, most) = (RUNS / 2, RUNS * 95 / 100);
    let verdict = match budget {
        None => String::new(),
        Some(budget) if processor[half] < budget => format!("; within {budget:?}"),
        Some(budget) => format!("; OVER {budget:?}"),
    };
    println!(
        "{what}: processor median {:.2?}, least {:.2?}, 95 % {:.2?}; wall median {:.2?}{verdict}",
        processor[half], processor[0], processor[most], wall[half]
    );
    budget.is_none_or(|budget| processor[half] < budget)
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}
