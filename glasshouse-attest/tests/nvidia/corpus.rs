//! The corpus lies beside the repository and is never part of it; without it the tests say so and pass.

use std::path::PathBuf;

use glasshouse_attest::nvidia::{Device, DeviceClaims, NvidiaCollateral, NvidiaPolicy, NvidiaRoots, NvidiaVerifier};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::DeviceKind;
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::refusal::Refusal;
use serde_json::Value;

/// The corpus, or nothing and a line on the terminal.
pub(crate) fn corpus() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation-vectors");
    if folder.join("cases.json").is_file() {
        return Some(folder);
    }
    println!("SKIPPED: no corpus at {}", folder.display());
    None
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(corpus().unwrap().join(name)).unwrap()
}

/// A report as bytes: the corpus holds them as hex.
pub(crate) fn report(name: &str) -> Vec<u8> {
    hex::decode(String::from_utf8(read(name)).unwrap().trim()).unwrap()
}

/// One NVIDIA case of `cases.json`, decoded.
pub(crate) struct Case {
    pub(crate) id: String,
    pub(crate) kind: DeviceKind,
    pub(crate) report: Vec<u8>,
    pub(crate) chain: Vec<u8>,
    pub(crate) rims: Vec<Vec<u8>>,
    pub(crate) nonce: Nonce32,
    pub(crate) at: UnixMillis,
    pub(crate) policy: NvidiaPolicy,
    pub(crate) accept: bool,
    pub(crate) fails_at: Option<String>,
}

impl Case {
    pub(crate) fn verify(&self) -> Result<DeviceClaims, Refusal> {
        self.verify_parts(&self.report, &self.chain)
    }

    pub(crate) fn verify_parts(&self, report: &[u8], chain: &[u8]) -> Result<DeviceClaims, Refusal> {
        let rims: Vec<_> = self.rims.iter().map(Vec::as_slice).collect();
        let verifier = NvidiaVerifier::new(self.policy.clone(), NvidiaRoots::nvidia());
        let collateral = NvidiaCollateral { rims: &rims, crls: &[], ocsp: &[] };
        verifier.verify_device(Device { kind: self.kind, report, chain }, collateral, &self.nonce, self.at)
    }
}

/// All cases of devices.
pub(crate) fn device_cases() -> Vec<Case> {
    cases().iter().filter_map(device_case).collect()
}

/// All cases as they are written.
pub(crate) fn cases() -> Vec<Value> {
    let file: Value = serde_json::from_slice(&read("cases.json")).unwrap();
    file["cases"].as_array().unwrap().clone()
}

fn device_case(case: &Value) -> Option<Case> {
    let text = |name: &str| case[name].as_str().unwrap();
    let kind = match text("kind") {
        "nvidia-gpu" => DeviceKind::NvidiaGpu,
        "nvidia-switch" => DeviceKind::NvidiaSwitch,
        _ => return None,
    };
    let policy = case.get("policy").cloned().unwrap_or_else(|| serde_json::json!({}));
    Some(Case {
        id: text("id").to_owned(),
        kind,
        report: report(text("report")),
        chain: read(text("chain")),
        rims: case["rims"].as_array().unwrap().iter().map(|rim| read(rim.as_str().unwrap())).collect(),
        nonce: Nonce32::from_hex(text("nonce")).unwrap(),
        at: time(text("at")),
        policy: serde_json::from_value(policy).unwrap(),
        accept: text("expect") == "accept",
        fails_at: case["fails_at"].as_str().map(str::to_owned),
    })
}

/// `2024-01-01T00:00:00Z`.
pub(crate) fn time(text: &str) -> UnixMillis {
    let parts: Vec<u64> = text.trim_end_matches('Z').split(['-', 'T', ':']).map(|part| part.parse().unwrap()).collect();
    let [year, month, day, h, m, s] = parts[..] else { panic!("{text}") };
    // Days to a civil date, counted in years that begin in March.
    let (y, mp) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * mp + 2) / 5 + day - 1 - 719_468;
    UnixMillis((((days * 24 + h) * 60 + m) * 60 + s) * 1000)
}

#[test]
fn times() {
    for text in ["2024-01-01T00:00:00Z", "2024-02-29T23:59:59Z", "2026-12-01T00:00:00Z", "2025-03-01T12:34:56Z"] {
        assert_eq!(time(text).to_string(), text);
    }
}
