//! A whole machine: a CPU's TEE, GPUs and switches, with the policy, collateral and roots that accept it.

use std::collections::BTreeMap;

use glasshouse_attest::hardware::{
    AmdCollateral, CpuPolicy, GpuPolicy, HardwareCollateral, HardwarePolicy, HardwareRoots, HardwareVerifier,
    MinimumAssurance, NvidiaFiles,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Blob, Digest32, Digest64};

use crate::nvidia::{Machine, Manifest};
use crate::tdx::{self, CollateralDraft, QuoteDraft};
use crate::{nvidia, snp};

/// 2026-11-23T00:00:00Z: everything that is made here is valid then, most of it for years, an
/// OCSP answer until the day after.
pub const AUDIT_TIME: UnixMillis = UnixMillis(1_795_392_000_000);

/// A machine to be: tests change parts of it before it attests.
#[derive(Clone)]
pub struct Platform {
    /// The CPU's TEE.
    pub cpu: Cpu,
    /// GPUs and switches, in any order.
    pub devices: Vec<Machine>,
}

/// A CPU's TEE to be.
#[derive(Clone)]
pub enum Cpu {
    /// Intel TDX.
    Tdx(Box<QuoteDraft>),
    /// AMD SEV-SNP.
    Snp(snp::Draft),
}

impl Platform {
    /// A TD with so many GPUs.
    pub fn tdx(gpus: u8) -> Self {
        Self { cpu: Cpu::Tdx(Box::default()), devices: (1..=gpus).map(Machine::gpu).collect() }
    }

    /// An SEV-SNP guest on Genoa with so many GPUs.
    pub fn snp(gpus: u8) -> Self {
        let draft = snp::Draft::new(glasshouse_attest::snp::Product::Genoa);
        Self { cpu: Cpu::Snp(draft), devices: (1..=gpus).map(Machine::gpu).collect() }
    }

    /// Asks for this kind of guest, and for confidential GPUs where there are any.
    pub fn policy(&self) -> HardwarePolicy {
        let cpu = match self.cpu {
            Cpu::Tdx(_) => CpuPolicy::Tdx(tdx::policy()),
            Cpu::Snp(_) => CpuPolicy::SevSnp(snp::policy()),
        };
        let gpus = !self.devices.is_empty();
        let minimum_assurance = if gpus { MinimumAssurance::CpuTeeGpuCc } else { MinimumAssurance::CpuTee };
        HardwarePolicy { cpu, gpu: GpuPolicy::default(), minimum_assurance, dangerous_at: None }
    }

    /// The roots of everything that is made here.
    pub fn roots() -> HardwareRoots {
        HardwareRoots { intel: tdx::root(), amd: snp::roots(), nvidia: nvidia::roots() }
    }

    /// The collateral of everything that is made here.
    pub fn collateral() -> HardwareCollateral {
        let rims = [
            ("NV_GPU_DRIVER_GH100_580.95.05", Manifest::driver()),
            ("NV_GPU_VBIOS_G520_0200_885_96009F0001", Manifest::vbios()),
            ("NV_SWITCH_BIOS_5612_0002_890_96105C0001", Manifest::switch()),
        ];
        let rims = rims.into_iter().map(|(name, rim)| (name.to_owned(), rim.document().into_bytes())).collect();
        HardwareCollateral {
            intel: vec![CollateralDraft::default().make()],
            amd: AmdCollateral::default(),
            nvidia: NvidiaFiles { rims, ..NvidiaFiles::default() },
            jwks: BTreeMap::new(),
        }
    }

    /// A verifier that accepts this machine.
    pub fn verifier(&self) -> HardwareVerifier {
        HardwareVerifier::new(self.policy(), Self::roots(), Self::collateral()).unwrap()
    }

    /// The quote or report over `report_data`.
    pub fn quote(&self, report_data: &Digest64) -> CpuEvidence {
        match &self.cpu {
            Cpu::Tdx(draft) => CpuEvidence::Tdx { quote: Blob(draft.make(report_data)) },
            Cpu::Snp(draft) => {
                let mut draft = draft.clone();
                draft.put(0x50, report_data.as_bytes());
                let (report, vek, [issuer, root]) = draft.make();
                let table = snp::certificate_table(&vek, &[&issuer, &root]);
                CpuEvidence::SevSnp { report: Blob(report), certificates: Some(Blob(table)) }
            }
        }
    }

    /// Every device's report over `nonce`.
    pub fn gpu_evidence(&self, nonce: &Digest32) -> GpuEvidence {
        GpuEvidence(self.devices.iter().map(|device| device.evidence(nonce)).collect())
    }
}
