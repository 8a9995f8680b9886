use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Result, Tensor, bail};

use super::host::{Number, with_floats, with_numbers, with_words};
use super::record::record;
use crate::crossing::to_device;

/// Cosines and sines of rotary positions (Su et al. 2021, arXiv:2104.09864): angle of position p and pair i of a head is
/// `p theta^(-2 i / dim)`. On the device, f32, up to the longest document.
#[derive(Clone)]
pub struct RopeTable {
    /// `[positions, dim / 2]`.
    cos: Tensor,
    sin: Tensor,
}

impl RopeTable {
    /// Computes the table in f64 on the CPU and puts it on the device.
    ///
    /// # Errors
    /// What candle says when the device fails.
    pub fn new(theta: f64, dim: usize, positions: usize, device: &Device) -> Result<Self> {
        let half = dim / 2;
        // Angles in f32, as in transformers, so that both round alike at high positions.
        let frequencies: Vec<f32> = (0..half).map(|i| 1.0 / (theta as f32).powf(2.0 * i as f32 / dim as f32)).collect();
        let angles = |position: usize| frequencies.iter().map(move |frequency| position as f32 * frequency);
        let of = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..positions).flat_map(angles).map(f).collect();
            to_device(&values, (positions, half), device)
        };
        Ok(Self { cos: of(f32::cos)?, sin: of(f32::sin)? })
    }

    /// Positions that it has.
    pub fn positions(&self) -> usize {
        self.cos.dims().first().copied().unwrap_or(0)
    }
}

/// Rotates `x [rows, length, heads, dim]` by the position of each token: `positions [rows * length]`, u32, each below
/// the table's (on CUDA, where looking would make the device wait, another gives NaN rather than an error). Value i of a head is paired with value i + dim / 2, as in Hugging Face's models.
///
/// # Errors
/// What candle says of shapes, types or the device.
pub fn rope(x: &Tensor, positions: &Tensor, table: &RopeTable) -> Result<Tensor> {
    let result = x.detach().force_contiguous()?;
    rope_in_place(&result, positions, table, false)?;
    let (positions, table) = (positions.clone(), table.clone());
    record("rope", [x], &result, move |grad| {
        let dx = grad.force_contiguous()?;
        rope_in_place(&dx, &positions, &table, true)?;
        Ok([dx])
    })
}

/// Rotates a tensor where it lies; `inverse` is also the backward. `x` may be a slice of the heads of a larger one.
pub(crate) fn rope_in_place(x: &Tensor, positions: &Tensor, table: &RopeTable, inverse: bool) -> Result<()> {
    let (rows, length, _, dim) = x.dims4()?;
    if positions.dims() != [rows * length] || table.cos.dim(1)? * 2 != dim {
        bail!("rope: positions {:?} and a table for {} for {:?}", positions.dims(), table.cos.dim(1)? * 2, x.dims());
    }
    x.inplace_op1(&Rotate { positions, table, inverse })
}

struct Rotate<'a> {
    positions: &'a Tensor,
    table: &'a RopeTable,
    inverse: bool,
}

/// Strides of row, token and head; the values of a head lie together.
pub(super) fn head_strides(layout: &Layout) -> Result<[usize; 3]> {
    match *layout.stride() {
        [row, token, head, 1] => Ok([row, token, head]),
        _ => bail!("heads must be [rows, length, heads, dim] with contiguous values, not {layout:?}"),
    }
}

impl InplaceOp1 for Rotate<'_> {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        with_words(self.positions, |positions| {
            with_floats(&self.table.cos, |cos| {
                with_floats(&self.table.sin, |sin| {
                    with_numbers!("rope", x, |x| rotate(x, layout, positions, cos, sin, self.inverse))
                })
            })
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        let (rows, length, heads, dim) = layout.shape().dims4()?;
        let [row, token, head] = head_strides(layout)?;
        let kernel = Kernel::of("rope", x)?;
        let [positions, cos, sin] = [Arg::of(self.positions)?, Arg::of(&self.table.cos)?, Arg::of(&self.table.sin)?];
        let strides = [Arg::size(row)?, Arg::size(token)?, Arg::size(head)?];
        let [row, token, head] = strides;
        let inverse = Arg::Word(u32::from(self.inverse));
        let sizes = [Arg::size(length)?, Arg::size(heads)?, Arg::size(dim / 2)?];
        let [length, heads, half] = sizes;
        let longest = Arg::size(self.table.positions())?;
        let arguments =
            [Arg::from(x, layout)?, positions, cos, sin, row, token, head, length, heads, half, inverse, longest];
        kernel.blocks(rows * layout.dims()[1], &arguments)
    }
}

fn rotate<T: Number>(
    x: &mut [T],
    layout: &Layout,
    positions: &[u32],
    cos: &[f32],
    sin: &[f32],
    inverse: bool,
) -> Result<()> {
    let (rows, length, heads, dim) = layout.shape().dims4()?;
    let [row_stride, token_stride, head_stride] = head_strides(layout)?;
    let half = dim / 2;
    for (token, position) in positions.iter().enumerate().take(rows * length) {
        let start = layout.start_offset() + token / length * row_stride + token % length * token_stride;
        let angles = *position as usize * half;
        let (Some(cos), Some(sin)) = (cos.get(angles..angles + half), sin.get(angles..angles + half)) else {
            bail!("rope: position {position} is beyond the table");
        };
        for head in 0..heads {
            let (low, high) = x[start + head * head_stride..][..dim].split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (a, b, sin) = (low.wide(), high.wide(), if inverse { -sin } else { *sin });
                *low = T::narrow(a * cos - b * sin);
                *high = T::narrow(b * cos + a * sin);
            }
        }
    }
    Ok(())
}
