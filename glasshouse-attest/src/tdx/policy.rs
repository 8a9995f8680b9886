use std::collections::BTreeSet;

use glasshouse_core::fixed::{Digest32, Digest48, Fixed};
use serde::{Deserialize, Serialize};

use super::claims::{EnclaveClaims, TdClaims};

/// What is asked of a TD or an enclave beyond a genuine quote. Fields that a JSON document leaves out have these
/// defaults: no reference values (so that nothing is accepted before some are given), TCB status `UpToDate` only, nothing
/// relaxed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DcapPolicy {
    /// TDs that are accepted, by reference values.
    pub measurements: Vec<TdMeasurements>,
    /// Enclaves that are accepted, by reference values.
    pub enclaves: Vec<EnclaveMeasurements>,
    /// The oldest TCB.
    pub minimum_tcb: TcbFloor,
    /// TCB statuses that are accepted beside `UpToDate`. `Revoked` never is.
    pub allow_tcb_statuses: BTreeSet<TcbStatus>,
    /// Advisories (`INTEL-SA-00615`) that a platform with another status than `UpToDate` may be open to; any that is not
    /// listed refuses it.
    #[serde(alias = "allowed_advisories")]
    pub allow_advisories: BTreeSet<String>,
    /// Accepts TDs that are bound to service TDs.
    pub allow_service_td: bool,
    /// Lets reference values without RTMR0 count for a CPU TEE: the host may then choose the firmware's configuration,
    /// its ACPI tables and secure-boot keys among it.
    pub allow_unmeasured_firmware_configuration: bool,
    /// Accepts platforms whose firmware lacks published security fixes, when their status is allowed.
    pub dangerous_allow_out_of_date: bool,
    /// Accepts TDs and enclaves whose memory the host may read.
    pub dangerous_allow_debug: bool,
    /// Accepts any TD or enclave: it can then reach no assurance of a CPU TEE.
    pub dangerous_no_measurements: bool,
    /// Accepts a quote whose report data was not told to the verifier: it may answer anyone's session.
    pub dangerous_no_report_data: bool,
}

impl DcapPolicy {
    /// Whether one of its sets of reference values covers as much of the launch as it asks for.
    pub(crate) fn covers(&self, reference: &TdMeasurements) -> bool {
        let relaxed = self.allow_unmeasured_firmware_configuration && reference.cover_the_kernel();
        relaxed || reference.cover_the_launch()
    }
}

/// Reference values of one TD. What is `None` may be anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdMeasurements {
    /// Of the TD's initial memory: its firmware.
    pub mrtd: Digest48,
    /// Firmware configuration.
    #[serde(default)]
    pub rtmr0: Option<Digest48>,
    /// Boot loader and kernel.
    #[serde(default)]
    pub rtmr1: Option<Digest48>,
    /// Kernel command line, initrd and root file system.
    #[serde(default)]
    pub rtmr2: Option<Digest48>,
    /// The application's own.
    #[serde(default)]
    pub rtmr3: Option<Digest48>,
    /// MRCONFIGID.
    #[serde(default)]
    pub mr_config_id: Option<Digest48>,
    /// MROWNER.
    #[serde(default)]
    pub mr_owner: Option<Digest48>,
}

impl TdMeasurements {
    /// Whether firmware configuration, kernel, initrd and root file system are covered, as a `CpuTee` asks for.
    pub fn cover_the_launch(&self) -> bool {
        self.rtmr0.is_some() && self.cover_the_kernel()
    }

    fn cover_the_kernel(&self) -> bool {
        self.rtmr1.is_some() && self.rtmr2.is_some()
    }

    pub(super) fn fit(&self, td: &TdClaims) -> bool {
        let [rtmr0, rtmr1, rtmr2, rtmr3] = &td.rtmr;
        self.mrtd == td.mrtd
            && [
                (&self.rtmr0, rtmr0),
                (&self.rtmr1, rtmr1),
                (&self.rtmr2, rtmr2),
                (&self.rtmr3, rtmr3),
                (&self.mr_config_id, &td.mr_config_id),
                (&self.mr_owner, &td.mr_owner),
            ]
            .into_iter()
            .all(|(expected, seen)| expected.is_none_or(|expected| expected == *seen))
    }
}

/// Reference values of one enclave, or of all of one signer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnclaveMeasurements {
    /// Of the enclave; `None` accepts every enclave of the signer's product.
    #[serde(default)]
    pub mr_enclave: Option<Digest32>,
    /// Of the signer's key.
    pub mr_signer: Digest32,
    /// The signer's product.
    pub isv_prod_id: u16,
    /// The lowest security version of the product.
    pub minimum_isv_svn: u16,
}

impl EnclaveMeasurements {
    pub(super) fn fit(&self, enclave: &EnclaveClaims) -> bool {
        self.mr_enclave.is_none_or(|expected| expected == enclave.mr_enclave)
            && self.mr_signer == enclave.mr_signer
            && self.isv_prod_id == enclave.isv_prod_id
            && self.minimum_isv_svn <= enclave.isv_svn
    }
}

/// The oldest TCB that is accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcbFloor {
    /// `tcbEvaluationDataNumber` of the collateral: older TCB information is refused even while it is valid.
    pub evaluation_data_number: u32,
    /// TEE_TCB_SVN of a TD, each byte: module, module version, loader, …
    pub tee_tcb_svn: Option<Fixed<16>>,
}

/// Statuses that Intel gives a platform's TCB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TcbStatus {
    /// All published fixes, all configuration.
    UpToDate,
    /// Fixes that software must complete.
    #[serde(rename = "SWHardeningNeeded")]
    SwHardeningNeeded,
    /// Configuration that the platform's owner must complete.
    ConfigurationNeeded,
    /// Both.
    #[serde(rename = "ConfigurationAndSWHardeningNeeded")]
    ConfigurationAndSwHardeningNeeded,
    /// Lacks published fixes.
    OutOfDate,
    /// Lacks published fixes and configuration.
    OutOfDateConfigurationNeeded,
    /// Launched out of date on a platform that was updated since.
    #[serde(rename = "TDRelaunchAdvised")]
    TdRelaunchAdvised,
    /// The same, and configuration is needed.
    #[serde(rename = "TDRelaunchAdvisedConfigurationNeeded")]
    TdRelaunchAdvisedConfigurationNeeded,
    /// Its keys are compromised.
    Revoked,
}

impl TcbStatus {
    /// Whether published fixes lack or lacked.
    pub(super) const fn is_out_of_date(self) -> bool {
        !matches!(
            self,
            Self::UpToDate
                | Self::SwHardeningNeeded
                | Self::ConfigurationNeeded
                | Self::ConfigurationAndSwHardeningNeeded
        )
    }
}

impl DcapPolicy {
    /// Every relaxation that is in force, by name, for the verdict.
    pub fn relaxations(&self) -> Vec<String> {
        let list = |name: &str, entries: Vec<String>| {
            if entries.is_empty() { Vec::new() } else { vec![format!("{name} {}", entries.join(" "))] }
        };
        let mut all = list("allow_tcb_statuses", self.allow_tcb_statuses.iter().map(|s| format!("{s:?}")).collect());
        all.extend(list("allow_advisories", self.allow_advisories.iter().cloned().collect()));
        let switches = [
            (self.allow_service_td, "allow_service_td"),
            (self.allow_unmeasured_firmware_configuration, "allow_unmeasured_firmware_configuration"),
            (self.dangerous_allow_out_of_date, "dangerous_allow_out_of_date"),
            (self.dangerous_allow_debug, "dangerous_allow_debug"),
            (self.dangerous_no_measurements, "dangerous_no_measurements"),
            (self.dangerous_no_report_data, "dangerous_no_report_data"),
        ];
        all.extend(switches.into_iter().filter(|(on, _)| *on).map(|(_, name)| name.to_owned()));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_lies_over_the_defaults() {
        let policy: DcapPolicy = serde_json::from_value(json!({
            "measurements": [{"mrtd": "00".repeat(48)}],
            "allow_tcb_statuses": ["SWHardeningNeeded"],
            "allowed_advisories": ["INTEL-SA-00615"],
            "minimum_tcb": {"evaluation_data_number": 17},
        }))
        .unwrap();
        assert!(!policy.measurements[0].cover_the_launch());
        assert_eq!(policy.relaxations(), ["allow_tcb_statuses SwHardeningNeeded", "allow_advisories INTEL-SA-00615"]);
        for bad in [
            json!({"allow_debug": true}),
            json!({"allow_tcb_statuses": ["Fine"]}),
            json!({"measurements": [{"rtmr1": "00".repeat(48)}]}),
            json!({"measurements": [{"mrtd": "00".repeat(48), "rtmr4": "00".repeat(48)}]}),
            json!({"enclaves": [{"mr_enclave": "00".repeat(32)}]}),
        ] {
            assert!(serde_json::from_value::<DcapPolicy>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_switch_that_relaxes_is_told() {
        assert!(DcapPolicy::default().relaxations().is_empty());
        let json = serde_json::to_value(DcapPolicy::default()).unwrap();
        let switches = json.as_object().unwrap().iter().filter(|(_, value)| value.is_boolean());
        for (name, _) in switches {
            assert!(name.starts_with("allow_") || name.starts_with("dangerous_"));
            let policy: DcapPolicy = serde_json::from_value(json!({ name: true })).unwrap();
            assert_eq!(policy.relaxations(), [name.as_str()]);
        }
    }
}
