//! An error after which every CUDA call of this process fails, for checks of what happens then.
#![allow(unsafe_code)] // a kernel that writes where nothing is

use cudarc::driver::{CudaContext, LaunchConfig};
use cudarc::nvrtc::Ptx;

/// Writes to address 8.
const KERNEL: &str = "
.version 7.0
.target sm_80
.address_size 64
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
    let launched = CudaContext::new(0).and_then(|context| {
        let kernel = context.load_module(Ptx::from_src(KERNEL))?.load_function("write_to_eight")?;
        let one = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: it has no arguments, and no memory of this program's lies at address 8 of a device.
        unsafe { context.default_stream().launch_builder(&kernel).launch(one) }?;
        Ok(context)
    });
    let context = launched.map_err(|error| format!("an illegal access could not be made: {error}"))?;
    match context.synchronize() {
        Ok(()) => Err("an illegal access was made, and the driver says nothing of it".to_owned()),
        Err(error) => Ok(error.to_string()),
    }
}
