use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW, SGD};

use super::config::{MlpConfig, Optimizer};
use super::data::MlpData;
use super::params::Layout;

/// Training by candle's autograd and `candle_nn`'s optimizers, on any candle device.
///
/// The plainest way to write the same epoch: what the hand-written paths are checked and measured against, and what
/// runs on a CUDA device where a graph cannot be captured.
pub struct Autograd {
    layout: Layout,
    x: Tensor,
    y: Tensor,
    /// Weight and bias of each layer.
    vars: Vec<(Var, Var)>,
    optimizer: AnyOptimizer,
    device: Device,
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
        let slice = |range: std::ops::Range<usize>| data.weights.get(range).unwrap_or_default();
        let vars = data
            .layout
            .layers
            .iter()
            .map(|layer| {
                let weight = Tensor::from_slice(slice(layer.weight.clone()), (layer.outputs, layer.inputs), device)?;
                let bias = Tensor::from_slice(slice(layer.bias.clone()), layer.outputs, device)?;
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
            layout: data.layout.clone(),
            x: Tensor::from_slice(&data.x, (data.rows, data.inputs), device)?,
            y: Tensor::from_slice(&data.y, (data.rows, data.outputs), device)?,
            vars,
            optimizer,
            device: device.clone(),
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
        self.device.synchronize()?;
        match last {
            Some(loss) => Ok(f64::from(loss.to_scalar::<f32>()?)),
            None => Ok(f64::NAN),
        }
    }

    /// All weights in the order of the flat buffer of the hand-written paths.
    ///
    /// # Errors
    /// What candle says when the device fails.
    pub fn weights(&self) -> candle_core::Result<Vec<f32>> {
        let mut weights = Vec::with_capacity(self.layout.total);
        for (weight, bias) in &self.vars {
            weights.extend(weight.flatten_all()?.to_vec1::<f32>()?);
            weights.extend(bias.to_vec1::<f32>()?);
        }
        Ok(weights)
    }

    fn loss(&self) -> candle_core::Result<Tensor> {
        let mut h = self.x.clone();
        for (l, (weight, bias)) in self.vars.iter().enumerate() {
            h = h.matmul(&weight.t()?)?.broadcast_add(bias)?;
            if l + 1 < self.vars.len() {
                h = h.relu()?;
            }
        }
        (h - &self.y)?.sqr()?.mean_all()?.to_dtype(DType::F32)
    }
}
