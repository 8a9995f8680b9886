//! AdamW over all adapters at once: one flat f32 vector for weights and for each moment, so that a step is a dozen
//! operations however many tensors there are, and its state can be written down. `candle_nn::AdamW` keeps its state to
//! itself.

use candle_core::{DType, Result, Tensor, Var};

use super::settings::AdamWSettings;
use crate::crossing::{to_device, to_host};

/// The optimizer and its state.
pub struct AdamW {
    settings: AdamWSettings,
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    steps: u64,
}

/// What a checkpoint keeps of the optimizer, flat, in the order of the variables.
pub(super) struct AdamWState {
    pub(super) first: Vec<f32>,
    pub(super) second: Vec<f32>,
    pub(super) steps: u64,
}

impl AdamW {
    /// For these variables, f32, all on one device.
    ///
    /// # Errors
    /// The device's.
    pub fn new(variables: &[(String, Var)], settings: AdamWSettings) -> Result<Self> {
        let weights = flat(variables.iter().map(|(_, variable)| variable.as_tensor()))?;
        let zeros = weights.zeros_like()?;
        Ok(Self { settings, first: zeros.clone(), second: zeros.zeros_like()?, weights, steps: 0 })
    }

    /// One step, as `torch.optim.AdamW` takes it after `clip_grad_norm_`. `gradients` is [`flat`] in the order of the
    /// variables; with a `clip` above 0 it is scaled to that norm when its norm is larger. Gives its norm before that, on
    /// the device: nothing is read back.
    ///
    /// # Errors
    /// The device's.
    pub fn step(&mut self, variables: &[(String, Var)], gradients: &Tensor, rate: f64, clip: f64) -> Result<Tensor> {
        let AdamWSettings { beta1, beta2, eps, weight_decay } = self.settings;
        let norm = gradients.sqr()?.sum_all()?.sqrt()?;
        let gradients = match clip > 0.0 {
            true => gradients.broadcast_mul(&((norm.clone() + 1e-6)?.recip()? * clip)?.minimum(1.0)?)?,
            false => gradients.clone(),
        };
        self.steps += 1;
        let steps = self.steps as f64;
        let (correction1, correction2) = (1.0 - libm::pow(beta1, steps), 1.0 - libm::pow(beta2, steps));
        self.first = ((&self.first * beta1)? + (&gradients * (1.0 - beta1))?)?;
        self.second = ((&self.second * beta2)? + (gradients.sqr()? * (1.0 - beta2))?)?;
        let denominator = ((self.second.sqrt()? / correction2.sqrt())? + eps)?;
        let change = ((&self.first / denominator)? * (rate / correction1))?;
        self.weights = ((&self.weights * (1.0 - rate * weight_decay))? - change)?;
        scatter(&self.weights, variables)?;
        Ok(norm)
    }

    /// All weights, flat, in the order of the variables.
    pub fn weights(&self) -> &Tensor {
        &self.weights
    }

    pub(super) fn state(&self) -> Result<AdamWState> {
        let (first, second) = (to_host(&self.first)?, to_host(&self.second)?);
        Ok(AdamWState { first, second, steps: self.steps })
    }

    /// Takes the state and the weights of a checkpoint over, and sets the variables.
    pub(super) fn restore(&mut self, variables: &[(String, Var)], weights: &[f32], state: &AdamWState) -> Result<()> {
        let device = self.weights.device().clone();
        let tensor = |values: &[f32]| to_device(values, self.weights.shape(), &device);
        let (weights, first, second) = (tensor(weights)?, tensor(&state.first)?, tensor(&state.second)?);
        (self.weights, self.first, self.second, self.steps) = (weights, first, second, state.steps);
        scatter(&self.weights, variables)
    }
}

/// Tensors one after another in one vector of f32.
///
/// # Errors
/// The device's.
pub fn flat<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<Tensor> {
    let parts: Vec<Tensor> =
        tensors.into_iter().map(|tensor| tensor.flatten_all()?.to_dtype(DType::F32)).collect::<Result<_>>()?;
    Tensor::cat(&parts, 0)
}

fn scatter(flat: &Tensor, variables: &[(String, Var)]) -> Result<()> {
    let mut start = 0;
    for (_, variable) in variables {
        let count = variable.elem_count();
        variable.set(&flat.narrow(0, start, count)?.reshape(variable.shape())?)?;
        start += count;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn variables() -> Vec<(String, Var)> {
        let device = Device::Cpu;
        let a = Var::from_tensor(&Tensor::new(&[[1f32, -2.0], [0.5, 3.0]], &device).unwrap()).unwrap();
        let b = Var::from_tensor(&Tensor::new(&[0.25f32], &device).unwrap()).unwrap();
        vec![("a".to_owned(), a), ("b".to_owned(), b)]
    }

    /// Three steps of f(w) = sum w^2 / 2 weighted by place, gradients from autograd.
    fn train(settings: AdamWSettings, clip: f64) -> (Vec<f32>, f32) {
        let variables = variables();
        let mut optimizer = AdamW::new(&variables, settings).unwrap();
        let mut norm = 0.0;
        for _ in 0..3 {
            let (a, b) = (variables[0].1.as_tensor(), variables[1].1.as_tensor());
            let loss =
                (a.sqr().unwrap().sum_all().unwrap() + (b.sqr().unwrap().sum_all().unwrap() * 4.0).unwrap()).unwrap();
            let store = loss.backward().unwrap();
            let gradients = flat([store.get(a).unwrap(), store.get(b).unwrap()]).unwrap();
            norm = optimizer.step(&variables, &gradients, 0.1, clip).unwrap().to_scalar::<f32>().unwrap();
        }
        (flat(variables.iter().map(|(_, v)| v.as_tensor())).unwrap().to_vec1().unwrap(), norm)
    }

    fn close(seen: &[f32], wanted: &[f32]) {
        assert!(seen.iter().zip(wanted).all(|(a, b)| (a - b).abs() <= 2e-6 * b.abs().max(1.0)), "{seen:?} {wanted:?}");
    }

    #[test]
    fn agrees_with_candle_nn() {
        use candle_nn::{Optimizer as _, ParamsAdamW};
        let settings = AdamWSettings { beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 };
        let reference = variables();
        let params = ParamsAdamW { lr: 0.1, beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 };
        let mut optimizer = candle_nn::AdamW::new(reference.iter().map(|(_, v)| v.clone()).collect(), params).unwrap();
        for _ in 0..3 {
            let (a, b) = (reference[0].1.as_tensor(), reference[1].1.as_tensor());
            let loss =
                (a.sqr().unwrap().sum_all().unwrap() + (b.sqr().unwrap().sum_all().unwrap() * 4.0).unwrap()).unwrap();
            optimizer.backward_step(&loss).unwrap();
        }
        let wanted: Vec<f32> = flat(reference.iter().map(|(_, v)| v.as_tensor())).unwrap().to_vec1().unwrap();
        close(&train(settings, 0.0).0, &wanted);
    }

    #[test]
    fn clipping_scales_by_the_norm_of_all() {
        // SGD-like view: with beta1 = beta2 = 0 the update is sign-like, so look at the norm and at the moments instead.
        let (_, norm) = train(AdamWSettings::default(), 0.5);
        assert!(norm > 0.5, "the norm is told before clipping: {norm}");
        let variables = variables();
        let mut optimizer = AdamW::new(&variables, AdamWSettings { beta1: 0.0, ..AdamWSettings::default() }).unwrap();
        let gradients = Tensor::new(&[3f32, 0.0, 0.0, 0.0, 4.0], &Device::Cpu).unwrap();
        let norm = optimizer.step(&variables, &gradients, 0.0, 1.0).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(norm, 5.0);
        close(&optimizer.state().unwrap().first, &[0.6, 0.0, 0.0, 0.0, 0.8]);
        let small = (gradients * 0.1).unwrap();
        optimizer.step(&variables, &small, 0.0, 1.0).unwrap();
        close(&optimizer.state().unwrap().first, &[0.3, 0.0, 0.0, 0.0, 0.4]);
    }

    #[test]
    fn state_comes_back() {
        let variables = variables();
        let mut optimizer = AdamW::new(&variables, AdamWSettings::default()).unwrap();
        let gradients = Tensor::new(&[3f32, 1.0, 2.0, 5.0, 4.0], &Device::Cpu).unwrap();
        optimizer.step(&variables, &gradients, 0.1, 0.0).unwrap();
        let (state, weights) = (optimizer.state().unwrap(), optimizer.weights().to_vec1::<f32>().unwrap());
        optimizer.step(&variables, &gradients, 0.1, 0.0).unwrap();
        let wanted = optimizer.weights().to_vec1::<f32>().unwrap();
        optimizer.restore(&variables, &weights, &state).unwrap();
        optimizer.step(&variables, &gradients, 0.1, 0.0).unwrap();
        assert_eq!(optimizer.weights().to_vec1::<f32>().unwrap(), wanted);
        assert_eq!(flat(variables.iter().map(|(_, v)| v.as_tensor())).unwrap().to_vec1::<f32>().unwrap(), wanted);
    }
}
