//! The command line of `qwen_lora`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use glasshouse_core::overhead::Order;
use glasshouse_train::data::Date;
use glasshouse_train::finetune::{LoraSettings, Precision, Schedule, Settings};

use crate::{Model, ProviderArguments, Rental};

/// Fine-tunes Qwen2.5 with LoRA inside the protected lifecycle.
#[derive(Parser)]
pub struct FinetuneArguments {
    /// tiny, random-0.5b, random-7b, a Hugging Face folder, or OWNER/NAME of the hub (feature `hub`).
    #[arg(long, default_value = "tiny")]
    pub model: String,
    /// JSONL of messages, prompt and completion, question and answer, or text; sums of digits when not given.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// protected, raw, or compare: both on one allocation, for the overhead row.
    #[arg(long, value_enum, default_value = "protected")]
    pub mode: ModeName,
    /// Optimizer steps.
    #[arg(long, default_value_t = 32)]
    pub steps: u64,
    /// Rows of a batch.
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// Tokens of a row.
    #[arg(long, visible_alias = "sequence", default_value_t = 512)]
    pub seq: usize,
    /// Batches that make one step.
    #[arg(long, default_value_t = 1)]
    pub accumulate: u32,
    /// LoRA's rank.
    #[arg(long, default_value_t = 4)]
    pub rank: usize,
    /// LoRA's alpha.
    #[arg(long, default_value_t = 8.0)]
    pub alpha: f64,
    /// LoRA's dropout.
    #[arg(long, default_value_t = 0.0)]
    pub dropout: f64,
    /// Layers to adapt: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj.
    #[arg(long, value_delimiter = ',', default_value = "q_proj,v_proj")]
    pub targets: Vec<String>,
    /// Scale by alpha over the root of the rank.
    #[arg(long)]
    pub rslora: bool,
    /// Peak learning rate; 1e-4 when not given, 1e-2 for tiny.
    #[arg(long)]
    pub lr: Option<f64>,
    /// How the learning rate falls.
    #[arg(long, value_enum, default_value = "cosine")]
    pub schedule: ScheduleName,
    /// Steps until the learning rate peaks.
    #[arg(long, default_value_t = 0)]
    pub warmup: u64,
    /// Largest norm of the gradients; 0 does not clip.
    #[arg(long, default_value_t = 1.0)]
    pub clip: f64,
    /// Part of the data that is held out.
    #[arg(long, default_value_t = 0.1)]
    pub eval_fraction: f64,
    /// Steps between evaluations; 0 evaluates before and after.
    #[arg(long, default_value_t = 0)]
    pub eval_every: u64,
    /// Steps between checkpoints; 0 makes none.
    #[arg(long, default_value_t = 0)]
    pub checkpoint_every: u64,
    /// Recomputes each block in the backward pass, for less memory.
    #[arg(long)]
    pub recompute: bool,
    /// Folder with checkpoints of an earlier run, to go on from the newest.
    #[arg(long, conflicts_with = "init_adapter")]
    pub resume: Option<PathBuf>,
    /// Folder with a PEFT adapter to go on from.
    #[arg(long)]
    pub init_adapter: Option<PathBuf>,
    /// Writes the model with the adapter merged in as a Hugging Face folder.
    #[arg(long)]
    pub merge_into: Option<PathBuf>,
    /// Where to run.
    #[command(flatten)]
    pub rental: ProviderArguments,
    /// What to compute on; cuda on runpod and vast, cpu elsewhere when not given.
    #[arg(long, value_enum)]
    pub device: Option<DeviceName>,
    /// raw and compare, elsewhere than on this machine: lets raw segments show the data to whoever operates the machine.
    #[arg(long)]
    pub allow_cleartext_data: bool,
    /// Type of the base weights; bf16 is for CUDA.
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: DtypeName,
    /// Seed of adapters, order of data and dropout.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// compare: raw-first, protected-first or abba.
    #[arg(long, default_value = "abba")]
    pub order: Order,
    /// compare: how often the order is repeated.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub repeats: u16,
    /// Steady state of each segment, such as 30s or 5m, instead of all steps; compare takes 10s when not given.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// How long the allocation may use the key; when it lapses, training ends and nothing is exported.
    #[arg(long, value_parser = humantime::parse_duration, default_value = "24h")]
    pub lease: Duration,
    /// Most GiB that all artifacts of a run may have, checkpoints included.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub artifact_limit: u16,
    /// Output folder; glasshouse-out/TIME when not given.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// How it runs.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// Inside the protected lifecycle.
    Protected,
    /// The same loop without protection.
    Raw,
    /// Both on one allocation, for the overhead row.
    #[value(alias = "both")]
    Compare,
}

/// What it computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    /// The host.
    Cpu,
    /// The first CUDA device.
    Cuda,
}

/// Type of the base weights.
#[derive(Clone, Copy, ValueEnum)]
pub enum DtypeName {
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
}

/// How the learning rate falls.
#[derive(Clone, Copy, ValueEnum)]
pub enum ScheduleName {
    /// A straight line to zero.
    Linear,
    /// Half a cosine to zero.
    Cosine,
    /// It stays.
    Constant,
}

impl FinetuneArguments {
    /// Where these ask to run.
    ///
    /// # Errors
    /// One sentence about what is wrong with the flags.
    pub fn rental(&self) -> Result<Rental, String> {
        let rental = self.rental.open(self.device)?;
        if rental.is_paid() && self.has_files() && !crate::model::is_hub_id(&self.model) {
            return Err(format!(
                "--model {} is a folder of this machine, which {} does not have; give OWNER/NAME of the hub, or tiny, \
                 random-0.5b or random-7b",
                self.model, rental.name
            ));
        }
        let planned = match self.mode {
            ModeName::Compare => {
                let segments = u32::try_from(self.order.plan(self.repeats).len()).unwrap_or(u32::MAX);
                self.compared_for().saturating_mul(segments)
            }
            // Nobody knows how long so many steps take there.
            _ => self.duration.unwrap_or(Duration::from_secs(3600)),
        };
        Ok(rental.training(planned))
    }

    /// Steady state of each segment of a comparison.
    pub fn compared_for(&self) -> Duration {
        self.duration.unwrap_or(Duration::from_secs(10))
    }

    /// Most bytes that all artifacts may have.
    pub fn artifact_bytes(&self) -> u64 {
        u64::from(self.artifact_limit) << 30
    }

    /// Whether the base model has files, which must be where it trains.
    pub fn has_files(&self) -> bool {
        !matches!(self.model.as_str(), "tiny" | "random-0.5b" | "random-7b")
    }

    /// The settings that these ask for, over a base model.
    pub fn settings(&self, model: &Model) -> Settings {
        let small = self.model == "tiny";
        let compare = self.mode == ModeName::Compare;
        Settings {
            model: model.base.clone(),
            dtype: match self.dtype {
                DtypeName::F32 => Precision::F32,
                DtypeName::Bf16 => Precision::Bf16,
            },
            lora: LoraSettings {
                rank: self.rank,
                alpha: self.alpha,
                dropout: self.dropout,
                targets: self.targets.clone(),
                rslora: self.rslora,
            },
            // A comparison goes on for as long as it is measured, and does nothing but train.
            steps: if compare { 1_000_000_000 } else { self.steps },
            eval_fraction: if compare { 0.0 } else { self.eval_fraction },
            eval_every: if compare { 0 } else { self.eval_every },
            checkpoint_every: if compare { 0 } else { self.checkpoint_every },
            schedule: match self.schedule {
                _ if compare => Schedule::Constant,
                ScheduleName::Linear => Schedule::Linear,
                ScheduleName::Cosine => Schedule::Cosine,
                ScheduleName::Constant => Schedule::Constant,
            },
            batch: self.batch,
            sequence: self.seq,
            accumulate: self.accumulate,
            learning_rate: self.lr.unwrap_or(if small { 1e-2 } else { 1e-4 }),
            warmup: self.warmup,
            clip: self.clip,
            recompute: self.recompute,
            seed: self.seed,
            today: Date::today(),
            ..Settings::default()
        }
    }
}
