//! How long NVIDIA's evidence takes to verify, on one core: `cargo bench -p glasshouse-attest --bench nvidia`.
//!
//! Processor time is what counts; the wall's is beside it to show how busy the machine was.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program for people, over files that are as they are")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use glasshouse_attest::nvidia::{Device, NvidiaPolicy, NvidiaRoots, NvidiaVerifier, verify_rim};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::fixed::Nonce32;
use rustix::time::{ClockId, clock_gettime};

const BUDGET: Duration = Duration::from_millis(15);
const RUNS: usize = 200;

fn main() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation-vectors/nvidia");
    if !folder.is_dir() {
        println!("SKIPPED: no corpus at {}", folder.display());
        return;
    }
    let read = |name: &str| std::fs::read(PathBuf::from(&folder).join(name)).unwrap();
    let report = hex::decode(String::from_utf8(read("h100_full/report.hex")).unwrap().trim()).unwrap();
    let chain = read("h100_full/chain.pem");
    let (driver, vbios) =
        (read("h100_full/driver_rim_545.00.swidtag"), read("h100_full/vbios_rim_96.00.5E.00.01.swidtag"));
    let nonce = Nonce32::from_hex("4cff7f5380ead8fad8ec2c531c110aca4302a88f603792801a8ca29ee151af2e").unwrap();
    let at = UnixMillis(1_704_067_200_000); // 2024-01-01T00:00:00Z
    let verifier = |dangerous_no_measurements| {
        let policy = NvidiaPolicy { allow_missing_fwid: true, dangerous_no_measurements, ..NvidiaPolicy::default() };
        NvidiaVerifier::new(policy, NvidiaRoots::nvidia())
    };
    let device = Device { kind: DeviceKind::NvidiaGpu, report: &report, chain: &chain };

    let alone = verifier(true);
    measure("report and chain", || alone.verify_device(device, &[], &nonce, at).is_ok());
    measure("one manifest", || verify_rim(&driver, &NvidiaRoots::nvidia().rim, at).is_ok());
    let whole = verifier(false);
    let median = measure("report, chain and both manifests", || {
        whole.verify_device(device, &[&driver, &vbios], &nonce, at).is_ok()
    });
    let verdict = if median < BUDGET { "within" } else { "OVER" };
    println!("{verdict} the budget of {BUDGET:?} for report, chain and both manifests");
}

/// Median processor time of one call.
fn measure(what: &str, call: impl Fn() -> bool) -> Duration {
    let (mut processor, mut wall) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (cpu, clock) = (thread_time(), Instant::now());
        assert!(black_box(call()));
        wall.push(clock.elapsed());
        processor.push(thread_time() - cpu);
    }
    processor.sort();
    wall.sort();
    let (half, most) = (RUNS / 2, RUNS * 95 / 100);
    println!(
        "{what}: processor median {:.2?}, least {:.2?}, 95 % {:.2?}; wall median {:.2?}, least {:.2?}",
        processor[half], processor[0], processor[most], wall[half], wall[0]
    );
    processor[half]
}

fn thread_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}
