//! One trip to a CUDA device: what it is, whether it agrees with the CPU and with itself, and how fast each method is.
//!
//! ```text
//! cargo run --release -p glasshouse-train --features cuda --example mlp_device_check [-- SECONDS_PER_FIGURE]
//! ```
//!
//! Exits with 1 when a check fails; figures are printed either way. Takes about two minutes with the default of 1 s.
#![allow(clippy::print_stdout)]

#[path = "../tests/criterion/mod.rs"]
mod criterion;

use std::process::{Command, ExitCode};
use std::time::Instant;

use criterion::{Case, LOSS_TOLERANCE, Outcome, Reference};
use glasshouse_core::traits::{Device, Inputs, Workload};
use glasshouse_train::gpu::GpuIdentity;
use glasshouse_train::mlp::{Method, MlpConfig, MlpWorkload, Optimizer, Shape, Tuning, package_entries};

/// Epochs after which digests of two processes are compared.
const COMPARED: u64 = 10;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAIL {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome<bool> {
    if let [flag, shape] = arguments
        && flag == "--digest"
    {
        println!("{}", digest(shape.parse()?, &[COMPARED])?);
        return Ok(true);
    }
    let seconds: f64 = arguments.first().map_or(Ok(1.0), |text| text.parse())?;
    let gpu = GpuIdentity::first()?;
    println!("gpu {} | driver {} | {}", gpu.model, gpu.driver, gpu.uuid);
    let mut passed = true;
    passed &= agreement()?;
    passed &= identity()?;
    passed &= contract();
    speed(seconds)?;
    sweep(seconds)?;
    println!("{}", if passed { "all checks passed" } else { "SOME CHECKS FAILED" });
    Ok(passed)
}

/// Every method, the CPU's first, against the same training in f64; `criterion` says what each case shows.
fn agreement() -> Outcome<bool> {
    println!("\nagreement with f64: weights' distance over distance moved, what is allowed; of the loss");
    let mut passed = true;
    for shape in Shape::ALL {
        for case in Case::ALL {
            let reference = Reference::new(case, shape)?;
            let allowed = reference.allowance()?;
            let cpu = [Method::CpuFused, Method::CpuAutograd];
            let cuda = [Method::CudaGraph, Method::CudaStream, Method::CudaAutograd];
            for method in cpu.into_iter().chain(cuda) {
                let distance = reference.distance(method)?;
                let good = distance.weights <= allowed && distance.loss <= LOSS_TOLERANCE;
                passed &= good;
                let case = format!("{case:?}").to_lowercase();
                println!(
                    "{:<4} {shape:<10} {case:<9} {method:<14} {:>9.2e} {allowed:>9.2e} {:>9.2e}",
                    verdict(good),
                    distance.weights,
                    distance.loss
                );
            }
        }
    }
    Ok(passed)
}

/// The graph method against itself: other groupings, launched without a graph, and another process.
fn identity() -> Outcome<bool> {
    println!("\nbit identity of weights on this device");
    let mut passed = true;
    let mut check = |what: &str, shape: Shape, good: bool| {
        passed &= good;
        println!("{:<4} {shape:<10} {what}", verdict(good));
    };
    for shape in Shape::ALL {
        let batch = MlpConfig::new(shape).launch_batch;
        let whole = digest(shape, &[2 * batch + 5])?;
        check("grouped otherwise", shape, digest(shape, &[1, batch + 1, batch + 3])? == whole);
        let mut stream = prepared(&MlpConfig::new(shape), Method::CudaStream)?;
        stream.advance(2 * batch + 5)?;
        check("launched without a graph", shape, stream.weights_digest()?.to_string() == whole);
        let other = Command::new(std::env::current_exe()?).args(["--digest", &shape.to_string()]).output()?;
        let other = String::from_utf8_lossy(&other.stdout).trim().to_owned();
        check("another process", shape, other == digest(shape, &[COMPARED])?);
    }
    Ok(passed)
}

/// The public contract tests, on the device.
fn contract() -> bool {
    println!("\ncontract of Workload on this device");
    let config = MlpConfig { launch_batch: 4, ..MlpConfig::new(Shape::Tiny) };
    [Method::CudaGraph, Method::CudaStream, Method::CudaAutograd].into_iter().fold(true, |passed, method| {
        let inputs = || Inputs { sealed: package_entries(&config).unwrap_or_default(), ..Inputs::default() };
        let good = std::panic::catch_unwind(|| {
            let make = || Box::new(MlpWorkload::with_method(method)) as Box<dyn Workload>;
            glasshouse_core::contract::workload(make, inputs, Device::Cuda);
        });
        println!("{:<4} {method}", verdict(good.is_ok()));
        passed & good.is_ok()
    })
}

fn speed(seconds: f64) -> Outcome<()> {
    println!("\nepochs/s, median of 3 turns in {seconds} s; prepare in ms");
    println!(
        "{:<10} {:<6} {:>14}{:>13}{:>12}{:>9}",
        "shape", "", "cuda-autograd", "cuda-stream", "cuda-graph", "prepare"
    );
    for (shape, name, config) in configs() {
        let [plain, stream] = [Method::CudaAutograd, Method::CudaStream]
            .map(|method| -> Outcome<f64> { rate(&mut prepared(&config, method)?, seconds) });
        let start = Instant::now();
        let mut graph = prepared(&config, Method::CudaGraph)?;
        let prepare = start.elapsed().as_secs_f64() * 1e3;
        let graph = rate(&mut graph, seconds)?;
        println!("{shape:<10} {name:<6} {:>14.0}{:>13.0}{graph:>12.0}{prepare:>9.0}", plain?, stream?);
    }
    Ok(())
}

/// What the choices in `Tuning` and the launch batch are worth.
fn sweep(seconds: f64) -> Outcome<()> {
    println!("\ncuda-graph epochs/s with AdamW by tuning (splits; side stream or not)");
    for shape in Shape::ALL {
        let config = MlpConfig::new(shape);
        for overlap in [false, true] {
            let mut line = format!("{shape:<10} {:<8}", if overlap { "overlap" } else { "" });
            for splits in [1, 2, 4, 8, 16] {
                let workload = MlpWorkload::with_method(Method::CudaGraph).tuned(Tuning { splits, overlap });
                let mut graph = prepare(workload, &config, Method::CudaGraph)?;
                line += &format!("  {splits}: {:<8.0}", rate(&mut graph, seconds / 2.0)?);
            }
            println!("{line}");
        }
        let mut line = format!("{shape:<10} launch  ");
        for launch_batch in [1, 4, 16, 64, 256] {
            let config = MlpConfig { launch_batch, ..config.clone() };
            let mut graph = prepared(&config, Method::CudaGraph)?;
            line += &format!("  {launch_batch}: {:<8.0}", rate(&mut graph, seconds / 2.0)?);
        }
        println!("{line}");
    }
    Ok(())
}

fn configs() -> impl Iterator<Item = (Shape, &'static str, MlpConfig)> {
    Shape::ALL.into_iter().flat_map(|shape| {
        [("adamw", Optimizer::ADAMW), ("sgd", Optimizer::SGD)]
            .map(|(name, optimizer)| (shape, name, MlpConfig { optimizer, ..MlpConfig::new(shape) }))
    })
}

fn prepared(config: &MlpConfig, method: Method) -> Outcome<MlpWorkload> {
    prepare(MlpWorkload::with_method(method), config, method)
}

fn prepare(mut workload: MlpWorkload, config: &MlpConfig, method: Method) -> Outcome<MlpWorkload> {
    workload.prepare(Inputs { sealed: package_entries(config)?, ..Inputs::default() }, method.device())?;
    Ok(workload)
}

fn digest(shape: Shape, groups: &[u64]) -> Outcome<String> {
    let mut workload = prepared(&MlpConfig::new(shape), Method::CudaGraph)?;
    for units in groups {
        workload.advance(*units)?;
    }
    Ok(workload.weights_digest()?.to_string())
}

/// Epochs per second: median of three turns after one uncounted second's tenth.
fn rate(workload: &mut MlpWorkload, seconds: f64) -> Outcome<f64> {
    let batch = workload.launch_batch();
    let start = Instant::now();
    let mut epochs = 0;
    while start.elapsed().as_secs_f64() < seconds / 10.0 {
        workload.advance(batch)?;
        epochs += batch;
    }
    // Groups of about a tenth of a turn: the loss is read back once a group.
    let group = ((epochs as f64 / batch as f64) as u64).max(1) * batch;
    let mut rates = Vec::new();
    for _ in 0..3 {
        let (start, mut epochs) = (Instant::now(), 0);
        while start.elapsed().as_secs_f64() < seconds / 3.0 {
            workload.advance(group)?;
            epochs += group;
        }
        rates.push(epochs as f64 / start.elapsed().as_secs_f64());
    }
    rates.sort_by(f64::total_cmp);
    rates.get(1).copied().ok_or_else(|| "no rate".into())
}

fn verdict(good: bool) -> &'static str {
    if good { "ok" } else { "FAIL" }
}
