use glasshouse_core::fixed::Digest48;
use glasshouse_core::transcript::Transcript;

use crate::nvidia::NvidiaRoots;
use crate::snp::SnpRoots;
use crate::tdx::IntelRoot;

/// The vendors' roots that evidence must lead to.
#[derive(Clone, Debug)]
pub struct HardwareRoots {
    /// Of TDX quotes and Intel's collateral.
    pub intel: IntelRoot,
    /// Of SEV-SNP reports.
    pub amd: SnpRoots,
    /// Of NVIDIA's devices and manifests.
    pub nvidia: NvidiaRoots,
}

impl HardwareRoots {
    /// The vendors' own, pinned in this crate: the roots of real hardware.
    pub fn vendors() -> Self {
        Self { intel: IntelRoot::intel(), amd: SnpRoots::amd(), nvidia: NvidiaRoots::nvidia() }
    }

    /// Names the roots in a policy's digest: other roots are another policy.
    pub(super) fn digest(&self) -> Digest48 {
        let start = Transcript::new("gh/roots/1").lp(self.intel.sha256());
        let start = self.amd.pinned().fold(start, |t, (product, root)| t.lp(product.as_str()).lp(root));
        let NvidiaRoots { device, rim } = &self.nvidia;
        let devices = device.iter().fold(start.lp("device"), |t, root| t.lp(root));
        rim.iter().fold(devices.lp("rim"), |t, root| t.lp(root)).sha384()
    }
}
