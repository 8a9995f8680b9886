//! From weights, or from a seed, to a model on its device.

use candle_core::{DType, Device, Tensor, Var};

use super::block::{Adapted, Block, Trained};
use super::config::QwenConfig;
use super::error::QwenError;
use super::lora::{LoraConfig, Target};
use super::weights::Weights;
use crate::ops::{Frozen, uniform};

/// Where the base's weights come from.
pub(super) enum Source<'a> {
    Files(&'a Weights),
    Seed(u64),
}

/// Everything of a model but its adapters' names.
pub(super) struct Parts {
    pub(super) embedding: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Tensor,
    pub(super) head: Tensor,
}

pub(super) struct Builder<'a> {
    pub(super) config: &'a QwenConfig,
    pub(super) source: Source<'a>,
    pub(super) lora: &'a LoraConfig,
    pub(super) device: &'a Device,
    pub(super) dtype: DType,
    /// Of the adapters.
    pub(super) seed: u64,
}

impl Builder<'_> {
    pub(super) fn build(&self) -> Result<Parts, QwenError> {
        self.config.validate()?;
        self.lora.validate()?;
        let (vocab, hidden) = (self.config.vocab_size, self.config.hidden_size);
        let embedding = self.matrix("model.embed_tokens.weight", &[vocab, hidden])?;
        let blocks = (0..self.config.layers).map(|index| self.block(index)).collect::<Result<_, _>>()?;
        let norm = self.vector("model.norm.weight", hidden, 1.0)?;
        let head = match self.config.tie_word_embeddings {
            true => embedding.clone(),
            false => self.matrix("lm_head.weight", &[vocab, hidden])?,
        };
        Ok(Parts { embedding, blocks, norm, head })
    }

    fn block(&self, index: usize) -> Result<Block, QwenError> {
        let name = |rest: &str| format!("model.layers.{index}.{rest}");
        let hidden = self.config.hidden_size;
        Ok(Block {
            index: index as u64,
            heads: self.config.heads,
            kv_heads: self.config.kv_heads,
            input_norm: self.vector(&name("input_layernorm.weight"), hidden, 1.0)?,
            post_norm: self.vector(&name("post_attention_layernorm.weight"), hidden, 1.0)?,
            qkv: self.adapted(index, &[Target::Query, Target::Key, Target::Value], true)?,
            output: self.adapted(index, &[Target::Output], false)?,
            gate_up: self.adapted(index, &[Target::Gate, Target::Up], false)?,
            down: self.adapted(index, &[Target::Down], false)?,
        })
    }

    /// Layers of one input as one matrix.
    fn adapted(&self, block: usize, targets: &[Target], bias: bool) -> Result<Adapted, QwenError> {
        let (mut weights, mut biases, mut adapters, mut column) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for target in targets {
            let (outputs, inputs) = target.shape(self.config);
            let name = |rest: &str| format!("model.layers.{block}.{}.{rest}", target.path());
            weights.push(self.matrix(&name("weight"), &[outputs, inputs])?);
            if bias {
                biases.push(self.vector(&name("bias"), outputs, 0.0)?);
            }
            if self.lora.targets.contains(target) {
                adapters.push(self.adapter(block, *target, column)?);
            }
            column += outputs;
        }
        let frozen = Frozen { weight: self.join(weights)?, bias: if bias { Some(self.join(biases)?) } else { None } };
        Ok(Adapted { frozen, adapters })
    }

    fn adapter(&self, block: usize, target: Target, column: usize) -> Result<Trained, QwenError> {
        let (a, b) = fresh(self.config, self.lora, (block, target), self.seed, self.device)?;
        Ok(Trained { target, column, a, b })
    }

    fn matrix(&self, name: &str, shape: &[usize]) -> Result<Tensor, QwenError> {
        match self.source {
            Source::Files(weights) => weights.tensor(name, shape, self.device, self.dtype),
            Source::Seed(seed) => {
                // As wide as Qwen2's own initialization: standard deviation 0.02.
                let bound = 0.02 * 3f64.sqrt();
                uniform(shape, bound, named_seed(seed, name), self.dtype, self.device)
                    .map_err(|error| QwenError::candle(&format!("making {name}"), &error))
            }
        }
    }

    fn vector(&self, name: &str, length: usize, fill: f64) -> Result<Tensor, QwenError> {
        match self.source {
            Source::Files(weights) => weights.tensor(name, &[length], self.device, self.dtype),
            Source::Seed(_) => Tensor::full(fill as f32, length, self.device)
                .and_then(|tensor| tensor.to_dtype(self.dtype))
                .map_err(|error| QwenError::candle(&format!("making {name}"), &error)),
        }
    }

    fn join(&self, mut parts: Vec<Tensor>) -> Result<Tensor, QwenError> {
        match parts.len() {
            1 => Ok(parts.remove(0)),
            _ => Tensor::cat(&parts, 0).map_err(|error| QwenError::candle("joining weights", &error)),
        }
    }
}

/// A Kaiming uniform with a = sqrt 5, which is within 1 / sqrt(inputs); B zero.
pub(super) fn fresh(
    config: &QwenConfig,
    lora: &LoraConfig,
    (block, target): (usize, Target),
    seed: u64,
    device: &Device,
) -> Result<(Var, Var), QwenError> {
    let (outputs, inputs) = target.shape(config);
    let make = || {
        let (bound, seed) = (1.0 / (inputs as f64).sqrt(), named_seed(seed, &format!("lora {block} {target}")));
        let a = uniform((lora.rank, inputs), bound, seed, DType::F32, device)?;
        let b = Tensor::zeros((outputs, lora.rank), DType::F32, device)?;
        Ok((Var::from_tensor(&a)?, Var::from_tensor(&b)?))
    };
    make().map_err(|error| QwenError::candle("making an adapter", &error))
}

/// A seed for each name: FNV-1a, which `ops`' hash then mixes.
fn named_seed(seed: u64, name: &str) -> u64 {
    name.bytes()
        .fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
