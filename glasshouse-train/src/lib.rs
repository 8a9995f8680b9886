//! Workloads of Glasshouse: what a protected run trains.
//!
//! Raw and protected runs call exactly the same code here, and one binary on one device gives the same bits every time.
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests compute on the CPU"))]

mod crossing;
pub mod cuda_zeroizer;
pub mod data;
pub mod finetune;
#[cfg(feature = "cuda")]
pub mod gpu;
pub mod mlp;
pub mod ops;
pub mod qwen;

mod rng;

pub use finetune::QwenLora;
pub use mlp::{MlpConfig, MlpWorkload};
