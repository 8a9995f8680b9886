//! NVML, loaded when it is asked for: a machine without NVIDIA's driver has no GPU, and that is no error.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use super::gpu::{ConfidentialState, GpuInterface, RawEvidence};

/// The GPUs of NVIDIA's driver.
pub struct NvmlGpus(Option<Nvml>);

impl NvmlGpus {
    /// Loads the driver's library. Without one, or without a GPU, there are no GPUs.
    ///
    /// # Errors
    /// What a driver that is there answered.
    pub fn load() -> Result<Self, String> {
        match Nvml::init() {
            Ok(nvml) => Ok(Self(Some(nvml))),
            Err(NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded) => {
                Ok(Self(None))
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

impl GpuInterface for NvmlGpus {
    fn count(&self) -> Result<u32, String> {
        self.0.as_ref().map_or(Ok(0), |nvml| nvml.device_count().map_err(|e| e.to_string()))
    }

    fn state(&self) -> Result<Option<ConfidentialState>, String> {
        let Some(nvml) = &self.0 else { return Ok(None) };
        let device = match nvml.device_by_index(0) {
            Ok(device) => device,
            Err(NvmlError::NotFound | NvmlError::InvalidArg) => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        // Drivers before confidential computing lack the calls; GPUs before it do not support them.
        let unknown = |error: &NvmlError| {
            matches!(error, NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_))
        };
        let enabled = match device.is_cc_enabled() {
            Err(error) if unknown(&error) => return Ok(None),
            other => other.map_err(|e| e.to_string())?,
        };
        // Not known here is no reason to call it off.
        let dev_tools = enabled && device.is_cc_dev_mode_enabled().map_err(|e| e.to_string())?;
        Ok(Some(ConfidentialState { enabled, dev_tools }))
    }

    fn evidence(&self, index: u32, nonce: &[u8; 32]) -> Result<RawEvidence, String> {
        let nvml = self.0.as_ref().ok_or("no driver")?;
        let device = nvml.device_by_index(index).map_err(|e| e.to_string())?;
        // The binding takes the driver's word for the length of its own buffers, and would panic over a wrong one.
        let report = catch_unwind(AssertUnwindSafe(|| device.confidential_compute_gpu_attestation_report(*nonce)));
        let report = report.map_err(|_| "a report longer than its buffer")?.map_err(|e| e.to_string())?;
        let chain = catch_unwind(AssertUnwindSafe(|| device.confidential_compute_gpu_certificate()));
        let chain = chain.map_err(|_| "a chain longer than its buffer")?.map_err(|e| e.to_string())?;
        Ok(RawEvidence { report: report.attestation_report, chain: chain.attestation_cert_chain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_driver_has_no_gpus() {
        let Ok(gpus) = NvmlGpus::load() else { return };
        if gpus.0.is_none() {
            assert_eq!((gpus.count(), gpus.state()), (Ok(0), Ok(None)));
            assert!(gpus.evidence(0, &[0; 32]).is_err());
        }
    }
}
