//! Every NVIDIA case of the corpus, and the parser field by field.

use glasshouse_attest::nvidia::{NvidiaRoots, OpaqueData, Report, SignedReport, verify_rim};
use serde_json::Value;

use crate::corpus::{cases, corpus, device_cases, read, report, time};

fn outcome<T>(result: Result<T, glasshouse_core::refusal::Refusal>) -> (bool, Option<String>, String) {
    match result {
        Ok(_) => (true, None, "accepted".to_owned()),
        Err(refusal) => (false, Some(refusal.code.to_string()), refusal.to_string()),
    }
}

#[test]
fn devices() {
    if corpus().is_none() {
        return;
    }
    let cases = device_cases();
    assert!(cases.len() >= 12);
    for case in cases {
        let (accepted, code, told) = outcome(case.verify());
        println!("{}: {told}", case.id);
        assert_eq!((accepted, &code), (case.accept, &case.fails_at), "{}: {told}", case.id);
    }
}

#[test]
fn manifests() {
    if corpus().is_none() {
        return;
    }
    let mut seen = 0;
    for case in cases().iter().filter(|case| case["kind"] == "nvidia-rim") {
        let document = read(case["rim"].as_str().unwrap());
        let at = time(case["at"].as_str().unwrap());
        let (accepted, code, told) = outcome(verify_rim(&document, &NvidiaRoots::nvidia().rim, at));
        println!("{}: {told}", case["id"]);
        assert_eq!((accepted, code.as_deref()), (case["expect"] == "accept", case["fails_at"].as_str()), "{told}");
        seen += 1;
    }
    assert!(seen >= 3);
}

#[test]
fn the_parser_agrees_with_the_vendors_field_by_field() {
    if corpus().is_none() {
        return;
    }
    let expected: Value = serde_json::from_slice(&read("nvidia/expected/spdm_parsed_output.json")).unwrap();
    let bytes = report("nvidia/h100_580/report.hex");
    let parts = SignedReport::split(&bytes).unwrap();
    let report = Report::parse(parts.signed).unwrap();
    let hex = |value: &Value| hex::decode(value.as_str().unwrap().strip_prefix("0x").unwrap()).unwrap();

    assert_eq!(expected["SPDMVersion"], "0x11");
    assert_eq!(expected["RequestResponseCode"], "0x60");
    assert_eq!(hex(&expected["Param1"]), report.response_params[..1]);
    assert_eq!(hex(&expected["Param2"]), report.response_params[1..]);
    assert_eq!(expected["NumberOfBlocks"], report.measurements.len());
    assert_eq!(expected["MeasurementRecordLength"], report.record_length);
    assert_eq!(hex(&expected["Nonce"]), report.device_nonce.as_bytes());
    assert_eq!(hex(&expected["Signature"]), parts.signature);
    let opaque_length: usize = report.opaque.fields().values().map(|value| value.len() + 4).sum();
    assert_eq!(expected["OpaqueLength"], opaque_length);

    let blocks = expected["MeasurementRecord"]["MeasurementBlocks"].as_object().unwrap();
    assert_eq!(blocks.len(), report.measurements.len());
    for (index, block) in blocks {
        let measurement = &report.measurements[&index.parse().unwrap()];
        assert_eq!(block["DMTFSpecMeasurementValueType"], measurement.value_type);
        assert_eq!(block["DMTFSpecMeasurementValueSize"], measurement.value.len());
        assert_eq!(hex(&block["DMTFSpecMeasurementValue"]), measurement.value);
    }

    let fields = [
        ("VBIOS_VERSION", OpaqueData::VBIOS_VERSION),
        ("BOARD_ID", 14),
        ("CHIP_SKU", OpaqueData::CHIP_SKU),
        ("CHIP_SKU_MOD", 16),
        ("PROJECT", OpaqueData::PROJECT),
        ("PROJECT_SKU", OpaqueData::PROJECT_SKU),
        ("PROJECT_SKU_MOD", 19),
        ("DRIVER_VERSION", OpaqueData::DRIVER_VERSION),
        ("GPU_INFO", 4),
        ("CPRINFO", 13),
        ("NVDEC0_STATUS", OpaqueData::NVDEC0),
        ("FWID", OpaqueData::FWID),
        ("PROTECTED_PCIE_STATUS", OpaqueData::PROTECTED_PCIE),
    ];
    let opaque = expected["OpaqueData"]["OpaqueDataField"].as_object().unwrap();
    assert_eq!(opaque.len(), fields.len() + 1);
    for (name, field) in fields {
        assert_eq!(hex(&opaque[&format!("OPAQUE_FIELD_ID_{name}")]), report.opaque.field(field).unwrap(), "{name}");
    }
    let counts: Vec<u32> = serde_json::from_value(opaque["OPAQUE_FIELD_ID_MSRSCNT"].clone()).unwrap();
    assert_eq!(Some(counts), report.opaque.measurement_counts());
}

#[test]
fn what_the_complete_set_establishes() {
    if corpus().is_none() {
        return;
    }
    let cases = device_cases();
    let claims = |id: &str| cases.iter().find(|case| case.id == id).unwrap().verify().unwrap();
    let gpu = claims("nvidia-h100-complete");
    assert_eq!((gpu.matched.len(), gpu.skipped.as_slice()), (32, &[35][..]), "33 active values, NVDEC0 is disabled");
    assert_eq!((gpu.chip.as_str(), gpu.vbios_version.as_str()), ("GH100", "96.00.5E.00.01"));
    assert_eq!(gpu.driver_version.as_deref(), Some("545.00"));
    assert_eq!(gpu.rims.iter().map(|rim| rim.names_board).collect::<Vec<_>>(), [false, true]);
    let switch = claims("nvidia-ls10-switch");
    assert_eq!((switch.matched.len(), switch.chip.as_str()), (31, "LS10"));
    assert!(gpu.labelled().iter().all(|claim| claim.name.starts_with("nvidia-gpu-50948c72")));
}
