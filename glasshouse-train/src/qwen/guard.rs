use candle_core::Var;
use candle_core::backprop::GradStore;

use super::error::QwenError;

/// Checks that every variable has a gradient of its shape. candle leaves out, and says nothing of, variables that an
/// operation without a backward cuts off from the loss; training would go on with a plausible loss and leave them as they
/// are. Meant for the first step of any training, of this model or another.
///
/// # Errors
/// [`QwenError::NoGradient`] naming all that have none.
pub fn check_gradients(trainable: &[(String, Var)], gradients: &GradStore) -> Result<(), QwenError> {
    let missing = |(_, variable): &&(String, Var)| {
        gradients.get(variable.as_tensor()).is_none_or(|gradient| gradient.dims() != variable.dims())
    };
    let names: Vec<String> = trainable.iter().filter(missing).map(|(name, _)| name.clone()).collect();
    match names.is_empty() {
        true => Ok(()),
        false => Err(QwenError::NoGradient { names }),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;

    #[test]
    fn a_variable_behind_an_operation_without_backward_is_named() {
        let variable = |value: f32| Var::from_tensor(&Tensor::full(value, (2, 4), &Device::Cpu).unwrap()).unwrap();
        let (reached, cut) = (variable(1.0), variable(2.0));
        let weight = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
        // candle's own rms_norm: the trap itself.
        let normed = candle_nn::ops::rms_norm(&cut, &weight, 1e-6).unwrap();
        let loss = (reached.as_tensor() * normed).unwrap().sum_all().unwrap();
        let gradients = loss.backward().unwrap();
        let trainable = [("reached".to_owned(), reached.clone()), ("cut".to_owned(), cut)];
        let Err(QwenError::NoGradient { names }) = check_gradients(&trainable, &gradients) else { panic!() };
        assert_eq!(names, ["cut"]);
        let ours = crate::ops::rms_norm(reached.as_tensor(), &weight, 1e-6).unwrap().sum_all().unwrap();
        assert!(check_gradients(&trainable[..1], &ours.backward().unwrap()).is_ok());
    }
}
