use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::fixed::Digest48;
use glasshouse_core::refusal::one_line;
use glasshouse_core::traits::{ClaimSource, LabelledClaim};
use serde::Serialize;

use super::opaque::Feature;

/// What was established about one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceClaims {
    /// GPU or switch.
    pub kind: DeviceKind,
    /// The chip, as reference manifests name it: `GH100`, `GB100`, `LS10`.
    pub chip: String,
    /// Serial number of the leaf certificate, hex: of this device with this firmware.
    pub serial: String,
    /// Serial number of the device's own certificate, the leaf's issuer, hex: the same under every firmware.
    pub device_serial: String,
    /// The driver's version; switches have none.
    pub driver_version: Option<String>,
    /// The VBIOS version.
    pub vbios_version: String,
    /// The board, where the report names it.
    pub board: Option<Board>,
    /// The mode, where the firmware states one.
    pub feature: Option<Feature>,
    /// The firmware id that report and leaf certificate agree on; absent when the report has none.
    pub fwid: Option<Digest48>,
    /// RIM indices whose measurement was compared and is a reference value.
    pub matched: Vec<u8>,
    /// RIM indices that have a reference value and were not compared, because NVDEC0 is disabled.
    pub skipped: Vec<u8>,
    /// The reference manifests that were used.
    pub rims: Vec<RimClaims>,
}

/// The board that a chip is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Board {
    /// Project, `1010` or `G525`.
    pub project: String,
    /// The project's SKU.
    pub project_sku: String,
    /// The chip's SKU.
    pub chip_sku: String,
}

/// A reference manifest that was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RimClaims {
    /// SHA-384 of the content that was signed, in canonical form.
    pub content: Digest48,
    /// The driver's or VBIOS's version that it is for.
    pub version: String,
    /// Whether its tag names the device's board; driver manifests name none.
    pub names_board: bool,
}

impl DeviceClaims {
    /// Whether all of its software was compared with reference values: a manifest of the VBIOS was used, and on a GPU one
    /// of the driver.
    pub fn is_measured(&self) -> bool {
        let used = |version: &str| self.rims.iter().any(|rim| rim.version.eq_ignore_ascii_case(version));
        let driver = self.driver_version.as_deref();
        used(&self.vbios_version) && driver.map_or(self.kind != DeviceKind::NvidiaGpu, used)
    }

    /// The claims in the form of an appraisal, each under the device's serial number.
    pub fn labelled(&self) -> Vec<LabelledClaim> {
        let mut claims = Vec::new();
        let mut push = |what: &str, value: String| {
            let name = format!("{}-{}-{what}", self.kind.as_str(), self.serial);
            claims.push(LabelledClaim { name, value: one_line(&value), source: ClaimSource::HardwareVerified });
        };
        push("chip", self.chip.clone());
        push("device-serial", self.device_serial.clone());
        push("vbios-version", self.vbios_version.clone());
        if let Some(driver) = &self.driver_version {
            push("driver-version", driver.clone());
        }
        if let Some(feature) = self.feature {
            push("feature", format!("{feature:?}").to_lowercase());
        }
        if let Some(fwid) = self.fwid {
            push("fwid", fwid.to_string());
        }
        push("measurements-matched", self.matched.len().to_string());
        claims
    }
}
