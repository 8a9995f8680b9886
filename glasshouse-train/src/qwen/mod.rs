//! Qwen2 and Qwen2.5 with LoRA: the model, its weights, its adapters.
//!
//! - [`QwenConfig`]: `config.json`; [`LoraConfig`]: what is adapted; [`Batch`]: what one forward pass reads.
//! - [`Weights`]: a published directory's safetensors, memory-mapped or pinned; `header`: what is in each file.
//! - [`Qwen2`]: the frozen base on a device and the adapters over it; [`Loss`] is what one pass gives, with its backward.
//! - `guard`: no trainable variable without a gradient; `adapter`: PEFT's files; `merge`: a directory with the adapter
//!   added into the weights.

pub mod adapter;
mod batch;
mod block;
mod build;
mod config;
mod error;
mod guard;
mod header;
mod lora;
mod loss;
mod map;
mod memory;
pub mod merge;
mod model;
mod weights;

pub use batch::{Batch, IGNORE};
pub use config::QwenConfig;
pub use error::QwenError;
pub use guard::check_gradients;
pub use lora::{LoraConfig, Target};
pub use loss::Loss;
pub use model::Qwen2;
pub use weights::Weights;
