use candle_core::{CpuStorage, InplaceOp2, Layout, Result, Tensor};
use rayon::prelude::*;

use super::host::{Number, grain, span, span_mut, with_pair};
use super::lora::Dropout;
use super::random::hash;

/// Writes `x`, dropped, to `y`, or adds it.
pub(super) fn dropout(y: &Tensor, x: &Tensor, rate: Dropout, add: bool) -> Result<()> {
    y.inplace_op2(x, &Drop { rate, add })
}

struct Drop {
    rate: Dropout,
    add: bool,
}

impl Drop {
    /// Hashes below this are dropped.
    fn threshold(&self) -> u32 {
        (self.rate.p * 2f64.powi(32)) as u32
    }

    fn scale(&self) -> f32 {
        (1.0 / (1.0 - self.rate.p)) as f32
    }
}

impl InplaceOp2 for Drop {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, y: &mut CpuStorage, yl: &Layout, x: &CpuStorage, xl: &Layout) -> Result<()> {
        with_pair!("dropout", y, x, |y, x| apply(span_mut(y, yl)?, span(x, xl)?, self));
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
        let count = yl.shape().elem_count();
        let kernel = Kernel::of("dropout", y)?;
        let (seed, threshold) = (Arg::Long(self.rate.seed), Arg::Word(self.threshold()));
        let add = Arg::Word(u32::from(self.add));
        let places = [Arg::from(y, yl)?, Arg::from(x, xl)?];
        let [y, x] = places;
        kernel.over(count, &[y, x, Arg::size(count)?, seed, threshold, Arg::Float(self.scale()), add])
    }
}

fn apply<T: Number>(y: &mut [T], x: &[T], drop: &Drop) {
    let (threshold, scale, seed, add) = (drop.threshold(), drop.scale(), drop.rate.seed, drop.add);
    y.par_iter_mut().zip(x).enumerate().with_min_len(grain(1)).for_each(|(index, (y, x))| {
        let kept = if hash(seed, index as u64) < threshold { 0.0 } else { x.wide() * scale };
        *y = T::narrow(if add { y.wide() + kept } else { kept });
    });
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    #[test]
    fn it_drops_the_share_that_it_should_and_keeps_the_mean() {
        let x = Tensor::ones(100_000, DType::F32, &Device::Cpu).unwrap();
        let y = x.zeros_like().unwrap();
        let rate = Dropout { p: 0.3, seed: 5 };
        dropout(&y, &x, rate, false).unwrap();
        let values = y.to_vec1::<f32>().unwrap();
        let dropped = values.iter().filter(|value| **value == 0.0).count() as f64 / values.len() as f64;
        assert!((dropped - 0.3).abs() < 0.01, "{dropped}");
        let mean = y.mean_all().unwrap().to_scalar::<f32>().unwrap();
        assert!((mean - 1.0).abs() < 0.01, "{mean}");
        // The same again by the same seed, added; other places by another.
        dropout(&y, &x, rate, true).unwrap();
        assert_eq!(y.to_vec1::<f32>().unwrap(), values.iter().map(|value| value * 2.0).collect::<Vec<_>>());
        dropout(&y, &x, Dropout { p: 0.3, seed: 6 }, false).unwrap();
        assert_ne!(y.to_vec1::<f32>().unwrap(), values);
    }
}
