use std::collections::BTreeMap;

use glasshouse_core::fixed::{Digest32, Digest48};
use serde::{Deserialize, Serialize};

use super::tcb::{Product, Tcb};

/// What is asked of a guest beyond a genuine report. Fields that a JSON document leaves out have these defaults: no
/// reference values (so that nothing is accepted before some are given), no floors, privilege level 0, nothing relaxed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SnpPolicy {
    /// Launch measurements that are accepted: reference values over firmware, kernel, initrd and command line.
    pub measurements: Vec<Digest48>,
    /// The only host data that is accepted.
    pub host_data: Option<Digest32>,
    /// SHA-384 of the identity keys that are accepted; empty accepts every guest, with an identity block or without.
    pub id_keys: Vec<Digest48>,
    /// The oldest firmware by product, of the platform now and when the guest was launched. With one for some product, a
    /// processor of another is refused.
    pub minimum_tcb: BTreeMap<Product, Tcb>,
    /// The lowest security version of the guest.
    pub minimum_guest_svn: u32,
    /// The privilege level that must have asked for the report.
    pub vmpl: u32,
    /// Only guests that may not run beside a sibling thread.
    pub require_no_smt: bool,
    /// Only guests that may run on one socket only.
    pub require_single_socket: bool,
    /// Only guests whose DRAM ciphertext is hidden from the host.
    pub require_ciphertext_hiding: bool,
    /// Only chains whose root comes with a revocation list.
    pub require_crl: bool,
    /// Accepts guests that a migration agent may move.
    pub allow_migration: bool,
    /// Accepts platforms that mask their chip's identity, where the key is a VCEK.
    pub allow_masked_chip_id: bool,
    /// Accepts guests whose memory the hypervisor may read.
    pub dangerous_allow_debug: bool,
    /// Accepts any guest: it can then reach no assurance of a CPU TEE.
    pub dangerous_no_measurements: bool,
    /// Accepts a report whose report data was not told to the verifier: it may answer anyone's session.
    pub dangerous_no_report_data: bool,
}

impl SnpPolicy {
    /// Every relaxation that is in force, by name, for the verdict.
    pub fn relaxations(&self) -> Vec<String> {
        [
            (self.allow_migration, "allow_migration"),
            (self.allow_masked_chip_id, "allow_masked_chip_id"),
            (self.dangerous_allow_debug, "dangerous_allow_debug"),
            (self.dangerous_no_measurements, "dangerous_no_measurements"),
            (self.dangerous_no_report_data, "dangerous_no_report_data"),
        ]
        .into_iter()
        .filter(|(on, _)| *on)
        .map(|(_, name)| name.to_owned())
        // Software at the levels above asked for nothing, and can change what is at this one.
        .chain((self.vmpl > 0).then(|| format!("vmpl {}", self.vmpl)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_lies_over_the_defaults() {
        let policy: SnpPolicy = serde_json::from_value(json!({
            "minimum_tcb": {"milan": {"snp": 8, "microcode": 115}}, "measurements": ["00".repeat(48)],
        }))
        .unwrap();
        assert_eq!(policy.minimum_tcb[&Product::Milan], Tcb { snp: 8, microcode: 115, ..Tcb::default() });
        assert!(policy.relaxations().is_empty());
        assert_eq!(SnpPolicy { vmpl: 2, ..policy }.relaxations(), ["vmpl 2"]);
        for bad in [
            json!({"allow_debug": true}),
            json!({"minimum_tcb": {"naples": {}}}),
            json!({"minimum_tcb": {"milan": {"ucode": 1}}}),
            json!({"measurements": ["00"]}),
        ] {
            assert!(serde_json::from_value::<SnpPolicy>(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_relaxation_is_told() {
        let json = serde_json::to_value(SnpPolicy::default()).unwrap();
        let names = json.as_object().unwrap().keys().filter(|k| k.starts_with("allow_") || k.starts_with("dangerous_"));
        for name in names {
            let policy: SnpPolicy = serde_json::from_value(json!({ name: true })).unwrap();
            assert_eq!(policy.relaxations(), [name.as_str()]);
        }
    }
}
