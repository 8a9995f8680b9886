//! The host's end of a copy to or from the device: pages of our own that the device reads itself, so that no plaintext goes
//! through the driver's staging buffers, which nobody wipes.
#![allow(unsafe_code)] // page-locked memory is the driver's

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, result};
use glasshouse_core::traits::{WipeTarget, WorkloadError, ZeroizeError};
use zeroize::Zeroize as _;

/// Page-locked f32 values, wiped when dropped and before they are returned to the driver.
pub struct PinnedBuffer {
    values: NonNull<f32>,
    length: usize,
    context: Arc<CudaContext>,
}

// SAFETY: it owns its memory alone, as a `Box<[f32]>` does; the driver's calls may come from any thread.
unsafe impl Send for PinnedBuffer {}

impl PinnedBuffer {
    /// Zeros.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when the driver has no such memory.
    pub fn new(context: &Arc<CudaContext>, length: usize) -> Result<Self, WorkloadError> {
        let failed = |why: String| WorkloadError::Device { what: "allocating page-locked memory".to_owned(), why };
        context.bind_to_thread().map_err(|error| failed(error.to_string()))?;
        // SAFETY: the context is current; Drop frees it.
        let values = unsafe { result::malloc_host(length.max(1) * size_of::<f32>(), 0) };
        let values = values.map_err(|error| failed(error.to_string()))?;
        let values = NonNull::new(values.cast::<f32>()).ok_or_else(|| failed("it gave nothing".to_owned()))?;
        // SAFETY: just allocated, for this many values.
        unsafe { values.as_ptr().write_bytes(0, length) };
        Ok(Self { values, length, context: Arc::clone(context) })
    }

    /// Copies values to the device through this buffer, piece by piece, and wipes it.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when a copy fails, or `values` are more than `place`.
    pub fn upload(
        &mut self,
        stream: &Arc<CudaStream>,
        values: &[f32],
        place: &mut cudarc::driver::CudaViewMut<'_, f32>,
    ) -> Result<(), WorkloadError> {
        let (piece, used) = (self.length.max(1), self.length.min(values.len()));
        let mut start = 0;
        let outcome = values.chunks(piece).try_for_each(|values| {
            let mut to = place.try_slice_mut(start..start + values.len()).ok_or_else(outside)?;
            self.get_mut(..values.len()).ok_or_else(outside)?.copy_from_slice(values);
            let from = self.get(..values.len()).ok_or_else(outside)?;
            told(stream.memcpy_htod(from, &mut to))?;
            told(stream.synchronize())?;
            start += values.len();
            Ok(())
        });
        self.zeroize_first(used);
        outcome
    }

    /// Copies values from the device through this buffer, piece by piece, and wipes it.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when a copy fails, or `values` are more than `place` has.
    pub fn download(
        &mut self,
        stream: &Arc<CudaStream>,
        place: &CudaSlice<f32>,
        mut start: usize,
        values: &mut [f32],
    ) -> Result<(), WorkloadError> {
        let (piece, used) = (self.length.max(1), self.length.min(values.len()));
        let outcome = values.chunks_mut(piece).try_for_each(|values| {
            let from = place.try_slice(start..start + values.len()).ok_or_else(outside)?;
            let to = self.get_mut(..values.len()).ok_or_else(outside)?;
            told(stream.memcpy_dtoh(&from, to))?;
            told(stream.synchronize())?;
            values.copy_from_slice(self.get(..values.len()).ok_or_else(outside)?);
            start += values.len();
            Ok(())
        });
        self.zeroize_first(used);
        outcome
    }

    /// Only what was used, so that reading one loss back costs what one loss costs.
    fn zeroize_first(&mut self, count: usize) {
        if let Some(used) = self.get_mut(..count) {
            used.zeroize();
        }
    }
}

impl Deref for PinnedBuffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `length` values, initialized by `new`; `&self` keeps writers out, and copies end before they return.
        unsafe { std::slice::from_raw_parts(self.values.as_ptr(), self.length) }
    }
}

impl DerefMut for PinnedBuffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` is the only way here.
        unsafe { std::slice::from_raw_parts_mut(self.values.as_ptr(), self.length) }
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        self.zeroize_first(self.length);
        let _ = self.context.bind_to_thread();
        // SAFETY: `malloc_host` gave it, and nothing refers to it any more.
        let _ = unsafe { result::free_host(self.values.as_ptr().cast()) };
    }
}

impl WipeTarget for PinnedBuffer {
    fn bytes(&self) -> u64 {
        u64::try_from(size_of_val::<[f32]>(self)).unwrap_or(u64::MAX)
    }
    fn wipe(&mut self) -> Result<(), ZeroizeError> {
        self.zeroize_first(self.length);
        Ok(())
    }
    fn is_wiped(&self) -> Result<bool, ZeroizeError> {
        Ok(self.iter().all(|value| value.to_bits() == 0))
    }
}

fn told<T>(result: Result<T, cudarc::driver::DriverError>) -> Result<T, WorkloadError> {
    result.map_err(|error| WorkloadError::Device { what: "a copy".to_owned(), why: error.to_string() })
}

fn outside() -> WorkloadError {
    WorkloadError::Device { what: "a copy".to_owned(), why: "it leaves its place; report this as a bug".to_owned() }
}
