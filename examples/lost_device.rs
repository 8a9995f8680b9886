//! A protected run that loses its GPU to an illegal access while it trains: what its receipt says then. For machines with a
//! CUDA device, to check the zeroizer there: `cargo run --release -p examples --features break-device --example lost_device`
//!
//! With the argument `mlp` it is the MLP that loses it, which has two handles of cuBLAS; otherwise LoRA.
//!
//! Exit status 0 when the run failed as it had to, and its receipt speaks for the device by a second process.

use std::process::ExitCode;

use examples::{WeightsAt, default_out, demo_data, fail, registry, say};
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_core::claims::Assurance;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
use glasshouse_provider::{LocalProvider, ProtectedRun, serve_if_launched};
use glasshouse_train::cuda_zeroizer::break_context;
use glasshouse_train::finetune::{self, Precision, Settings, Start};
use glasshouse_train::{MlpConfig, MlpWorkload, QwenLora, mlp};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

/// After so many steps the device is lost.
const STEPS: u64 = 5;

const LORA: &str = "breaking-lora";
const MLP: &str = "breaking-mlp";

/// A workload, until it breaks; its name.
struct Breaking<W>(W, &'static str);

impl<W: Workload> Workload for Breaking<W> {
    fn name(&self) -> &'static str {
        self.1
    }
    fn unit(&self) -> Unit {
        self.0.unit()
    }
    fn launch_batch(&self) -> u64 {
        self.0.launch_batch()
    }
    fn prepare(&mut self, inputs: Inputs, device: Device) -> Result<(), WorkloadError> {
        self.0.prepare(inputs, device)
    }
    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        let progress = self.0.advance(units)?;
        if progress.done >= STEPS {
            break_context().map_err(|why| WorkloadError::Device { what: "breaking the device".to_owned(), why })?;
        }
        // What it says from now on is the driver's error.
        if progress.done >= STEPS { self.0.advance(units) } else { Ok(progress) }
    }
    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        self.0.weights_digest()
    }
    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        self.0.export(sink)
    }
    fn release(&mut self) -> Result<(), WorkloadError> {
        self.0.release()
    }
}

fn main() -> ExitCode {
    let registry = registry().workload(|| Breaking(QwenLora::new(), LORA));
    serve_if_launched(registry.workload(|| Breaking(MlpWorkload::new(), MLP)));
    let runtime = tokio::runtime::Runtime::new();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail("lost_device", error),
    }
}

/// Whether it went as it had to.
async fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let out = default_out();
    std::fs::create_dir_all(&out)?;
    let name = if std::env::args().any(|argument| argument == "mlp") { MLP } else { LORA };
    let model = examples::Model::named("random-0.5b", 1, WeightsAt::Owner)?.base;
    let settings = Settings {
        model,
        dtype: Precision::Bf16,
        steps: 100,
        batch: 8,
        sequence: 512,
        eval_fraction: 0.0,
        ..Settings::default()
    };
    let mut package = PackageBuilder::new(name).minimum_assurance(Assurance::SelfReported);
    let entries = match name {
        MLP => mlp::package_entries(&MlpConfig::default())?,
        _ => finetune::package_entries(&settings, demo_data(), Start::Fresh)?,
    };
    for (name, bytes) in entries {
        package = package.entry(name, Source::Memory(bytes));
    }
    let path = out.join(format!("{name}.package"));
    let sealed = package.seal_to_file(&path)?;
    let ended = ProtectedRun::builder()
        .provider(LocalProvider::new().container(container_id(ContainerSource::Kernel)?))
        .verifier(SoftwareVerifier::new(SoftwarePolicy::default()))
        .package(path, sealed)
        .out_dir(&out)
        .device(Device::Cuda)
        .budget(Budget::Units(10_000))
        .run()
        .await;
    let Err(failure) = ended else { return Err("it completed, on a device that is lost".into()) };
    say(format_args!("it failed: {failure}"));
    let receipt = failure.report.as_ref().and_then(|report| report.receipt.as_ref());
    let Some(receipt) = receipt else {
        say("there is no receipt");
        return Ok(false);
    };
    say(serde_json::to_string_pretty(receipt)?);
    Ok(receipt.regions.iter().any(|region| region.method.contains("by a second process")))
}
