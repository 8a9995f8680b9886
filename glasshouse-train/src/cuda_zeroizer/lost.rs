//! CUDA's part of a last resort: whether this process has lost its context, and letting go of it.
#![allow(unsafe_code)] // the end of the primary context has no safe call

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use cudarc::driver::CudaContext;
use cudarc::driver::sys::cuDevicePrimaryCtxReset_v2;

use super::device::{CudaMemory, told};
use super::{CudaZeroizer, DeviceZeroizer, LONGEST, descriptors, second};

/// Set once: no call of the zeroizer's goes to the driver any more.
static LET_GO: AtomicBool = AtomicBool::new(false);

/// # Errors
/// In a sentence, once this process has let go of the device.
pub(super) fn is_held() -> Result<(), String> {
    if LET_GO.load(Ordering::SeqCst) { Err("this process has let go of the device".to_owned()) } else { Ok(()) }
}

impl DeviceZeroizer<CudaMemory> {
    /// When a CUDA error has lost this process its context (an illegal access is one), so that no call works any more, or
    /// the device does not answer: lets go of it and has `command` wipe it, which must end in [`wipe_for_another`] in a
    /// process of its own, under the protections that this one has. It inherits nothing but what the command gives it.
    #[must_use]
    pub fn after_an_error(self, command: impl FnMut() -> Command + Send + 'static) -> CudaZeroizer {
        self.last_resort(let_go_if_lost, command)
    }
}

/// Wipes the first CUDA device for a process that can use it no more, says so in one line on standard output, and gives
/// the exit code: the whole of what a process of [`CudaZeroizer::after_an_error`]'s command does.
pub fn wipe_for_another() -> i32 {
    let out = std::io::stdout();
    second::wipe_for_another(crate::gpu::memory_in_use, CudaMemory::open, LONGEST, out)
}

/// Whether the context is lost. If it is, nothing of this process is left on any NVIDIA device: see [`descriptors`].
fn let_go_if_lost(answers: bool) -> Result<bool, String> {
    // Of a device that does not answer nothing is asked.
    if answers {
        let Err(_lost) = CudaContext::new(0).and_then(|context| context.synchronize()) else { return Ok(false) };
        // Ends what is not out of a pool. Without a context it is an error, and what counts comes after it.
        // SAFETY: takes a device's ordinal alone. Nothing of this process uses the context any more: the workload was
        // released before zeroization, and every call on what is left of it gives an error.
        let _ = unsafe { cuDevicePrimaryCtxReset_v2(0).result() };
    }
    // A thread that waits for the device comes back once its files are gone, and must not go on with it.
    LET_GO.store(true, Ordering::SeqCst);
    told("letting go of the device's files", descriptors::let_go(descriptors::NVIDIA))?;
    Ok(true)
}
