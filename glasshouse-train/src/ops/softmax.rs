//! Rows of scores between a block of queries and the keys before them.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::host::{Number, grain, span, span_mut, with_numbers, with_pair, with_words};

/// Which queries and keys a block of scores `[rows * kv_heads, queries * group, keys]` is of, and what masks it: a query
/// sees the keys from the first token of its document to itself.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// First token of each token's document within its row, `[rows * length]`, u32.
    pub(super) first: &'a Tensor,
    pub(super) length: usize,
    pub(super) kv_heads: usize,
    pub(super) group: usize,
    pub(super) first_query: usize,
    pub(super) first_key: usize,
    pub(super) scale: f32,
}

impl Block<'_> {
    /// Makes of scores the probabilities, where they lie.
    pub(super) fn softmax(self, scores: &Tensor) -> Result<()> {
        scores.inplace_op1(&Softmax(self))
    }

    /// Makes of the gradient of the probabilities that of the scores.
    pub(super) fn softmax_backward(self, grad: &Tensor, probabilities: &Tensor) -> Result<()> {
        grad.inplace_op2(probabilities, &SoftmaxBackward(self))
    }

    /// The columns that a row of scores sees.
    fn seen(&self, first: &[u32], row: usize, rows_of_matrix: usize) -> std::ops::Range<usize> {
        let query = self.first_query + row % rows_of_matrix / self.group;
        let sequence = row / rows_of_matrix / self.kv_heads;
        let start = first[sequence * self.length + query] as usize;
        start.saturating_sub(self.first_key)..query + 1 - self.first_key
    }

    #[cfg(feature = "cuda")]
    fn launch(&self, kernel: &super::cuda::Kernel<'_>, places: &[super::cuda::Arg], layout: &Layout) -> Result<()> {
        use super::cuda::Arg;
        let (batch, rows, keys) = layout.shape().dims3()?;
        let mut arguments = places.to_vec();
        arguments.push(Arg::of(self.first)?);
        for size in [rows, keys, self.length, self.kv_heads, self.group, self.first_query, self.first_key] {
            arguments.push(Arg::size(size)?);
        }
        arguments.push(Arg::Float(self.scale));
        kernel.warps(batch * rows, &arguments)
    }
}

struct Softmax<'a>(Block<'a>);
struct SoftmaxBackward<'a>(Block<'a>);

impl InplaceOp1 for Softmax<'_> {
    fn name(&self) -> &'static str {
        "masked-softmax"
    }

    fn cpu_fwd(&self, scores: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (_, rows, keys) = layout.shape().dims3()?;
        with_words(self.0.first, |first| {
            with_numbers!("softmax", scores, |scores| softmax(span_mut(scores, layout)?, first, self.0, rows, keys));
            Ok(())
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, scores: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        self.0.launch(&Kernel::of("masked_softmax", scores)?, &[Arg::from(scores, layout)?], layout)
    }
}

impl InplaceOp2 for SoftmaxBackward<'_> {
    fn name(&self) -> &'static str {
        "masked-softmax-backward"
    }

    fn cpu_fwd(&self, grad: &mut CpuStorage, gl: &Layout, p: &CpuStorage, pl: &Layout) -> Result<()> {
        let (_, rows, keys) = gl.shape().dims3()?;
        with_words(self.0.first, |first| {
            with_pair!("softmax", grad, p, |grad, p| {
                backward(span_mut(grad, gl)?, span(p, pl)?, first, self.0, rows, keys);
            });
            Ok(())
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        grad: &mut candle_core::CudaStorage,
        gl: &Layout,
        p: &candle_core::CudaStorage,
        pl: &Layout,
    ) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        let kernel = Kernel::of("masked_softmax_backward", grad)?;
        self.0.launch(&kernel, &[Arg::from(grad, gl)?, Arg::from(p, pl)?], gl)
    }
}

fn softmax<T: Number>(scores: &mut [T], first: &[u32], block: Block<'_>, rows: usize, keys: usize) {
    scores.par_chunks_mut(keys).enumerate().with_min_len(grain(keys)).for_each(|(row, scores)| {
        let seen = block.seen(first, row, rows);
        let (before, rest) = scores.split_at_mut(seen.start);
        let (seen, after) = rest.split_at_mut(seen.len());
        let largest = seen.iter().map(|score| score.wide()).fold(f32::NEG_INFINITY, f32::max);
        let power = |score: &T| ((score.wide() - largest) * block.scale).exp();
        let inverse = (1.0 / seen.iter().map(|score| f64::from(power(score))).sum::<f64>()) as f32;
        seen.iter_mut().for_each(|score| *score = T::narrow(power(score) * inverse));
        before.iter_mut().chain(after).for_each(|hidden| *hidden = T::narrow(0.0));
    });
}

/// `p (dp - sum p dp) scale`; where p is 0, so is this.
fn backward<T: Number>(grad: &mut [T], p: &[T], first: &[u32], block: Block<'_>, rows: usize, keys: usize) {
    grad.par_chunks_mut(keys).zip(p.par_chunks(keys)).enumerate().with_min_len(grain(keys)).for_each(
        |(row, (grad, p))| {
            let seen = block.seen(first, row, rows);
            let pairs = grad[seen.clone()].iter().zip(&p[seen.clone()]);
            let sum = pairs.map(|(grad, p)| f64::from(grad.wide() * p.wide())).sum::<f64>() as f32;
            for (column, (grad, p)) in grad.iter_mut().zip(p).enumerate() {
                let inside = seen.contains(&column);
                *grad = T::narrow(if inside { p.wide() * (grad.wide() - sum) * block.scale } else { 0.0 });
            }
        },
    );
}
