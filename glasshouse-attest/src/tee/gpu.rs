use glasshouse_core::evidence::{DeviceEvidence, DeviceKind, GpuEvidence};
use glasshouse_core::fixed::{Blob, Digest32};
use glasshouse_core::traits::AttestError;

use crate::x509::certificates_from_pem;

/// The driver's interface to the machine's GPUs; [`NvmlGpus`](super) is the real one, with the feature `nvml`.
pub trait GpuInterface: Send + Sync {
    /// How many GPUs the driver has.
    ///
    /// # Errors
    /// What the driver answered.
    fn count(&self) -> Result<u32, String>;
    /// The confidential-computing mode of one GPU; `None` where it or its driver knows none.
    ///
    /// # Errors
    /// What the driver answered.
    fn state(&self, index: u32) -> Result<Option<ConfidentialState>, String>;
    /// The report of one GPU over a nonce, and its chain.
    ///
    /// # Errors
    /// What the driver answered.
    fn evidence(&self, index: u32, nonce: &[u8; 32]) -> Result<RawEvidence, String>;
}

/// The confidential-computing mode of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfidentialState {
    /// Confidential computing is on.
    pub enabled: bool,
    /// Developer tools may read its memory.
    pub dev_tools: bool,
}

/// One GPU's answer as the driver gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawEvidence {
    /// SPDM request and response.
    pub report: Vec<u8>,
    /// The chain, PEM, leaf first; the driver may pad it with zeros.
    pub chain: Vec<u8>,
}

pub(super) const WHAT: &str = "an NVIDIA GPU";
/// What a machine lacks whose GPUs are there and do not attest.
const EVIDENCE: &str = "evidence of this machine's NVIDIA GPUs";

/// Evidence of every GPU over one nonce: an empty list where there is none. One that does not attest, or that developer tools
/// may read, speaks for none of the others: the owner would take the list for the whole machine.
pub(super) fn evidence(gpus: &dyn GpuInterface, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
    let failed = |why: String| AttestError::Failed { what: WHAT, why };
    let (mut off, mut unknown, mut open) = (Vec::new(), Vec::new(), Vec::new());
    let count = gpus.count().map_err(failed)?;
    for index in 0..count {
        match gpus.state(index).map_err(|why| failed(format!("GPU {index}: {why}")))? {
            Some(ConfidentialState { enabled: true, dev_tools: false }) => {}
            Some(ConfidentialState { enabled: true, dev_tools: true }) => open.push(format!("GPU {index}")),
            Some(_) => off.push(format!("GPU {index}")),
            None => unknown.push(format!("GPU {index}")),
        }
    }
    let silent = [
        ("confidential computing is off on", off),
        ("no confidential computing is known to", unknown),
        ("developer tools may read the memory of", open),
    ];
    let silent = silent.iter().filter(|(_, gpus)| !gpus.is_empty());
    let silent: Vec<_> = silent.map(|(what, gpus)| format!("{what} {}", gpus.join(", "))).collect();
    if !silent.is_empty() {
        let why = format!(
            "{}; turn confidential computing on, developer tools off, and reset the GPU, or rent one that is so",
            silent.join(", and ")
        );
        return Err(AttestError::NotAvailable { what: EVIDENCE, why });
    }
    (0..count).map(|index| one(gpus, index, nonce)).collect::<Result<_, _>>().map(GpuEvidence)
}

fn one(gpus: &dyn GpuInterface, index: u32, nonce: &Digest32) -> Result<DeviceEvidence, AttestError> {
    let failed = |why: String| AttestError::Failed { what: WHAT, why: format!("GPU {index}: {why}") };
    let RawEvidence { report, mut chain } = gpus.evidence(index, nonce.as_bytes()).map_err(failed)?;
    if report.get(4..36) != Some(nonce.as_ref()) {
        return Err(failed("its report answers another nonce".to_owned()));
    }
    let text = chain.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
    chain.truncate(text);
    let certificates = certificates_from_pem(&chain).map_err(|error| failed(error.to_string()))?;
    let leaf = certificates.first().ok_or_else(|| failed("it has no certificate".to_owned()))?;
    let serial = Blob(leaf.serial().to_vec());
    Ok(DeviceEvidence { kind: DeviceKind::NvidiaGpu, serial, report: Blob(report), chain: Blob(chain) })
}
