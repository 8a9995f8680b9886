//! An error after which every CUDA call of this process fails, for checks of what happens then.
#![allow(unsafe_code, clippy::mem_forget)] // kernels that write where nothing is, and never end

use std::sync::Arc;

use cudarc::driver::{CudaContext, LaunchConfig};
use cudarc::nvrtc::Ptx;

/// One writes to address 8; the other waits for what never comes.
const KERNELS: &str = "
.version 7.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 never;
.visible .entry wait_for_ever() {
    .reg .b64 %at;
    .reg .b32 %seen;
    .reg .pred %come;
    mov.u64 %at, never;
again:
    ld.volatile.global.u32 %seen, [%at];
    setp.ne.u32 %come, %seen, 0;
    @!%come bra again;
    ret;
}
.visible .entry write_to_eight() {
    .reg .b64 %at;
    .reg .b32 %one;
    mov.u64 %at, 8;
    mov.u32 %one, 1;
    st.global.u32 [%at], %one;
    ret;
}
";

/// Makes an illegal access on the first CUDA device, and gives what the driver says of it.
///
/// # Errors
/// In a sentence, when there is no device, or it says nothing of it.
pub fn break_context() -> Result<String, String> {
    match launched("write_to_eight")?.synchronize() {
        Ok(()) => Err("an illegal access was made, and the driver says nothing of it".to_owned()),
        Err(error) => Ok(error.to_string()),
    }
}

/// Starts a kernel that never ends on the first CUDA device: whoever waits for the device waits for ever.
///
/// # Errors
/// In a sentence, when there is no device.
pub fn hang_context() -> Result<(), String> {
    launched("wait_for_ever").map(drop)
}

fn launched(kernel: &str) -> Result<Arc<CudaContext>, String> {
    let launched = CudaContext::new(0).and_then(|context| {
        let kernel = context.load_module(Ptx::from_src(KERNELS))?.load_function(kernel)?;
        let one = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: neither has arguments; no memory of this program's lies at address 8 of a device, and the other reads its
        // own.
        unsafe { context.default_stream().launch_builder(&kernel).launch(one) }?;
        // Dropping it would wait for the kernel.
        std::mem::forget(kernel);
        Ok(context)
    });
    launched.map_err(|error| format!("a kernel could not be started: {error}"))
}
