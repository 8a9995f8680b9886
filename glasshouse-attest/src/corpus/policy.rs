use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::nvidia::NvidiaPolicy;
use crate::snp::SnpPolicy;
use crate::tdx::DcapPolicy;
use crate::tokens::{ConfidentialSpacePolicy, NrasPolicy};

/// Lays a case's policy over a kind's default. Relaxations that only another kind has relax nothing here and are passed
/// over; a key that no kind has, and a floor of another kind, is an error.
///
/// # Errors
/// The key that is not known, or the value that is not the key's.
pub(super) fn over_default<T: Default + Serialize + DeserializeOwned>(case: &Map<String, Value>) -> Result<T, String> {
    let (own, known) = (keys::<T>(), known());
    let foreign = |key: &String| known.contains(key) && !own.contains(key);
    let policy = case.iter().filter(|(key, value)| !value.is_null() && !foreign(key));
    let policy: Map<String, Value> = policy.map(|(key, value)| (key.clone(), value.clone())).collect();
    if let Some(key) = case.iter().find(|(key, value)| value.is_null() && !own.contains(*key) && !known.contains(*key))
    {
        return Err(format!("the policy: no kind has {:?}", key.0));
    }
    serde_json::from_value(Value::Object(policy)).map_err(|e| format!("the policy: {e}"))
}

/// Every relaxation of every kind.
fn known() -> BTreeSet<String> {
    let all = [
        keys::<NvidiaPolicy>(),
        keys::<NrasPolicy>(),
        keys::<ConfidentialSpacePolicy>(),
        keys::<SnpPolicy>(),
        keys::<DcapPolicy>(),
    ];
    all.into_iter().flatten().filter(|key| key.starts_with("allow") || key.starts_with("dangerous_")).collect()
}

fn keys<T: Default + Serialize>() -> BTreeSet<String> {
    let json = serde_json::to_value(T::default()).unwrap_or_default();
    let mut keys: BTreeSet<String> = json.as_object().into_iter().flat_map(Map::keys).cloned().collect();
    // Its other name.
    if keys.contains("allow_advisories") {
        keys.insert("allowed_advisories".to_owned());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn over<T: Default + Serialize + DeserializeOwned>(policy: &Value) -> Result<T, String> {
        over_default(policy.as_object().unwrap())
    }

    #[test]
    fn what_relaxes_another_kind_relaxes_nothing() {
        let foreign =
            json!({"allow_missing_fwid": true, "allowed_advisories": ["INTEL-SA-1"], "allow_migration": null});
        assert_eq!(over::<SnpPolicy>(&foreign), Ok(SnpPolicy::default()));
        assert_eq!(over::<DcapPolicy>(&foreign).unwrap().allow_advisories.len(), 1);
        assert!(over::<NvidiaPolicy>(&foreign).unwrap().allow_missing_fwid);
        assert!(known().contains("dangerous_allow_out_of_date") && !known().contains("minimum_driver"));
    }

    #[test]
    fn what_nothing_has_is_an_error() {
        for policy in [
            json!({"dangerous_skip": true}),
            json!({"dangerous_skip": null}),
            json!({"allow_missing_fwd": true}),
            json!({"minimum_driver": "550"}),
            json!({"dangerous_no_measurements": "yes"}),
        ] {
            assert!(over::<SnpPolicy>(&policy).is_err(), "{policy}");
        }
    }
}
