//! The host's end of a copy to or from the device: pages of our own that the device reads itself, so that no plaintext goes
//! through the driver's staging buffers, which nobody wipes.
#![allow(unsafe_code)] // page-locked memory is the driver's

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DeviceRepr, result};
use glasshouse_core::traits::WorkloadError;
use zeroize::Zeroize as _;

/// Bytes that cross at a time.
pub(crate) const STAGING: usize = 4 << 20;

/// Page-locked memory, wiped after each copy, when dropped, and so before it is returned to the driver.
pub struct PinnedBuffer {
    words: NonNull<u64>,
    /// In words of eight bytes.
    length: usize,
    context: Arc<CudaContext>,
}

/// Numbers that cross: whole ones and floating point of four or eight bytes, of which every pattern of bits is one.
pub trait Crossing: DeviceRepr + Copy + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

impl Crossing for u32 {}
impl Crossing for f32 {}
impl Crossing for f64 {}

// SAFETY: it owns its memory alone, as a `Box<[u64]>` does; the driver's calls may come from any thread.
unsafe impl Send for PinnedBuffer {}

impl PinnedBuffer {
    /// Zeros, this many bytes rounded up to eight.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when the driver has no such memory.
    pub fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, WorkloadError> {
        let failed = |why: String| WorkloadError::Device { what: "allocating page-locked memory".to_owned(), why };
        let length = bytes.div_ceil(size_of::<u64>()).max(1);
        context.bind_to_thread().map_err(|error| failed(error.to_string()))?;
        // SAFETY: the context is current; Drop frees it.
        let words = unsafe { result::malloc_host(length * size_of::<u64>(), 0) };
        let words = words.map_err(|error| failed(error.to_string()))?;
        let words = NonNull::new(words.cast::<u64>()).ok_or_else(|| failed("it gave nothing".to_owned()))?;
        // SAFETY: just allocated, for this many words; page-locked memory begins with a page.
        unsafe { words.as_ptr().write_bytes(0, length) };
        Ok(Self { words, length, context: Arc::clone(context) })
    }

    /// Whether it was allocated in this context.
    pub fn is_of(&self, context: &Arc<CudaContext>) -> bool {
        self.context == *context
    }

    /// Copies values to the device through this buffer, piece by piece, and wipes it.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when a copy fails, or `values` are more than `place`.
    pub fn upload<T: Crossing>(
        &mut self,
        stream: &Arc<CudaStream>,
        values: &[T],
        place: &mut cudarc::driver::CudaViewMut<'_, T>,
    ) -> Result<(), WorkloadError> {
        let (piece, mut start) = (self.numbers::<T>().len(), 0);
        let outcome = values.chunks(piece).try_for_each(|values| {
            let mut to = place.try_slice_mut(start..start + values.len()).ok_or_else(outside)?;
            let from = self.numbers::<T>().get_mut(..values.len()).ok_or_else(outside)?;
            from.copy_from_slice(values);
            told(stream.memcpy_htod(&*from, &mut to))?;
            told(stream.synchronize())?;
            start += values.len();
            Ok(())
        });
        self.end_copy(stream, size_of_val(values), outcome)
    }

    /// Copies values from the device through this buffer, piece by piece, and wipes it.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when a copy fails, or `values` are more than `place` has.
    pub fn download<T: Crossing>(
        &mut self,
        stream: &Arc<CudaStream>,
        place: &CudaSlice<T>,
        mut start: usize,
        values: &mut [T],
    ) -> Result<(), WorkloadError> {
        let (piece, bytes) = (self.numbers::<T>().len(), size_of_val(values));
        let outcome = values.chunks_mut(piece).try_for_each(|values| {
            let from = place.try_slice(start..start + values.len()).ok_or_else(outside)?;
            let to = self.numbers::<T>().get_mut(..values.len()).ok_or_else(outside)?;
            told(stream.memcpy_dtoh(&from, &mut *to))?;
            told(stream.synchronize())?;
            values.copy_from_slice(to);
            start += values.len();
            Ok(())
        });
        self.end_copy(stream, bytes, outcome)
    }

    /// All of it as numbers of one kind.
    fn numbers<T: Crossing>(&mut self) -> &mut [T] {
        let count = self.length * (size_of::<u64>() / size_of::<T>());
        // SAFETY: `Crossing` is sealed: numbers of four or eight bytes, so that these fill the words exactly and no
        // stricter alignment is needed; every pattern is one; `&mut self` is the only way here, and copies end before
        // the two that make them return.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_ptr().cast::<T>(), count) }
    }

    /// Wipes what a copy used, once nothing writes there any more. An error may be one that a holder of the context's
    /// recorded before, which is given instead of waiting: then it is waited again.
    fn end_copy(
        &mut self,
        stream: &Arc<CudaStream>,
        bytes: usize,
        outcome: Result<(), WorkloadError>,
    ) -> Result<(), WorkloadError> {
        if outcome.is_err() {
            // The first takes what was recorded since.
            let _ = stream.synchronize();
            let _ = stream.synchronize();
        }
        self.zeroize_first(bytes);
        outcome
    }

    /// Only what was used, so that reading one loss back costs what one loss costs.
    fn zeroize_first(&mut self, bytes: usize) {
        let used = bytes.div_ceil(size_of::<u64>()).min(self.length);
        if let Some(used) = self.get_mut(..used) {
            used.zeroize();
        }
    }
}

impl Deref for PinnedBuffer {
    type Target = [u64];
    fn deref(&self) -> &[u64] {
        // SAFETY: `length` words, initialized by `new`; `&self` keeps writers out, and copies end before they return.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.length) }
    }
}

impl DerefMut for PinnedBuffer {
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `deref`, and `&mut self` is the only way here.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_ptr(), self.length) }
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        (**self).zeroize();
        let _ = self.context.bind_to_thread();
        // SAFETY: `malloc_host` gave it, and nothing refers to it any more.
        let _ = unsafe { result::free_host(self.words.as_ptr().cast()) };
    }
}

fn told<T>(result: Result<T, cudarc::driver::DriverError>) -> Result<T, WorkloadError> {
    result.map_err(|error| WorkloadError::Device { what: "a copy".to_owned(), why: error.to_string() })
}

fn outside() -> WorkloadError {
    WorkloadError::Device { what: "a copy".to_owned(), why: "it leaves its place; report this as a bug".to_owned() }
}
