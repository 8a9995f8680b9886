use candle_core::DType;
use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
use serde::{Deserialize, Serialize};

use super::base::{self, Files};
use super::error::{data, loading, model};
use super::package::{ADAPTER_CONFIG_ENTRY, ADAPTER_ENTRY, CHECKPOINT_ENTRY, DATA_ENTRY, SETTINGS_ENTRY, run_digest};
use super::settings::{BaseModel, Precision, Settings};
use super::trainer::{Evaluation, Trainer};
use crate::crossing::{self, KeptIfLost};
use crate::data::{Dataset, DatasetSummary};
use crate::qwen::adapter::{self, AdapterFiles};
use crate::qwen::{Qwen2, QwenConfig, Weights};

/// Evaluations and the size of the data: [`Results`] as JSON.
pub const EVAL_ARTIFACT: &str = "eval.json";
/// Every step: one [`Metrics`](super::Metrics) a line, as JSON.
pub const LOG_ARTIFACT: &str = "training_log.jsonl";

/// What came out, besides the adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// Optimizer steps done.
    pub steps: u64,
    /// Tokens trained on, padding not counted.
    pub tokens: u64,
    /// Numbers that were trained.
    pub trainable_parameters: u64,
    /// Numbers of the base model.
    pub base_parameters: u64,
    /// The data.
    pub data: DatasetSummary,
    /// Losses on what was held out, in order.
    pub evaluations: Vec<Evaluation>,
}

/// Fine-tunes what [`package_entries`](super::package_entries) sealed. Registry name `qwen-lora`, one unit is one
/// optimizer step.
#[derive(Default)]
pub struct QwenLora {
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
    settings: Settings,
    config: QwenConfig,
    trainer: Trainer,
    data: DatasetSummary,
    /// Steps that a checkpoint brought.
    first: u64,
    tokens_before: u64,
    checkpoint_due: bool,
    _device: KeptIfLost,
}

impl QwenLora {
    /// One that has yet to be prepared.
    pub fn new() -> Self {
        Self::default()
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

impl Workload for QwenLora {
    fn name(&self) -> &'static str {
        "qwen-lora"
    }

    fn unit(&self) -> Unit {
        Unit::Step
    }

    fn launch_batch(&self) -> u64 {
        1
    }

    fn prepare(&mut self, inputs: Inputs, device: Device) -> Result<(), WorkloadError> {
        match self.state {
            State::New => {}
            State::Ready(_) => {
                return Err(WorkloadError::Misuse { call: "prepare", when: "twice; make a new workload" });
            }
            State::Released => return Err(WorkloadError::Misuse { call: "prepare", when: AFTER }),
        }
        self.state = State::Ready(Box::new(Ready::build(inputs, device)?));
        Ok(())
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        let ready = self.ready_mut("advance")?;
        let (steps, every) = (ready.settings.steps, ready.settings.eval_every);
        let left = steps.saturating_sub(ready.trainer.steps_done());
        for unit in 0..units.min(left) {
            ready.trainer.train_step()?;
            let step = ready.trainer.steps_done();
            let evaluates = every > 0 && step.is_multiple_of(every);
            ready.trainer.settle(evaluates || step == steps || unit == 0 && step == ready.first + 1)?;
            if evaluates {
                ready.trainer.evaluate()?;
            }
            let checkpoints = ready.settings.checkpoint_every;
            ready.checkpoint_due |= checkpoints > 0 && step.is_multiple_of(checkpoints);
        }
        Ok(ready.progress())
    }

    fn checkpoint(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        let ready = self.ready_mut("checkpoint")?;
        if std::mem::take(&mut ready.checkpoint_due) {
            let bytes = ready.trainer.checkpoint()?;
            sink.put(&format!("checkpoint-{:06}.safetensors", ready.trainer.steps_done()), &bytes)?;
        }
        Ok(())
    }

    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        self.ready("weights_digest")?.trainer.weights_digest()
    }

    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        let ready = self.ready_mut("export")?;
        ready.trainer.read_back()?;
        let base = match &ready.settings.model {
            BaseModel::Directory { name } => Some(name.as_str()),
            BaseModel::Random { .. } => None,
        };
        let files = adapter::export(ready.trainer.model(), base).map_err(|e| model(e, 1, 1))?;
        sink.put(adapter::CONFIG_FILE, &files.config)?;
        sink.put(adapter::WEIGHTS_FILE, &files.weights)?;
        // Last, because it may take minutes: who stops a run has the adapter by then.
        ready.trainer.evaluate()?;
        let failed =
            |name: &str, e: serde_json::Error| WorkloadError::Artifact { name: name.to_owned(), why: e.to_string() };
        let results = serde_json::to_vec_pretty(&ready.results()?).map_err(|e| failed(EVAL_ARTIFACT, e))?;
        sink.put(EVAL_ARTIFACT, &results)?;
        let mut lines = Vec::new();
        for metrics in ready.trainer.log() {
            serde_json::to_writer(&mut lines, metrics).map_err(|e| failed(LOG_ARTIFACT, e))?;
            lines.push(b'\n');
        }
        sink.put(LOG_ARTIFACT, &lines)
    }

    fn release(&mut self) -> Result<(), WorkloadError> {
        let _last = crossing::ReleasedAtTheEnd;
        self.state = State::Released;
        Ok(())
    }
}

impl Ready {
    /// Cheap checks first: a bad line is found before gigabytes are read.
    fn build(mut inputs: Inputs, device: Device) -> Result<Self, WorkloadError> {
        let settings = Settings::from_json(&inputs.take(SETTINGS_ENTRY)?)?;
        let jsonl = inputs.take(DATA_ENTRY)?;
        let lora = settings.lora.config()?;
        let (config, encoder) = base::read(&settings, &Files::Pinned(&inputs.public))?;
        let dataset = Dataset::read(&jsonl, &encoder, settings.eval_fraction, settings.seed).map_err(data)?;
        let pinned = inputs.public.iter().map(|(name, file)| (name.as_str(), file.sha256()));
        let run = run_digest(&settings, &jsonl, pinned)?;
        drop(jsonl);
        let device = open(device)?;
        let _device = KeptIfLost(device.clone());
        let dtype = match settings.dtype {
            Precision::F32 => DType::F32,
            Precision::Bf16 => DType::BF16,
        };
        let failed = |error| model(error, settings.batch, settings.accumulate);
        let mut base = match &settings.model {
            BaseModel::Directory { .. } => Weights::pinned(&inputs.public)
                .and_then(|weights| Qwen2::load(&config, &weights, &lora, &device, dtype, settings.seed)),
            BaseModel::Random { seed, .. } => Qwen2::random(&config, &lora, &device, dtype, *seed),
        }
        .map_err(|error| loading(error, config.parameters(), dtype))?;
        base.recompute_blocks(settings.recompute);
        if inputs.sealed.contains_key(ADAPTER_ENTRY) || inputs.sealed.contains_key(ADAPTER_CONFIG_ENTRY) {
            let [config, weights] = [ADAPTER_CONFIG_ENTRY, ADAPTER_ENTRY].map(|name| inputs.take(name));
            let files = AdapterFiles { config: config?.to_vec(), weights: weights?.to_vec() };
            adapter::import(&base, &files).map_err(failed)?;
        }
        let (summary, padding) = (dataset.summary(), encoder.tokenizer().end());
        let mut trainer = Trainer::new(settings.clone(), base, &dataset, padding, device, run)?;
        if let Some(checkpoint) = inputs.sealed.remove(CHECKPOINT_ENTRY) {
            trainer.resume(&checkpoint)?;
        }
        trainer.evaluate()?;
        let (first, tokens_before) = (trainer.steps_done(), trainer.tokens());
        Ok(Self { settings, config, trainer, data: summary, first, tokens_before, checkpoint_due: false, _device })
    }

    fn progress(&self) -> Progress {
        let (done, latest) = (self.trainer.steps_done(), self.trainer.latest());
        Progress {
            done: done.saturating_sub(self.first),
            total: Some(self.settings.steps.saturating_sub(self.first)),
            loss: latest.and_then(|latest| latest.loss),
            eval_loss: self.trainer.evaluated().map(|evaluation| evaluation.loss),
            learning_rate: done.checked_sub(1).map(|step| self.settings.rate(step)),
            tokens: Some(self.trainer.tokens().saturating_sub(self.tokens_before)),
        }
    }

    fn results(&self) -> Result<Results, WorkloadError> {
        Ok(Results {
            steps: self.trainer.steps_done(),
            tokens: self.trainer.tokens(),
            trainable_parameters: self.config.trainable_parameters(&self.settings.lora.config()?),
            base_parameters: self.config.parameters(),
            data: self.data,
            evaluations: self.trainer.evaluations().to_vec(),
        })
    }
}

fn open(device: Device) -> Result<candle_core::Device, WorkloadError> {
    match device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        #[cfg(feature = "cuda")]
        Device::Cuda => crate::mlp::candle_device(),
        #[cfg(not(feature = "cuda"))]
        Device::Cuda => {
            Err(super::settings::refuse("device", "this program was built without CUDA; use cpu".to_owned()))
        }
    }
}
