//! NVML, loaded when it is asked for. A machine without NVIDIA's driver has no GPU: that is told, and the caller decides.

use std::panic::{AssertUnwindSafe, catch_unwind};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

use glasshouse_core::traits::AttestError;

use super::gpu::{ConfidentialState, GpuInterface, RawEvidence, WHAT};

/// The GPUs of NVIDIA's driver.
pub struct NvmlGpus(Nvml);

impl NvmlGpus {
    /// Loads the driver's library.
    ///
    /// # Errors
    /// [`AttestError::NotAvailable`] on a machine without driver, found without side effects; [`AttestError::Failed`] with
    /// what a driver that is there answered.
    pub fn load() -> Result<Self, AttestError> {
        Nvml::init().map(Self).map_err(|error| match error {
            NvmlError::LibloadingError(_) | NvmlError::LibraryNotFound | NvmlError::DriverNotLoaded => {
                AttestError::NotAvailable { what: WHAT, why: format!("there is no driver of NVIDIA's: {error}") }
            }
            other => AttestError::Failed { what: WHAT, why: other.to_string() },
        })
    }
}

impl GpuInterface for NvmlGpus {
    fn count(&self) -> Result<u32, String> {
        self.0.device_count().map_err(|e| e.to_string())
    }

    /// The driver sets one mode for all GPUs of a machine and tells no other; each is asked all the same.
    fn state(&self, index: u32) -> Result<Option<ConfidentialState>, String> {
        let device = self.0.device_by_index(index).map_err(|e| e.to_string())?;
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
        let device = self.0.device_by_index(index).map_err(|e| e.to_string())?;
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
    fn a_machine_without_driver_says_so() {
        match NvmlGpus::load() {
            Ok(gpus) => assert!(gpus.count().is_ok()),
            Err(AttestError::NotAvailable { what, why }) => assert!(what == WHAT && why.contains("no driver"), "{why}"),
            Err(other) => panic!("{other}"),
        }
    }
}
