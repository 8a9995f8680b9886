use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::host::{Number, grain, span_mut, with_numbers};
use super::memory::unwritten;

/// Uniform values in `[-bound, bound)`, each by a hash of the seed and its place: the same on every device, and made
/// there.
pub(crate) fn uniform(shape: impl Into<Shape>, bound: f64, seed: u64, dtype: DType, device: &Device) -> Result<Tensor> {
    let values = unwritten(shape, dtype, device)?;
    values.inplace_op1(&Uniform { bound: bound as f32, seed })?;
    Ok(values)
}

/// The upper half of SplitMix64 (Steele, Lea and Flood 2014) over a key and an index.
pub(super) fn hash(key: u64, index: u64) -> u32 {
    let mut z = key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 32) as u32
}

struct Uniform {
    bound: f32,
    seed: u64,
}

impl InplaceOp1 for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn cpu_fwd(&self, values: &mut CpuStorage, layout: &Layout) -> Result<()> {
        with_numbers!("uniform", values, |values| fill(span_mut(values, layout)?, self));
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, values: &mut candle_core::CudaStorage, layout: &Layout) -> Result<()> {
        use super::cuda::{Arg, Kernel};
        let count = layout.shape().elem_count();
        let kernel = Kernel::of("uniform", values)?;
        let arguments = [Arg::from(values, layout)?, Arg::size(count)?, Arg::Long(self.seed), Arg::Float(self.bound)];
        kernel.over(count, &arguments)
    }
}

fn fill<T: Number>(values: &mut [T], uniform: &Uniform) {
    values.par_iter_mut().enumerate().with_min_len(grain(1)).for_each(|(index, value)| {
        // 24 bits are what f32 holds; all steps are exact but the last, on every device.
        let unit = (hash(uniform.seed, index as u64) >> 8) as f32 * (1.0 / 16_777_216.0);
        *value = T::narrow((2.0 * unit - 1.0) * uniform.bound);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fill_their_range_evenly() {
        let values = uniform(50_000, 0.5, 9, DType::F32, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        assert!(values.iter().all(|value| (-0.5..0.5).contains(value)));
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.005 && (square - 1.0 / 12.0).abs() < 0.002, "{mean} {square}");
        let other = uniform(50_000, 0.5, 10, DType::F32, &Device::Cpu).unwrap().to_vec1::<f32>().unwrap();
        assert_ne!(values, other);
    }
}
