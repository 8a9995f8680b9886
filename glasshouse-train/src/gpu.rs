//! Which GPU this is, as its driver says.

use cudarc::driver::{DriverError, result};
use glasshouse_core::traits::WorkloadError;
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use serde::{Deserialize, Serialize};

/// Identity of a GPU, for a row. The driver's own words: nothing here is attested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuIdentity {
    /// Product name, such as `NVIDIA H200`.
    pub model: String,
    /// Driver version.
    pub driver: String,
    /// `GPU-` and the UUID.
    pub uuid: String,
}

impl GpuIdentity {
    /// The device that training uses: CUDA's first, which need not be the driver's.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when there is no device, or NVML (`libnvidia-ml.so.1`) does not answer.
    pub fn first() -> Result<Self, WorkloadError> {
        let uuid = first_uuid().map_err(|error| failed("reading the UUID of CUDA device 0", &error))?;
        let nvml = nvml().map_err(|error| failed("starting NVML", &error))?;
        let device = nvml.device_by_uuid(uuid.as_str()).map_err(|error| failed("finding the GPU in NVML", &error))?;
        let model = device.name().map_err(|error| failed("reading the model", &error))?;
        let driver = nvml.sys_driver_version().map_err(|error| failed("reading the driver's version", &error))?;
        Ok(Self { model, driver, uuid })
    }
}

/// candle's first CUDA device, on a stream of its own that all work of a run shares, without events, and with a memory
/// pool that keeps what was freed.
///
/// # Errors
/// [`WorkloadError::Device`] when there is no device.
pub fn candle_device() -> Result<candle_core::Device, WorkloadError> {
    crate::mlp::candle_device()
}

/// Bytes of the first CUDA device's memory that are in use, as its driver says. Opens no context: in a process that has none,
/// all of them are others'.
///
/// # Errors
/// In a sentence, when CUDA or NVML does not answer.
pub fn memory_in_use() -> Result<u64, String> {
    let nvml = nvml().map_err(|error| format!("starting NVML failed: {error}"))?;
    let memory = nvml.device_by_uuid(uuid()?.as_str()).and_then(|device| device.memory_info());
    Ok(memory.map_err(|error| format!("asking NVML for memory in use failed: {error}"))?.used)
}

/// UUID of the first CUDA device, as nvidia-smi prints it. Opens no context.
pub(crate) fn uuid() -> Result<String, String> {
    first_uuid().map_err(|error| format!("finding CUDA device 0 failed: {error}"))
}

fn first_uuid() -> Result<String, DriverError> {
    let uuid = result::init().and_then(|()| result::device::get(0)).and_then(result::device::get_uuid)?;
    Ok(format_uuid(uuid.bytes.map(|byte| byte.cast_unsigned())))
}

fn nvml() -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path("libnvidia-ml.so.1".as_ref()).init()
}

fn failed(what: &str, error: &dyn std::error::Error) -> WorkloadError {
    WorkloadError::Device { what: what.to_owned(), why: error.to_string() }
}

/// As nvidia-smi prints it.
fn format_uuid(bytes: [u8; 16]) -> String {
    let digits = hex::encode(bytes);
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default();
    format!("GPU-{}-{}-{}-{}-{}", part(0..8), part(8..12), part(12..16), part(16..20), part(20..32))
}

#[cfg(test)]
mod tests {
    #[test]
    fn uuids_are_written_as_nvidia_smi_does() {
        let bytes = std::array::from_fn(|i| (i * 17) as u8);
        assert_eq!(super::format_uuid(bytes), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    }
}
