//! How far a method's weights may lie from the same training in f64; shared by `agreement.rs` and `mlp_device_check`.
//!
//! Weights after many epochs of AdamW are no measure by themselves. One pre-activation of millions that rounds to the
//! other side of 0 changes the gradient by one row's part (5e-6 of it on `wide`), and AdamW's first steps, which hardly
//! depend on a gradient's size, turn that into whole learning rates wherever the gradient is close to 0. Two right
//! orders of f32 summation then part by 1e-3 of the weights; notes/gpu-mlp.md has the numbers. So training starts from
//! data with no pre-activation near 0, and each part is checked where rounding does not hide it; see [`Case`].
#![allow(clippy::disallowed_methods)] // numbers of tests alone

use std::collections::BTreeMap;
use std::error::Error;

use candle_core::{DType, Device, Tensor};
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{ArtifactSink, Inputs, Workload as _, WorkloadError};
use glasshouse_train::mlp::{
    Autograd, CONFIG_ENTRY, DATA_ENTRY, Method, MlpConfig, MlpData, MlpWorkload, Optimizer, Shape, package_entries,
};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// The largest [`Distance::loss`] that passes, in every case; f32 is off by 2.6e-7 at most on the CPU.
/// Compared with the loss of f64's own training, plain AdamW on `wide` is off by 2.4e-5, because its weights part.
pub(crate) const LOSS_TOLERANCE: f64 = 2e-6;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is compared. Figures are distances from f64 over the distance moved, as measured on the CPU for the three
/// shapes; TF32 is what rounding data and initial weights to its 11 bits does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Case {
    /// Forward and back: one step. f32 4e-7 at most, TF32 9e-4 at least.
    Gradient,
    /// AdamW with its usual constants on a model without ReLU: ten steps. f32 2e-6, TF32 5e-4; any of `lr`, `beta1`,
    /// `beta2` off by a thousandth 1e-4.
    Linear,
    /// Everything together, by gradient descent: ten steps. f32 2e-5, TF32 5e-4.
    Sgd,
    /// Everything together, by AdamW with an `eps` above most gradients, so that it does not enlarge the small ones: ten
    /// steps. f32 2e-5, TF32 2e-3, half the `eps` 1e-1.
    Damped,
    /// What users run: ten steps. f32 4e-6, but 2e-3 on `wide`; TF32 1e-2, there 4e-2.
    Adamw,
}

/// A case on a shape, with its answer in f64.
pub(crate) struct Reference {
    pub(crate) config: MlpConfig,
    pub(crate) sealed: BTreeMap<String, Vec<u8>>,
    case: Case,
    start: Vec<f64>,
    end: Vec<f64>,
}

/// How far a method lies from [`Reference`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Distance {
    /// Of the weights, over how far they moved: `|w - w64| / |w64 - w0|`.
    pub(crate) weights: f64,
    /// Of the last epoch's loss from that of the method's own weights in f64, over itself: how well the loss is computed,
    /// wherever training has got to. See [`LOSS_TOLERANCE`].
    pub(crate) loss: f64,
}

impl Case {
    pub(crate) const ALL: [Self; 5] = [Self::Gradient, Self::Linear, Self::Sgd, Self::Damped, Self::Adamw];

    /// The largest distance of weights that still passes.
    pub(crate) fn tolerance(self) -> f64 {
        match self {
            Self::Gradient => 2e-6,
            Self::Linear => 1e-5,
            Self::Sgd => 1e-4,
            Self::Damped | Self::Adamw => 2e-4,
        }
    }

    pub(crate) fn config(self, shape: Shape) -> MlpConfig {
        let base = MlpConfig::new(shape);
        match self {
            // So large a rate that rounding the new weights hides nothing of the gradient.
            Self::Gradient => MlpConfig { optimizer: Optimizer::Sgd { lr: 5.0 }, ..base },
            Self::Linear => {
                let layers = base.layers.first().into_iter().chain(base.layers.last()).copied().collect();
                MlpConfig { layers, ..base }
            }
            Self::Sgd => MlpConfig { optimizer: Optimizer::SGD, ..base },
            Self::Damped => {
                let optimizer = Optimizer::Adamw { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-3, weight_decay: 0.01 };
                MlpConfig { optimizer, ..base }
            }
            Self::Adamw => base,
        }
    }

    fn epochs(self) -> u64 {
        if self == Self::Gradient { 1 } else { 10 }
    }
}

impl Reference {
    pub(crate) fn new(case: Case, shape: Shape) -> Outcome<Self> {
        let config = case.config(shape);
        let entries = package_entries(&config)?;
        let mut sealed: BTreeMap<_, _> = entries.iter().map(|(name, bytes)| (name.clone(), bytes.to_vec())).collect();
        let data = sealed.get_mut(DATA_ENTRY).ok_or("a package without data")?;
        *data = away_from_kinks(data, config.layers.len() - 1)?;
        let mut reference = Self { config, sealed, case, start: vec![], end: vec![] };
        let mut exact = reference.exact(None)?;
        reference.start = exact.weights_f64()?;
        exact.advance(case.epochs())?;
        reference.end = exact.weights_f64()?;
        Ok(reference)
    }

    /// What another device may differ by: the tolerance, or for plain AdamW, whose amplification of rounding depends on
    /// shape and data, four times what the CPU's f32 methods differ by.
    pub(crate) fn allowance(&self) -> Outcome<f64> {
        let mut allowed = self.case.tolerance();
        if self.case == Case::Adamw {
            for method in [Method::CpuFused, Method::CpuAutograd] {
                allowed = allowed.max(4.0 * self.distance(method)?.weights);
            }
        }
        Ok(allowed)
    }

    /// Trains by this method, with this configuration and data, and measures.
    pub(crate) fn distance(&self, method: Method) -> Outcome<Distance> {
        let start = self.exact(None)?.weights_f64()?;
        let mut workload = MlpWorkload::with_method(method);
        workload.prepare(self.inputs(), method.device())?;
        let (mut before, mut end) = (Model::default(), Model::default());
        if self.case.epochs() > 1 {
            workload.advance(self.case.epochs() - 1)?;
        }
        workload.export(&mut before)?;
        let loss = workload.advance(1)?.loss.ok_or("no loss")?;
        workload.export(&mut end)?;
        workload.release()?;
        let weights = end.weights();
        if weights.len() != self.end.len() {
            return Err(format!("{} weights instead of {}", weights.len(), self.end.len()).into());
        }
        // Both moved from their own start, which is the same one unless a test changed the data.
        let seen = weights.iter().zip(start).map(|(end, start)| f64::from(*end) - start);
        let moved = || self.end.iter().zip(&self.start).map(|(end, start)| end - start);
        let distance = norm(seen.zip(moved()).map(|(seen, expected)| seen - expected));
        let exact = self.exact(Some(&before))?.advance(1)?;
        Ok(Distance { weights: distance / norm(moved()), loss: (loss - exact).abs() / exact })
    }

    /// The same training in f64, from these weights if any are given.
    fn exact(&self, model: Option<&Model>) -> Outcome<Autograd> {
        let mut inputs = self.inputs();
        if let (Some(model), Some(data)) = (model, self.sealed.get(DATA_ENTRY)) {
            inputs.sealed.insert(DATA_ENTRY.to_owned(), SecretBuffer::new(model.put_into(data)?));
        }
        let (config, data) = MlpData::take(&mut inputs)?;
        Ok(Autograd::in_f64(&config, &data, &Device::Cpu)?)
    }

    fn inputs(&self) -> Inputs {
        let seal = |(name, bytes): (&String, &Vec<u8>)| (name.clone(), SecretBuffer::new(bytes.clone()));
        let mut sealed: BTreeMap<_, _> = self.sealed.iter().map(seal).collect();
        if let Ok(config) = self.config.to_json() {
            sealed.insert(CONFIG_ENTRY.to_owned(), SecretBuffer::new(config));
        }
        Inputs { sealed, ..Inputs::default() }
    }
}

fn norm(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|value| value * value).sum::<f64>().sqrt()
}

/// Far above what f32 rounds a pre-activation of order 1 by, so that every method sees it on the same side of 0.
const MARGIN: f64 = 1e-5;

/// The data with each row that has a pre-activation close to 0 (15 of 1024 in `reference`, 108 of 4096 in `wide`)
/// replaced by the first row that has none.
fn away_from_kinks(data: &[u8], layers: usize) -> Outcome<Vec<u8>> {
    let file = SafeTensors::deserialize(data)?;
    let tensor = |name: &str| -> Outcome<Tensor> {
        let view = file.tensor(name)?;
        Ok(Tensor::from_vec(floats(view.data()), view.shape(), &Device::Cpu)?.to_dtype(DType::F64)?)
    };
    let mut h = tensor("x")?;
    let mut nearest = vec![f64::INFINITY; h.dim(0)?];
    for layer in 0..layers - 1 {
        let [weight, bias] = ["weight", "bias"].map(|part| tensor(&format!("layers.{layer}.{part}")));
        let z = h.matmul(&weight?.t()?)?.broadcast_add(&bias?)?;
        for (nearest, z) in nearest.iter_mut().zip(z.abs()?.min(1)?.to_vec1::<f64>()?) {
            *nearest = nearest.min(z);
        }
        h = z.relu()?;
    }
    let clear = nearest.iter().position(|z| *z > MARGIN).ok_or("every row has a pre-activation close to 0")?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let mut bytes = view.data().to_vec();
        if name == "x" || name == "y" {
            let row = bytes.len() / nearest.len();
            for (at, _) in nearest.iter().enumerate().filter(|(_, z)| **z <= MARGIN) {
                bytes.copy_within(clear * row..(clear + 1) * row, at * row);
            }
        }
        tensors.push((name, view.shape().to_vec(), bytes));
    }
    let views =
        tensors.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    Ok(safetensors::serialize(views.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?, None)?)
}

/// The model that a run exports, as a safetensors file.
#[derive(Default)]
struct Model(Vec<u8>);

impl Model {
    /// All weights, layer by layer, weight first.
    fn weights(&self) -> Vec<f32> {
        let Ok(file) = SafeTensors::deserialize(&self.0) else { return Vec::new() };
        let names = (0..).flat_map(|layer| ["weight", "bias"].map(|part| format!("layers.{layer}.{part}")));
        names.map_while(|name| file.tensor(&name).ok()).flat_map(|tensor| floats(tensor.data())).collect()
    }

    /// The data with these weights to begin from.
    fn put_into(&self, data: &[u8]) -> Outcome<Vec<u8>> {
        let (own, data) = (SafeTensors::deserialize(&self.0)?, SafeTensors::deserialize(data)?);
        let tensors = data.tensors().into_iter().map(|(name, given)| {
            let tensor = if name.starts_with("layers.") { own.tensor(&name)? } else { given };
            Ok((name, tensor))
        });
        Ok(safetensors::serialize(tensors.collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?, None)?)
    }
}

impl ArtifactSink for Model {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
        if name == "model.safetensors" {
            self.0 = bytes.to_vec();
        }
        Ok(())
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().copied().map(f32::from_le_bytes).collect()
}
