//! What to fine-tune and how: `finetune.json` of a package.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use glasshouse_core::traits::WorkloadError;
use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::data::Date;
use crate::qwen::{LoraConfig, QwenConfig, Target};

/// Everything that decides what a fine-tuning run computes, but for the data and the base weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the base model comes from.
    pub model: BaseModel,
    /// Type of the base weights and of what flows through them; adapters and optimizer stay f32.
    pub dtype: Precision,
    /// The adapters.
    pub lora: LoraSettings,
    /// Optimizer steps in all.
    pub steps: u64,
    /// Rows of a batch.
    pub batch: usize,
    /// Tokens of a row.
    pub sequence: usize,
    /// Batches whose gradients make one optimizer step.
    pub accumulate: u32,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// How it changes.
    pub schedule: Schedule,
    /// Steps until it peaks.
    pub warmup: u64,
    /// Largest norm of all gradients together; 0 leaves them as they are.
    pub clip: f64,
    /// The optimizer's constants.
    pub adamw: AdamWSettings,
    /// Part of the documents that is held out, from 0 to below 1.
    pub eval_fraction: f64,
    /// Steps between two evaluations; 0 evaluates before the first and after the last step alone.
    pub eval_every: u64,
    /// Steps between two checkpoints; 0 makes none.
    pub checkpoint_every: u64,
    /// Recomputes each block in the backward pass instead of keeping what it needs.
    pub recompute: bool,
    /// Seed of initial adapters, order of data, choice of what is held out, and dropout.
    pub seed: u64,
    /// What a chat template is told that today is.
    pub today: Date,
}

/// Where the base model comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case", deny_unknown_fields)]
pub enum BaseModel {
    /// Random weights of a shape, made in process, and bytes as tokens.
    Random {
        /// The shape.
        shape: RandomShape,
        /// Seed of the weights.
        seed: u64,
    },
    /// A Hugging Face directory, whose files are the package's public inputs.
    Directory {
        /// What it is called, such as `Qwen/Qwen2.5-0.5B`; the adapter's configuration names it.
        name: String,
    },
}

/// Shapes for random weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RandomShape {
    /// Four blocks of 64, for a bare machine.
    #[serde(rename = "tiny")]
    Tiny,
    /// Qwen2.5-0.5B.
    #[serde(rename = "qwen2.5-0.5b")]
    Qwen05B,
    /// Qwen2.5-7B.
    #[serde(rename = "qwen2.5-7b")]
    Qwen7B,
}

impl RandomShape {
    /// The model's configuration.
    pub fn config(self) -> QwenConfig {
        match self {
            Self::Tiny => QwenConfig::tiny(),
            Self::Qwen05B => QwenConfig::qwen2_5_0_5b(),
            Self::Qwen7B => QwenConfig::qwen2_5_7b(),
        }
    }
}

/// Type of the base weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// bfloat16, on CUDA.
    Bf16,
}

/// As [`LoraConfig`], with the names that PEFT uses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSettings {
    /// Rank.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Probability of dropping an input of an adapter while training.
    pub dropout: f64,
    /// Names such as `q_proj`.
    pub targets: Vec<String>,
    /// Scale by the root of the rank.
    pub rslora: bool,
}

/// AdamW's constants (Loshchilov and Hutter 2019).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWSettings {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

impl Default for AdamWSettings {
    /// PyTorch's betas and epsilon; no weight decay, which adapters do without.
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl Default for LoraSettings {
    fn default() -> Self {
        Self::from(&LoraConfig::default())
    }
}

impl From<&LoraConfig> for LoraSettings {
    fn from(lora: &LoraConfig) -> Self {
        let targets = lora.targets.iter().map(Target::to_string).collect();
        Self { rank: lora.rank, alpha: lora.alpha, dropout: lora.dropout, targets, rslora: lora.rslora }
    }
}

impl LoraSettings {
    /// The adapters that this asks for.
    ///
    /// # Errors
    /// [`WorkloadError::Config`].
    pub fn config(&self) -> Result<LoraConfig, WorkloadError> {
        let refused = |e: crate::qwen::QwenError| refuse("lora", e.to_string());
        let targets =
            self.targets.iter().map(|name| name.parse::<Target>()).collect::<Result<_, _>>().map_err(refused)?;
        let Self { rank, alpha, dropout, rslora, .. } = *self;
        let config = LoraConfig { rank, alpha, dropout, targets, rslora };
        config.validate().map_err(refused)?;
        Ok(config)
    }
}

impl Default for Settings {
    /// 32 steps of one row of 512 tokens on `tiny`, rank 4 on queries and values, 1e-4 along a cosine.
    fn default() -> Self {
        Self {
            model: BaseModel::Random { shape: RandomShape::Tiny, seed: 0 },
            dtype: Precision::F32,
            lora: LoraSettings::default(),
            steps: 32,
            batch: 1,
            sequence: 512,
            accumulate: 1,
            learning_rate: 1e-4,
            schedule: Schedule::Cosine,
            warmup: 0,
            clip: 1.0,
            adamw: AdamWSettings::default(),
            eval_fraction: 0.1,
            eval_every: 0,
            checkpoint_every: 0,
            recompute: false,
            seed: 0,
            today: Date { days: 0 },
        }
    }
}

/// An allocation hands out 256 artifacts at most; the adapter, its evaluation and log are among them.
const MOST_CHECKPOINTS: u64 = 240;

impl Settings {
    /// Reads the JSON and checks every value that can be checked without the model.
    ///
    /// # Errors
    /// [`WorkloadError::Input`] for what is not this JSON, [`WorkloadError::Config`] for a value out of range.
    pub fn from_json(bytes: &[u8]) -> Result<Self, WorkloadError> {
        let settings: Self = serde_json::from_slice(bytes).map_err(|error| WorkloadError::Input {
            name: super::SETTINGS_ENTRY.to_owned(),
            why: format!("it is not the JSON of a fine-tuning run: {error}"),
        })?;
        settings.validate()?;
        Ok(settings)
    }

    /// The JSON.
    ///
    /// # Errors
    /// [`WorkloadError::Config`] for a value out of range.
    pub fn to_json(&self) -> Result<Vec<u8>, WorkloadError> {
        self.validate()?;
        serde_json::to_vec_pretty(self).map_err(|e| refuse("settings", e.to_string()))
    }

    /// Checks every value that can be checked without the model.
    ///
    /// # Errors
    /// [`WorkloadError::Config`] with the field and what it may be.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        self.lora.config()?;
        let within = |field, value: f64, low: f64, high: f64| match value >= low && value <= high {
            true => Ok(()),
            false => Err(refuse(field, format!("{value} is not from {low} to {high}"))),
        };
        let below = |field, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(refuse(field, format!("{value} is not at least 0 and below 1"))),
        };
        let count = |field, value: u64, most: u64| match (1..=most).contains(&value) {
            true => Ok(()),
            false => Err(refuse(field, format!("{value} is not from 1 to {most}"))),
        };
        count("steps", self.steps, 1_000_000_000)?;
        count("batch", self.batch as u64, 4096)?;
        count("sequence", self.sequence as u64, 1 << 20)?;
        if self.sequence < 2 {
            return Err(refuse("sequence", "a row of one token has nothing to predict; use at least 2".to_owned()));
        }
        count("accumulate", u64::from(self.accumulate), 65_536)?;
        within("learning_rate", self.learning_rate, 0.0, f64::from(f32::MAX))?;
        within("clip", self.clip, 0.0, 1e9)?;
        below("adamw.beta1", self.adamw.beta1)?;
        below("adamw.beta2", self.adamw.beta2)?;
        within("adamw.eps", self.adamw.eps, 1e-30, 1.0)?;
        within("adamw.weight_decay", self.adamw.weight_decay, 0.0, 100.0)?;
        below("eval_fraction", self.eval_fraction)?;
        let checkpoints = self.steps.checked_div(self.checkpoint_every).unwrap_or(0);
        if checkpoints > MOST_CHECKPOINTS {
            let why = format!("{checkpoints} checkpoints are more than {MOST_CHECKPOINTS}; make them rarer");
            return Err(refuse("checkpoint_every", why));
        }
        if self.warmup > self.steps {
            let why = format!("{} steps of warm-up are more than {} steps in all", self.warmup, self.steps);
            return Err(refuse("warmup", why));
        }
        Ok(())
    }

    /// The learning rate of a step, from 0.
    pub fn rate(&self, step: u64) -> f64 {
        self.schedule.rate(self.learning_rate, step, self.warmup, self.steps)
    }
}

pub(super) fn refuse(field: &str, why: String) -> WorkloadError {
    WorkloadError::Config { field: field.to_owned(), why }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn settings_come_back() {
        let settings = Settings { model: BaseModel::Directory { name: "a/b".to_owned() }, ..Settings::default() };
        assert_eq!(Settings::from_json(&settings.to_json().unwrap()).unwrap(), settings);
        let text = String::from_utf8(Settings::default().to_json().unwrap()).unwrap();
        assert!(text.contains("\"from\": \"random\"") && text.contains("\"q_proj\""), "{text}");
    }

    #[test]
    fn what_cannot_be_names_its_field() {
        let good = Settings::default;
        let lora = |change: fn(&mut LoraSettings)| {
            let mut settings = good();
            change(&mut settings.lora);
            settings
        };
        for (field, bad) in [
            ("steps", Settings { steps: 0, ..good() }),
            ("batch", Settings { batch: 0, ..good() }),
            ("sequence", Settings { sequence: 1, ..good() }),
            ("accumulate", Settings { accumulate: 0, ..good() }),
            ("learning_rate", Settings { learning_rate: f64::NAN, ..good() }),
            ("clip", Settings { clip: -1.0, ..good() }),
            ("adamw.beta2", Settings { adamw: AdamWSettings { beta2: 1.0, ..AdamWSettings::default() }, ..good() }),
            ("eval_fraction", Settings { eval_fraction: 1.0, ..good() }),
            ("warmup", Settings { warmup: 33, ..good() }),
            ("lora", lora(|lora| lora.rank = 0)),
            ("lora", lora(|lora| lora.targets = vec!["x_proj".to_owned()])),
        ] {
            match bad.validate() {
                Err(WorkloadError::Config { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(matches!(Settings::from_json(b"{}"), Err(WorkloadError::Input { .. })));
    }
}
