use super::*;
use serde_json::{Value, json};

fn tdx(more: &Value) -> Value {
    let mut tdx =
        json!({"measurements": [{"mrtd": "00".repeat(48), "rtmr1": "00".repeat(48), "rtmr2": "00".repeat(48)}]});
    tdx.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"cpu": {"tdx": tdx}, "minimum_assurance": "CpuTee"})
}

fn read(policy: Value) -> HardwarePolicy {
    serde_json::from_value(policy).unwrap()
}

#[test]
fn what_can_reach_nothing_is_refused() {
    assert_eq!(read(tdx(&json!({}))).check(), Ok(()));
    for relaxed in ["dangerous_no_measurements", "dangerous_allow_debug"] {
        assert_eq!(read(tdx(&json!({ relaxed: true }))).check(), Err(PolicyError::Relaxed(relaxed)));
    }
    let firmware_only = tdx(&json!({"measurements": [{"mrtd": "00".repeat(48)}]}));
    assert!(matches!(read(firmware_only).check(), Err(PolicyError::NoLaunchMeasurements(_))));
    let snp = json!({"cpu": {"sev-snp": {}}, "minimum_assurance": "CpuTee"});
    assert!(matches!(read(snp).check(), Err(PolicyError::NoLaunchMeasurements(_))));
    let space = json!({"cpu": {"confidential-space": {"audience": "a"}}, "minimum_assurance": "CpuTee"});
    assert!(matches!(read(space).check(), Err(PolicyError::NoLaunchMeasurements(_))));
    let mut gpus = tdx(&json!({}));
    for relaxed in ["dangerous_no_measurements", "allow_missing_driver_rim", "allow_missing_vbios_rim"] {
        gpus["gpu"] = json!({"devices": { relaxed: true }});
        gpus["minimum_assurance"] = json!("CpuTee");
        assert_eq!(read(gpus.clone()).check(), Ok(()));
        gpus["minimum_assurance"] = json!("CpuTeeGpuCc");
        assert!(
            matches!(read(gpus.clone()).check(), Err(PolicyError::UnmeasuredGpus(name)) if name.ends_with(relaxed))
        );
    }
    gpus["gpu"] = json!({"serials": ["0xAB"]});
    assert!(matches!(read(gpus).check(), Err(PolicyError::Serial(_))));
}

#[test]
fn no_other_members() {
    for (at, member) in [("", "gpus"), ("/cpu", "sgx"), ("/cpu/tdx", "allow_all"), ("/cpu/tdx/measurements/0", "x")] {
        let mut policy = tdx(&json!({}));
        policy.pointer_mut(at).unwrap()[member] = json!({});
        assert!(serde_json::from_value::<HardwarePolicy>(policy).is_err(), "{at}/{member}");
    }
    for gpu in [json!({"device": {}}), json!({"devices": {"allow": true}}), json!({"tokens": {"issuer": []}})] {
        let mut policy = tdx(&json!({}));
        policy["gpu"] = gpu;
        assert!(serde_json::from_value::<HardwarePolicy>(policy).is_err());
    }
    let mut policy = tdx(&json!({}));
    policy["minimum_assurance"] = json!("SelfReported");
    assert!(serde_json::from_value::<HardwarePolicy>(policy).is_err());
}

#[test]
fn relaxations_name_their_part() {
    let mut policy = tdx(&json!({"allow_service_td": true}));
    policy["gpu"] = json!({"devices": {"allow_missing_fwid": true}, "tokens": {"dangerous_allow_debug": true}});
    let told = read(policy).relaxations();
    assert_eq!(
        told,
        ["cpu.tdx.allow_service_td", "gpu.devices.allow_missing_fwid", "gpu.tokens.dangerous_allow_debug"]
    );
}
