//! Safe matrix products over slices: the same `gemm` kernels that candle's CPU backend calls, into memory that is there
//! already.
#![allow(unsafe_code)] // gemm takes raw pointers; the lengths are checked here, once for all callers

use gemm::Parallelism;

/// A row-major matrix, possibly seen transposed.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `values` as `[rows, columns]`.
    ///
    /// # Panics
    /// When there are not exactly `rows * columns` values; a mistake of the caller, never of the input.
    pub(crate) fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self { values, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// Its transpose, without moving anything.
    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// What becomes of the values that are there already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Into {
    /// They are replaced.
    Overwrite,
    /// The product is added to them.
    Add,
}

/// `out = a b` or `out += a b`, on the calling thread only, so that the bits depend on nothing but the arguments.
///
/// # Panics
/// When the sizes do not fit each other; a mistake of the caller, never of the input.
pub(crate) fn multiply(out: &mut [f32], into: Into, a: Matrix<'_>, b: Matrix<'_>) {
    assert_eq!(a.columns, b.rows);
    assert_eq!(out.len(), a.rows * b.columns);
    // SAFETY: `out` is exactly a.rows * b.columns values, written row-major; `a` and `b` are exactly rows * columns
    // values each (`Matrix::new`), and their strides are those of that row-major block or of its transpose, so no
    // index leaves them. `out` is borrowed mutably and so overlaps neither.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            into == Into::Add,
            a.values.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.values.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(a: Matrix<'_>, b: Matrix<'_>, row: usize, column: usize) -> f64 {
        let at = |m: Matrix<'_>, r: usize, c: usize| f64::from(m.values[r * m.row_stride + c * m.column_stride]);
        (0..a.columns).map(|i| at(a, row, i) * at(b, i, column)).sum()
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_definition(
            m in 1usize..20, n in 1usize..20, k in 1usize..20, ta: bool, tb: bool, add: bool, seed: u64,
        ) {
            let stream = crate::rng::Stream::new(seed, 0);
            let fill = |from: u64, count: usize| -> Vec<f32> {
                (0..count as u64).map(|i| stream.normal(from + i) as f32).collect()
            };
            let (a, b) = (fill(0, m * k), fill(1000, k * n));
            let a = if ta { Matrix::new(&a, k, m).transposed() } else { Matrix::new(&a, m, k) };
            let b = if tb { Matrix::new(&b, n, k).transposed() } else { Matrix::new(&b, k, n) };
            let before = fill(2000, m * n);
            let mut out = before.clone();
            multiply(&mut out, if add { Into::Add } else { Into::Overwrite }, a, b);
            for row in 0..m {
                for column in 0..n {
                    let at = row * n + column;
                    let expected = naive(a, b, row, column) + if add { f64::from(before[at]) } else { 0.0 };
                    prop_assert!((f64::from(out[at]) - expected).abs() < 1e-4);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "assertion")]
    fn sizes_that_do_not_fit_are_refused_before_any_access() {
        multiply(&mut [0.0; 4], Into::Overwrite, Matrix::new(&[0.0; 4], 2, 2), Matrix::new(&[0.0; 6], 3, 2));
    }
}
