use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW, SGD};

use super::config::{MlpConfig, Optimizer};
use super::data::MlpData;
use crate::crossing::{KeptIfLost, ReleasedAtTheEnd, to_device, to_host};

/// Training by candle's autograd and `candle_nn`'s optimizers, on any candle device.
///
/// The plainest way to write the same epoch: what the hand-written paths are checked and measured against, and what
/// runs on a CUDA device where a graph cannot be captured.
pub struct Autograd {
    x: Tensor,
    y: Tensor,
    /// Weight and bias of each layer.
    vars: Vec<(Var, Var)>,
    optimizer: AnyOptimizer,
    device: KeptIfLost,
}

enum AnyOptimizer {
    Adamw(AdamW),
    Sgd(SGD),
}

impl Autograd {
    /// Puts data and initial weights on the device.
    ///
    /// # Errors
    /// What candle says when the device fails or is out of memory.
    pub fn new(config: &MlpConfig, data: &MlpData, device: &Device) -> candle_core::Result<Self> {
        Self::with_dtype(config, data, device, DType::F32)
    }

    /// The same from the same f32 data, computed in f64: what any f32 result is an approximation of.
    ///
    /// # Errors
    /// What candle says when the device fails or is out of memory.
    pub fn in_f64(config: &MlpConfig, data: &MlpData, device: &Device) -> candle_core::Result<Self> {
        Self::with_dtype(config, data, device, DType::F64)
    }

    fn with_dtype(config: &MlpConfig, data: &MlpData, device: &Device, dtype: DType) -> candle_core::Result<Self> {
        let kept = KeptIfLost(device.clone());
        let slice = |range: std::ops::Range<usize>| data.weights.get(range).unwrap_or_default();
        let vars = data
            .layout
            .layers
            .iter()
            .map(|layer| {
                let weight =
                    to_device(slice(layer.weight.clone()), (layer.outputs, layer.inputs), device)?.to_dtype(dtype)?;
                let bias = to_device(slice(layer.bias.clone()), layer.outputs, device)?.to_dtype(dtype)?;
                Ok((Var::from_tensor(&weight)?, Var::from_tensor(&bias)?))
            })
            .collect::<candle_core::Result<Vec<_>>>()?;
        let all = vars.iter().flat_map(|(weight, bias)| [weight.clone(), bias.clone()]).collect();
        let optimizer = match config.optimizer {
            Optimizer::Sgd { lr } => AnyOptimizer::Sgd(SGD::new(all, lr)?),
            Optimizer::Adamw { lr, beta1, beta2, eps, weight_decay } => {
                AnyOptimizer::Adamw(AdamW::new(all, ParamsAdamW { lr, beta1, beta2, eps, weight_decay })?)
            }
        };
        Ok(Self {
            x: to_device(&data.x, (data.rows, data.inputs), device)?.to_dtype(dtype)?,
            y: to_device(&data.y, (data.rows, data.outputs), device)?.to_dtype(dtype)?,
            vars,
            optimizer,
            device: kept,
        })
    }

    /// Trains and gives the loss of the last epoch, as it was before that epoch's update; read back once.
    ///
    /// # Errors
    /// What candle says when the device fails.
    pub fn advance(&mut self, epochs: u64) -> candle_core::Result<f64> {
        let mut last = None;
        for _ in 0..epochs {
            let loss = self.loss()?;
            match &mut self.optimizer {
                AnyOptimizer::Adamw(adamw) => adamw.backward_step(&loss)?,
                AnyOptimizer::Sgd(sgd) => sgd.backward_step(&loss)?,
            }
            last = Some(loss);
        }
        self.device.0.synchronize()?;
        match last {
            Some(loss) => Ok(to_host(&loss.to_dtype(DType::F64)?)?.first().copied().unwrap_or(f64::NAN)),
            None => Ok(f64::NAN),
        }
    }

    /// All weights in the order of the flat buffer of the hand-written paths.
    ///
    /// # Errors
    /// What candle says when the device fails.
    pub fn weights(&self) -> candle_core::Result<Vec<f32>> {
        to_host(&flat(self.tensors(), DType::F32)?)
    }

    /// [`weights`](Self::weights) as they are in f64.
    ///
    /// # Errors
    /// What candle says when the device fails.
    pub fn weights_f64(&self) -> candle_core::Result<Vec<f64>> {
        to_host(&flat(self.tensors(), DType::F64)?)
    }

    /// Where it computes.
    pub const fn device(&self) -> &Device {
        &self.device.0
    }

    /// Overwrites data and weights with zeros where they are, and drops everything. The optimizer's moments and candle's
    /// intermediate results cannot be reached for that.
    ///
    /// # Errors
    /// What candle says when the device fails; everything is dropped all the same.
    pub fn wipe(self) -> candle_core::Result<()> {
        let _last = ReleasedAtTheEnd;
        let all = [&self.x, &self.y].into_iter().chain(self.tensors());
        let zeroed = all.map(Tensor::zero_set).fold(Ok(()), Result::and);
        let device = KeptIfLost(self.device.0.clone());
        drop(self);
        zeroed.and(device.0.synchronize())
    }

    fn tensors(&self) -> impl Iterator<Item = &Tensor> {
        self.vars.iter().flat_map(|(weight, bias)| [weight.as_tensor(), bias.as_tensor()])
    }

    fn loss(&self) -> candle_core::Result<Tensor> {
        let mut h = self.x.clone();
        for (l, (weight, bias)) in self.vars.iter().enumerate() {
            h = h.matmul(&weight.t()?)?.broadcast_add(bias)?;
            if l + 1 < self.vars.len() {
                h = h.relu()?;
            }
        }
        (h - &self.y)?.sqr()?.mean_all()
    }
}

fn flat<'a>(tensors: impl Iterator<Item = &'a Tensor>, dtype: DType) -> candle_core::Result<Tensor> {
    let parts = tensors.map(|tensor| tensor.flatten_all()?.to_dtype(dtype));
    Tensor::cat(&parts.collect::<candle_core::Result<Vec<_>>>()?, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlp::Shape;
    use crate::mlp::generate;

    #[test]
    fn wiping_overwrites_what_others_may_still_hold() {
        for optimizer in [Optimizer::ADAMW, Optimizer::SGD] {
            let config = MlpConfig { optimizer, ..MlpConfig::new(Shape::Tiny) };
            let mut autograd = Autograd::new(&config, &generate::data(&config), &Device::Cpu).unwrap();
            autograd.advance(2).unwrap();
            let mut held: Vec<Tensor> = autograd.tensors().cloned().collect();
            held.extend([autograd.x.clone(), autograd.y.clone()]);
            let sums = |held: &[Tensor]| -> Vec<f32> {
                let sum = |tensor: &Tensor| tensor.abs()?.sum_all()?.to_scalar::<f32>();
                held.iter().map(|tensor| sum(tensor).unwrap()).collect()
            };
            assert!(sums(&held).iter().all(|sum| *sum > 0.0));
            autograd.wipe().unwrap();
            assert!(sums(&held).iter().all(|sum| *sum == 0.0));
        }
    }
}
