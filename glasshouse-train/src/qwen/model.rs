use candle_core::{DType, Device, Tensor, Var};

use super::block::{Kept, Pass};
use super::build::{Builder, Parts, Source};
use super::lora::tensor_name;
use super::loss::{Counted, Loss, Tape};
use super::{Batch, IGNORE, LoraConfig, QwenConfig, QwenError, Weights};
use crate::crossing::all_to_device;
use crate::ops::{Dropout, Packing, RopeTable, cross_entropy_forward, gemm, rms_norm_forward, take_rows};

/// A Qwen2 model: the base frozen on one device, and adapters over it to train.
pub struct Qwen2 {
    config: QwenConfig,
    lora: LoraConfig,
    pub(super) parts: Parts,
    pub(super) trainable: Vec<(String, Var)>,
    device: Device,
    dtype: DType,
    recompute: bool,
    rope: std::sync::Mutex<Option<RopeTable>>,
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
        Self::build(&Builder { config, source: Source::Files(weights), lora, device, dtype, seed })
    }

    /// The same with random weights from `seed`, made on the device; the same on every device.
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
        Self::build(&Builder { config, source: Source::Seed(seed), lora, device, dtype, seed })
    }

    /// Whether forward keeps only each block's input and backward computes the rest again: a third more work for a small
    /// part of the memory. Off at first. Results are the same bits.
    pub fn recompute_blocks(&mut self, recompute: bool) {
        self.recompute = recompute;
    }

    /// The negative log likelihood of the batch's targets, summed and divided by `divisor` (the targets of the whole
    /// optimizer step, so that accumulated gradients add up to that of their mean), kept for
    /// [`backward`](Loss::backward). `dropout` is the seed of this pass's dropout; absent, nothing is dropped.
    ///
    /// # Errors
    /// [`QwenError::Batch`], [`QwenError::TooLong`], [`QwenError::OutOfMemory`], [`QwenError::Device`].
    pub fn loss(&self, batch: &Batch, divisor: f64, dropout: Option<u64>) -> Result<Loss<'_>, QwenError> {
        self.loss_of(self.send(batch, dropout)?, divisor)
    }

    /// Puts what a pass reads of a batch on the device, all of it together. It is waited for everything that the device has
    /// to do before: who has several batches sends them first.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub(crate) fn send(&self, batch: &Batch, dropout: Option<u64>) -> Result<Sent, QwenError> {
        batch.validate(self.config.vocab_size, self.config.max_position_embeddings)?;
        let sent = self.sent(batch, dropout);
        sent.map_err(|error| self.failed("sending a batch", (batch.rows, batch.length), &error))
    }

    /// [`loss`](Self::loss) of a batch that was sent.
    ///
    /// # Errors
    /// As `loss`.
    pub(crate) fn loss_of(&self, sent: Sent, divisor: f64) -> Result<Loss<'_>, QwenError> {
        let size = (sent.pass.rows, sent.pass.length);
        self.forward_keeping(sent, divisor).map_err(|error| self.failed("the forward pass", size, &error))
    }

    /// Sum of the negative log likelihoods (f32, a scalar on the device) and how many targets there are; keeps nothing.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn evaluate(&self, batch: &Batch) -> Result<(Tensor, usize), QwenError> {
        Ok((self.evaluate_sent(self.send(batch, None)?)?, batch.targets()))
    }

    /// The sum of [`evaluate`](Self::evaluate) of a batch that was sent.
    ///
    /// # Errors
    /// As `evaluate`.
    pub(crate) fn evaluate_sent(&self, sent: Sent) -> Result<Tensor, QwenError> {
        let Sent { tokens, pass, counted, .. } = sent;
        let size = (pass.rows, pass.length);
        let run = || {
            let Some(counted) = counted else {
                return Tensor::zeros((), DType::F32, &self.device);
            };
            let last = self.hidden(&tokens, &pass)?;
            let normed = rms_norm_forward(&counted.of(&last)?, &self.parts.norm, self.config.rms_norm_eps)?;
            Ok(cross_entropy_forward(&normed, &self.parts.head, &counted.labels, 1.0, false)?.0)
        };
        run().map_err(|error| self.failed("evaluation", size, &error))
    }

    /// Logits of every place, `[rows * length, vocab]`, f32.
    ///
    /// # Errors
    /// As [`loss`](Self::loss).
    pub fn logits(&self, batch: &Batch) -> Result<Tensor, QwenError> {
        let Sent { tokens, pass, .. } = self.send(batch, None)?;
        let run = || {
            let last = self.hidden(&tokens, &pass)?;
            let normed = rms_norm_forward(&last, &self.parts.norm, self.config.rms_norm_eps)?;
            let logits = Tensor::zeros((normed.dim(0)?, self.config.vocab_size), self.dtype, &self.device)?;
            gemm(&logits, &normed, &self.parts.head.t()?, 1.0, 0.0)?;
            logits.to_dtype(DType::F32)
        };
        run().map_err(|error| self.failed("computing logits", (batch.rows, batch.length), &error))
    }

    /// The adapters, f32, under PEFT's names, in the order of the blocks.
    pub fn trainable(&self) -> &[(String, Var)] {
        &self.trainable
    }

    /// Shapes and constants.
    pub fn config(&self) -> &QwenConfig {
        &self.config
    }

    /// What is adapted.
    pub fn lora(&self) -> &LoraConfig {
        &self.lora
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn build(builder: &Builder<'_>) -> Result<Self, QwenError> {
        let parts = builder.build()?;
        let mut trainable = Vec::new();
        for (number, block) in parts.blocks.iter().enumerate() {
            for trained in block.trained() {
                let name = |part| tensor_name(number, trained.target, part);
                trainable.push((name("A"), trained.a.clone()));
                trainable.push((name("B"), trained.b.clone()));
            }
        }
        Ok(Self {
            config: builder.config.clone(),
            lora: builder.lora.clone(),
            parts,
            trainable,
            device: builder.device.clone(),
            dtype: builder.dtype,
            recompute: false,
            rope: std::sync::Mutex::new(None),
        })
    }

    fn forward_keeping(&self, sent: Sent, divisor: f64) -> candle_core::Result<Loss<'_>> {
        let Sent { tokens, pass, counted, targets } = sent;
        let size = (pass.rows, pass.length);
        let Some(counted) = counted else {
            let value = Tensor::zeros((), DType::F32, &self.device)?;
            return Ok(Loss { model: self, value, targets: 0, size, tape: None });
        };
        let mut kept = Vec::with_capacity(self.parts.blocks.len());
        let mut x = take_rows(&self.parts.embedding, &tokens)?;
        for block in &self.parts.blocks {
            let (y, activations) = block.forward(&x, &pass)?;
            kept.push(match self.recompute {
                true => Kept::Input(x),
                false => Kept::All(Box::new(activations)),
            });
            x = y;
        }
        let normed = rms_norm_forward(&counted.of(&x)?, &self.parts.norm, pass.eps)?;
        let (value, gradient) = cross_entropy_forward(&normed, &self.parts.head, &counted.labels, divisor, true)?;
        let tape = gradient.map(|gradient| Tape { pass, kept, last: x, counted, gradient });
        Ok(Loss { model: self, value, targets, size, tape })
    }

    fn hidden(&self, tokens: &Tensor, pass: &Pass) -> candle_core::Result<Tensor> {
        let x = take_rows(&self.parts.embedding, tokens)?;
        self.parts.blocks.iter().try_fold(x, |x, block| Ok(block.forward(&x, pass)?.0))
    }

    fn sent(&self, batch: &Batch, dropout: Option<u64>) -> candle_core::Result<Sent> {
        let counted = |(_, label): &(u32, &u32)| **label != IGNORE;
        let (places, labels): (Vec<u32>, Vec<u32>) = (0u32..).zip(&batch.labels).filter(counted).unzip();
        // Without an index, all places are meant.
        let index = if places.len() == batch.labels.len() { &[] } else { places.as_slice() };
        let first = Packing::firsts(batch.rows, batch.length, &batch.documents)?;
        let needed = batch.positions.iter().max().map_or(1, |position| *position as usize + 1);
        let parts = [&batch.tokens, &batch.positions, first.as_slice(), &labels, index];
        let [tokens, positions, first_there, labels_there, rows] = all_to_device(parts, &self.device)?;
        let pass = Pass {
            rows: batch.rows,
            length: batch.length,
            packing: Packing::with(batch.rows, batch.length, first, first_there),
            positions,
            rope: self.rope(needed)?,
            eps: self.config.rms_norm_eps,
            scale: self.lora.scale(),
            dropout: dropout.map(|seed| Dropout { p: self.lora.dropout, seed }),
        };
        let rows = (!index.is_empty()).then_some(rows);
        let counted = (!labels.is_empty()).then_some(Counted { rows, labels: labels_there });
        Ok(Sent { tokens, pass, counted, targets: labels.len() })
    }

    /// The table, made once for the longest sequence so far.
    fn rope(&self, positions: usize) -> candle_core::Result<RopeTable> {
        let mut slot = self.rope.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match &*slot {
            Some(table) if table.positions() >= positions => Ok(table.clone()),
            _ => {
                let longest = positions.next_power_of_two();
                let table = RopeTable::new(self.config.rope_theta, self.config.head_dim, longest, &self.device)?;
                Ok(slot.insert(table).clone())
            }
        }
    }

    /// An error of candle's in a pass over so many rows of such a length.
    pub(super) fn failed(&self, what: &str, (rows, length): (usize, usize), error: &candle_core::Error) -> QwenError {
        match QwenError::candle(what, error) {
            QwenError::OutOfMemory { what, .. } => {
                let advice = match device_memory() {
                    Some(memory) => format!(
                        "{rows} rows of {length} are {} tokens, and about {} fit{}",
                        rows * length,
                        self.config.fitting_tokens(memory, self.dtype, self.recompute),
                        if self.recompute { "" } else { "; recomputing blocks makes room for more" },
                    ),
                    None => format!("{rows} rows of {length} are too many; use fewer, or recompute blocks"),
                };
                QwenError::OutOfMemory { what, advice }
            }
            other => other,
        }
    }
}

/// A batch on the device.
pub(crate) struct Sent {
    tokens: Tensor,
    pass: Pass,
    /// None when no label counts.
    counted: Option<Counted>,
    targets: usize,
}

/// All memory of the CUDA device in use.
fn device_memory() -> Option<u64> {
    #[cfg(feature = "cuda")]
    return cudarc::driver::result::mem_get_info().ok().map(|(_, total)| total as u64);
    #[cfg(not(feature = "cuda"))]
    None
}
