//! An attestor that measures this process for real and has a [`Platform`] that does not exist vouch for it.

use glasshouse_attest::software::{ContainerSource, container_id, read_back, running_executable};
use glasshouse_core::claims::{Claims, EvidenceKind, RuntimeState};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64};
use glasshouse_core::traits::{AttestError, Attestor};

use crate::platform::{Cpu, Platform};

/// Attests with generated evidence.
pub struct GeneratedAttestor {
    platform: Platform,
    image_digest: Option<Digest32>,
}

impl GeneratedAttestor {
    /// An attestor on this platform.
    pub fn new(platform: Platform) -> Self {
        Self { platform, image_digest: None }
    }

    /// Names the image that the launch gave.
    #[must_use]
    pub fn image_digest(mut self, digest: Option<Digest32>) -> Self {
        self.image_digest = digest;
        self
    }
}

impl Attestor for GeneratedAttestor {
    fn measure(&self) -> Result<Claims, AttestError> {
        Ok(Claims {
            kind: match self.platform.cpu {
                Cpu::Tdx(_) => EvidenceKind::Tdx,
                Cpu::Snp(_) => EvidenceKind::SevSnp,
            },
            image_digest: self.image_digest,
            container: container_id(ContainerSource::Kernel)?,
            runtime_measurement: running_executable()?,
            anti_debug: read_back()?,
            state: RuntimeState::Ready,
        })
    }

    fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        Ok(self.platform.gpu_evidence(nonce))
    }

    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        Ok(self.platform.quote(report_data))
    }
}
