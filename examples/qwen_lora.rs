//! LoRA fine-tuning of Qwen2.5 on a machine that is not yours: seals the data set, rents an allocation, attests it,
//! releases the key, trains, takes the adapter back sealed, zeroizes, sees the allocation gone, and signs a record.
//!
//! ```text
//! cargo run --release --example qwen_lora
//! cargo run --release --example qwen_lora -- --model DIR --data FILE.jsonl --steps 200 --seq 1024 --out DIR
//! cargo run --release --example qwen_lora -- --mode compare --order raw-first --duration 30s
//! ```
//!
//! Exit status 0 when the run completed (and, in `compare`, its row counts), 1 otherwise, 2 for a bad command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use examples::{
    Curves, Model, Show, adapter_in, compared, default_out, demo_data, fail, latest_checkpoint, merge, registry, say,
    trained,
};
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_core::claims::Assurance;
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_core::overhead::Order;
use glasshouse_core::package::{PackageBuilder, SealedPackage, Source};
use glasshouse_core::traits::{Device, Unit};
use glasshouse_provider::run::{RunBuilder, RunEvent};
use glasshouse_provider::{
    LocalProvider, OverheadRun, PUBLIC_INPUTS_VARIABLE, ProtectedRun, RawRun, serve_if_launched,
};
use glasshouse_train::data::Date;
use glasshouse_train::finetune::{LoraSettings, Precision, Schedule, Settings, Start, check_data, package_entries};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

/// Fine-tunes Qwen2.5 with LoRA inside the protected lifecycle.
#[derive(Parser)]
struct Arguments {
    /// tiny, random-0.5b, random-7b, a Hugging Face folder, or OWNER/NAME of the hub (feature `hub`).
    #[arg(long, default_value = "tiny")]
    model: String,
    /// JSONL of messages, prompt and completion, question and answer, or text; sums of digits when not given.
    #[arg(long)]
    data: Option<PathBuf>,
    /// protected, raw, or compare: both on one allocation, for the overhead row.
    #[arg(long, value_enum, default_value = "protected")]
    mode: ModeName,
    /// Optimizer steps.
    #[arg(long, default_value_t = 32)]
    steps: u64,
    /// Rows of a batch.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Tokens of a row.
    #[arg(long, visible_alias = "sequence", default_value_t = 512)]
    seq: usize,
    /// Batches that make one step.
    #[arg(long, default_value_t = 1)]
    accumulate: u32,
    /// LoRA's rank.
    #[arg(long, default_value_t = 4)]
    rank: usize,
    /// LoRA's alpha.
    #[arg(long, default_value_t = 8.0)]
    alpha: f64,
    /// LoRA's dropout.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// Layers to adapt: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj.
    #[arg(long, value_delimiter = ',', default_value = "q_proj,v_proj")]
    targets: Vec<String>,
    /// Scale by alpha over the root of the rank.
    #[arg(long)]
    rslora: bool,
    /// Peak learning rate; 1e-4 when not given, 1e-2 for tiny.
    #[arg(long)]
    lr: Option<f64>,
    /// How the learning rate falls.
    #[arg(long, value_enum, default_value = "cosine")]
    schedule: ScheduleName,
    /// Steps until the learning rate peaks.
    #[arg(long, default_value_t = 0)]
    warmup: u64,
    /// Largest norm of the gradients; 0 does not clip.
    #[arg(long, default_value_t = 1.0)]
    clip: f64,
    /// Part of the data that is held out.
    #[arg(long, default_value_t = 0.1)]
    eval_fraction: f64,
    /// Steps between evaluations; 0 evaluates before and after.
    #[arg(long, default_value_t = 0)]
    eval_every: u64,
    /// Steps between checkpoints; 0 makes none.
    #[arg(long, default_value_t = 0)]
    checkpoint_every: u64,
    /// Recomputes each block in the backward pass, for less memory.
    #[arg(long)]
    recompute: bool,
    /// Folder with checkpoints of an earlier run, to go on from the newest.
    #[arg(long, conflicts_with = "init_adapter")]
    resume: Option<PathBuf>,
    /// Folder with a PEFT adapter to go on from.
    #[arg(long)]
    init_adapter: Option<PathBuf>,
    /// Writes the model with the adapter merged in as a Hugging Face folder.
    #[arg(long)]
    merge_into: Option<PathBuf>,
    /// What to compute on.
    #[arg(long, value_enum, default_value = "cpu")]
    device: DeviceName,
    /// Type of the base weights; bf16 is for CUDA.
    #[arg(long, value_enum, default_value = "f32")]
    dtype: DtypeName,
    /// Seed of adapters, order of data and dropout.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// compare: raw-first, protected-first or abba.
    #[arg(long, default_value = "abba")]
    order: Order,
    /// compare: how often the order is repeated.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Steady state of each segment, such as 30s or 5m, instead of all steps; compare takes 10s when not given.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Output folder; glasshouse-out/TIME when not given.
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeName {
    Protected,
    Raw,
    #[value(alias = "both")]
    Compare,
}

#[derive(Clone, Copy, ValueEnum)]
enum DeviceName {
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, ValueEnum)]
enum DtypeName {
    F32,
    Bf16,
}

#[derive(Clone, Copy, ValueEnum)]
enum ScheduleName {
    Linear,
    Cosine,
    Constant,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    serve_if_launched(registry());
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("qwen_lora", error),
    }
}

fn run(arguments: &Arguments) -> Result<bool, Failure> {
    let out = arguments.out.clone().unwrap_or_else(default_out);
    std::fs::create_dir_all(&out)
        .map_err(|e| format!("{} cannot be made: {e}; give another folder with --out", out.display()))?;
    let model = Model::named(&arguments.model, arguments.seed)?;
    let jsonl = match &arguments.data {
        Some(path) => std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?,
        None => demo_data(),
    };
    let (start, first) = match (&arguments.resume, &arguments.init_adapter) {
        (Some(folder), _) => latest_checkpoint(folder)?,
        (None, Some(folder)) => (adapter_in(folder)?, 0),
        (None, None) => (Start::Fresh, 0),
    };
    let settings = settings(arguments, &model);
    settings.validate()?;
    if first >= settings.steps {
        return Err(format!("the checkpoint is of step {first}; give more than {first} --steps").into());
    }
    let data = check_data(&settings, &jsonl, model.folder.as_deref())?;
    say(format_args!(
        "{}: {} documents with {} tokens to train on, {} documents held out",
        model.label, data.train_documents, data.train_tokens, data.held_out_documents
    ));
    let package = out.join("qwen-lora.package");
    let mut builder = PackageBuilder::new("qwen-lora").minimum_assurance(Assurance::SelfReported);
    for (name, bytes) in package_entries(&settings, jsonl, start)? {
        builder = builder.entry(name, Source::Memory(bytes));
    }
    for input in model.public.iter().cloned() {
        builder = builder.public_input(input);
    }
    let sealed = builder.seal_to_file(&package)?;
    let ended = train(arguments, &model, &settings, first, (&package, sealed), &out);
    // Its key was this process's alone: nobody can open it any more.
    let _ = std::fs::remove_file(&package);
    ended
}

fn settings(arguments: &Arguments, model: &Model) -> Settings {
    let small = arguments.model == "tiny";
    let compare = arguments.mode == ModeName::Compare;
    Settings {
        model: model.base.clone(),
        dtype: match arguments.dtype {
            DtypeName::F32 => Precision::F32,
            DtypeName::Bf16 => Precision::Bf16,
        },
        lora: LoraSettings {
            rank: arguments.rank,
            alpha: arguments.alpha,
            dropout: arguments.dropout,
            targets: arguments.targets.clone(),
            rslora: arguments.rslora,
        },
        // A comparison goes on for as long as it is measured, and does nothing but train.
        steps: if compare { 1_000_000_000 } else { arguments.steps },
        eval_fraction: if compare { 0.0 } else { arguments.eval_fraction },
        eval_every: if compare { 0 } else { arguments.eval_every },
        checkpoint_every: if compare { 0 } else { arguments.checkpoint_every },
        schedule: match arguments.schedule {
            _ if compare => Schedule::Constant,
            ScheduleName::Linear => Schedule::Linear,
            ScheduleName::Cosine => Schedule::Cosine,
            ScheduleName::Constant => Schedule::Constant,
        },
        batch: arguments.batch,
        sequence: arguments.seq,
        accumulate: arguments.accumulate,
        learning_rate: arguments.lr.unwrap_or(if small { 1e-2 } else { 1e-4 }),
        warmup: arguments.warmup,
        clip: arguments.clip,
        recompute: arguments.recompute,
        seed: arguments.seed,
        today: Date::today(),
        ..Settings::default()
    }
}

/// Whether the run did what it should.
fn train(
    arguments: &Arguments,
    model: &Model,
    settings: &Settings,
    first: u64,
    (package, sealed): (&Path, SealedPackage),
    out: &Path,
) -> Result<bool, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.mode == ModeName::Compare {
        let duration = arguments.duration.unwrap_or(Duration::from_secs(10));
        let show = Arc::new(Mutex::new(Show::new(Unit::Step, duration)));
        let shown = Arc::clone(&show);
        let run = composed(OverheadRun::builder(), arguments, model, out)?
            .package(package, sealed)
            .order(arguments.order)
            .repeats(arguments.repeats)
            .duration(duration)
            .unit(Unit::Step)
            .workload_label(format!("{} {} x {}", model.label, arguments.batch, arguments.seq))
            .on_event(move |event| shown.lock().unwrap_or_else(PoisonError::into_inner).event(&event))
            .run();
        let ended = runtime.block_on(run);
        show.lock().unwrap_or_else(PoisonError::into_inner).finish();
        return match ended {
            Ok(report) => compared(&report, out),
            Err(failure) => {
                if let Some(report) = &failure.report {
                    compared(report, out)?;
                }
                Err(failure.error.into())
            }
        };
    }
    let budget = match arguments.duration {
        Some(duration) => Budget::Millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        None => Budget::Units(settings.steps.saturating_sub(first)),
    };
    let curves = Curves::create(out, first).map_err(|e| format!("metrics cannot be written: {e}"))?;
    let told = Arc::new(Mutex::new((Show::to_the_end(Unit::Step), curves)));
    let teller = Arc::clone(&told);
    let listener = move |event: RunEvent| {
        let mut told = teller.lock().unwrap_or_else(PoisonError::into_inner);
        let (show, curves) = &mut *told;
        show.event(&event);
        if let RunEvent::Progress { progress, interval, .. } = &event {
            // The run goes on without its curves; the log that comes home with the adapter has every step.
            let _ = curves.add(progress, *interval);
        }
    };
    let ended = match arguments.mode {
        ModeName::Raw => runtime.block_on(
            one(composed(RawRun::builder(), arguments, model, out)?, budget)
                .package(package, sealed)
                .on_event(listener)
                .run(),
        ),
        _ => runtime.block_on(
            one(composed(ProtectedRun::builder(), arguments, model, out)?, budget)
                .package(package, sealed)
                .on_event(listener)
                .run(),
        ),
    };
    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
    let (show, curves) = &mut *told;
    show.finish();
    match ended {
        Ok(report) => {
            trained(&report, settings, curves, out)?;
            if let Some(folder) = &arguments.merge_into {
                merge(model.folder.as_deref(), &report, folder)?;
            }
            Ok(true)
        }
        Err(failure) => {
            let mut artifacts = failure.report.iter().flat_map(|report| &report.artifacts).rev();
            if let Some(last) = artifacts.find(|artifact| artifact.name.starts_with("checkpoint-")) {
                say(format_args!("The last checkpoint is {}; go on with --resume {}", last.name, out.display()));
            }
            Err(failure.error.into())
        }
    }
}

/// What every run is composed of.
fn composed<K>(run: RunBuilder<K>, arguments: &Arguments, model: &Model, out: &Path) -> Result<RunBuilder<K>, Failure> {
    let device = match arguments.device {
        DeviceName::Cpu => Device::Cpu,
        DeviceName::Cuda if cfg!(feature = "cuda") => Device::Cuda,
        DeviceName::Cuda => {
            return Err("this program was built without CUDA; build it with --features cuda where nvcc is".into());
        }
    };
    let run = run
        .provider(LocalProvider::new().container(container_id(ContainerSource::Kernel)?))
        .verifier(SoftwareVerifier::new(SoftwarePolicy::default()))
        .out_dir(out)
        .device(device)
        .lease(LeaseTerms { ttl: Duration::from_secs(24 * 3600), max_units: None });
    Ok(match &model.folder {
        Some(folder) => run.env(PUBLIC_INPUTS_VARIABLE, folder.to_string_lossy()),
        None => run,
    })
}

/// One segment that is watched.
fn one<K>(run: RunBuilder<K>, budget: Budget) -> RunBuilder<K> {
    run.budget(budget).warmup_units(1).progress_every(Duration::from_millis(200))
}
