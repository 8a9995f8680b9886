use candle_core::{CpuStorage, InplaceOp2, InplaceOp3, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

use super::host::{Number, grain, span, span_mut, with_pair};
use super::memory::unwritten;
use super::record::record;

/// `x / sqrt(mean(x^2) + eps) * weight` over the last dimension (Zhang and Sennrich 2019, arXiv:1910.07467):
/// `x [.., n]`, `weight [n]`, frozen.
///
/// # Errors
/// What candle says of shapes, types or the device.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let (input, weight) = (x.detach().contiguous()?, weight.detach());
    let result = rms_norm_forward(&input, &weight, eps)?;
    record("rms-norm", [x], &result, move |grad| {
        let dx = input.zeros_like()?;
        rms_norm_backward(&dx, &input, grad, &weight, eps)?;
        Ok([dx])
    })
}

pub(crate) fn rms_norm_forward(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    if weight.dims() != [x.dim(candle_core::D::Minus1)?] {
        bail!("rms-norm: a weight of {:?} for {:?}", weight.dims(), x.dims());
    }
    let y = unwritten(x.shape(), x.dtype(), x.device())?;
    y.inplace_op2(x, &Forward { weight, eps: eps as f32 })?;
    Ok(y)
}

/// Adds the gradient of `x` to `dx`.
pub(crate) fn rms_norm_backward(dx: &Tensor, x: &Tensor, grad: &Tensor, weight: &Tensor, eps: f64) -> Result<()> {
    dx.inplace_op3(x, grad, &Backward { weight, eps: eps as f32 })
}

struct Forward<'a> {
    weight: &'a Tensor,
    eps: f32,
}

struct Backward<'a> {
    weight: &'a Tensor,
    eps: f32,
}

impl InplaceOp2 for Forward<'_> {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        with_pair!("rms-norm", y, x, |y, x| forward(span_mut(y, yl)?, span(x, xl)?, &host(self.weight)?, self.eps));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        y: &mut candle_core::CudaStorage,
        yl: &Layout,
        x: &candle_core::CudaStorage,
        xl: &Layout,
    ) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        use super::host::rows_of;
        let (rows, n) = rows_of(yl);
        let kernel = Kernel::of("rms_norm", y)?;
        let places = [Arg::from(y, yl)?, Arg::from(x, xl)?, Arg::of(self.weight)?];
        let [y, x, weight] = places;
        kernel.blocks(rows, &[y, x, weight, Arg::size(n)?, Arg::Float(self.eps)])
    }
}

impl InplaceOp3 for Backward<'_> {
    fn name(&self) -> &'static str {
        "rms-norm-backward"
    }

    fn cpu_fwd(
        &self,
        dx: &mut CpuStorage,
        dxl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
        dy: &CpuStorage,
        dyl: &Layout,
    ) -> Result<()> {
        let weight = host(self.weight)?;
        match (dx, x, dy) {
            (CpuStorage::F32(dx), CpuStorage::F32(x), CpuStorage::F32(dy)) => {
                backward(span_mut(dx, dxl)?, span(x, xl)?, span(dy, dyl)?, &weight, self.eps);
            }
            (CpuStorage::BF16(dx), CpuStorage::BF16(x), CpuStorage::BF16(dy)) => {
                backward(span_mut(dx, dxl)?, span(x, xl)?, span(dy, dyl)?, &weight, self.eps);
            }
            _ => bail!("rms-norm: all must be f32, or all bf16"),
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        dx: &mut candle_core::CudaStorage,
        dxl: &Layout,
        x: &candle_core::CudaStorage,
        xl: &Layout,
        dy: &candle_core::CudaStorage,
        dyl: &Layout,
    ) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        use super::host::rows_of;
        let (rows, n) = rows_of(dxl);
        let kernel = Kernel::of("rms_norm_backward", dx)?;
        let places = [Arg::from(dx, dxl)?, Arg::from(x, xl)?, Arg::from(dy, dyl)?, Arg::of(self.weight)?];
        let [dx, x, dy, weight] = places;
        kernel.blocks(rows, &[dx, x, dy, weight, Arg::size(n)?, Arg::Float(self.eps)])
    }
}

fn host(weight: &Tensor) -> Result<Vec<f32>> {
    let (storage, layout) = weight.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => Ok(span(values, layout)?.to_vec()),
        Storage::Cpu(CpuStorage::BF16(values)) => {
            Ok(span(values, layout)?.iter().map(|value| value.to_f32()).collect())
        }
        _ => bail!("rms-norm: the weight must be f32 or bf16 beside x"),
    }
}

fn forward<T: Number>(y: &mut [T], x: &[T], weight: &[f32], eps: f32) {
    let n = weight.len().max(1);
    y.par_chunks_mut(n).zip(x.par_chunks(n)).with_min_len(grain(n)).for_each(|(y, x)| {
        let scale = inverse_root(x, eps);
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = T::narrow(x.wide() * scale * weight);
        }
    });
}

/// With s the inverse root and g the gradient times the weight: `s g - x s^3 mean(g x)`.
fn backward<T: Number>(dx: &mut [T], x: &[T], dy: &[T], weight: &[f32], eps: f32) {
    let n = weight.len().max(1);
    dx.par_chunks_mut(n).zip(x.par_chunks(n)).zip(dy.par_chunks(n)).with_min_len(grain(n)).for_each(|((dx, x), dy)| {
        let scale = inverse_root(x, eps);
        let products = x.iter().zip(dy).zip(weight).map(|((x, dy), weight)| f64::from(x.wide() * dy.wide() * weight));
        let along = (products.sum::<f64>() / n as f64) as f32 * scale * scale * scale;
        for (((dx, x), dy), weight) in dx.iter_mut().zip(x).zip(dy).zip(weight) {
            *dx = T::narrow(dx.wide() + dy.wide() * weight * scale - x.wide() * along);
        }
    });
}

fn inverse_root<T: Number>(x: &[T], eps: f32) -> f32 {
    let squares: f64 = x.iter().map(|x| f64::from(x.wide() * x.wide())).sum();
    1.0 / ((squares / x.len().max(1) as f64) as f32 + eps).sqrt()
}
