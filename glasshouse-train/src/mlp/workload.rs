use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::config::{MlpConfig, Tuning};
use super::data::{MlpData, to_le_bytes, to_safetensors};
use super::params::Layout;
use super::trainer::{Method, Trainer};

/// Trains the MLP that [`package_entries`](super::package_entries) made. Registry name `mlp`, one unit is one epoch.
#[derive(Default)]
pub struct MlpWorkload {
    wanted: Option<Method>,
    tuning: Option<Tuning>,
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
    trainer: Trainer,
    method: Method,
    fallback: Option<String>,
    done: u64,
    loss: Option<f64>,
}

impl MlpWorkload {
    /// One that has yet to be prepared. It takes the fastest method of its device that works there: `cpu-fused`, or
    /// `cuda-graph` and, where no graph can be made, `cuda-autograd`; [`method`](Self::method) says which.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that computes by this method or fails to prepare.
    pub fn with_method(method: Method) -> Self {
        Self { wanted: Some(method), ..Self::default() }
    }

    /// With other choices for a CUDA device than [`Tuning::of`] the configuration; the CPU ignores them.
    #[must_use]
    pub fn tuned(self, tuning: Tuning) -> Self {
        Self { tuning: Some(tuning), ..self }
    }

    /// How it computes; known once it is prepared.
    pub fn computes_by(&self) -> Option<Method> {
        self.ready("computes_by").ok().map(|ready| ready.method)
    }

    /// Why it does not compute by the fastest method of its device, when it does not.
    pub fn fallback(&self) -> Option<&str> {
        self.ready("fallback").ok()?.fallback.as_deref()
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

    fn method(&self) -> String {
        match (self.computes_by(), self.fallback()) {
            (None, _) => "not prepared".to_owned(),
            (Some(method), None) => method.to_string(),
            (Some(method), Some(why)) => format!("{method}, because {why}"),
        }
    }

    fn launch_batch(&self) -> u64 {
        match &self.state {
            State::Ready(ready) => match ready.method {
                Method::CudaGraph => ready.config.launch_batch,
                Method::CpuFused => ready.config.cpu_batch(),
                _ => 1,
            },
            State::New | State::Released => 1,
        }
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
        let tuning = self.tuning.unwrap_or_else(|| Tuning::of(&config));
        let (trainer, method, fallback) = match (self.wanted, device) {
            (Some(method), _) if method.device() != device => {
                let why = format!("{method} does not run on {device}; choose {}", method.device());
                return Err(WorkloadError::Config { field: "method".to_owned(), why });
            }
            (Some(method), _) => (Trainer::new(&config, data, method, tuning)?, method, None),
            (None, Device::Cpu) => {
                let method = Method::CpuFused;
                (Trainer::new(&config, data, method, tuning)?, method, None)
            }
            (None, Device::Cuda) => fastest_on_cuda(&config, data, tuning)?,
        };
        self.state = State::Ready(Box::new(Ready { config, layout, trainer, method, fallback, done: 0, loss: None }));
        Ok(())
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        let ready = self.ready_mut("advance")?;
        let left = ready.config.epochs.map_or(u64::MAX, |total| total.saturating_sub(ready.done));
        let epochs = units.min(left);
        if epochs > 0 {
            let loss = ready.trainer.advance(epochs)?;
            ready.done = ready.done.saturating_add(epochs);
            ready.loss = Some(loss);
        }
        match ready.loss {
            Some(loss) if !loss.is_finite() => Err(WorkloadError::NotFinite { loss, done: ready.done }),
            loss => Ok(Progress { done: ready.done, total: ready.config.epochs, loss, ..Progress::default() }),
        }
    }

    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        let weights = self.ready("weights_digest")?.trainer.weights()?;
        Ok(Digest32::from(<[u8; 32]>::from(Sha256::digest(&to_le_bytes(&weights)[..]))))
    }

    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        let ready = self.ready("export")?;
        let weights = ready.trainer.weights()?;
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
        match std::mem::replace(&mut self.state, State::Released) {
            State::Ready(ready) => ready.trainer.wipe(),
            State::New | State::Released => Ok(()),
        }
    }
}

/// The trained weights, one f32 tensor per weight and bias.
const MODEL_ARTIFACT: &str = "model.safetensors";
/// The configuration they were trained with, as it was in the package.
const CONFIG_ARTIFACT: &str = "model_config.json";

type Chosen = (Trainer, Method, Option<String>);

/// A graph where one can be made, and candle's autograd with the reason where not.
fn fastest_on_cuda(config: &MlpConfig, data: MlpData, tuning: Tuning) -> Result<Chosen, WorkloadError> {
    match Trainer::new(config, data.clone(), Method::CudaGraph, tuning) {
        Ok(trainer) => Ok((trainer, Method::CudaGraph, None)),
        Err(error) => {
            let trainer = Trainer::new(config, data, Method::CudaAutograd, tuning)?;
            Ok((trainer, Method::CudaAutograd, Some(error.to_string())))
        }
    }
}
