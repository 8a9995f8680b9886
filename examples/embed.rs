//! A tool of your own inside a protected run: its workload, one call. `cargo run --release --example embed`

use examples::{fail, say};
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_core::claims::Assurance;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::Budget;
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
use glasshouse_core::{fixed::Digest32, secret::SecretBuffer, transcript::sha256};
use glasshouse_provider::{LocalProvider, ProtectedRun, serve_if_launched};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

/// Your training. This one fits the mean of sealed numbers by gradient descent.
#[derive(Default)]
struct Mean {
    numbers: Option<SecretBuffer>,
    weight: f64,
    done: u64,
}

impl Mean {
    fn gradient(&self) -> Result<f64, WorkloadError> {
        let numbers = self.numbers.as_ref().ok_or(WorkloadError::Misuse { call: "advance", when: "before prepare" })?;
        let sum: f64 = numbers.iter().map(|number| self.weight - f64::from(*number)).sum();
        Ok(sum / f64::from(u32::try_from(numbers.len()).unwrap_or(u32::MAX)))
    }
}

impl Workload for Mean {
    fn name(&self) -> &'static str {
        "mean"
    }
    fn unit(&self) -> Unit {
        Unit::Step
    }
    fn launch_batch(&self) -> u64 {
        1
    }
    fn prepare(&mut self, mut inputs: Inputs, _device: Device) -> Result<(), WorkloadError> {
        self.numbers = Some(inputs.take("numbers")?);
        Ok(())
    }
    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        for _ in 0..units {
            self.weight -= 0.1 * self.gradient()?;
            self.done += 1;
        }
        Ok(Progress { done: self.done, loss: Some(self.gradient()?.powi(2)), ..Progress::default() })
    }
    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        Ok(sha256(self.weight.to_le_bytes()))
    }
    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        sink.put("mean.txt", format!("{:.6}\n", self.weight).as_bytes())
    }
    fn release(&mut self) -> Result<(), WorkloadError> {
        self.numbers = None;
        self.weight = 0.0;
        Ok(())
    }
}

fn main() -> std::process::ExitCode {
    serve_if_launched(examples::registry().workload(Mean::default));
    let runtime = tokio::runtime::Runtime::new();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(train())) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => fail("embed", error),
    }
}

// README: begin
async fn train() -> Result<(), Box<dyn std::error::Error>> {
    let out = examples::default_out();
    std::fs::create_dir_all(&out)?;
    let package = out.join("mean.package");
    let sealed = PackageBuilder::new("mean")
        .entry("numbers", Source::Slice(&[1, 2, 3, 4, 5, 6]))
        .minimum_assurance(Assurance::SelfReported)
        .seal_to_file(&package)?;
    let report = ProtectedRun::builder()
        .provider(LocalProvider::new().container(container_id(ContainerSource::Kernel)?))
        .verifier(SoftwareVerifier::new(SoftwarePolicy::default()))
        .package(package, sealed)
        .out_dir(&out)
        .budget(Budget::Units(200))
        .run()
        .await?;
    for artifact in &report.artifacts {
        say(format_args!("{}: {}", artifact.name, String::from_utf8_lossy(&artifact.read()?).trim()));
    }
    say(format_args!("record: {}, verified by {}", report.record.display(), report.gate_key));
    Ok(())
}
// README: end
