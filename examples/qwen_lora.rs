//! LoRA fine-tuning of Qwen2.5 on a machine that is not yours: seals the data set, rents an allocation, attests it,
//! releases the key, trains, takes the adapter back sealed, zeroizes, sees the allocation gone, and signs a record.
//!
//! ```text
//! cargo run --release --example qwen_lora
//! cargo run --release --example qwen_lora -- --model DIR --data FILE.jsonl --steps 200 --seq 1024 --out DIR
//! cargo run --release --example qwen_lora -- --mode compare --order raw-first --duration 30s
//! cargo run --release -p examples --features hub --example qwen_lora -- --provider runpod --gpu a4000 --measurement measurement.json \
//!     --model Qwen/Qwen2.5-0.5B --data FILE.jsonl --dry-run
//! ```
//!
//! Exit status 0 when the run completed (and, in `compare`, its row counts), 1 otherwise, 2 for a bad command line.

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Parser as _;
use examples::{
    Curves, FinetuneArguments, ModeName, Model, Rental, Show, WeightsAt, adapter_in, compared, default_out, demo_data,
    fail, latest_checkpoint, mention_unconfirmed, merge, misused, registry, same_folder, say, trained,
};
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_core::package::{PackageBuilder, SealedPackage, Source};
use glasshouse_core::traits::Unit;
use glasshouse_provider::run::{RunBuilder, RunEvent};
use glasshouse_provider::{OverheadRun, PUBLIC_INPUTS_VARIABLE, ProtectedRun, RawRun, serve_if_launched};
use glasshouse_train::finetune::{Settings, Start, check, package_entries};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

/// Where a rented machine keeps the base model that it fetches: any user may write there.
const FOLDER_ON_PODS: &str = "/tmp/glasshouse-models";

type Failure = Box<dyn std::error::Error>;

// Tests run it as it is.
pub(crate) fn main() -> ExitCode {
    serve_if_launched(registry());
    let arguments = FinetuneArguments::parse();
    let rental = match arguments.rental() {
        Ok(rental) => rental,
        Err(why) => return misused("qwen_lora", why),
    };
    match run(&arguments, &rental) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("qwen_lora", error),
    }
}

fn run(arguments: &FinetuneArguments, rental: &Rental) -> Result<bool, Failure> {
    if arguments.mode == ModeName::Compare && (arguments.resume.is_some() || arguments.merge_into.is_some()) {
        return Err("compare measures the same steps raw and protected and keeps no adapter; leave out --resume and --merge-into".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if arguments.rental.dry_run {
        // The same for each mode, and nothing of the model is fetched for it.
        let run = composed(ProtectedRun::builder(), arguments, rental, None);
        runtime.block_on(rental.dry_run(&run))?;
        return Ok(true);
    }
    if arguments.duration.is_some_and(|duration| duration > arguments.lease) {
        return Err("--duration is longer than --lease: the key is taken back before the training ends, and nothing is exported".into());
    }
    let out = arguments.out.clone().unwrap_or_else(default_out);
    if arguments.resume.as_ref().is_some_and(|from| same_folder(from, &out)) {
        return Err(
            "--out is the folder that is resumed from: its record and log would be replaced; give another one".into()
        );
    }
    mention_unconfirmed(&out);
    let machine = rental.machine(&runtime.block_on(rental.fitting())?);
    let machine = rental.is_remote().then_some(machine);
    std::fs::create_dir_all(&out)
        .map_err(|e| format!("{} cannot be made: {e}; give another folder with --out", out.display()))?;
    let elsewhere = rental.is_paid() && arguments.merge_into.is_none();
    let weights = if elsewhere { WeightsAt::Allocation } else { WeightsAt::Owner };
    let model = Model::named(&arguments.model, arguments.seed, weights)?;
    if let Some(folder) = &arguments.merge_into {
        mergeable(&model, folder)?;
    }
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
    let checked = check(&settings, &jsonl, (model.folder.as_deref(), &model.public), &start)?;
    if checked.artifact_bytes > arguments.artifact_bytes() {
        let needed = checked.artifact_bytes.div_ceil(1 << 30);
        let why = format!(
            "checkpoints and adapter come to {needed} GiB; make checkpoints rarer or give --artifact-limit {needed}"
        );
        return Err(why.into());
    }
    let data = checked.data;
    say(format_args!(
        "{}: {} documents with {} tokens to train on, {} documents held out",
        model.label, data.train_documents, data.train_tokens, data.held_out_documents
    ));
    let package = out.join("qwen-lora.package");
    let mut builder = PackageBuilder::new("qwen-lora").minimum_assurance(rental.minimum_assurance());
    if arguments.data.is_none() {
        // Made up, and the same for everyone.
        builder = builder.data_is_public();
    }
    for (name, bytes) in package_entries(&settings, jsonl, start)? {
        builder = builder.entry(name, Source::Memory(bytes));
    }
    for input in model.public.iter().cloned() {
        builder = builder.public_input(input);
    }
    let sealed = builder.seal_to_file(&package)?;
    let ended = train(&runtime, (arguments, rental, machine), &model, &settings, first, (&package, sealed), &out);
    // Its key was this process's alone: nobody can open it any more.
    let _ = std::fs::remove_file(&package);
    ended
}

/// Found out before anything is trained.
fn mergeable(model: &Model, into: &Path) -> Result<(), Failure> {
    if model.folder.is_none() {
        return Err("--merge-into needs a model of a folder: random weights have no files to merge into".into());
    }
    match std::fs::read_dir(into).is_ok_and(|mut files| files.next().is_some()) {
        true => {
            Err(format!("{}: there are files in it already; give --merge-into a new folder", into.display()).into())
        }
        false => Ok(()),
    }
}

/// Whether the run did what it should.
fn train(
    runtime: &tokio::runtime::Runtime,
    (arguments, rental, machine): (&FinetuneArguments, &Rental, Option<String>),
    model: &Model,
    settings: &Settings,
    first: u64,
    (package, sealed): (&Path, SealedPackage),
    out: &Path,
) -> Result<bool, Failure> {
    if arguments.mode == ModeName::Compare {
        let duration = arguments.compared_for();
        let show = Arc::new(Mutex::new(Show::new(Unit::Step, duration)));
        let shown = Arc::clone(&show);
        let run = composed(OverheadRun::builder(), arguments, rental, Some(model));
        let run = match machine {
            Some(machine) => run.machine(machine),
            None => run,
        };
        let run = run
            .package(package, sealed)
            .out_dir(out)
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
            one(composed(RawRun::builder(), arguments, rental, Some(model)), budget)
                .package(package, sealed)
                .out_dir(out)
                .on_event(listener)
                .run(),
        ),
        _ => runtime.block_on(
            one(composed(ProtectedRun::builder(), arguments, rental, Some(model)), budget)
                .package(package, sealed)
                .out_dir(out)
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
            if let (Some(into), Some(folder)) = (&arguments.merge_into, &model.folder) {
                merge(folder, &report, into)?;
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

/// What every run is composed of, but for what is made for it. A dry run knows no model yet.
fn composed<K>(
    run: RunBuilder<K>,
    arguments: &FinetuneArguments,
    rental: &Rental,
    model: Option<&Model>,
) -> RunBuilder<K> {
    let run = rental
        .compose(run)
        .artifact_limit(arguments.artifact_bytes())
        .lease(LeaseTerms { ttl: arguments.lease, max_units: None });
    let run = if arguments.allow_cleartext_data { run.dangerous_allow_cleartext_data() } else { run };
    let folder = model.and_then(|model| model.folder.as_deref());
    match folder {
        _ if rental.is_paid() && arguments.has_files() => run.env(PUBLIC_INPUTS_VARIABLE, FOLDER_ON_PODS),
        Some(folder) => run.env(PUBLIC_INPUTS_VARIABLE, folder.to_string_lossy()),
        None => run,
    }
}

/// One segment that is watched.
fn one<K>(run: RunBuilder<K>, budget: Budget) -> RunBuilder<K> {
    run.budget(budget).warmup_units(1).progress_every(Duration::from_millis(200))
}
