use candle_core::{CpuStorage, DType, InplaceOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use super::gemm::gemm;
use super::host::{Number, grain, rows_of, span, span_mut, with_numbers, with_words};
use super::memory::unwritten;
use super::record::record;

/// The negative log likelihood of `targets [tokens]` (u32) under `softmax(hidden weight^T)`, summed and divided by
/// `divisor`: `hidden [tokens, n]`, `weight [words, n]`, frozen; gives an f32 scalar. A target outside the words is an
/// error, on CUDA a loss of NaN.
///
/// Works on some tokens at a time, so that the logits of all are never there, and computes the gradient of hidden on the
/// way, while those of some are.
///
/// # Errors
/// What candle says of shapes, types or the device.
pub fn linear_cross_entropy(hidden: &Tensor, weight: &Tensor, targets: &Tensor, divisor: f64) -> Result<Tensor> {
    let (loss, gradient) = cross_entropy_forward(&hidden.detach(), &weight.detach(), targets, divisor, true)?;
    record("linear-cross-entropy", [hidden], &loss, move |grad| match &gradient {
        Some(gradient) => Ok([gradient.broadcast_mul(&grad.to_dtype(gradient.dtype())?)?]),
        None => bail!("linear-cross-entropy: no gradient was kept"),
    })
}

/// The loss, and if asked the gradient of `hidden`.
pub(crate) fn cross_entropy_forward(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    divisor: f64,
    backward: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    // Never all of them: a short batch goes in two halves.
    let half = hidden.dim(0)?.div_ceil(2);
    let step = (LOGITS / weight.dim(0)?.max(1)).min(half).max(16);
    in_steps(hidden, weight, targets, divisor, backward, step)
}

fn in_steps(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    divisor: f64,
    backward: bool,
    step: usize,
) -> Result<(Tensor, Option<Tensor>)> {
    let (tokens, words) = (hidden.dim(0)?, weight.dim(0)?);
    if targets.dims() != [tokens] || targets.dtype() != DType::U32 {
        bail!("linear-cross-entropy: targets {:?} {:?} for {tokens} tokens", targets.dims(), targets.dtype());
    }
    let stats = unwritten((tokens, 2), DType::F32, hidden.device())?;
    let gradient = match backward {
        true => Some(unwritten(hidden.shape(), hidden.dtype(), hidden.device())?),
        false => None,
    };
    let chunk = unwritten((step.min(tokens), words), hidden.dtype(), hidden.device())?;
    for start in (0..tokens).step_by(step) {
        let count = step.min(tokens - start);
        let of = |x: &Tensor| x.narrow(0, start, count);
        let logits = chunk.narrow(0, 0, count)?;
        gemm(&logits, &of(hidden)?, &weight.t()?, 1.0, 0.0)?;
        let (stats, targets) = (of(&stats)?, of(targets)?);
        stats.inplace_op2(&logits, &Stats { targets: &targets })?;
        if let Some(gradient) = &gradient {
            logits.inplace_op2(&stats, &Gradient { targets: &targets, factor: (1.0 / divisor) as f32 })?;
            gemm(&of(gradient)?, &logits, weight, 1.0, 0.0)?;
        }
    }
    let loss = (stats.narrow(1, 0, 1)?.sum_all()? / divisor)?;
    Ok((loss, gradient))
}

/// Logits that are there at a time, at most: 512 MiB of bf16.
const LOGITS: usize = 1 << 28;

/// Loss and log of the sum of powers of each row of logits.
struct Stats<'a> {
    targets: &'a Tensor,
}

/// Makes of logits their gradient.
struct Gradient<'a> {
    targets: &'a Tensor,
    factor: f32,
}

impl InplaceOp2 for Stats<'_> {
    fn name(&self) -> &'static str {
        "cross-entropy"
    }

    fn cpu_fwd(&self, stats: &mut CpuStorage, sl: &Layout, logits: &CpuStorage, ll: &Layout) -> Result<()> {
        let CpuStorage::F32(stats) = stats else { bail!("cross-entropy: statistics are f32") };
        let (_, words) = rows_of(ll);
        with_words(self.targets, |targets| {
            with_numbers!("cross-entropy", logits, |logits| {
                measure(span_mut(stats, sl)?, span(logits, ll)?, targets, words)
            })
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        stats: &mut candle_core::CudaStorage,
        sl: &Layout,
        logits: &candle_core::CudaStorage,
        ll: &Layout,
    ) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        let (rows, words) = rows_of(ll);
        let kernel = Kernel::of("cross_entropy", logits)?;
        let places = [Arg::from(stats, sl)?, Arg::from(logits, ll)?, Arg::of(self.targets)?];
        let [stats, logits, targets] = places;
        kernel.wide_blocks(rows, &[stats, logits, targets, Arg::size(words)?])
    }
}

impl InplaceOp2 for Gradient<'_> {
    fn name(&self) -> &'static str {
        "cross-entropy-backward"
    }

    fn cpu_fwd(&self, logits: &mut CpuStorage, ll: &Layout, stats: &CpuStorage, sl: &Layout) -> Result<()> {
        let CpuStorage::F32(stats) = stats else { bail!("cross-entropy: statistics are f32") };
        let (_, words) = rows_of(ll);
        with_words(self.targets, |targets| {
            with_numbers!("cross-entropy", logits, |logits| {
                differentiate(span_mut(logits, ll)?, span(stats, sl)?, targets, words, self.factor);
            });
            Ok(())
        })
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        logits: &mut candle_core::CudaStorage,
        ll: &Layout,
        stats: &candle_core::CudaStorage,
        sl: &Layout,
    ) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        let (rows, words) = rows_of(ll);
        let kernel = Kernel::of("cross_entropy_backward", logits)?;
        let places = [Arg::from(logits, ll)?, Arg::from(stats, sl)?, Arg::of(self.targets)?];
        let [logits, stats, targets] = places;
        kernel.wide_blocks(rows, &[logits, stats, targets, Arg::size(words)?, Arg::Float(self.factor)])
    }
}

fn measure<T: Number>(stats: &mut [f32], logits: &[T], targets: &[u32], words: usize) -> Result<()> {
    if let Some(target) = targets.iter().find(|target| **target as usize >= words) {
        bail!("cross-entropy: target {target} is outside {words} words");
    }
    stats.par_chunks_mut(2).zip(logits.par_chunks(words.max(1))).zip(targets).with_min_len(grain(words)).for_each(
        |((stats, logits), target)| {
            let largest = logits.iter().map(|logit| logit.wide()).fold(f32::NEG_INFINITY, f32::max);
            // In f64: added one after another, many small values would be lost in f32, a ten-thousandth of the loss.
            let sum: f64 = logits.iter().map(|logit| f64::from((logit.wide() - largest).exp())).sum();
            let log = largest + sum.ln() as f32;
            stats[0] = log - logits[*target as usize].wide();
            stats[1] = log;
        },
    );
    Ok(())
}

fn differentiate<T: Number>(logits: &mut [T], stats: &[f32], targets: &[u32], words: usize, factor: f32) {
    logits.par_chunks_mut(words.max(1)).zip(stats.par_chunks(2)).zip(targets).with_min_len(grain(words)).for_each(
        |((logits, stats), target)| {
            for (word, logit) in logits.iter_mut().enumerate() {
                let hit = if word == *target as usize { 1.0 } else { 0.0 };
                *logit = T::narrow(((logit.wide() - stats[1]).exp() - hit) * factor);
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn steps_of_any_size_give_the_same() {
        let normal = |shape: (usize, usize)| Tensor::randn(0f32, 1f32, shape, &Device::Cpu).unwrap();
        let (hidden, weight) = (normal((10, 6)), normal((13, 6)));
        let targets = Tensor::arange(0u32, 10, &Device::Cpu).unwrap();
        let run = |step| {
            let (loss, gradient) = in_steps(&hidden, &weight, &targets, 7.0, true, step).unwrap();
            (loss.to_scalar::<f32>().unwrap(), gradient.unwrap())
        };
        let whole = run(64);
        for step in [1, 3, 10] {
            let (loss, gradient) = run(step);
            assert!((loss - whole.0).abs() < 1e-5);
            let apart = (gradient - &whole.1).unwrap().abs().unwrap().max_all().unwrap();
            assert!(apart.to_scalar::<f32>().unwrap() < 1e-6);
        }
        let (loss, gradient) = in_steps(&hidden, &weight, &targets, 7.0, false, 4).unwrap();
        assert!((loss.to_scalar::<f32>().unwrap() - whole.0).abs() < 1e-5);
        assert!(gradient.is_none());
    }
}
