use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Tensor, Var};

use super::{Batch, LoraConfig, QwenConfig, QwenError, Weights};

/// A Qwen2 model: the base frozen on one device, and adapters over it to train.
pub struct Qwen2 {
    trainable: Vec<(String, Var)>,
}

/// What one forward pass gives, and all that its backward pass needs.
pub struct Loss<'model> {
    model: &'model Qwen2,
    value: Tensor,
    targets: usize,
}

impl Qwen2 {
    /// Loads the base as `dtype` (f32, or bf16) and makes fresh adapters in f32: A Kaiming uniform from `seed`, B zero.
    ///
    /// # Errors
    /// [`QwenError`] naming the tensor that is missing or of another shape, or that the device is out of memory.
    pub fn load(
        config: &QwenConfig,
        weights: &Weights,
        lora: &LoraConfig,
        device: &Device,
        dtype: DType,
        seed: u64,
    ) -> Result<Self, QwenError> {
        let _ = (config, weights, lora, device, dtype, seed);
        Err(pending())
    }

    /// The same with random weights from `seed`, made on the device.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn random(
        config: &QwenConfig,
        lora: &LoraConfig,
        device: &Device,
        dtype: DType,
        seed: u64,
    ) -> Result<Self, QwenError> {
        let _ = (config, lora, device, dtype, seed);
        Err(pending())
    }

    /// The negative log likelihood of the batch's targets, summed and divided by `divisor` (the targets of the whole
    /// optimizer step, so that accumulated gradients add up to that of their mean), kept for
    /// [`backward`](Loss::backward). `dropout` is the seed of this pass's dropout; absent, nothing is dropped.
    ///
    /// # Errors
    /// [`QwenError::Batch`], [`QwenError::TooLong`], [`QwenError::OutOfMemory`], [`QwenError::Device`].
    pub fn loss(&self, batch: &Batch, divisor: f64, dropout: Option<u64>) -> Result<Loss<'_>, QwenError> {
        let _ = (batch, divisor, dropout);
        Err(pending())
    }

    /// Sum of the negative log likelihoods (f32, a scalar on the device) and how many targets there are; keeps nothing.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn evaluate(&self, batch: &Batch) -> Result<(Tensor, usize), QwenError> {
        let _ = batch;
        Err(pending())
    }

    /// Logits of every place, `[rows * length, vocab]`, f32.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn logits(&self, batch: &Batch) -> Result<Tensor, QwenError> {
        let _ = batch;
        Err(pending())
    }

    /// The adapters, f32, under PEFT's names, in the order of the blocks.
    pub fn trainable(&self) -> &[(String, Var)] {
        &self.trainable
    }
}

impl Loss<'_> {
    /// The loss, f32, a scalar on the device.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Targets that were counted.
    pub fn targets(&self) -> usize {
        self.targets
    }

    /// The gradient of every trainable variable, f32. Takes the loss, since what forward kept is used up on the way.
    ///
    /// # Errors
    /// [`QwenError::OutOfMemory`], [`QwenError::Device`].
    pub fn backward(self) -> Result<GradStore, QwenError> {
        let _ = self.model;
        Err(pending())
    }
}

fn pending() -> QwenError {
    QwenError::Device { what: "the model".to_owned(), why: "being written; the signatures are what counts".to_owned() }
}
