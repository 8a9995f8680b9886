//! CUDA's part of a last resort: whether this process has lost its context, and letting go of it.
#![allow(unsafe_code)] // the end of the primary context has no safe call

use std::process::Command;
use std::sync::atomic::Ordering;

use cudarc::driver::CudaContext;
use cudarc::driver::sys::cuDevicePrimaryCtxReset_v2;

use super::device::CudaMemory;
use super::held::LET_GO;
use super::{CudaZeroizer, DeviceZeroizer, FOR_ANOTHER, descriptors, second};

impl DeviceZeroizer<CudaMemory> {
    /// When a CUDA error has lost this process its context (an illegal access is one), so that no call works any more, or
    /// the device does not answer: lets go of it and has `command` wipe it, which must end in [`wipe_for_another`] in a
    /// process of its own. What protects that process is the command's to arrange; it has this one's environment, but for
    /// `CUDA_VISIBLE_DEVICES`, and nothing of its memory.
    ///
    /// Call it while the device is healthy: it is asked for its UUID here, which the second process must have, too. Without
    /// one there is no receipt after an error.
    ///
    /// A device that does not answer is one that stops answering after the workload was released: a release waits for the
    /// device as everything does, and one that hangs does not get as far as zeroization.
    #[must_use]
    pub fn after_an_error(self, command: impl FnMut() -> Command + Send + 'static) -> CudaZeroizer {
        self.last_resort(crate::gpu::uuid(), let_go_if_lost, command)
    }
}

/// Wipes the first CUDA device for a process that can use it no more, says so and which it is in one line on standard
/// output, and gives the exit code: the whole of what a process of [`CudaZeroizer::after_an_error`]'s command does.
pub fn wipe_for_another() -> i32 {
    let out = std::io::stdout();
    second::wipe_for_another(crate::gpu::uuid, crate::gpu::memory_in_use, CudaMemory::open, FOR_ANOTHER, out)
}

/// Whether the context is lost. If it is, nothing of this process is left on any NVIDIA device: see [`descriptors`].
fn let_go_if_lost(answers: bool) -> Result<bool, String> {
    // Of a device that does not answer nothing is asked.
    if answers {
        let Err(_lost) = CudaContext::new(0).and_then(|context| context.synchronize()) else { return Ok(false) };
        // Ends what is not out of a pool. Without a context it is an error, and what counts comes after it.
        // SAFETY: takes a device's ordinal alone. No thread of this process is in a call on the context: the workload was
        // released before zeroization, and the sweep came back. Every later call on what is left of it gives an error.
        let _ = unsafe { cuDevicePrimaryCtxReset_v2(0).result() };
    }
    // A thread that waits for the device comes back once its files are gone, and must not go on with it.
    LET_GO.store(true, Ordering::SeqCst);
    descriptors::let_go(descriptors::NVIDIA)
        .map_err(|why| format!("letting go of the device's files failed: {why}"))?;
    Ok(true)
}
