use std::collections::BTreeMap;

use glasshouse_core::evidence::{DeviceKind, GpuEvidence};
use glasshouse_core::fixed::Fixed;

use crate::nvidia::Device;
use crate::snp::{Report, SignedReport};
use crate::tdx::Collateral;
use crate::tokens::Jwks;

/// What vendors publish and an appraisal needs beside the evidence. None of it is trusted: everything is verified
/// under the roots.
#[derive(Clone, Debug, Default)]
pub struct HardwareCollateral {
    /// Intel's, of one platform (FMSPC) each.
    pub intel: Vec<Collateral>,
    /// AMD's.
    pub amd: AmdCollateral,
    /// NVIDIA's.
    pub nvidia: NvidiaFiles,
    /// Key sets by issuer.
    pub jwks: BTreeMap<String, Jwks>,
}

/// Certificates and revocation lists of AMD, DER.
#[derive(Clone, Debug, Default)]
pub struct AmdCollateral {
    /// VCEKs and VLEKs of machines whose reports come without, by [`vek_key`].
    pub veks: BTreeMap<String, Vec<u8>>,
    /// ASKs, ASVKs and ARKs; needed for revocation lists only.
    pub chains: Vec<Vec<u8>>,
    /// Revocation lists of the ARKs.
    pub crls: Vec<Vec<u8>>,
}

/// Manifests and revocation lists of NVIDIA.
#[derive(Clone, Debug, Default)]
pub struct NvidiaFiles {
    /// Reference manifests (XML) by the name under which NVIDIA's service holds them
    /// ([`Device::rim_ids`](crate::nvidia::Device::rim_ids)).
    pub rims: BTreeMap<String, Vec<u8>>,
    /// Revocation lists, DER.
    pub crls: Vec<Vec<u8>>,
    /// OCSP answers, DER.
    pub ocsp: Vec<Vec<u8>>,
}

impl NvidiaFiles {
    /// The manifests that the devices name, and no others.
    pub(super) fn of(&self, evidence: &GpuEvidence) -> Vec<&[u8]> {
        let reports = evidence.0.iter().filter(|entry| entry.kind != DeviceKind::NrasToken);
        // A report that names nothing is refused by the verifier, with its reason.
        let names = |entry: &glasshouse_core::evidence::DeviceEvidence| {
            Device { kind: entry.kind, report: &entry.report.0, chain: &entry.chain.0 }.rim_ids().unwrap_or_default()
        };
        let mut wanted: Vec<String> = reports.flat_map(names).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted.iter().filter_map(|name| self.rims.get(name)).map(Vec::as_slice).collect()
    }
}

/// The name of the VCEK or VLEK that signed a report: chip and reported TCB, hex, joined by a hyphen. `None` for bytes
/// that are no report. Nothing is verified: for looking up only.
pub fn vek_key(report: &[u8]) -> Option<String> {
    let report = Report::parse(SignedReport::split(report)?.signed).ok()?;
    Some(format!("{}-{}", report.chip_id, Fixed(report.reported_tcb.0)))
}
