//! A multilayer perceptron with ReLU, trained full-batch on a synthetic teacher-student regression.
//!
//! The owner makes data and initial weights from a seed ([`package_entries`]) and seals them; [`MlpWorkload`] takes
//! them out of the opened package and trains in f32. One unit is one epoch, and one epoch is one optimizer step over
//! all rows, with the mean squared error as loss.
//!
//! - [`MlpConfig`], [`Shape`], [`Optimizer`]: what to train; JSON as `config.json` in the package.
//! - `generate`: the generated data, equal on every platform; `data`: sealing it and checking what was opened.
//! - `params`: all weights in one flat buffer, and where each layer lies in it.
//! - `step`, `gemm`, `optim`: the epoch on the CPU, written by hand over preallocated buffers.
//! - `plan`: the same epoch as a list of operations over one arena; `cuda`: that list captured into a CUDA graph.
//! - `autograd`: the same epoch by candle's autograd and optimizers, on any candle device; the reference in tests.
//! - `trainer`: one of these, by [`Method`].

mod autograd;
mod config;
#[cfg(feature = "cuda")]
mod cuda;
mod data;
mod gemm;
mod generate;
mod optim;
mod params;
#[cfg(any(test, feature = "cuda"))]
mod plan;
mod step;
mod trainer;
#[cfg(test)]
mod twin;
mod workload;

pub use autograd::Autograd;
pub use config::{MlpConfig, Optimizer, Shape, Tuning};
#[cfg(feature = "cuda")]
pub(crate) use cuda::candle_device;
pub use data::{CONFIG_ENTRY, DATA_ENTRY, MlpData, package_entries};
pub use trainer::Method;
pub use workload::MlpWorkload;
