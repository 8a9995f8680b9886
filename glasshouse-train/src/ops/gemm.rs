#![allow(unsafe_code)] // the gemm crate takes raw pointers; every access is checked against the slices before

use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor, bail};
use gemm::Parallelism;

use super::host::Number;

/// `c = alpha a b + beta c`, each `[m, n]` or a batch `[batch, m, n]`; into memory that is there already, which may be
/// a slice of a larger tensor. With `beta` 0, c is not read.
///
/// Of each matrix, rows or columns must be contiguous; of c, rows. `a` and `b` are of one type; c may be f32 where they
/// are bf16.
pub(crate) fn gemm(c: &Tensor, a: &Tensor, b: &Tensor, alpha: f64, beta: f64) -> Result<()> {
    c.inplace_op3(a, b, &Gemm { alpha: alpha as f32, beta: beta as f32 })
}

pub(super) struct Gemm {
    pub(super) alpha: f32,
    pub(super) beta: f32,
}

/// Where the matrices of a batch lie, in values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places {
    pub(super) start: usize,
    pub(super) batch: usize,
    pub(super) batch_stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl Places {
    pub(super) fn of(layout: &Layout) -> Result<Self> {
        let (dims, strides) = (layout.dims(), layout.stride());
        let (batch, batch_stride, rows, columns, row_stride, column_stride) = match (dims, strides) {
            (&[rows, columns], &[row, column]) => (1, 0, rows, columns, row, column),
            (&[batch, rows, columns], &[stride, row, column]) => (batch, stride, rows, columns, row, column),
            _ => bail!("a matrix product of {dims:?}: matrices have two dimensions, batches of them three"),
        };
        Ok(Self { start: layout.start_offset(), batch, batch_stride, rows, columns, row_stride, column_stride })
    }

    /// One matrix of the same sizes, row-major.
    fn dense(&self) -> Self {
        let (rows, columns) = (self.rows, self.columns);
        Self { start: 0, batch: 1, batch_stride: 0, rows, columns, row_stride: columns, column_stride: 1 }
    }

    fn start_of(&self, batch: usize) -> usize {
        self.start + batch * self.batch_stride
    }

    /// One past the furthest value.
    fn end(&self) -> usize {
        match self.batch == 0 || self.rows == 0 || self.columns == 0 {
            true => 0,
            false => {
                self.start_of(self.batch - 1)
                    + (self.rows - 1) * self.row_stride
                    + (self.columns - 1) * self.column_stride
                    + 1
            }
        }
    }
}

/// The three of a product, whose sizes fit each other.
pub(super) fn fitting(c: &Layout, a: &Layout, b: &Layout) -> Result<[Places; 3]> {
    let [c, a, b] = [Places::of(c)?, Places::of(a)?, Places::of(b)?];
    let fits = a.columns == b.rows && c.rows == a.rows && c.columns == b.columns;
    if !fits || a.batch != c.batch || b.batch != c.batch {
        bail!("a matrix product whose sizes do not fit: {c:?} = {a:?} {b:?}");
    }
    Ok([c, a, b])
}

impl InplaceOp3 for Gemm {
    fn name(&self) -> &'static str {
        "gemm"
    }

    fn cpu_fwd(
        &self,
        c: &mut CpuStorage,
        cl: &Layout,
        a: &CpuStorage,
        al: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<()> {
        let [cp, ap, bp] = fitting(cl, al, bl)?;
        match (c, a, b) {
            (CpuStorage::F32(c), CpuStorage::F32(a), CpuStorage::F32(b)) => self.in_f32(c, cp, a, ap, b, bp),
            (CpuStorage::BF16(c), CpuStorage::BF16(a), CpuStorage::BF16(b)) => self.widened(c, cp, a, ap, b, bp),
            (CpuStorage::F32(c), CpuStorage::BF16(a), CpuStorage::BF16(b)) => self.widened(c, cp, a, ap, b, bp),
            _ => bail!("a matrix product takes two f32 or two bf16 matrices"),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        c: &mut candle_core::CudaStorage,
        cl: &Layout,
        a: &candle_core::CudaStorage,
        al: &Layout,
        b: &candle_core::CudaStorage,
        bl: &Layout,
    ) -> Result<()> {
        super::cuda::gemm(self, (c, a, b), fitting(cl, al, bl)?)
    }
}

impl Gemm {
    fn in_f32(&self, c: &mut [f32], cp: Places, a: &[f32], ap: Places, b: &[f32], bp: Places) -> Result<()> {
        if cp.end() > c.len() || ap.end() > a.len() || bp.end() > b.len() {
            bail!("a matrix product leaves its tensors");
        }
        for batch in 0..cp.batch {
            let [c, a, b] = [
                c.as_mut_ptr().wrapping_add(cp.start_of(batch)).cast_const(),
                a.as_ptr().wrapping_add(ap.start_of(batch)),
                b.as_ptr().wrapping_add(bp.start_of(batch)),
            ];
            // SAFETY: the furthest value of each matrix lies within its slice (checked above); c is borrowed mutably,
            // so it overlaps neither a nor b. `gemm`'s alpha is that of c, its beta that of the product; c is read
            // only where the first is not 0.
            unsafe {
                gemm::gemm(
                    cp.rows,
                    cp.columns,
                    ap.columns,
                    c.cast_mut(),
                    cp.column_stride as isize,
                    cp.row_stride as isize,
                    self.beta != 0.0,
                    a,
                    ap.column_stride as isize,
                    ap.row_stride as isize,
                    b,
                    bp.column_stride as isize,
                    bp.row_stride as isize,
                    self.beta,
                    self.alpha,
                    false,
                    false,
                    false,
                    Parallelism::Rayon(0),
                );
            }
        }
        Ok(())
    }

    /// bf16 by way of f32: exact products, sums in f32, rounded once.
    fn widened<C: Number, T: Number>(
        &self,
        c: &mut [C],
        cp: Places,
        a: &[T],
        ap: Places,
        b: &[T],
        bp: Places,
    ) -> Result<()> {
        if cp.end() > c.len() || ap.end() > a.len() || bp.end() > b.len() {
            bail!("a matrix product leaves its tensors");
        }
        let product = Self { alpha: self.alpha, beta: 0.0 };
        let (ad, bd, cd) = (Places::dense(&ap), Places::dense(&bp), Places::dense(&cp));
        for batch in 0..cp.batch {
            let mut sums = vec![0f32; cp.rows * cp.columns];
            product.in_f32(&mut sums, cd, &widen(a, &ap, batch), ad, &widen(b, &bp, batch), bd)?;
            for (row, sums) in sums.chunks(cp.columns.max(1)).enumerate() {
                let start = cp.start_of(batch) + row * cp.row_stride;
                for (column, sum) in sums.iter().enumerate() {
                    let place = &mut c[start + column * cp.column_stride];
                    let kept = if self.beta == 0.0 { 0.0 } else { self.beta * place.wide() };
                    *place = C::narrow(sum + kept);
                }
            }
        }
        Ok(())
    }
}

/// One matrix of a batch, row-major in f32.
fn widen<T: Number>(values: &[T], places: &Places, batch: usize) -> Vec<f32> {
    let start = places.start_of(batch);
    let row = |row: usize| {
        (0..places.columns).map(move |column| start + row * places.row_stride + column * places.column_stride)
    };
    (0..places.rows).flat_map(row).map(|place| values[place].wide()).collect()
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use proptest::prelude::*;

    use super::*;

    fn normal(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1f32, shape, &Device::Cpu).unwrap()
    }

    fn apart(a: &Tensor, b: &Tensor) -> f32 {
        let (a, b) = (a.to_dtype(DType::F32).unwrap(), b.to_dtype(DType::F32).unwrap());
        (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn products_into_slices_are_candles(
            batch in 1usize..3, m in 1usize..9, n in 1usize..9, k in 1usize..9, ta: bool, tb: bool, half: bool, add: bool,
        ) {
            let dtype = if half { DType::BF16 } else { DType::F32 };
            let a = normal(&if ta { [batch, k, m] } else { [batch, m, k] }).to_dtype(dtype).unwrap();
            let b = normal(&if tb { [batch, n, k] } else { [batch, k, n] }).to_dtype(dtype).unwrap();
            let a = if ta { a.transpose(1, 2).unwrap() } else { a };
            let b = if tb { b.transpose(1, 2).unwrap() } else { b };
            let wide = normal(&[batch, m + 2, n + 3]).to_dtype(dtype).unwrap();
            let before = wide.copy().unwrap();
            let c = wide.narrow(1, 1, m).unwrap().narrow(2, 2, n).unwrap();
            let beta = if add { 0.5 } else { 0.0 };
            let f32 = |t: &Tensor| t.to_dtype(DType::F32).unwrap().contiguous().unwrap();
            let expected = (f32(&a).matmul(&f32(&b)).unwrap() * 2.0).unwrap();
            let expected = (expected + (f32(&c) * beta).unwrap()).unwrap();
            gemm(&c, &a, &b, 2.0, beta).unwrap();
            let tolerance = if half { 0.15 } else { 1e-4 };
            prop_assert!(apart(&c, &expected) < tolerance);
            // Nothing beside the slice was written.
            let (edge, edge_before) = (wide.narrow(2, 0, 2).unwrap(), before.narrow(2, 0, 2).unwrap());
            prop_assert_eq!(apart(&edge, &edge_before), 0.0);
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert!(gemm(&normal(&[2, 2]), &normal(&[2, 3]), &normal(&[2, 2]), 1.0, 0.0).is_err());
        assert!(gemm(&normal(&[2]), &normal(&[2, 3]), &normal(&[3, 2]), 1.0, 0.0).is_err());
        assert!(gemm(&normal(&[3, 2, 2]), &normal(&[2, 2, 3]), &normal(&[2, 3, 2]), 1.0, 0.0).is_err());
    }
}
