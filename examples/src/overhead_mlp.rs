//! `overhead_mlp`, as a function: the example is nothing else, and tests run it as it is.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use glasshouse_core::channel::Phase;
use glasshouse_core::overhead::{Order, render_svg, render_text};
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::traits::Unit;
use glasshouse_provider::OverheadRun;
use glasshouse_provider::run::{OverheadReport, RunBuilder};
use glasshouse_train::mlp::{MlpConfig, Optimizer, Shape, package_entries};

use crate::{
    DeviceName, ProviderArguments, Rental, Show, charset, default_out, fail, mention_unconfirmed, misused, say,
};

type Failure = Box<dyn std::error::Error>;

/// Measures what protection costs, raw against protected, on one allocation.
#[derive(Parser)]
#[command(name = "overhead_mlp")]
struct Arguments {
    #[command(flatten)]
    rental: ProviderArguments,
    /// What to compute on; cuda on runpod and vast, cpu elsewhere when not given.
    #[arg(long, value_enum)]
    device: Option<DeviceName>,
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
    /// Output folder; glasshouse-out/TIME when not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum OptimizerName {
    Adamw,
    Sgd,
}

/// The whole program, after its role as an agent or a segment. Exit status 0 when the row counts (or a dry run was shown),
/// 1 when it is excluded or the run failed, 2 for a bad command line.
pub fn overhead_mlp() -> ExitCode {
    let arguments = Arguments::parse();
    let rental = match arguments.rental.open(arguments.device) {
        Ok(rental) => rental.training(arguments.duration.saturating_mul(planned(&arguments))),
        Err(why) => return misused("overhead_mlp", why),
    };
    match measure(&arguments, &rental) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("overhead_mlp", error),
    }
}

fn planned(arguments: &Arguments) -> u32 {
    u32::try_from(arguments.order.plan(arguments.repeats).len()).unwrap_or(u32::MAX)
}

fn measure(arguments: &Arguments, rental: &Rental) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let run = composed(arguments, rental);
    if arguments.rental.dry_run {
        runtime.block_on(rental.dry_run(&run))?;
        return Ok(true);
    }
    let out = arguments.out.clone().unwrap_or_else(default_out);
    mention_unconfirmed(&out);
    let offers = runtime.block_on(rental.fitting())?;
    let run = if rental.is_remote() { run.machine(rental.machine(&offers)) } else { run };
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
    let mut builder = PackageBuilder::new("mlp").minimum_assurance(rental.minimum_assurance()).data_is_public();
    for (name, bytes) in package_entries(&config)? {
        builder = builder.entry(name, Source::Memory(bytes));
    }
    let sealed = builder.seal_to_file(&package)?;
    let show = Arc::new(Mutex::new(Show::new(Unit::Epoch, arguments.duration)));
    let shown = Arc::clone(&show);
    let run = run
        .package(&package, sealed)
        .out_dir(&out)
        .on_event(move |event| shown.lock().unwrap_or_else(PoisonError::into_inner).event(&event))
        .run();
    let ended = runtime.block_on(run);
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

/// The run, but for what is made for it: the package and the folder.
fn composed(arguments: &Arguments, rental: &Rental) -> RunBuilder<OverheadRun> {
    rental
        .compose(OverheadRun::builder())
        .order(arguments.order)
        .repeats(arguments.repeats)
        .duration(arguments.duration)
        .unit(Unit::Epoch)
        .workload_label(format!("mlp {}", arguments.shape))
}

/// Prints the report. Whether the row counts.
fn tell(report: &OverheadReport, out: &std::path::Path) -> Result<bool, Failure> {
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
