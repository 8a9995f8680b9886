#![allow(unsafe_code)] // uninitialized device memory; every caller overwrites all of it before it is read

use candle_core::{DType, Device, Result, Shape, Tensor};

/// A contiguous tensor whose values the caller writes, all of them, before anything reads one.
///
/// On the CPU it is zeros, which the operating system gives for nothing; on a device it is what lay there.
pub(crate) fn unwritten(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Tensor> {
    match device {
        Device::Cpu => Tensor::zeros(shape, dtype, device),
        // SAFETY: device memory of plain numbers, of which every pattern is valid; no value is read before a kernel, a
        // copy or a matrix product (with beta 0, which reads nothing) has written it.
        _ => unsafe { Tensor::empty(shape, dtype, device) },
    }
}
