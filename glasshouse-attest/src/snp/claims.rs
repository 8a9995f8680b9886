use glasshouse_core::fixed::{Digest48, Digest64};
use glasshouse_core::traits::{ClaimSource, LabelledClaim};

use super::report::{Report, SigningKey};
use super::tcb::{Product, Tcb};

/// What was established about a guest and its platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnpClaims {
    /// The line of processors whose root the chain leads to.
    pub product: Product,
    /// The TCB that report and certificate agree on.
    pub tcb: Tcb,
    /// Whether the launch measurement is a reference value of the policy. Without, this is no evidence of a `CpuTee`.
    pub measured: bool,
    /// All fields of the report.
    pub report: Report,
}

impl SnpClaims {
    /// The launch measurement.
    pub fn measurement(&self) -> Digest48 {
        self.report.measurement
    }

    /// The report data.
    pub fn report_data(&self) -> Digest64 {
        self.report.report_data
    }

    /// The claims in the form of an appraisal.
    pub fn labelled(&self) -> Vec<LabelledClaim> {
        let Report { version, guest_svn, policy, vmpl, signing_key, measurement, host_data, chip_id, .. } =
            &self.report;
        let key = match signing_key {
            SigningKey::Vcek => "vcek",
            SigningKey::Vlek => "vlek",
        };
        [
            ("product", self.product.to_string()),
            ("report-version", version.to_string()),
            ("tcb", self.tcb.to_string()),
            ("signing-key", key.to_owned()),
            ("chip-id", chip_id.to_string()),
            ("measurement", measurement.to_string()),
            ("measurement-is-reference", self.measured.to_string()),
            ("host-data", host_data.to_string()),
            ("guest-svn", guest_svn.to_string()),
            ("guest-policy", format!("{:#x}", policy.0)),
            ("vmpl", vmpl.to_string()),
        ]
        .into_iter()
        .map(|(name, value)| LabelledClaim {
            name: format!("sev-snp-{name}"),
            value,
            source: ClaimSource::HardwareVerified,
        })
        .collect()
    }
}
