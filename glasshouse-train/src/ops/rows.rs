//! Some rows of a matrix, by index; candle's own selection works value by value.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};

use super::host::{rows_of, span, span_mut, with_pair, with_words};
use super::memory::unwritten;

/// Rows `index` (u32) of `x [rows, n]`.
pub(crate) fn take_rows(x: &Tensor, index: &Tensor) -> Result<Tensor> {
    let taken = unwritten((index.dim(0)?, x.dim(1)?), x.dtype(), x.device())?;
    taken.inplace_op2(x, &Move { index, put: false })?;
    Ok(taken)
}

/// A matrix of `rows`, zero but for rows `index` (u32, each once), which are those of `x`.
pub(crate) fn put_rows(x: &Tensor, index: &Tensor, rows: usize) -> Result<Tensor> {
    let all = Tensor::zeros((rows, x.dim(1)?), x.dtype(), x.device())?;
    all.inplace_op2(x, &Move { index, put: true })?;
    Ok(all)
}

struct Move<'a> {
    index: &'a Tensor,
    /// To the rows of the index, instead of from them.
    put: bool,
}

impl InplaceOp2 for Move<'_> {
    fn name(&self) -> &'static str {
        "move-rows"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        let (_, n) = rows_of(yl);
        with_words(self.index, |index| {
            with_pair!("move-rows", y, x, |y, x| copy(span_mut(y, yl)?, span(x, xl)?, n, index, self.put))
        })
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
        let (_, n) = rows_of(yl);
        let places = [Arg::from(y, yl)?, Arg::from(x, xl)?, Arg::of(self.index)?];
        let [to, from, index] = places;
        let kernel = Kernel::of("move_rows", y)?;
        kernel.blocks(self.index.dim(0)?, &[to, from, index, Arg::size(n)?, Arg::Word(u32::from(self.put))])
    }
}

fn copy<T: Copy>(y: &mut [T], x: &[T], n: usize, index: &[u32], put: bool) -> Result<()> {
    for (row, place) in index.iter().enumerate() {
        let (to, from) = if put { (*place as usize, row) } else { (row, *place as usize) };
        match (y.get_mut(to * n..(to + 1) * n), x.get(from * n..(from + 1) * n)) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => bail!("move-rows: row {place} is outside the matrix"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn rows_go_out_and_back() {
        let x = Tensor::arange(0f32, 12., &Device::Cpu).unwrap().reshape((4, 3)).unwrap();
        let index = Tensor::new(&[2u32, 0], &Device::Cpu).unwrap();
        let taken = take_rows(&x, &index).unwrap();
        assert_eq!(taken.to_vec2::<f32>().unwrap(), [[6., 7., 8.], [0., 1., 2.]]);
        let back = put_rows(&taken, &index, 4).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(back, [[0., 1., 2.], [0.; 3], [6., 7., 8.], [0.; 3]]);
        assert!(take_rows(&x, &Tensor::new(&[4u32], &Device::Cpu).unwrap()).is_err());
    }
}
