//! The example and the schema say what the types say: each property of one is a member of the other.

use std::collections::BTreeSet;

use glasshouse_attest::hardware::{
    ConfidentialSpaceSession, CpuPolicy, GpuPolicy, HardwarePolicy, HardwareVerifier, MinimumAssurance,
};
use glasshouse_attest::nvidia::{DriverVersion, Feature, VbiosVersion};
use glasshouse_attest::snp::{Product, SnpPolicy, Tcb};
use glasshouse_attest::tdx::{DcapPolicy, EnclaveMeasurements, TcbFloor, TdMeasurements};
use glasshouse_attest::tokens::{ConfidentialSpacePolicy, Hardware, NrasPolicy, Support};
use glasshouse_attest_gen::{AUDIT_TIME, Platform};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::traits::Verifier as _;
use serde_json::{Map, Value};

use crate::session::Session;

const SCHEMA: &str = include_str!("../../policy.schema.json");
const EXAMPLE: &str = include_str!("../../policy.example.json");

fn schema() -> Value {
    serde_json::from_str(SCHEMA).unwrap()
}

/// Policies in which every member of every type has a value.
fn full() -> [HardwarePolicy; 3] {
    let d48 = Some([1; 48].into());
    let td = TdMeasurements {
        mrtd: [1; 48].into(),
        rtmr0: d48,
        rtmr1: d48,
        rtmr2: d48,
        rtmr3: d48,
        mr_config_id: d48,
        mr_owner: d48,
    };
    let enclave = EnclaveMeasurements {
        mr_enclave: Some([1; 32].into()),
        mr_signer: [1; 32].into(),
        isv_prod_id: 1,
        minimum_isv_svn: 1,
    };
    let tdx = DcapPolicy {
        measurements: vec![td],
        enclaves: vec![enclave],
        minimum_tcb: TcbFloor { evaluation_data_number: 1, tee_tcb_svn: Some([1; 16].into()) },
        allow_advisories: ["INTEL-SA-00001".to_owned()].into(),
        ..DcapPolicy::default()
    };
    let snp = SnpPolicy {
        measurements: vec![[1; 48].into()],
        host_data: Some([1; 32].into()),
        id_keys: vec![[1; 48].into()],
        minimum_tcb: [Product::Milan, Product::Genoa, Product::Turin].map(|p| (p, Tcb::default())).into(),
        ..SnpPolicy::default()
    };
    let token = ConfidentialSpacePolicy {
        measurements: vec![[1; 32].into()],
        hardware: vec![Hardware::IntelTdx],
        minimum_support: Some(Support::Stable),
        minimum_version: Some(1),
        ..ConfidentialSpacePolicy::default()
    };
    let space = ConfidentialSpaceSession { audience: "a".into(), token };
    let mut gpu = GpuPolicy {
        gpus: Some(1),
        switches: Some(1),
        serials: vec!["ab".into()],
        tokens: Some(NrasPolicy::default()),
        ..GpuPolicy::default()
    };
    gpu.devices.minimum_driver = DriverVersion::parse("570.1");
    gpu.devices.minimum_vbios = [("GH100".to_owned(), VbiosVersion::parse("96.00.9F.00.01").unwrap())].into();
    gpu.devices.features = vec![Feature::Spt];
    let policy = |cpu| HardwarePolicy {
        cpu,
        gpu: gpu.clone(),
        minimum_assurance: MinimumAssurance::CpuTeeGpuCc,
        dangerous_at: Some(AUDIT_TIME),
    };
    [CpuPolicy::Tdx(tdx), CpuPolicy::SevSnp(snp), CpuPolicy::ConfidentialSpace(space)].map(policy)
}

fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(name) => root.pointer(name.trim_start_matches('#')).unwrap(),
        None => schema,
    }
}

/// Every object's members are exactly the schema's properties.
fn same_members(root: &Value, schema: &Value, value: &Value, at: &str) {
    let schema = resolve(root, schema);
    match value {
        Value::Object(members) if schema["additionalProperties"] == Value::Bool(false) => {
            let properties = schema["properties"].as_object().unwrap();
            let names = |map: &Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(members), names(properties), "{at}");
            for (name, value) in members {
                same_members(root, &properties[name], value, &format!("{at}/{name}"));
            }
        }
        Value::Object(members) if schema["oneOf"].is_array() => {
            let (name, value) = members.iter().next().unwrap();
            let fits = |option: &&Value| option["properties"].get(name).is_some();
            let option = schema["oneOf"].as_array().unwrap().iter().find(fits).unwrap();
            same_members(root, &option["properties"][name], value, &format!("{at}/{name}"));
        }
        Value::Array(items) => {
            items.iter().for_each(|item| same_members(root, &schema["items"], item, &format!("{at}[]")));
        }
        _ => assert_scalar(schema, value, at),
    }
}

/// Type, words and relaxations' names.
fn assert_scalar(schema: &Value, value: &Value, at: &str) {
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_u64(),
        Some("object") => value.is_object(),
        None => schema["enum"].as_array().unwrap().contains(value),
        _ => false,
    };
    assert!(fits, "{at}: {value}");
    let name = at.rsplit('/').next().unwrap();
    let relaxes = name.starts_with("allow_") || name.starts_with("dangerous_");
    if value.is_boolean() {
        assert_eq!(relaxes, schema["description"].as_str().unwrap().starts_with("relaxation: "), "{at}");
        assert!(relaxes || name.starts_with("require_"), "{at}");
    }
}

#[test]
fn the_schema_is_the_types() {
    let schema = schema();
    for policy in full() {
        same_members(&schema, &schema, &serde_json::to_value(&policy).unwrap(), "");
    }
}

/// A time of one's own is another policy, which every verdict names; without one, the time is the caller's, and a policy
/// from before there was the member has the digest that it had.
#[test]
fn a_time_of_ones_own_is_told() {
    let session = Session::new(Platform::tdx(1));
    let made = session.make();
    let json = serde_json::to_string(&session.policy).unwrap();
    assert!(!json.contains("dangerous_at"), "{json}");
    let (plain, twenty_years) = (session.verifier(), 20 * 365 * 86_400_000);
    let appraise = |verifier: &HardwareVerifier, at| session.appraise_at(verifier, &made, at);
    let later = UnixMillis(AUDIT_TIME.0 + twenty_years);
    assert!(appraise(&plain, AUDIT_TIME).unwrap().relaxations.is_empty());
    assert!(appraise(&plain, later).is_err(), "what the vendors published has run out");
    let pinned = |at| {
        let policy = HardwarePolicy { dangerous_at: Some(at), ..session.policy.clone() };
        HardwareVerifier::new(policy, Platform::roots(), session.collateral.clone()).unwrap()
    };
    let kept = pinned(AUDIT_TIME);
    assert_ne!(kept.policy_digest(), plain.policy_digest());
    assert_ne!(kept.policy_digest(), pinned(UnixMillis(AUDIT_TIME.0 + 1)).policy_digest());
    for at in [AUDIT_TIME, later] {
        let appraisal = appraise(&kept, at).unwrap();
        assert_eq!(appraisal.relaxations, [format!("dangerous_at {AUDIT_TIME}")]);
    }
    assert!(appraise(&pinned(later), AUDIT_TIME).is_err(), "it is as of that time for better and for worse");
}

#[test]
fn the_schemas_words_are_the_types() {
    let schema = schema();
    let words = |at: &str| schema.pointer(at).unwrap()["enum"].as_array().unwrap().clone();
    for status in words("/$defs/tdx/properties/allow_tcb_statuses/items") {
        serde_json::from_value::<glasshouse_attest::tdx::TcbStatus>(status).unwrap();
    }
    for hardware in words("/$defs/confidential-space/properties/token/properties/hardware/items") {
        serde_json::from_value::<Hardware>(hardware).unwrap();
    }
    for feature in words("/properties/gpu/properties/devices/properties/features/items") {
        serde_json::from_value::<Feature>(feature).unwrap();
    }
    for assurance in words("/properties/minimum_assurance") {
        serde_json::from_value::<MinimumAssurance>(assurance).unwrap();
    }
}

#[test]
fn the_example_is_a_policy_that_can_accept_something() {
    let example: HardwarePolicy = serde_json::from_str(EXAMPLE).unwrap();
    example.check().unwrap();
    assert_eq!(example.relaxations().len(), 2, "{:?}", example.relaxations());
    // It is the generator's guest that it describes: the example is held to real appraisals.
    let mut session = crate::session::Session::new(glasshouse_attest_gen::Platform::tdx(1));
    session.policy = example;
    let appraisal = session.appraise(&session.make()).unwrap();
    assert_eq!(appraisal.relaxations.len(), 2);
}
