#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fmt;
use std::str::FromStr;

use glasshouse_core::traits::WorkloadError;
use serde::{Deserialize, Serialize};

/// The three shapes that overhead is reported on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// 32-64-64-1, batch 256.
    Tiny,
    /// 64-256-256-10, batch 1024.
    #[default]
    Reference,
    /// 784-512-512-10, batch 4096.
    Wide,
}

impl Shape {
    /// All of them, smallest first.
    pub const ALL: [Self; 3] = [Self::Tiny, Self::Reference, Self::Wide];

    /// Widths from input to output, and rows of data.
    pub fn dimensions(self) -> (Vec<usize>, usize) {
        match self {
            Self::Tiny => (vec![32, 64, 64, 1], 256),
            Self::Reference => (vec![64, 256, 256, 10], 1024),
            Self::Wide => (vec![784, 512, 512, 10], 4096),
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tiny => "tiny",
            Self::Reference => "reference",
            Self::Wide => "wide",
        })
    }
}

impl FromStr for Shape {
    type Err = WorkloadError;
    fn from_str(text: &str) -> Result<Self, WorkloadError> {
        Self::ALL
            .into_iter()
            .find(|shape| shape.to_string() == text)
            .ok_or_else(|| refuse("shape", format!("there is no {text:?}; choose tiny, reference or wide")))
    }
}

/// How weights are updated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Optimizer {
    /// AdamW with decoupled weight decay (Loshchilov and Hutter 2019), as in `candle_nn::AdamW`.
    Adamw {
        /// Learning rate.
        lr: f64,
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
        /// Decoupled weight decay.
        weight_decay: f64,
    },
    /// Plain gradient descent, as in `candle_nn::SGD`.
    Sgd {
        /// Learning rate.
        lr: f64,
    },
}

impl Optimizer {
    /// AdamW with the customary constants and a learning rate of 1e-3.
    pub const ADAMW: Self = Self::Adamw { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    /// SGD with a learning rate of 0.05.
    pub const SGD: Self = Self::Sgd { lr: 0.05 };
}

impl Default for Optimizer {
    fn default() -> Self {
        Self::ADAMW
    }
}

/// What to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// Widths from input to output; ReLU between them, none after the last.
    pub layers: Vec<usize>,
    /// Rows of data; each epoch is one step over all of them.
    pub batch: usize,
    /// How weights are updated.
    pub optimizer: Optimizer,
    /// Seed of data, noise and initial weights.
    pub seed: u64,
    /// Where training ends by itself; absent, it goes on for as long as it is asked to.
    pub epochs: Option<u64>,
    /// Epochs per CUDA graph launch, and the most that a CPU is given at once.
    pub launch_batch: u64,
}

impl Default for MlpConfig {
    fn default() -> Self {
        Self::new(Shape::default())
    }
}

impl MlpConfig {
    /// A shape with AdamW, seed 0, no end of its own, and about 10 ms of a data-centre GPU in a launch, so that reading
    /// the loss back between launches costs next to nothing.
    pub fn new(shape: Shape) -> Self {
        let (layers, batch) = shape.dimensions();
        let launch_batch = match shape {
            Shape::Tiny => 256,
            Shape::Reference => 128,
            Shape::Wide => 32,
        };
        Self { layers, batch, optimizer: Optimizer::ADAMW, seed: 0, epochs: None, launch_batch }
    }

    /// Epochs that a CPU is given at once: some milliseconds of one core, and never more than a launch.
    pub(crate) fn cpu_batch(&self) -> u64 {
        let weights = self.layers.iter().zip(self.layers.iter().skip(1)).map(|(i, o)| *i as f64 * *o as f64);
        // Forward, by weight and by input: two operations a weight and row each.
        let operations = 6.0 * self.batch as f64 * weights.sum::<f64>();
        ((CPU_OPERATIONS / operations) as u64).clamp(1, self.launch_batch.max(1))
    }

    /// Reads `config.json` and checks every value.
    ///
    /// # Errors
    /// [`WorkloadError::Input`] for what is not this JSON, [`WorkloadError::Config`] for a value out of range.
    pub fn from_json(bytes: &[u8]) -> Result<Self, WorkloadError> {
        let config: Self = serde_json::from_slice(bytes).map_err(|error| WorkloadError::Input {
            name: super::CONFIG_ENTRY.to_owned(),
            why: format!("{error}; write it with MlpConfig::to_json"),
        })?;
        config.validate()?;
        Ok(config)
    }

    /// `config.json`: two-space indent, fields in the order of this type.
    ///
    /// # Errors
    /// [`WorkloadError::Config`] when a value is out of range.
    pub fn to_json(&self) -> Result<Vec<u8>, WorkloadError> {
        self.validate()?;
        serde_json::to_vec_pretty(self).map_err(|error| refuse("config", error.to_string()))
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`WorkloadError::Config`] with the field and its bounds.
    pub fn validate(&self) -> Result<(), WorkloadError> {
        if !(2..=MAX_WIDTHS).contains(&self.layers.len()) {
            let why = format!("{} widths; give 2 to {MAX_WIDTHS}, from input to output", self.layers.len());
            return Err(refuse("layers", why));
        }
        if let Some(width) = self.layers.iter().find(|width| !(1..=MAX_WIDTH).contains(*width)) {
            return Err(refuse("layers", format!("a width of {width}; give 1 to {MAX_WIDTH}")));
        }
        if !(1..=MAX_BATCH).contains(&self.batch) {
            return Err(refuse("batch", format!("{} rows; give 1 to {MAX_BATCH}", self.batch)));
        }
        let widest = self.layers.iter().copied().max().unwrap_or(1);
        if self.batch.checked_mul(widest).is_none_or(|values| values > MAX_VALUES) {
            let why = format!("{} rows of up to {widest} values; keep their product within {MAX_VALUES}", self.batch);
            return Err(refuse("batch", why));
        }
        let weights =
            self.layers.iter().zip(self.layers.iter().skip(1)).try_fold(0usize, |sum, (inputs, outputs)| {
                inputs.checked_add(1)?.checked_mul(*outputs)?.checked_add(sum)
            });
        if weights.is_none_or(|weights| weights > MAX_WEIGHTS) {
            return Err(refuse("layers", format!("more than {MAX_WEIGHTS} weights; choose narrower layers")));
        }
        if self.epochs == Some(0) {
            return Err(refuse("epochs", "0 epochs train nothing; give at least 1 or leave it out".to_owned()));
        }
        if !(1..=MAX_LAUNCH_BATCH).contains(&self.launch_batch) {
            return Err(refuse("launch_batch", format!("{}; give 1 to {MAX_LAUNCH_BATCH}", self.launch_batch)));
        }
        self.optimizer.validate()
    }
}

impl Optimizer {
    fn validate(&self) -> Result<(), WorkloadError> {
        let check = |field: &str, value: f64, accepted: bool, range: &str| {
            if accepted { Ok(()) } else { Err(refuse(field, format!("{value}; give a number {range}"))) }
        };
        let rate = |lr: f64| check("optimizer.lr", lr, lr > 0.0 && lr <= 10.0, "above 0 and at most 10");
        match *self {
            Self::Sgd { lr } => rate(lr),
            Self::Adamw { lr, beta1, beta2, eps, weight_decay } => {
                rate(lr)?;
                check("optimizer.beta1", beta1, (0.0..1.0).contains(&beta1), "from 0 and below 1")?;
                check("optimizer.beta2", beta2, (0.0..1.0).contains(&beta2), "from 0 and below 1")?;
                check("optimizer.eps", eps, (1e-12..=1.0).contains(&eps), "from 1e-12 to 1")?;
                check("optimizer.weight_decay", weight_decay, (0.0..=1.0).contains(&weight_decay), "from 0 to 1")
            }
        }
    }
}

/// How a CUDA device computes; it changes the last bits of the weights, so one run keeps to one choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Parts that the rows are split into for weight gradients; the update adds them up. At most this many: the number
    /// of rows must be a multiple.
    pub splits: usize,
    /// Whether weight gradients run beside the gradients by the activations.
    pub overlap: bool,
}

impl Tuning {
    /// What was fastest on an H200 for shapes of this size (notes/gpu-mlp.md). It depends on the shape alone, never on
    /// the device or its load, so that the same configuration gives the same bits on every run.
    pub fn of(config: &MlpConfig) -> Self {
        let weights = config.layers.iter().zip(config.layers.iter().skip(1));
        let weights =
            weights.fold(0usize, |sum, (inputs, outputs)| sum.saturating_add(inputs.saturating_mul(*outputs)));
        let splits = match weights {
            0..SMALL => 8,
            SMALL..LARGE => 16,
            // Products that fill the device by themselves: parts would only cost the update their addition.
            _ => 1,
        };
        Self { splits, overlap: true }
    }
}

/// Weights, between the 6 thousand of `tiny` and the 84 thousand of `reference`.
const SMALL: usize = 1 << 15;
/// Weights, between the 84 thousand of `reference` and the 669 thousand of `wide`.
const LARGE: usize = 1 << 18;

const MAX_WIDTHS: usize = 16;
const MAX_WIDTH: usize = 1 << 14;
const MAX_BATCH: usize = 1 << 20;
/// Of one activation: 1 GiB in f32.
const MAX_VALUES: usize = 1 << 28;
/// 256 MiB in f32; training holds a small multiple of it.
const MAX_WEIGHTS: usize = 1 << 26;
const MAX_LAUNCH_BATCH: u64 = 1024;
/// What a core does in about 5 ms.
const CPU_OPERATIONS: f64 = 4e8;

fn refuse(field: &str, why: String) -> WorkloadError {
    WorkloadError::Config { field: field.to_owned(), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_round_for_every_shape_and_optimizer() {
        for shape in Shape::ALL {
            assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
            for optimizer in [Optimizer::ADAMW, Optimizer::SGD] {
                let config = MlpConfig { optimizer, epochs: Some(7), seed: u64::MAX, ..MlpConfig::new(shape) };
                assert_eq!(MlpConfig::from_json(&config.to_json().unwrap()).unwrap(), config);
            }
        }
        assert!("huge".parse::<Shape>().unwrap_err().to_string().contains("choose tiny"));
    }

    #[test]
    fn every_value_out_of_range_is_refused_by_its_field() {
        let base = MlpConfig::new(Shape::Tiny);
        let adamw = |lr, beta1, beta2, eps, weight_decay| Optimizer::Adamw { lr, beta1, beta2, eps, weight_decay };
        let cases = [
            ("layers", MlpConfig { layers: vec![3], ..base.clone() }),
            ("layers", MlpConfig { layers: vec![1; 17], ..base.clone() }),
            ("layers", MlpConfig { layers: vec![3, 0, 1], ..base.clone() }),
            ("layers", MlpConfig { layers: vec![3, usize::MAX], ..base.clone() }),
            ("batch", MlpConfig { batch: 0, ..base.clone() }),
            ("batch", MlpConfig { batch: usize::MAX, ..base.clone() }),
            ("batch", MlpConfig { layers: vec![1 << 14, 1], batch: 1 << 15, ..base.clone() }),
            ("layers", MlpConfig { layers: vec![1 << 14, 1 << 14, 1], ..base.clone() }),
            ("epochs", MlpConfig { epochs: Some(0), ..base.clone() }),
            ("launch_batch", MlpConfig { launch_batch: 0, ..base.clone() }),
            ("optimizer.lr", MlpConfig { optimizer: Optimizer::Sgd { lr: f64::NAN }, ..base.clone() }),
            ("optimizer.lr", MlpConfig { optimizer: adamw(0.0, 0.9, 0.9, 1e-8, 0.0), ..base.clone() }),
            ("optimizer.beta1", MlpConfig { optimizer: adamw(0.1, 1.0, 0.9, 1e-8, 0.0), ..base.clone() }),
            ("optimizer.beta2", MlpConfig { optimizer: adamw(0.1, 0.9, -0.1, 1e-8, 0.0), ..base.clone() }),
            ("optimizer.eps", MlpConfig { optimizer: adamw(0.1, 0.9, 0.9, 0.0, 0.0), ..base.clone() }),
            ("optimizer.weight_decay", MlpConfig { optimizer: adamw(0.1, 0.9, 0.9, 1e-8, 2.0), ..base.clone() }),
        ];
        for (expected, config) in cases {
            match config.to_json() {
                Err(WorkloadError::Config { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn tuning_is_what_the_sweep_found() {
        let tuned = Shape::ALL.map(|shape| Tuning::of(&MlpConfig::new(shape)));
        assert_eq!(tuned.map(|tuning| tuning.splits), [8, 16, 1]);
        assert!(tuned.iter().all(|tuning| tuning.overlap));
    }

    #[test]
    fn shapes_fill_the_width_they_are_given() {
        assert_eq!(format!("{:<10}|{:>6}", Shape::Reference, Shape::Tiny), "reference |  tiny");
    }

    #[test]
    fn a_cpu_is_given_milliseconds_of_work() {
        let batches = Shape::ALL.map(|shape| MlpConfig::new(shape).cpu_batch());
        assert_eq!(batches, [41, 1, 1]);
        assert_eq!(MlpConfig { launch_batch: 8, ..MlpConfig::new(Shape::Tiny) }.cpu_batch(), 8);
    }

    #[test]
    fn json_that_is_not_a_config_is_refused() {
        let good = String::from_utf8(MlpConfig::new(Shape::Tiny).to_json().unwrap()).unwrap();
        let unknown_field = good.replacen('{', "{\"momentum\": 0.9,", 1);
        let unknown_inside = good.replace("\"lr\"", "\"nesterov\": true, \"lr\"");
        let twice = good.replacen("\"seed\": 0", "\"seed\": 0, \"seed\": 1", 1);
        let negative = good.replace("\"batch\": 256", "\"batch\": -1");
        for bad in ["", "null", "[]", "{}", &unknown_field, &unknown_inside, &twice, &negative, &good[..good.len() - 2]]
        {
            assert!(matches!(MlpConfig::from_json(bad.as_bytes()), Err(WorkloadError::Input { .. })), "{bad}");
        }
    }
}
