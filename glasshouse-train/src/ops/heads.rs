//! Between `[rows, length, heads, dim]`, as matrix products of tokens give them, and `[rows * kv_heads, length * group,
//! dim]`, as those of attention need them: the heads of a group, which share keys and values, as rows of one matrix.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor, bail};

use super::host::Number;
use super::memory::unwritten;
use super::rope::head_strides;

/// Gathers the heads of a possibly strided `x [rows, length, heads, dim]`.
pub(super) fn gather(x: &Tensor, kv_heads: usize) -> Result<Tensor> {
    let (rows, length, heads, dim) = x.dims4()?;
    if kv_heads == 0 || heads % kv_heads != 0 {
        bail!("attention: {heads} heads cannot share {kv_heads}");
    }
    let gathered = unwritten((rows * kv_heads, length * (heads / kv_heads), dim), x.dtype(), x.device())?;
    gathered.inplace_op2(x, &Gather { kv_heads })?;
    Ok(gathered)
}

/// Writes what [`gather`] would have gathered from `x` back to it; `gathered` may be f32 where x is bf16.
pub(super) fn scatter(x: &Tensor, gathered: &Tensor, kv_heads: usize) -> Result<()> {
    x.inplace_op2(gathered, &Scatter { kv_heads })
}

struct Gather {
    kv_heads: usize,
}

struct Scatter {
    kv_heads: usize,
}

impl InplaceOp2 for Gather {
    fn name(&self) -> &'static str {
        "gather-heads"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, _: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        match (y, x) {
            (CpuStorage::F32(y), CpuStorage::F32(x)) => {
                walk(xl, self.kv_heads, |to, from, dim| y[to..to + dim].copy_from_slice(&x[from..from + dim]))
            }
            (CpuStorage::BF16(y), CpuStorage::BF16(x)) => {
                walk(xl, self.kv_heads, |to, from, dim| y[to..to + dim].copy_from_slice(&x[from..from + dim]))
            }
            _ => bail!("gather-heads: both must be f32, or both bf16"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        y: &mut candle_core::CudaStorage,
        yl: &Layout,
        x: &candle_core::CudaStorage,
        xl: &Layout,
    ) -> Result<()> {
        let kernel = super::cuda::Kernel::of("gather_heads", y)?;
        let places = [super::cuda::Arg::from(y, yl)?, super::cuda::Arg::from(x, xl)?];
        launch(&kernel, places, xl, self.kv_heads)
    }
}

impl InplaceOp2 for Scatter {
    fn name(&self) -> &'static str {
        "scatter-heads"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, xl: &Layout, y: &CpuStorage, _: &Layout) -> Result<()> {
        match (x, y) {
            (CpuStorage::F32(x), CpuStorage::F32(y)) => {
                walk(xl, self.kv_heads, |from, to, dim| x[to..to + dim].copy_from_slice(&y[from..from + dim]))
            }
            (CpuStorage::BF16(x), CpuStorage::BF16(y)) => {
                walk(xl, self.kv_heads, |from, to, dim| x[to..to + dim].copy_from_slice(&y[from..from + dim]))
            }
            (CpuStorage::BF16(x), CpuStorage::F32(y)) => walk(xl, self.kv_heads, |from, to, dim| {
                for (x, y) in x[to..to + dim].iter_mut().zip(&y[from..from + dim]) {
                    *x = Number::narrow(*y);
                }
            }),
            _ => bail!("scatter-heads: f32 cannot come of bf16"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        x: &mut candle_core::CudaStorage,
        xl: &Layout,
        y: &candle_core::CudaStorage,
        yl: &Layout,
    ) -> Result<()> {
        use candle_core::DType;
        use candle_core::backend::BackendStorage as _;
        let name = match (x.dtype(), y.dtype()) {
            (DType::BF16, DType::F32) => "scatter_heads_narrow",
            (a, b) if a == b => "scatter_heads",
            _ => bail!("scatter-heads: f32 cannot come of bf16"),
        };
        let kernel = super::cuda::Kernel::of(name, x)?;
        let places = [super::cuda::Arg::from(x, xl)?, super::cuda::Arg::from(y, yl)?];
        launch(&kernel, places, xl, self.kv_heads)
    }
}

#[cfg(feature = "cuda")]
fn launch(
    kernel: &super::cuda::Kernel<'_>,
    places: [super::cuda::Arg; 2],
    layout: &Layout,
    kv_heads: usize,
) -> Result<()> {
    use super::cuda::Arg;
    let (rows, length, heads, dim) = layout.shape().dims4()?;
    let [row, token, head] = head_strides(layout)?;
    let [to, from] = places;
    let strides = [Arg::size(row)?, Arg::size(token)?, Arg::size(head)?];
    let [row, token, head] = strides;
    let sizes = [Arg::size(length)?, Arg::size(heads)?, Arg::size(kv_heads)?, Arg::size(dim)?];
    let count = rows * length;
    let [length, heads, kv_heads, dim] = sizes;
    kernel.blocks(count, &[to, from, row, token, head, length, heads, kv_heads, dim])
}

/// Calls for every head of every token with its place in the gathered tensor, its place in the other, and its width.
fn walk(layout: &Layout, kv_heads: usize, mut each: impl FnMut(usize, usize, usize)) -> Result<()> {
    let (rows, length, heads, dim) = layout.shape().dims4()?;
    let [row_stride, token_stride, head_stride] = head_strides(layout)?;
    let group = heads / kv_heads;
    for row in 0..rows {
        for token in 0..length {
            for head in 0..heads {
                let batch = row * kv_heads + head / group;
                let gathered = ((batch * length + token) * group + head % group) * dim;
                let other = layout.start_offset() + row * row_stride + token * token_stride + head * head_stride;
                each(gathered, other, dim);
            }
        }
    }
    Ok(())
}
