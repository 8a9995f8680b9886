use std::collections::BTreeMap;

use glasshouse_core::fixed::{Digest32, Fixed};
use serde::{Deserialize, Serialize};

use super::opaque::Feature;
use super::version::{DriverVersion, VbiosVersion};

/// What is asked of NVIDIA devices beyond being genuine. Fields that a JSON document leaves out have these defaults:
/// no floors, every mode, nothing relaxed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NvidiaPolicy {
    /// The oldest driver that is accepted.
    pub minimum_driver: Option<DriverVersion>,
    /// The oldest VBIOS that is accepted, by chip as the certificate names it (`GH100`, `GB100`, `LS10`): versions of
    /// different chips do not compare. With one for some chip, a chip without is refused.
    pub minimum_vbios: BTreeMap<String, VbiosVersion>,
    /// The modes that are accepted. A list without all three refuses firmware that states no mode.
    pub features: Vec<Feature>,
    /// Only boards (project and SKU) that the VBIOS manifest's tag names.
    pub require_rim_for_board: bool,
    /// Only devices about whose chain, and about whose manifests' signers, revocation data was passed: a list of the issuer,
    /// or an OCSP answer about the certificate. In a device's chain that is asked of the two upper issuers, the root and the
    /// chip family's authority, and about every certificate that names a list or a responder, as Blackwell's boot-ROM
    /// certificates do; Hopper's lower issuers publish nothing. In a signer's chain it is asked of every issuer; of NVIDIA's
    /// only the root publishes a list, so that the others need OCSP answers.
    pub require_crls: bool,
    /// Accepts reports without a firmware id: Hopper firmware of 2023, and switches.
    pub allow_missing_fwid: bool,
    /// Accepts GPUs whose driver's manifest was not passed: the driver's measurements are then not compared.
    pub allow_missing_driver_rim: bool,
    /// Accepts devices whose VBIOS manifest was not passed: the firmware's measurements are then not compared.
    pub allow_missing_vbios_rim: bool,
    /// Accepts GPUs in protected-PCIe mode without their switches.
    pub allow_ppcie_without_switches: bool,
    /// Compares no measurement at all: any firmware and any driver.
    pub dangerous_no_measurements: bool,
}

impl Default for NvidiaPolicy {
    fn default() -> Self {
        Self {
            minimum_driver: None,
            minimum_vbios: BTreeMap::new(),
            features: ALL_FEATURES.to_vec(),
            require_rim_for_board: false,
            require_crls: false,
            allow_missing_fwid: false,
            allow_missing_driver_rim: false,
            allow_missing_vbios_rim: false,
            allow_ppcie_without_switches: false,
            dangerous_no_measurements: false,
        }
    }
}

const ALL_FEATURES: [Feature; 3] = [Feature::Spt, Feature::Mpt, Feature::Ppcie];

impl NvidiaPolicy {
    /// Every relaxation that is in force, by name, for the verdict.
    pub fn relaxations(&self) -> Vec<String> {
        [
            (self.allow_missing_fwid, "allow_missing_fwid"),
            (self.allow_missing_driver_rim, "allow_missing_driver_rim"),
            (self.allow_missing_vbios_rim, "allow_missing_vbios_rim"),
            (self.allow_ppcie_without_switches, "allow_ppcie_without_switches"),
            (self.dangerous_no_measurements, "dangerous_no_measurements"),
        ]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| name.to_owned())
        .collect()
    }

    /// Whether a mode is accepted; `None` is firmware that states none.
    pub(super) fn accepts(&self, feature: Option<Feature>) -> bool {
        match feature {
            Some(feature) => self.features.contains(&feature),
            None => ALL_FEATURES.iter().all(|feature| self.features.contains(feature)),
        }
    }
}

/// The pinned roots: SHA-256 of the root certificates' DER.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NvidiaRoots {
    /// Roots of device certificates.
    pub device: Vec<Digest32>,
    /// Roots of the signers of reference manifests.
    pub rim: Vec<Digest32>,
}

impl NvidiaRoots {
    /// NVIDIA's own: "NVIDIA Device Identity CA" (from 2021-11-05, without end) and "NVIDIA CoRIM signing Root CA"
    /// (2023-03-16 to 2053-03-08).
    pub fn nvidia() -> Self {
        Self { device: vec![DEVICE_IDENTITY_CA], rim: vec![CORIM_SIGNING_ROOT_CA] }
    }
}

/// What an appraisal is given beside the evidence, none of it trusted: everything is verified under the roots.
#[derive(Clone, Copy, Debug, Default)]
pub struct NvidiaCollateral<'a> {
    /// Reference manifests, XML: those of the devices' drivers and VBIOS and no others: one that is for none of the
    /// devices is refused (`rim-version`).
    pub rims: &'a [&'a [u8]],
    /// Revocation lists, DER. Those of other issuers are passed over.
    pub crls: &'a [&'a [u8]],
    /// OCSP answers, DER, kept from when the service gave them. Those about other certificates are passed over.
    pub ocsp: &'a [&'a [u8]],
}

const DEVICE_IDENTITY_CA: Digest32 = Fixed([
    0x10, 0x2b, 0xf6, 0x59, 0xd5, 0x41, 0x96, 0x14, 0xc9, 0xd8, 0xe6, 0xae, 0xce, 0xbc, 0x80, 0x45, 0x4e, 0xb2, 0x6b,
    0x1d, 0xf6, 0xa7, 0x69, 0xac, 0x72, 0x0b, 0x9a, 0x69, 0x0b, 0x16, 0x7b, 0x48,
]);
const CORIM_SIGNING_ROOT_CA: Digest32 = Fixed([
    0x12, 0x97, 0x7b, 0x51, 0x15, 0xac, 0xb0, 0x38, 0x11, 0x79, 0x27, 0x9f, 0xff, 0xeb, 0x5a, 0x8c, 0x4d, 0x26, 0x49,
    0x71, 0xeb, 0xb3, 0x22, 0x98, 0x02, 0x3a, 0x46, 0x5f, 0xa4, 0x1d, 0xf5, 0xd1,
]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_lies_over_the_defaults() {
        let policy: NvidiaPolicy = serde_json::from_str("{\"allow_missing_fwid\":true}").unwrap();
        assert_eq!(policy, NvidiaPolicy { allow_missing_fwid: true, ..NvidiaPolicy::default() });
        assert_eq!(policy.relaxations(), ["allow_missing_fwid"]);
        assert!(NvidiaPolicy::default().relaxations().is_empty());
        assert!(serde_json::from_str::<NvidiaPolicy>("{\"allow_missing_fwd\":true}").is_err());
        assert!(serde_json::from_str::<NvidiaPolicy>("{\"minimum_driver\":\"new\"}").is_err());
        assert!(serde_json::from_str::<NvidiaPolicy>("{\"minimum_driver\":\"550.90.07\"}").is_ok());
    }

    #[test]
    fn every_relaxation_is_told() {
        let json = serde_json::to_value(NvidiaPolicy::default()).unwrap();
        let names = json.as_object().unwrap().keys().filter(|k| k.starts_with("allow_") || k.starts_with("dangerous_"));
        for name in names {
            let policy: NvidiaPolicy = serde_json::from_value(serde_json::json!({ name: true })).unwrap();
            assert_eq!(policy.relaxations(), [name.as_str()]);
        }
    }

    #[test]
    fn a_mode_that_is_not_stated_passes_only_where_all_do() {
        let policy = NvidiaPolicy { features: vec![Feature::Mpt], ..NvidiaPolicy::default() };
        assert!(policy.accepts(Some(Feature::Mpt)) && !policy.accepts(Some(Feature::Spt)) && !policy.accepts(None));
        assert!(NvidiaPolicy::default().accepts(None));
    }
}
