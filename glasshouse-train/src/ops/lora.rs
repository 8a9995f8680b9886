use candle_core::{DType, Result, Tensor, bail};

use super::dropout::dropout;
use super::gemm::gemm;
use super::linear::Frozen;
use super::memory::unwritten;
use super::record::record;
use crate::rng::Stream;

/// What is dropped of an adapter's inputs: each value with probability `p`, by a hash of `seed` and its place, so that
/// backward drops the same without having kept a mask; the others are divided by `1 - p`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// Probability, at least 0 and below 1.
    pub p: f64,
    /// Of this layer in this pass.
    pub seed: u64,
}

/// `x W^T + bias + scale dropout(x) A^T B^T`: frozen `weight [out, in]` and `bias [out]`, trained `a [r, in]` and
/// `b [out, r]` of any float type; `x [tokens, in]`, giving `[tokens, out]` (Hu et al. 2021, arXiv:2106.09685).
///
/// # Errors
/// What candle says of shapes, types or the device.
pub fn lora_linear(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    a: &Tensor,
    b: &Tensor,
    scale: f64,
    dropout: Option<Dropout>,
) -> Result<Tensor> {
    let frozen = Frozen { weight: weight.detach(), bias: bias.map(Tensor::detach) };
    let (input, types) = (x.detach(), [a.dtype(), b.dtype()]);
    let one = Adapter { a: a.detach(), b: b.detach(), column: 0 };
    let adapters = Adapters::new(&[one], scale, dropout, x.dtype())?;
    let result = frozen.forward(&input)?;
    adapters.forward(&input, &result)?;
    record("lora-linear", [x, a, b], &result, move |grad| {
        let dx = frozen.backward(grad)?;
        let mut gradients = adapters.backward(&input, grad, Some(&dx))?.into_iter();
        match gradients.next() {
            Some(AdapterGradient { a, b }) => Ok([dx, a.to_dtype(types[0])?, b.to_dtype(types[1])?]),
            None => bail!("lora-linear: there is no adapter"),
        }
    })
}

/// One adapter over some columns of a linear layer's output.
pub(crate) struct Adapter {
    /// `[r, in]`.
    pub(crate) a: Tensor,
    /// `[out, r]`.
    pub(crate) b: Tensor,
    /// First of its columns.
    pub(crate) column: usize,
}

/// Gradients of one adapter, f32.
pub(crate) struct AdapterGradient {
    pub(crate) a: Tensor,
    pub(crate) b: Tensor,
}

/// The adapters of one input, in the type of the pass.
pub(crate) struct Adapters(Vec<Stage>);

/// Adapters that read the same values: their A in one matrix, so that those are read once.
struct Stage {
    /// `[sum of r, in]`.
    a: Tensor,
    parts: Vec<Part>,
    scale: f64,
    dropout: Option<Dropout>,
}

struct Part {
    b: Tensor,
    column: usize,
    /// First row of its A among all.
    rank_start: usize,
    rank: usize,
}

impl Adapters {
    /// Takes adapters of one input, at least one. What is dropped is another choice for each of them, as in PEFT.
    pub(crate) fn new(adapters: &[Adapter], scale: f64, dropout: Option<Dropout>, dtype: DType) -> Result<Self> {
        let stages = match dropout.filter(|dropout| dropout.p > 0.0) {
            None => Stage::new(adapters, scale, None, dtype).map(|all| vec![all]),
            Some(rate) => {
                let own = |number: usize| Dropout { seed: own_seed(rate.seed, number as u64), ..rate };
                let stage = |(number, one)| Stage::new(std::slice::from_ref(one), scale, Some(own(number)), dtype);
                adapters.iter().enumerate().map(stage).collect()
            }
        };
        stages.map(Self)
    }

    /// Adds every adapter's update to its columns of `y [tokens, out]`.
    pub(crate) fn forward(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        self.0.iter().try_for_each(|stage| stage.forward(x, y))
    }

    /// Gradients of the adapters, from x and the gradient of y; adds to `dx`, if there is one, what x's is through them.
    pub(crate) fn backward(&self, x: &Tensor, dy: &Tensor, dx: Option<&Tensor>) -> Result<Vec<AdapterGradient>> {
        let mut gradients = Vec::new();
        for stage in &self.0 {
            gradients.extend(stage.backward(x, dy, dx)?);
        }
        Ok(gradients)
    }
}

/// The first adapter's seed is the layer's. What is hashed with a place is a seed plus a multiple of that place, so seeds a
/// multiple of the same number apart would make one mask the other's, shifted: the others go through the mix.
fn own_seed(seed: u64, number: u64) -> u64 {
    match number {
        0 => seed,
        other => Stream::new(seed, other).word(0),
    }
}

impl Stage {
    fn new(adapters: &[Adapter], scale: f64, dropout: Option<Dropout>, dtype: DType) -> Result<Self> {
        let mut parts = Vec::with_capacity(adapters.len());
        let mut rank_start = 0;
        for adapter in adapters {
            let rank = adapter.a.dim(0)?;
            parts.push(Part { b: adapter.b.to_dtype(dtype)?, column: adapter.column, rank_start, rank });
            rank_start += rank;
        }
        let all: Vec<&Tensor> = adapters.iter().map(|adapter| &adapter.a).collect();
        let a = match all.as_slice() {
            [one] => one.to_dtype(dtype)?,
            _ => Tensor::cat(&all, 0)?.to_dtype(dtype)?,
        };
        Ok(Self { a, parts, scale, dropout })
    }

    fn forward(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        let down = self.down(&self.dropped(x)?)?;
        for part in &self.parts {
            let columns = y.narrow(1, part.column, part.b.dim(0)?)?;
            gemm(&columns, &part.of(&down)?, &part.b.t()?, self.scale, 1.0)?;
        }
        Ok(())
    }

    fn backward(&self, x: &Tensor, dy: &Tensor, dx: Option<&Tensor>) -> Result<Vec<AdapterGradient>> {
        let dropped = self.dropped(x)?;
        let down = self.down(&dropped)?;
        let ddown = unwritten(down.shape(), down.dtype(), down.device())?;
        let mut of_b = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let columns = dy.narrow(1, part.column, part.b.dim(0)?)?;
            gemm(&part.of(&ddown)?, &columns, &part.b, self.scale, 0.0)?;
            let db = unwritten(part.b.shape(), DType::F32, x.device())?;
            gemm(&db, &columns.t()?, &part.of(&down)?, self.scale, 0.0)?;
            of_b.push(db);
        }
        let da = unwritten(self.a.shape(), DType::F32, x.device())?;
        gemm(&da, &ddown.t()?, &dropped, 1.0, 0.0)?;
        match (dx, self.dropout) {
            (Some(dx), None) => gemm(dx, &ddown, &self.a, 1.0, 1.0)?,
            (Some(dx), Some(rate)) => {
                let through = unwritten(dx.shape(), dx.dtype(), dx.device())?;
                gemm(&through, &ddown, &self.a, 1.0, 0.0)?;
                dropout(dx, &through, rate, true)?;
            }
            (None, _) => {}
        }
        let of_a = self.parts.iter().map(|part| da.narrow(0, part.rank_start, part.rank));
        of_a.zip(of_b).map(|(a, b)| Ok(AdapterGradient { a: a?, b })).collect()
    }

    /// `[tokens, sum of r]`.
    fn down(&self, dropped: &Tensor) -> Result<Tensor> {
        let down = unwritten((dropped.dim(0)?, self.a.dim(0)?), dropped.dtype(), dropped.device())?;
        gemm(&down, dropped, &self.a.t()?, 1.0, 0.0)?;
        Ok(down)
    }

    fn dropped(&self, x: &Tensor) -> Result<Tensor> {
        match self.dropout {
            None => Ok(x.clone()),
            Some(rate) => {
                let kept = unwritten(x.shape(), x.dtype(), x.device())?;
                dropout(&kept, x, rate, false)?;
                Ok(kept)
            }
        }
    }
}

impl Part {
    fn of(&self, down: &Tensor) -> Result<Tensor> {
        down.narrow(1, self.rank_start, self.rank)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn every_adapter_drops_its_own_choice() {
        let ones = |rows: usize, columns: usize| Tensor::ones((rows, columns), DType::F32, &Device::Cpu).unwrap();
        let x = ones(4, 64);
        let adapter = |column| Adapter { a: ones(1, 64), b: ones(1, 1), column };
        let update = |dropout| {
            let y = ones(4, 2).zeros_like().unwrap();
            let adapters = Adapters::new(&[adapter(0), adapter(1)], 1.0, dropout, DType::F32).unwrap();
            adapters.forward(&x, &y).unwrap();
            let gradients = adapters.backward(&x, &ones(4, 2), None).unwrap();
            (y.t().unwrap().to_vec2::<f32>().unwrap(), gradients.into_iter().map(|g| g.a.to_vec2::<f32>().unwrap()))
        };
        let (columns, _) = update(None);
        assert_eq!(columns, [[64.0; 4]; 2]);
        let (columns, mut gradients) = update(Some(Dropout { p: 0.5, seed: 3 }));
        assert!(columns.iter().flatten().all(|sum| (32.0..96.0).contains(sum)), "{columns:?}");
        assert_ne!(columns.first(), columns.last());
        assert_ne!(gradients.next(), gradients.next());
    }

    #[test]
    fn no_mask_is_another_one_shifted() {
        let mask = |number: u64| -> Vec<bool> {
            (0..4096).map(|place| crate::ops::random::hash(own_seed(7, number), place) < u32::MAX / 2).collect()
        };
        let (first, second) = (mask(0), mask(1));
        for shift in 0..64 {
            let same = first.iter().skip(shift).zip(&second).filter(|(a, b)| a == b).count();
            let share = same as f64 / (first.len() - shift) as f64;
            assert!((share - 0.5).abs() < 0.06, "shifted by {shift}, {share} of the places agree");
            let same = second.iter().skip(shift).zip(&first).filter(|(a, b)| a == b).count();
            assert!((same as f64 / (first.len() - shift) as f64 - 0.5).abs() < 0.06, "shifted back by {shift}");
        }
    }
}
