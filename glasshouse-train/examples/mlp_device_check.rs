//! One trip to a CUDA device: what it is, whether it agrees with the CPU and with itself, and how fast each method is.
//!
//! ```text
//! cargo run --release -p glasshouse-train --features cuda --example mlp_device_check [-- SECONDS_PER_FIGURE]
//! ```
//!
//! Exits with 1 when a check fails; figures are printed either way. Takes about two minutes with the default of 1 s.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::process::{Command, ExitCode};
use std::time::Instant;

use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Workload, WorkloadError};
use glasshouse_train::gpu::GpuIdentity;
use glasshouse_train::mlp::{Method, MlpConfig, MlpWorkload, Optimizer, Shape, Tuning, package_entries};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Epochs after which CPU and device are compared.
const COMPARED: u64 = 10;
/// Largest difference of weights from the CPU's, over the weights' norm. f32 sums in another order differ by about
/// 1e-7; AdamW divides by the gradient's size and so enlarges that. TF32 would show as about 1e-3.
const TOLERANCE: f64 = 2e-5;

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

/// Every device method against the CPU, by weights and loss.
fn agreement() -> Outcome<bool> {
    println!(
        "\nagreement with cpu-fused after {COMPARED} epochs: weights' distance over norm, largest, loss; at most {TOLERANCE:e}"
    );
    let mut passed = true;
    for (shape, name, config) in configs() {
        let (expected, expected_loss) = trained(&config, Method::CpuFused)?;
        for method in [Method::CudaGraph, Method::CudaStream, Method::CudaAutograd] {
            let (weights, loss) = trained(&config, method)?;
            let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
            let differences = || weights.iter().zip(&expected).map(|(a, b)| f64::from(a - b));
            let distance = norm(&mut differences()) / norm(&mut expected.iter().map(|value| f64::from(*value)));
            let largest = differences().map(f64::abs).fold(0.0, f64::max);
            let loss = (loss - expected_loss).abs() / expected_loss;
            let good = distance <= TOLERANCE && loss <= TOLERANCE && weights.len() == expected.len();
            passed &= good;
            println!(
                "{:<4} {shape:<10}{name:<6}{method:<14}{distance:>10.2e}{largest:>10.2e}{loss:>10.2e}",
                verdict(good)
            );
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
        println!("{:<4} {shape:<10}{what}", verdict(good));
    };
    for shape in Shape::ALL {
        let whole = digest(shape, &[2 * 32 + 5])?;
        check("grouped 69 = 1 + 33 + 35", shape, digest(shape, &[1, 33, 35])? == whole);
        let mut stream = prepared(&MlpConfig::new(shape), Method::CudaStream, Tuning::default())?;
        stream.advance(69)?;
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
        "{:<10}{:<6}{:>14}{:>13}{:>12}{:>9}",
        "shape", "", "cuda-autograd", "cuda-stream", "cuda-graph", "prepare"
    );
    for (shape, name, config) in configs() {
        let [plain, stream] = [Method::CudaAutograd, Method::CudaStream]
            .map(|method| -> Outcome<f64> { rate(&mut prepared(&config, method, Tuning::default())?, seconds) });
        let start = Instant::now();
        let mut graph = prepared(&config, Method::CudaGraph, Tuning::default())?;
        let prepare = start.elapsed().as_secs_f64() * 1e3;
        let graph = rate(&mut graph, seconds)?;
        println!("{shape:<10}{name:<6}{:>14.0}{:>13.0}{graph:>12.0}{prepare:>9.0}", plain?, stream?);
    }
    Ok(())
}

/// What the choices in `Tuning` and the launch batch are worth.
fn sweep(seconds: f64) -> Outcome<()> {
    println!("\ncuda-graph epochs/s with AdamW by tuning (splits; side stream or not)");
    for shape in Shape::ALL {
        let config = MlpConfig::new(shape);
        for overlap in [false, true] {
            let mut line = format!("{shape:<10}{:<8}", if overlap { "overlap" } else { "" });
            for splits in [1, 2, 4, 8, 16] {
                let mut graph = prepared(&config, Method::CudaGraph, Tuning { splits, overlap })?;
                line += &format!("  {splits}: {:<8.0}", rate(&mut graph, seconds / 2.0)?);
            }
            println!("{line}");
        }
        let mut line = format!("{shape:<10}launch  ");
        for launch_batch in [1, 4, 16, 64, 256] {
            let config = MlpConfig { launch_batch, ..config.clone() };
            let mut graph = prepared(&config, Method::CudaGraph, Tuning::default())?;
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

fn prepared(config: &MlpConfig, method: Method, tuning: Tuning) -> Outcome<MlpWorkload> {
    let mut workload = MlpWorkload::with_method(method).tuned(tuning);
    workload.prepare(Inputs { sealed: package_entries(config)?, ..Inputs::default() }, method.device())?;
    Ok(workload)
}

/// Weights and loss, through the same export that a run makes.
fn trained(config: &MlpConfig, method: Method) -> Outcome<(Vec<f32>, f64)> {
    struct Weights(Vec<f32>);
    impl ArtifactSink for Weights {
        fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
            if name == "model.safetensors" {
                let header = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize + 8);
                let (values, _) = bytes.get(header..).unwrap_or_default().as_chunks::<4>();
                self.0 = values.iter().copied().map(f32::from_le_bytes).collect();
            }
            Ok(())
        }
    }
    let mut workload = prepared(config, method, Tuning::default())?;
    let loss = workload.advance(COMPARED)?.loss.ok_or("no loss")?;
    let mut weights = Weights(Vec::new());
    workload.export(&mut weights)?;
    workload.release()?;
    Ok((weights.0, loss))
}

fn digest(shape: Shape, groups: &[u64]) -> Outcome<String> {
    let mut workload = prepared(&MlpConfig::new(shape), Method::CudaGraph, Tuning::default())?;
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
