//! Operations of a decoder-only transformer that know their gradient, for training adapters over frozen weights.
//!
//! candle's own `rms_norm`, `rope` and `softmax_last_dim` have no backward and say nothing about it, and its matrix
//! product computes the gradient of frozen weights, too. Here:
//!
//! | operation | shapes | gradient of |
//! | --- | --- | --- |
//! | [`rms_norm`] | `x [.., n]`, weight `[n]` | x |
//! | [`rope`] | `x [rows, length, heads, dim]`, a position for each token | x |
//! | [`swiglu`] | `gate_up [.., 2 n]` to `[.., n]` | gate_up |
//! | [`attention`] | q `[rows, length, heads, dim]`, k and v `[rows, length, kv_heads, dim]`, a [`Packing`] | q, k, v |
//! | [`linear`] | `x [tokens, in]`, weight `[out, in]`, bias `[out]` | x |
//! | [`lora_linear`] | the same and A `[r, in]`, B `[out, r]` | x, A, B |
//! | [`linear_cross_entropy`] | hidden `[tokens, n]`, weight `[words, n]`, a target for each token | hidden |
//!
//! ```
//! use candle_core::{DType, Device, Tensor, Var};
//! use glasshouse_train::ops::{linear_cross_entropy, lora_linear, rms_norm};
//!
//! let device = Device::Cpu;
//! let weight = Tensor::randn(0f32, 0.1f32, (16, 8), &device)?;
//! let a = Var::from_tensor(&Tensor::randn(0f32, 0.1f32, (2, 8), &device)?)?;
//! let b = Var::from_tensor(&Tensor::zeros((16, 2), DType::F32, &device)?)?;
//! let x = rms_norm(&Tensor::randn(0f32, 1f32, (5, 8), &device)?, &Tensor::ones(8, DType::F32, &device)?, 1e-6)?;
//! let y = lora_linear(&x, &weight, None, a.as_tensor(), b.as_tensor(), 2.0, None)?;
//! let words = Tensor::randn(0f32, 1f32, (100, 16), &device)?;
//! let targets = Tensor::new(&[3u32, 1, 4, 1, 5], &device)?;
//! let gradients = linear_cross_entropy(&y, &words, &targets, 5.0)?.backward()?;
//! assert!(gradients.get(&b).is_some());
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! Each function gives a tensor that candle's `backward` goes through. Under each lie a plain forward and a plain
//! backward over tensors without a graph, which the model calls itself: candle's would add every gradient to zeros
//! first. All of it in f32 or bf16; sums are in f32. Kernels change below this line, in the insides of these files only.

mod attention;
mod cross_entropy;
#[cfg(feature = "cuda")]
mod cuda;
mod dropout;
mod gemm;
mod heads;
mod host;
mod linear;
mod lora;
mod memory;
mod random;
mod record;
mod rms_norm;
mod rope;
mod rows;
mod softmax;
mod swiglu;

pub use attention::{Packing, attention};
pub use cross_entropy::linear_cross_entropy;
pub use linear::linear;
pub use lora::{Dropout, lora_linear};
pub use rms_norm::rms_norm;
pub use rope::{RopeTable, rope};
pub use swiglu::swiglu;

pub(crate) use attention::{attention_backward, attention_forward};
pub(crate) use cross_entropy::cross_entropy_forward;
pub(crate) use gemm::gemm;
pub(crate) use linear::Frozen;
pub(crate) use lora::{Adapter, AdapterGradient, Adapters};
#[cfg(feature = "cuda")]
pub(crate) use memory::unwritten;
pub(crate) use random::uniform;
pub(crate) use rms_norm::{rms_norm_backward, rms_norm_forward};
pub(crate) use rope::rope_in_place;
pub(crate) use rows::{put_rows, take_rows};
pub(crate) use swiglu::{swiglu_backward, swiglu_forward};
