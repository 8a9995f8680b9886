use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::gemm::gemm;
use super::host::{Number, grain, span, span_mut, with_pair};
use super::memory::unwritten;
use super::record::record;

/// `x W^T + b` with a frozen weight: `x [tokens, in]`, `weight [out, in]`, `bias [out]`, giving `[tokens, out]`.
///
/// Backward computes the gradient of x only, one matrix product; candle's matmul would compute that of W, too.
///
/// # Errors
/// What candle says of shapes, types or the device.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let frozen = Frozen { weight: weight.detach(), bias: bias.map(Tensor::detach) };
    let result = frozen.forward(&x.detach())?;
    record("frozen-linear", [x], &result, move |grad| Ok([frozen.backward(grad)?]))
}

/// A linear layer that is not trained.
pub(crate) struct Frozen {
    /// `[out, in]`.
    pub(crate) weight: Tensor,
    /// `[out]`.
    pub(crate) bias: Option<Tensor>,
}

impl Frozen {
    /// `[tokens, in]` to `[tokens, out]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, outputs) = (x.dim(0)?, self.weight.dim(0)?);
        let y = unwritten((tokens, outputs), x.dtype(), x.device())?;
        gemm(&y, x, &self.weight.t()?, 1.0, 0.0)?;
        if let Some(bias) = &self.bias {
            y.inplace_op2(bias, &AddBias)?;
        }
        Ok(y)
    }

    /// `residual + x W^T` in a new tensor; such layers have no bias.
    pub(crate) fn forward_onto(&self, residual: &Tensor, x: &Tensor) -> Result<Tensor> {
        let y = residual.copy()?;
        gemm(&y, x, &self.weight.t()?, 1.0, 1.0)?;
        Ok(y)
    }

    /// The gradient of x, from that of the result.
    pub(crate) fn backward(&self, grad: &Tensor) -> Result<Tensor> {
        let dx = unwritten((grad.dim(0)?, self.weight.dim(1)?), grad.dtype(), grad.device())?;
        gemm(&dx, grad, &self.weight, 1.0, 0.0)?;
        Ok(dx)
    }
}

/// Adds `[columns]` to every row.
struct AddBias;

impl InplaceOp2 for AddBias {
    fn name(&self) -> &'static str {
        "add-bias"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, bias: &CpuStorage, bl: &Layout) -> Result<()> {
        with_pair!("add-bias", y, bias, |y, bias| add(span_mut(y, yl)?, span(bias, bl)?));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        y: &mut candle_core::CudaStorage,
        yl: &Layout,
        bias: &candle_core::CudaStorage,
        bl: &Layout,
    ) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        let columns = bl.shape().elem_count();
        let rows = yl.shape().elem_count() / columns.max(1);
        Kernel::of("add_bias", y)?.blocks(rows, &[Arg::from(y, yl)?, Arg::from(bias, bl)?, Arg::size(columns)?])
    }
}

fn add<T: Number>(y: &mut [T], bias: &[T]) {
    y.par_chunks_mut(bias.len().max(1)).with_min_len(grain(bias.len())).for_each(|row| {
        for (y, bias) in row.iter_mut().zip(bias) {
            *y = T::narrow(y.wide() + bias.wide());
        }
    });
}
