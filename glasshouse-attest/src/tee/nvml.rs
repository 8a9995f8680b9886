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
        let protected_pcie = || device.is_multi_gpu_protected_pcie_enabled();
        state(device.is_cc_enabled(), protected_pcie, || device.is_cc_dev_mode_enabled()).map_err(|e| e.to_string())
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

/// The mode from the driver's answers. A machine in protected-PCIe mode has the feature of single GPUs off, and its GPUs
/// attest. All three are members of one answer (`nvmlSystemGetConfComputeSettings`): a driver that gives the first gives
/// the others.
fn state(
    feature: Result<bool, NvmlError>,
    protected_pcie: impl FnOnce() -> Result<bool, NvmlError>,
    dev_tools: impl FnOnce() -> Result<bool, NvmlError>,
) -> Result<Option<ConfidentialState>, NvmlError> {
    // Drivers before confidential computing lack the call; GPUs before it do not support it.
    let feature = match feature {
        Err(NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_)) => {
            return Ok(None);
        }
        other => other?,
    };
    let enabled = feature || protected_pcie()?;
    // Not known here is no reason to call it off.
    Ok(Some(ConfidentialState { enabled, dev_tools: enabled && dev_tools()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_drivers_and_gpus() {
        let of = |feature, pcie: bool, dev: bool| state(feature, || Ok(pcie), || Ok(dev)).unwrap();
        let mode = |enabled, dev_tools| Some(ConfidentialState { enabled, dev_tools });
        assert_eq!(of(Ok(false), false, true), mode(false, false));
        assert_eq!(of(Ok(true), false, false), mode(true, false));
        assert_eq!(of(Ok(true), false, true), mode(true, true));
        assert_eq!(of(Ok(false), true, false), mode(true, false), "protected PCIe");
        assert_eq!(of(Ok(false), true, true), mode(true, true));
        for unknown in [
            NvmlError::NotSupported,
            NvmlError::FunctionNotFound,
            NvmlError::FailedToLoadSymbol("undefined symbol".to_owned()),
        ] {
            assert_eq!(of(Err(unknown), true, false), None, "which a session for less goes on without");
        }
        assert!(state(Err(NvmlError::GpuLost), || Ok(true), || Ok(false)).is_err());
        assert!(state(Ok(false), || Err(NvmlError::GpuLost), || Ok(false)).is_err());
        assert!(state(Ok(true), || Ok(false), || Err(NvmlError::GpuLost)).is_err());
    }

    #[test]
    fn a_machine_without_driver_says_so() {
        match NvmlGpus::load() {
            Ok(gpus) => assert!(gpus.count().is_ok()),
            Err(AttestError::NotAvailable { what, why }) => assert!(what == WHAT && why.contains("no driver"), "{why}"),
            Err(other) => panic!("{other}"),
        }
    }
}
