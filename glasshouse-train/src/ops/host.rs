//! What the CPU code of the operations shares.

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, bail};
use half::bf16;

/// The two types that the operations work in; sums are in f32.
pub(super) trait Number: Copy + Send + Sync {
    fn wide(self) -> f32;
    fn narrow(value: f32) -> Self;
}

impl Number for f32 {
    fn wide(self) -> f32 {
        self
    }
    fn narrow(value: f32) -> Self {
        value
    }
}

impl Number for bf16 {
    fn wide(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Runs a body for whichever type a storage holds.
macro_rules! with_numbers {
    ($name:expr, $dst:expr, |$d:ident| $body:expr) => {
        match $dst {
            candle_core::CpuStorage::F32($d) => $body,
            candle_core::CpuStorage::BF16($d) => $body,
            other => candle_core::bail!("{}: f32 and bf16 only, not {:?}", $name, $crate::ops::host::dtype(other)),
        }
    };
}

/// The same for two storages of one type.
macro_rules! with_pair {
    ($name:expr, $dst:expr, $src:expr, |$d:ident, $s:ident| $body:expr) => {
        match ($dst, $src) {
            (candle_core::CpuStorage::F32($d), candle_core::CpuStorage::F32($s)) => $body,
            (candle_core::CpuStorage::BF16($d), candle_core::CpuStorage::BF16($s)) => $body,
            _ => candle_core::bail!("{}: both must be f32, or both bf16", $name),
        }
    };
}

pub(super) use {with_numbers, with_pair};

pub(super) fn dtype(storage: &CpuStorage) -> DType {
    candle_core::backend::BackendStorage::dtype(storage)
}

/// The values of a contiguous layout.
pub(super) fn span<'a, T>(values: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) if end <= values.len() => Ok(&values[start..end]),
        _ => bail!("an operation needs a contiguous tensor of shape {:?}", layout.shape()),
    }
}

/// The same to write.
pub(super) fn span_mut<'a, T>(values: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    match layout.contiguous_offsets() {
        Some((start, end)) if end <= values.len() => Ok(&mut values[start..end]),
        _ => bail!("an operation needs a contiguous tensor of shape {:?}", layout.shape()),
    }
}

/// Reads a contiguous u32 tensor on the CPU.
pub(super) fn with_words<R>(tensor: &Tensor, read: impl FnOnce(&[u32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::U32(values)) => read(span(values, layout)?),
        _ => bail!("expected u32 on the CPU, got {:?} on {:?}", tensor.dtype(), tensor.device().location()),
    }
}

/// Reads a contiguous f32 tensor on the CPU.
pub(super) fn with_floats<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> Result<R>) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => read(span(values, layout)?),
        _ => bail!("expected f32 on the CPU, got {:?} on {:?}", tensor.dtype(), tensor.device().location()),
    }
}

/// Rows of `n` values that are worth a thread.
pub(super) fn grain(n: usize) -> usize {
    (1 << 14) / n.max(1) + 1
}

/// The last dimension, and how many rows of it there are.
pub(super) fn rows_of(layout: &Layout) -> (usize, usize) {
    let last = layout.dims().last().copied().unwrap_or(1);
    (layout.shape().elem_count() / last.max(1), last)
}
