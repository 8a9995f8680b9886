use super::*;
use serde_json::{Value, json};

fn tdx(more: &Value) -> Value {
    let zeros = "00".repeat(48);
    let mut tdx = json!({"measurements": [{"mrtd": zeros, "rtmr0": zeros, "rtmr1": zeros, "rtmr2": zeros}]});
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
    let zeros = "00".repeat(48);
    let mut kernel = json!({"measurements": [{"mrtd": zeros, "rtmr1": zeros, "rtmr2": zeros}]});
    assert!(
        matches!(read(tdx(&kernel)).check(), Err(PolicyError::NoLaunchMeasurements(_))),
        "no firmware configuration"
    );
    kernel["allow_unmeasured_firmware_configuration"] = json!(true);
    assert_eq!(read(tdx(&kernel)).check(), Ok(()));
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
fn what_contradicts_itself_is_refused() {
    let gpu = |gpu: Value, minimum: &str| {
        let mut policy = tdx(&json!({}));
        (policy["gpu"], policy["minimum_assurance"]) = (gpu, json!(minimum));
        read(policy).check()
    };
    let nothing = |checked| matches!(checked, Err(PolicyError::AcceptsNothing(_)));
    assert!(nothing(gpu(json!({"gpus": 0}), "CpuTeeGpuCc")));
    assert_eq!(gpu(json!({"gpus": 0}), "CpuTee"), Ok(()));
    assert!(nothing(gpu(json!({"require_token": true}), "CpuTee")));
    assert_eq!(gpu(json!({"require_token": true, "tokens": {}}), "CpuTee"), Ok(()));
    assert!(nothing(gpu(json!({"tokens": {"issuers": []}}), "CpuTee")));
    assert!(nothing(gpu(json!({"devices": {"features": []}}), "CpuTeeGpuCc")));
    let token = json!({"issuers": [], "measurements": ["00".repeat(32)]});
    let space = json!({"confidential-space": {"audience": "a", "token": token}});
    assert!(nothing(read(json!({"cpu": space, "minimum_assurance": "CpuTee"})).check()));
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
fn tokens_of_a_far_future() {
    for (ahead, holds) in [(600, true), (601, false), (u32::MAX, false)] {
        let mut policy = tdx(&json!({}));
        policy["gpu"] = json!({"tokens": {"max_clock_ahead_seconds": ahead}});
        assert_eq!(read(policy).check().is_ok(), holds, "{ahead}");
        let token = json!({"max_clock_ahead_seconds": ahead, "measurements": ["00".repeat(32)]});
        let space = json!({"confidential-space": {"audience": "a", "token": token}});
        assert_eq!(read(json!({"cpu": space, "minimum_assurance": "CpuTee"})).check().is_ok(), holds, "{ahead}");
    }
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
    let mut ahead = tdx(&json!({}));
    ahead["gpu"] = json!({"tokens": {"max_clock_ahead_seconds": 61}});
    assert_eq!(read(ahead.clone()).relaxations(), ["gpu.tokens.max_clock_ahead_seconds 61"]);
    ahead["gpu"] = json!({"tokens": {"max_clock_ahead_seconds": 60}});
    assert!(read(ahead).relaxations().is_empty());
    let token = json!({"max_clock_ahead_seconds": 90, "measurements": ["00".repeat(32)]});
    let space = json!({"confidential-space": {"audience": "a", "token": token}});
    let space = read(json!({"cpu": space, "minimum_assurance": "CpuTee"}));
    assert_eq!(space.relaxations(), ["cpu.confidential-space.max_clock_ahead_seconds 90"]);
    let mut pinned = tdx(&json!({}));
    assert!(read(pinned.clone()).relaxations().is_empty());
    pinned["dangerous_at"] = json!(null);
    assert!(serde_json::from_value::<HardwarePolicy>(pinned.clone()).is_err(), "as the schema says");
    pinned["dangerous_at"] = json!(1_795_417_080_000_u64);
    assert_eq!(read(pinned).relaxations(), ["dangerous_at 2026-11-23T06:58:00Z"]);
}
