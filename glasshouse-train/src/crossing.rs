//! The one way in which numbers that come of an owner's data (token ids, labels, where documents begin, adapters, the
//! optimizer's state, losses) go to a device and come back.
//!
//! candle's own copies are from and to ordinary memory, and the driver takes those through staging buffers of its own that
//! nobody wipes. On a GPU these go through a page-locked buffer of ours, wiped after each copy. What is public (a base
//! model's files) need not, and is far more.

#[cfg(feature = "cuda")]
mod cuda;

#[cfg(not(feature = "cuda"))]
use candle_core::WithDType;
use candle_core::{Device, Result, Shape, Tensor};

/// What crosses: u32, f32, f64.
#[cfg(not(feature = "cuda"))]
pub(crate) trait Number: WithDType {}
#[cfg(not(feature = "cuda"))]
impl<T: WithDType> Number for T {}
#[cfg(feature = "cuda")]
pub(crate) use cuda::Number;
#[cfg(feature = "cuda")]
pub(crate) use cuda::release;

/// A tensor of these values on the device.
pub(crate) fn to_device<T: Number>(values: &[T], shape: impl Into<Shape>, device: &Device) -> Result<Tensor> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => cuda::to_device(values, shape.into(), device),
        #[allow(clippy::disallowed_methods)] // on a CPU it is a copy in memory
        _ => Tensor::from_slice(values, shape, device),
    }
}

/// Several at once, each a vector: on a GPU it is waited for the copy, which is short, and so for one instead of each.
pub(crate) fn all_to_device<T: Number, const N: usize>(values: [&[T]; N], device: &Device) -> Result<[Tensor; N]> {
    let tensors: Vec<Tensor> = match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => {
            let all = to_device(&values.concat(), values.iter().map(|part| part.len()).sum::<usize>(), device)?;
            let mut start = 0;
            let part = |part: &[T]| {
                let tensor = all.narrow(0, start, part.len());
                start += part.len();
                tensor
            };
            values.into_iter().map(part).collect::<Result<_>>()?
        }
        _ => values.into_iter().map(|part| to_device(part, part.len(), device)).collect::<Result<_>>()?,
    };
    tensors.try_into().map_err(|_| candle_core::Error::Msg("as many tensors as vectors".to_owned()))
}

/// A tensor's values, in the order of its places.
pub(crate) fn to_host<T: Number>(tensor: &Tensor) -> Result<Vec<T>> {
    let flat = tensor.flatten_all()?;
    match flat.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => cuda::to_host(&flat.contiguous()?),
        #[allow(clippy::disallowed_methods)]
        _ => flat.to_vec1(),
    }
}

/// Returns the page-locked buffer to the driver, wiped as it always is: part of what a workload lets go of.
#[cfg(not(feature = "cuda"))]
pub(crate) fn release() {}

/// [`release`], whatever way what comes before it ends.
pub(crate) struct ReleasedAtTheEnd;

impl Drop for ReleasedAtTheEnd {
    fn drop(&mut self) {
        release();
    }
}

/// candle's device, which stays for ever if it is lost when this is dropped: it holds a handle each of cuBLAS and cuRAND, whose
/// destructors panic where the driver gives an error, and of two panics at once the process aborts, without a receipt.
pub(crate) struct KeptIfLost(pub(crate) Device);

impl Drop for KeptIfLost {
    fn drop(&mut self) {
        let works = || self.0.synchronize().is_ok();
        // A first error may be one that was recorded before and says nothing of the device.
        if self.0.is_cuda() && !works() && !works() {
            let _for_ever = std::mem::ManuallyDrop::new(self.0.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_there_and_back_in_their_order() {
        let device = Device::Cpu;
        let there = to_device(&[1u32, 2, 3, 4, 5, 6], (2, 3), &device).unwrap();
        assert_eq!(there.dims(), [2, 3]);
        assert_eq!(to_host::<u32>(&there).unwrap(), [1, 2, 3, 4, 5, 6]);
        // Not as they lie in memory.
        assert_eq!(to_host::<u32>(&there.t().unwrap()).unwrap(), [1, 4, 2, 5, 3, 6]);
        assert_eq!(to_host::<f32>(&to_device(&[-0.5f32], (), &device).unwrap()).unwrap(), [-0.5]);
        assert!(to_device(&[1u32, 2], 3, &device).is_err());
        let [a, b, c] = all_to_device([&[1u32, 2][..], &[], &[3]], &device).unwrap();
        let back = |tensor| to_host::<u32>(tensor).unwrap();
        assert_eq!((back(&a), back(&b), back(&c)), (vec![1, 2], vec![], vec![3]));
        release();
    }
}
