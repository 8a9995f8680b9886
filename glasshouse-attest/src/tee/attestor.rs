use std::path::Path;

use glasshouse_core::claims::Claims;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64};
use glasshouse_core::traits::{AttestError, Attestor};

use super::configfs::ConfigFs;
use super::gpu::{self, GpuInterface};
use super::tsm::{self, TeeKind, TsmInterface};
use crate::software::{ContainerSource, RuntimeStateCell, container_id, read_back, running_executable};

/// Measures this process, and has the CPU's TEE and the GPUs vouch for it.
///
/// GPUs answer first and the CPU's quote, which carries the digest of their answers, comes last: the session calls in
/// this order.
pub struct TeeAttestor {
    kind: TeeKind,
    tsm: Box<dyn TsmInterface>,
    gpus: Option<Box<dyn GpuInterface>>,
    privilege_level: Option<u8>,
    state: RuntimeStateCell,
    image_digest: Option<Digest32>,
    container: ContainerSource,
}

impl TeeAttestor {
    /// An attestor in an Intel TD.
    ///
    /// # Errors
    /// [`AttestError::NotAvailable`] where the machine is none, found without side effects.
    pub fn tdx(state: RuntimeStateCell) -> Result<Self, AttestError> {
        Self::on_this_machine(TeeKind::Tdx, state)
    }

    /// An attestor in an SEV-SNP guest.
    ///
    /// # Errors
    /// As [`Self::tdx`].
    pub fn sev_snp(state: RuntimeStateCell) -> Result<Self, AttestError> {
        Self::on_this_machine(TeeKind::SevSnp, state)
    }

    fn on_this_machine(kind: TeeKind, state: RuntimeStateCell) -> Result<Self, AttestError> {
        Self::with_interface(kind, Box::new(ConfigFs::system()), kind.device(), state)
    }

    /// An attestor over another kernel interface, on a machine where `device` is a file.
    ///
    /// # Errors
    /// [`AttestError::NotAvailable`] where `device` or the interface is not there.
    pub fn with_interface(
        kind: TeeKind,
        tsm: Box<dyn TsmInterface>,
        device: &Path,
        state: RuntimeStateCell,
    ) -> Result<Self, AttestError> {
        let missing = |why| AttestError::NotAvailable { what: kind.name(), why };
        if !device.exists() {
            return Err(missing(format!("there is no {}, so this is no such guest", device.display())));
        }
        if !tsm.is_there() {
            let place = tsm.place();
            return Err(missing(format!("there is no {place}; mount configfs and load the guest's driver")));
        }
        let container = ContainerSource::Kernel;
        Ok(Self { kind, tsm, gpus: None, privilege_level: None, state, image_digest: None, container })
    }

    /// Has these GPUs attest too. Without, the evidence holds none. Where one of them cannot, `gpu_evidence` is
    /// [`AttestError::NotAvailable`] and says which and why.
    #[must_use]
    pub fn gpus(mut self, gpus: Box<dyn GpuInterface>) -> Self {
        self.gpus = Some(gpus);
        self
    }

    /// Asks for reports at this privilege level (VMPL) of SEV-SNP; the kernel's own when not told.
    #[must_use]
    pub fn privilege_level(mut self, level: u8) -> Self {
        self.privilege_level = Some(level);
        self
    }

    /// Names the image that the launch gave. A program cannot read it off its own container.
    #[must_use]
    pub fn image_digest(mut self, digest: Option<Digest32>) -> Self {
        self.image_digest = digest;
        self
    }

    /// Reads the container id where the owner was told to expect it.
    #[must_use]
    pub fn container_source(mut self, source: ContainerSource) -> Self {
        self.container = source;
        self
    }
}

impl Attestor for TeeAttestor {
    fn measure(&self) -> Result<Claims, AttestError> {
        Ok(Claims {
            kind: self.kind.evidence(),
            image_digest: self.image_digest,
            container: container_id(self.container)?,
            runtime_measurement: running_executable()?,
            anti_debug: read_back()?,
            state: self.state.current(),
        })
    }

    fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        self.gpus.as_deref().map_or(Ok(GpuEvidence::default()), |gpus| gpu::evidence(gpus, nonce))
    }

    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        tsm::quote(self.kind, &*self.tsm, self.privilege_level, report_data)
    }
}
