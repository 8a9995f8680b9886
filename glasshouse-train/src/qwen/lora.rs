//! Which weights are adapted, and how many numbers that trains (Hu et al. 2021, arXiv:2106.09685).

use std::fmt;
use std::str::FromStr;

use super::config::QwenConfig;
use super::error::QwenError;

/// A linear layer of a block that can be adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// `self_attn.q_proj`.
    Query,
    /// `self_attn.k_proj`.
    Key,
    /// `self_attn.v_proj`.
    Value,
    /// `self_attn.o_proj`.
    Output,
    /// `mlp.gate_proj`.
    Gate,
    /// `mlp.up_proj`.
    Up,
    /// `mlp.down_proj`.
    Down,
}

impl Target {
    /// All of them, in the order of the forward pass.
    pub const ALL: [Self; 7] = [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// `q_proj` and so on, as PEFT's `target_modules` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// Its path within a block: `self_attn.q_proj`.
    pub fn path(self) -> &'static str {
        match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        }
    }

    /// Outputs and inputs: the shape of its weight.
    pub fn shape(self, config: &QwenConfig) -> (usize, usize) {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        match self {
            Self::Query => (config.query_width(), hidden),
            Self::Key | Self::Value => (config.key_width(), hidden),
            Self::Output => (hidden, config.query_width()),
            Self::Gate | Self::Up => (inner, hidden),
            Self::Down => (hidden, inner),
        }
    }
}

/// `A` or `B` of one adapter, as PEFT names it.
pub(super) fn tensor_name(block: usize, target: Target, part: &str) -> String {
    format!("base_model.model.{}.lora_{part}.weight", weight_path(block, target))
}

/// The layer that an adapter changes, as the base names it, without `.weight`.
pub(super) fn weight_path(block: usize, target: Target) -> String {
    format!("model.layers.{block}.{}", target.path())
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Target {
    type Err = QwenError;
    fn from_str(text: &str) -> Result<Self, QwenError> {
        Self::ALL.into_iter().find(|target| target.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            QwenError::Lora { field: "targets", why: format!("there is no {text:?}; choose among {names}") }
        })
    }
}

/// The adapters to train.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank r of each update.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Probability that an input of an adapter is dropped while training; below 1.
    pub dropout: f64,
    /// Which layers of every block; each once.
    pub targets: Vec<Target>,
    /// Rank-stabilized: scale alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023, arXiv:2312.03732).
    pub rslora: bool,
}

impl Default for LoraConfig {
    /// Rank 4, alpha 8, no dropout, `q_proj` and `v_proj`.
    fn default() -> Self {
        Self { rank: 4, alpha: 8.0, dropout: 0.0, targets: vec![Target::Query, Target::Value], rslora: false }
    }
}

impl LoraConfig {
    /// What the product of B and A is multiplied by.
    pub fn scale(&self) -> f64 {
        match self.rslora {
            true => self.alpha / (self.rank as f64).sqrt(),
            false => self.alpha / self.rank as f64,
        }
    }

    /// The targets in the order of the forward pass.
    pub(super) fn ordered(&self) -> impl Iterator<Item = Target> {
        Target::ALL.into_iter().filter(|target| self.targets.contains(target))
    }

    /// PEFT's names and shapes of all adapters' tensors, block by block: A `[rank, inputs]`, then B `[outputs, rank]`.
    pub fn tensors(&self, config: &QwenConfig) -> Vec<(String, [usize; 2])> {
        let sites = (0..config.layers).flat_map(|block| self.ordered().map(move |target| (block, target)));
        let both = |(block, target): (usize, Target)| {
            let (outputs, inputs) = target.shape(config);
            let (a, b) = ([self.rank, inputs], [outputs, self.rank]);
            [(tensor_name(block, target, "A"), a), (tensor_name(block, target, "B"), b)]
        };
        sites.flat_map(both).collect()
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`QwenError::Lora`].
    pub fn validate(&self) -> Result<(), QwenError> {
        let refuse = |field, why: String| Err(QwenError::Lora { field, why });
        if !(1..=4096).contains(&self.rank) {
            return refuse("rank", format!("{} is not between 1 and 4096", self.rank));
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("alpha", format!("{} is not a positive number", self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", format!("{} is not at least 0 and below 1", self.dropout));
        }
        if self.targets.is_empty() {
            return refuse("targets", "there are none, so nothing would be trained".to_owned());
        }
        match self.targets.iter().enumerate().find(|(i, target)| self.targets.iter().take(*i).any(|t| t == *target)) {
            Some((_, twice)) => refuse("targets", format!("{twice} is there twice")),
            None => Ok(()),
        }
    }
}

impl QwenConfig {
    /// Numbers that training changes, counted from shapes: r times (inputs + outputs) of every target of every block.
    pub fn trainable_parameters(&self, lora: &LoraConfig) -> u64 {
        let of = |target: &Target| {
            let (outputs, inputs) = target.shape(self);
            (outputs as u64).saturating_add(inputs as u64).saturating_mul(lora.rank as u64)
        };
        let block = lora.targets.iter().map(of).fold(0, u64::saturating_add);
        block.saturating_mul(self.layers as u64)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::qwen::adapter;

    /// Both published shapes, with the adapters that training would have and without the weights under them.
    #[test]
    fn published_shapes_have_the_adapters_that_peft_counts() {
        let lora = LoraConfig::default();
        for (config, expected) in [(QwenConfig::qwen2_5_0_5b(), 270_336), (QwenConfig::qwen2_5_7b(), 1_261_568)] {
            assert_eq!(config.trainable_parameters(&lora), expected);
            let built = adapter::fresh(&config, &lora, 1, &Device::Cpu).unwrap();
            assert_eq!(built.iter().map(|(_, variable)| variable.elem_count() as u64).sum::<u64>(), expected);
            let shapes = lora.tensors(&config);
            assert_eq!(built.len(), shapes.len());
            for ((name, variable), (expected, shape)) in built.iter().zip(shapes) {
                assert_eq!((name, variable.dims()), (&expected, shape.as_slice()));
            }
        }
    }

    #[test]
    fn settings_that_cannot_be_are_refused() {
        let good = LoraConfig::default();
        assert!(good.validate().is_ok());
        for bad in [
            LoraConfig { rank: 0, ..good.clone() },
            LoraConfig { alpha: f64::NAN, ..good.clone() },
            LoraConfig { dropout: 1.0, ..good.clone() },
            LoraConfig { targets: vec![], ..good.clone() },
            LoraConfig { targets: vec![Target::Query, Target::Query], ..good.clone() },
        ] {
            assert!(matches!(bad.validate(), Err(QwenError::Lora { .. })), "{bad:?}");
        }
        assert!("w_proj".parse::<Target>().unwrap_err().to_string().contains("q_proj"));
    }

    #[test]
    fn scales_are_those_of_lora_and_rslora() {
        let lora = LoraConfig { rank: 16, alpha: 8.0, ..LoraConfig::default() };
        assert_eq!(lora.scale(), 0.5);
        assert_eq!(LoraConfig { rslora: true, ..lora }.scale(), 2.0);
    }
}
