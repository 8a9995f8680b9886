use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::refusal::Refusal;

use super::codes::{self, refuse};
use super::device::{Device, Named};
use super::opaque::OpaqueData;
use super::report::{Report, SignedReport};
use crate::x509;

/// NVIDIA's service knows one switch board only.
const SWITCH_BOARD: &str = "5612_0002_890";

impl Device<'_> {
    /// The names under which NVIDIA's RIM service holds the manifests of this device: the driver's, then the VBIOS's.
    ///
    /// For fetching, before anything is verified: a report that lies gets manifests that do not fit it.
    ///
    /// # Errors
    /// A refusal with [`codes::CHAIN`] or [`codes::REPORT_MALFORMED`].
    pub fn rim_ids(&self) -> Result<Vec<String>, Refusal> {
        let malformed = |seen| refuse(codes::REPORT_MALFORMED, "a report that names its versions", seen);
        let chain = x509::certificates_from_pem(self.chain);
        let chain = chain.map_err(|error| refuse(codes::CHAIN, "a chain of certificates", error))?;
        let leaf = chain.first().ok_or_else(|| refuse(codes::CHAIN, "a chain of certificates", "none"))?;
        let parts = SignedReport::split(self.report).ok_or_else(|| malformed("something of another length"))?;
        let report = Report::parse(parts.signed).map_err(malformed)?;
        let Named { chip, driver, vbios } = Named::read(self.kind, &report, leaf)?;
        let packed = vbios.replace('.', "").to_ascii_uppercase();
        let Some(driver) = driver.filter(|_| self.kind == DeviceKind::NvidiaGpu) else {
            return Ok(vec![format!("NV_SWITCH_BIOS_{SWITCH_BOARD}_{packed}")]);
        };
        // Hopper's name with another chip's version is a manifest too, of another chip.
        let family = if chip.starts_with("GH") { "NV_GPU_DRIVER" } else { "NV_GPU_CC_DRIVER" };
        let text = |field| report.opaque.text(field).ok_or_else(|| malformed("no name of a board"));
        let board = [OpaqueData::PROJECT, OpaqueData::PROJECT_SKU, OpaqueData::CHIP_SKU].map(text);
        let [project, project_sku, chip_sku] = board;
        let (project, project_sku, chip_sku) = (project?, project_sku?, chip_sku?);
        Ok(vec![
            format!("{family}_{chip}_{driver}"),
            format!("NV_GPU_VBIOS_{project}_{project_sku}_{chip_sku}_{packed}"),
        ])
    }
}
