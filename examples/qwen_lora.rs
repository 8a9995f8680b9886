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

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser as _;
use examples::{
    Curves, DeviceName, FinetuneArguments, ModeName, Model, Show, adapter_in, compared, default_out, demo_data, fail,
    latest_checkpoint, merge, registry, say, trained,
};
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_core::claims::Assurance;
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_core::package::{PackageBuilder, SealedPackage, Source};
use glasshouse_core::traits::{Device, Unit};
use glasshouse_provider::run::{RunBuilder, RunEvent};
use glasshouse_provider::{
    LocalProvider, OverheadRun, PUBLIC_INPUTS_VARIABLE, ProtectedRun, RawRun, serve_if_launched,
};
use glasshouse_train::finetune::{Settings, Start, check, package_entries};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    serve_if_launched(registry());
    match run(&FinetuneArguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("qwen_lora", error),
    }
}

fn run(arguments: &FinetuneArguments) -> Result<bool, Failure> {
    if arguments.mode == ModeName::Compare && (arguments.resume.is_some() || arguments.merge_into.is_some()) {
        return Err("compare measures the same steps raw and protected and keeps no adapter; leave out --resume and --merge-into".into());
    }
    let out = arguments.out.clone().unwrap_or_else(default_out);
    std::fs::create_dir_all(&out)
        .map_err(|e| format!("{} cannot be made: {e}; give another folder with --out", out.display()))?;
    let model = Model::named(&arguments.model, arguments.seed)?;
    let jsonl = match &arguments.data {
        Some(path) => std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?,
        None => demo_data(),
    };
    let mut settings = arguments.settings(&model);
    let (start, first) = match (&arguments.resume, &arguments.init_adapter) {
        (Some(folder), _) => {
            let (start, state) = latest_checkpoint(folder)?;
            settings.today = state.today;
            (start, state.step)
        }
        (None, Some(folder)) => (adapter_in(folder)?, 0),
        (None, None) => (Start::Fresh, 0),
    };
    let data = check(&settings, &jsonl, (model.folder.as_deref(), &model.public), &start)?;
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

/// Whether the run did what it should.
fn train(
    arguments: &FinetuneArguments,
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
fn composed<K>(
    run: RunBuilder<K>,
    arguments: &FinetuneArguments,
    model: &Model,
    out: &Path,
) -> Result<RunBuilder<K>, Failure> {
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
        .artifact_limit(u64::from(arguments.artifact_limit) << 30)
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
