//! What protection costs, measured on one allocation: the same MLP trained raw and protected, in an order that cancels
//! drift. Seals a package, rents an allocation, attests it, releases the key, trains, zeroizes, sees the allocation
//! gone, and signs a record.
//!
//! ```text
//! cargo run --release --example overhead_mlp
//! cargo run --release --example overhead_mlp -- --shape wide --duration 20s --order raw-first
//! ```
//!
//! Exit status 0 when the row counts, 1 when it is excluded or the run failed, 2 for a bad command line.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use examples::{Show, charset, default_out, fail, registry, say};
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_core::channel::Phase;
use glasshouse_core::claims::Assurance;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::overhead::{Order, render_svg, render_text};
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::traits::{Device, Unit};
use glasshouse_provider::run::OverheadReport;
use glasshouse_provider::{LocalProvider, OverheadRun, serve_if_launched};
use glasshouse_train::mlp::{MlpConfig, Optimizer, Shape, package_entries};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

/// Measures what protection costs, raw against protected, on one allocation.
#[derive(Parser)]
struct Arguments {
    /// Where to run.
    #[arg(long, value_enum, default_value = "local")]
    provider: ProviderName,
    /// What to compute on.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// tiny 32-64-64-1 batch 256, reference 64-256-256-10 batch 1024, wide 784-512-512-10 batch 4096.
    #[arg(long, default_value = "reference")]
    shape: Shape,
    /// adamw or sgd.
    #[arg(long, value_enum, default_value = "adamw")]
    optimizer: OptimizerName,
    /// Steady state of each segment, such as 5s or 2m.
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// raw-first, protected-first or abba.
    #[arg(long, default_value = "abba")]
    order: Order,
    /// How often the order is repeated; abba makes two pairs of each.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Seed of data and initial weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Port of the local agent; 0 is any free one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Output folder; glasshouse-out/TIME when not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum ProviderName {
    Local,
}

#[derive(Clone, Copy, ValueEnum)]
enum DeviceName {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Adamw,
    Sgd,
}

fn main() -> ExitCode {
    serve_if_launched(registry());
    match measure(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("overhead_mlp", error),
    }
}

fn measure(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let device = match arguments.device {
        DeviceName::Cpu => Device::Cpu,
        DeviceName::Cuda if cfg!(feature = "cuda") => Device::Cuda,
        DeviceName::Cuda => {
            return Err("this program was built without CUDA; build it with --features cuda where nvcc is".into());
        }
    };
    let ProviderName::Local = arguments.provider;
    let out = arguments.out.clone().unwrap_or_else(default_out);
    std::fs::create_dir_all(&out)
        .map_err(|e| format!("{} cannot be made: {e}; give another folder with --out", out.display()))?;
    let config = MlpConfig {
        seed: arguments.seed,
        optimizer: match arguments.optimizer {
            OptimizerName::Adamw => Optimizer::ADAMW,
            OptimizerName::Sgd => Optimizer::SGD,
        },
        ..MlpConfig::new(arguments.shape)
    };
    let package = out.join("mlp.package");
    let mut builder = PackageBuilder::new("mlp").minimum_assurance(Assurance::SelfReported).data_is_public();
    for (name, bytes) in package_entries(&config)? {
        builder = builder.entry(name, Source::Memory(bytes));
    }
    let sealed = builder.seal_to_file(&package)?;
    let show = Arc::new(Mutex::new(Show::new(Unit::Epoch, arguments.duration)));
    let shown = Arc::clone(&show);
    let run = OverheadRun::builder()
        .provider(LocalProvider::new().port(arguments.port).container(container_id(ContainerSource::Kernel)?))
        .verifier(SoftwareVerifier::new(SoftwarePolicy::default()))
        .package(&package, sealed)
        .out_dir(&out)
        .device(device)
        .order(arguments.order)
        .repeats(arguments.repeats)
        .duration(arguments.duration)
        .unit(Unit::Epoch)
        .workload_label(format!("mlp {}", arguments.shape))
        .on_event(move |event| shown.lock().unwrap_or_else(PoisonError::into_inner).event(&event))
        .run();
    let ended = tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run);
    show.lock().unwrap_or_else(PoisonError::into_inner).finish();
    // Its key was this process's alone: nobody can open it any more.
    let _ = std::fs::remove_file(&package);
    match ended {
        Ok(report) => tell(&report, &out),
        Err(failure) => {
            if let Some(report) = &failure.report {
                tell(report, &out)?;
            }
            Err(failure.into())
        }
    }
}

/// Prints the report. Whether the row counts.
fn tell(report: &OverheadReport, out: &std::path::Path) -> Result<bool, Box<dyn std::error::Error>> {
    let rows = std::slice::from_ref(&report.row);
    let picture = out.join("overhead.svg");
    std::fs::write(&picture, render_svg(rows)).map_err(|e| format!("{} cannot be written: {e}", picture.display()))?;
    say(render_text(rows, charset()));
    let mut starts: Vec<_> =
        report.timelines.iter().filter_map(|t| t.between(Phase::Challenged, Phase::FirstStep)).collect();
    starts.sort();
    if let (Some(median), Some(worst)) = (starts.get(starts.len() / 2), starts.last()) {
        say(format_args!(
            "From challenge to first training step: median {:.0} ms, worst {:.0} ms of {} protected segments.",
            median.as_secs_f64() * 1e3,
            worst.as_secs_f64() * 1e3,
            starts.len()
        ));
    }
    say(format_args!("\nWritten to {}: overhead.json, overhead.svg, evidence.json, gate.pub", out.display()));
    say(format_args!(
        "Verify: cargo run --release --example verify_evidence -- {} --trust {}",
        report.record.display(),
        report.gate_key
    ));
    Ok(report.row.is_valid())
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = humantime::parse_duration(text).map_err(|e| format!("{e}; write it like 5s, 500ms or 2m"))?;
    if parsed < Duration::from_millis(100) || parsed > Duration::from_secs(24 * 3600) {
        return Err("between 100ms and 24h".to_owned());
    }
    Ok(parsed)
}
