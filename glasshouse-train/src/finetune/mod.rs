//! LoRA fine-tuning of Qwen2 models as a [`Workload`](glasshouse_core::traits::Workload): [`QwenLora`], registry name
//! `qwen-lora`, one unit is one optimizer step.
//!
//! The owner seals settings and data ([`package_entries`]) and pins the base model's files ([`public_inputs`]); the
//! adapter that comes out is PEFT's.
//!
//! - `base`: the model's files; `package`: what is sealed, and what is checked before anything is rented.
//! - [`Settings`]: all that decides what is computed, `finetune.json` of the package.
//! - `trainer`: batches, gradients, evaluation; [`AdamW`]: the optimizer; [`Schedule`]: the learning rate.
//! - `checkpoint`: everything that is needed to go on bit for bit.
//! - [`Metrics`], [`MetricsWriter`], [`EventWriter`]: `metrics.jsonl` and TensorBoard files, on the owner's side.

mod adamw;
mod base;
mod checkpoint;
mod error;
mod metrics;
mod package;
mod schedule;
mod settings;
mod tensorboard;
mod trainer;
mod workload;

pub use adamw::{AdamW, flat};
pub use base::{model_files, public_inputs};
pub use checkpoint::{CheckpointState, checkpoint_state};
pub use metrics::{Metrics, MetricsWriter};
pub use package::{
    ADAPTER_CONFIG_ENTRY, ADAPTER_ENTRY, CHECKPOINT_ENTRY, Checked, DATA_ENTRY, SETTINGS_ENTRY, Start, check,
    merge_into, package_entries,
};
pub use schedule::Schedule;
pub use settings::{AdamWSettings, BaseModel, LoraSettings, Precision, RandomShape, Settings};
pub use tensorboard::EventWriter;
pub use trainer::Evaluation;
pub use workload::{EVAL_ARTIFACT, LOG_ARTIFACT, QwenLora, Results};
