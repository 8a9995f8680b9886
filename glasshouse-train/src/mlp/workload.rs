use std::fmt;

use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::config::MlpConfig;
use super::data::{Floats, MlpData, to_le_bytes, to_safetensors};
use super::params::Layout;
use super::step::CpuTrainer;

/// How epochs are computed; it stands in every row, so that figures are never compared across methods unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Hand-written epoch on the CPU.
    CpuFused,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CpuFused => "cpu-fused",
        })
    }
}

/// Trains the MLP that [`package_entries`](super::package_entries) made. Registry name `mlp`, one unit is one epoch.
#[derive(Default)]
pub struct MlpWorkload {
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    New,
    Ready(Box<Ready>),
    Released,
}

struct Ready {
    config: MlpConfig,
    layout: Layout,
    trainer: CpuTrainer,
    done: u64,
    loss: Option<f64>,
}

impl MlpWorkload {
    /// One that has yet to be prepared.
    pub fn new() -> Self {
        Self::default()
    }

    /// How it computes; known once it is prepared.
    pub fn method(&self) -> Option<Method> {
        self.ready("method").ok().map(|_| Method::CpuFused)
    }

    fn ready(&self, call: &'static str) -> Result<&Ready, WorkloadError> {
        match &self.state {
            State::Ready(ready) => Ok(ready),
            State::New => Err(WorkloadError::Misuse { call, when: BEFORE }),
            State::Released => Err(WorkloadError::Misuse { call, when: AFTER }),
        }
    }

    fn ready_mut(&mut self, call: &'static str) -> Result<&mut Ready, WorkloadError> {
        match &mut self.state {
            State::Ready(ready) => Ok(ready),
            State::New => Err(WorkloadError::Misuse { call, when: BEFORE }),
            State::Released => Err(WorkloadError::Misuse { call, when: AFTER }),
        }
    }
}

const BEFORE: &str = "before prepare; prepare it first";
const AFTER: &str = "after release; make a new workload";

impl Workload for MlpWorkload {
    fn name(&self) -> &'static str {
        "mlp"
    }

    fn unit(&self) -> Unit {
        Unit::Epoch
    }

    fn launch_batch(&self) -> u64 {
        1
    }

    fn prepare(&mut self, mut inputs: Inputs, device: Device) -> Result<(), WorkloadError> {
        match self.state {
            State::New => {}
            State::Ready(_) => {
                return Err(WorkloadError::Misuse { call: "prepare", when: "twice; make a new workload" });
            }
            State::Released => return Err(WorkloadError::Misuse { call: "prepare", when: AFTER }),
        }
        let (config, data) = MlpData::take(&mut inputs)?;
        let layout = data.layout.clone();
        let trainer = match device {
            Device::Cpu => CpuTrainer::new(&config, data),
            Device::Cuda => {
                return Err(WorkloadError::Device {
                    what: "cuda".to_owned(),
                    why: "this program was built without it; build with --features cuda, or choose cpu".to_owned(),
                });
            }
        };
        self.state = State::Ready(Box::new(Ready { config, layout, trainer, done: 0, loss: None }));
        Ok(())
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        let ready = self.ready_mut("advance")?;
        let left = ready.config.epochs.map_or(u64::MAX, |total| total.saturating_sub(ready.done));
        let epochs = units.min(left);
        if epochs > 0 {
            let loss = ready.trainer.advance(epochs);
            ready.done = ready.done.saturating_add(epochs);
            ready.loss = Some(loss);
        }
        match ready.loss {
            Some(loss) if !loss.is_finite() => Err(WorkloadError::NotFinite { loss, done: ready.done }),
            loss => Ok(Progress { done: ready.done, total: ready.config.epochs, loss }),
        }
    }

    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        let weights = self.ready("weights_digest")?.weights()?;
        Ok(Digest32::from(<[u8; 32]>::from(Sha256::digest(&to_le_bytes(&weights)[..]))))
    }

    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        let ready = self.ready("export")?;
        let weights = ready.weights()?;
        let tensors: Vec<_> = ready
            .layout
            .entries()
            .into_iter()
            .map(|entry| (entry.name, entry.shape, to_le_bytes(weights.get(entry.range).unwrap_or_default())))
            .collect();
        let file = to_safetensors(&tensors)
            .map(Zeroizing::new)
            .map_err(|error| WorkloadError::Artifact { name: MODEL_ARTIFACT.to_owned(), why: error.to_string() })?;
        sink.put(MODEL_ARTIFACT, &file)?;
        sink.put(CONFIG_ARTIFACT, &ready.config.to_json()?)
    }

    fn release(&mut self) -> Result<(), WorkloadError> {
        self.state = State::Released;
        Ok(())
    }
}

/// The trained weights, one f32 tensor per weight and bias.
const MODEL_ARTIFACT: &str = "model.safetensors";
/// The configuration they were trained with, as it was in the package.
const CONFIG_ARTIFACT: &str = "model_config.json";

impl Ready {
    fn weights(&self) -> Result<Floats, WorkloadError> {
        Ok(self.trainer.weights.clone())
    }
}
