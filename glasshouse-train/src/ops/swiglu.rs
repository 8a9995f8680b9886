use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::host::{Number, grain, rows_of, span, span_mut, with_pair};
use super::memory::unwritten;
use super::record::record;

/// `silu(gate) * up` (Shazeer 2020, arXiv:2002.05202) of `gate_up [.., 2 n]`, gate first, giving `[.., n]`: both halves
/// come out of one matrix product that way.
///
/// # Errors
/// What candle says of shapes, types or the device.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    let input = gate_up.detach().contiguous()?;
    let result = swiglu_forward(&input)?;
    record("swiglu", [gate_up], &result, move |grad| {
        let gradient = input.copy()?;
        swiglu_backward(&gradient, grad)?;
        Ok([gradient])
    })
}

pub(crate) fn swiglu_forward(gate_up: &Tensor) -> Result<Tensor> {
    let mut dims = gate_up.dims().to_vec();
    match dims.last_mut() {
        Some(last) if last.is_multiple_of(2) => *last /= 2,
        _ => bail!("swiglu: gate and up must be of one width, got {:?}", gate_up.dims()),
    }
    let result = unwritten(dims, gate_up.dtype(), gate_up.device())?;
    result.inplace_op2(gate_up, &Forward)?;
    Ok(result)
}

/// Makes of `gate_up` its own gradient, from that of the result.
pub(crate) fn swiglu_backward(gate_up: &Tensor, grad: &Tensor) -> Result<()> {
    gate_up.inplace_op2(grad, &Backward)
}

struct Forward;
struct Backward;

impl InplaceOp2 for Forward {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        let (_, n) = rows_of(yl);
        with_pair!("swiglu", y, x, |y, x| forward(span_mut(y, yl)?, span(x, xl)?, n));
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
        let (rows, n) = rows_of(yl);
        let kernel = Kernel::of("swiglu", y)?;
        kernel.rows(rows, &[Arg::from(y, yl)?, Arg::from(x, xl)?, Arg::size(n)?])
    }
}

impl InplaceOp2 for Backward {
    fn name(&self) -> &'static str {
        "swiglu-backward"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, xl: &Layout, dy: &CpuStorage, dl: &Layout) -> Result<()> {
        let (_, n) = rows_of(dl);
        with_pair!("swiglu", x, dy, |x, dy| backward(span_mut(x, xl)?, span(dy, dl)?, n));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &mut candle_core::CudaStorage,
        xl: &Layout,
        dy: &candle_core::CudaStorage,
        dl: &Layout,
    ) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        let (rows, n) = rows_of(dl);
        let kernel = Kernel::of("swiglu_backward", x)?;
        kernel.rows(rows, &[Arg::from(x, xl)?, Arg::from(dy, dl)?, Arg::size(n)?])
    }
}

fn forward<T: Number>(y: &mut [T], x: &[T], n: usize) {
    y.par_chunks_mut(n.max(1)).zip(x.par_chunks((2 * n).max(1))).with_min_len(grain(n)).for_each(|(y, x)| {
        let (gate, up) = x.split_at(n);
        for (y, (gate, up)) in y.iter_mut().zip(gate.iter().zip(up)) {
            *y = T::narrow(gate.wide() * sigmoid(gate.wide()) * up.wide());
        }
    });
}

fn backward<T: Number>(x: &mut [T], dy: &[T], n: usize) {
    x.par_chunks_mut((2 * n).max(1)).zip(dy.par_chunks(n.max(1))).with_min_len(grain(n)).for_each(|(x, dy)| {
        let (gates, ups) = x.split_at_mut(n);
        for ((gate, up), dy) in gates.iter_mut().zip(ups).zip(dy) {
            let (g, u, d, s) = (gate.wide(), up.wide(), dy.wide(), sigmoid(gate.wide()));
            *gate = T::narrow(d * u * s * (1.0 + g * (1.0 - s)));
            *up = T::narrow(d * g * s);
        }
    });
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
