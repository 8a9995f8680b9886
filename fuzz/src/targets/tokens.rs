//! Attestation services' tokens: NVIDIA's detached EAT bundles, Google's Confidential Space tokens, and key sets.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse_attest::json::{self, Limits};
use glasshouse_attest::jws;
use glasshouse_attest::tokens::{
    ConfidentialSpaceClaims, ConfidentialSpacePolicy, Jwks, NrasClaims, NrasPolicy, codes, verify_confidential_space,
    verify_nras,
};
use glasshouse_core::fixed::{Fixed, Nonce32};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::transcript::{sha256, sha384};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use rsa::signature::SignatureEncoding as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::Sha256;

use super::{line, mode};
use crate::check;
use crate::keys::{AT, RSA};

const NONCE: Nonce32 = Fixed([5; 32]);
const NOW: u64 = AT.0 / 1000;
/// In a bundle's payload: the digest of the device's token, which stands in the same input.
pub const DIGEST: &str = "@digest@";

/// `a`: a bundle. `b`: the payloads of a bundle and, on the next line, of its one device, signed here. `c`: a
/// Confidential Space token. `d`: the payload of one, signed here. `e`: a key set.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', bundle)) => {
            if let Some(claims) = nras(bundle, &KEYS) {
                assert_eq!(claims, *NRAS, "nobody signed this");
            }
        }
        Some((b'b', bytes)) => signed_bundle(bytes),
        Some((b'c', token)) => {
            if let Ok(token) = std::str::from_utf8(token)
                && let Some(claims) = space(token)
            {
                assert_eq!(claims, *SPACE, "nobody signed this");
            }
        }
        Some((b'd', payload)) => signed_space(payload),
        Some((b'e', json)) => key_set(json),
        _ => {}
    }
}

fn refused(refusal: &Refusal) {
    let jwt = [Code::JWT_MALFORMED, Code::JWT_ALGORITHM, Code::JWT_KEY_CONFUSION, Code::JWT_SIGNATURE, jws::KEY_ID];
    check::refusal_of(refusal, &[codes::ALL, &jwt].concat());
}

fn nras(bundle: &[u8], keys: &Jwks) -> Option<NrasClaims> {
    let result = verify_nras(bundle, keys, &NONCE, &NrasPolicy::default(), AT);
    result.inspect(|claims| check::labelled(&claims.labelled())).inspect_err(refused).ok()
}

fn space(token: &str) -> Option<ConfidentialSpaceClaims> {
    let policy = ConfidentialSpacePolicy { measurements: vec![[1; 32].into()], ..ConfidentialSpacePolicy::default() };
    let result = verify_confidential_space(token, &KEYS, ("me", "this-session"), &policy, AT);
    result.inspect(|claims| check::labelled(&claims.labelled())).inspect_err(refused).ok()
}

/// Both payloads are the service's own words about this session, of this time, and the device passed.
fn signed_bundle(bytes: &[u8]) {
    let (overall, device) = line(bytes);
    let Ok(overall) = std::str::from_utf8(overall) else { return };
    let Some(claims) = nras(&bundle(overall, device), &KEYS) else { return };
    let limits = Limits { bytes: 1024 * 1024, depth: 8 };
    let read = [overall.as_bytes(), device].map(|payload| {
        assert_eq!(json::check(payload, limits), Ok(()));
        let read: Value = serde_json::from_slice(payload).unwrap();
        assert_eq!(read["iss"], "https://nras.attestation.nvidia.com");
        assert_eq!(read["eat_nonce"], NONCE.to_string());
        in_time(&read);
        read
    });
    let [overall, device] = read;
    assert_eq!(overall["x-nvidia-overall-att-result"], true);
    let digest = json!({"GPU-0": ["DIGEST", ["SHA-256", overall["submods"]["GPU-0"][1][1]]]});
    assert_eq!(overall["submods"], digest);
    let passed = [&device["measres"], &device["dbgstat"]];
    assert_eq!((passed, &device["secboot"]), ([&json!("success"), &json!("disabled")], &json!(true)));
    let claimed = &claims.devices["GPU-0"];
    assert_eq!((&json!(claimed.ueid), &json!(claimed.model)), (&device["ueid"], &device["hwmodel"]));
    assert_eq!(claims.devices.len(), 1);
}

fn in_time(read: &Value) {
    let at = |name: &str| read[name].as_u64().unwrap();
    assert!(at("exp") > NOW && at("nbf") <= NOW + 60 && at("iat") <= NOW + 60);
}

fn signed_space(payload: &[u8]) {
    let Some(claims) = space(&rs256(payload)) else { return };
    let read: Value = serde_json::from_slice(payload).unwrap();
    in_time(&read);
    for (name, value) in [
        ("iss", "https://confidentialcomputing.googleapis.com"),
        ("swname", "CONFIDENTIAL_SPACE"),
        ("dbgstat", "disabled-since-boot"),
    ] {
        assert_eq!(read[name], value);
    }
    for (name, value) in [("aud", json!("me")), ("eat_nonce", json!("this-session"))] {
        assert!(read[name] == value || read[name] == json!([value]), "{}", read[name]);
    }
    assert_eq!(read["secboot"], true);
    assert_eq!(read["submods"]["container"]["image_digest"], format!("sha256:{}", "01".repeat(32)));
    let tee = ["GCP_INTEL_TDX", "GCP_AMD_SEV_SNP"].contains(&read["hwmodel"].as_str().unwrap());
    assert_eq!(claims.is_cpu_tee(), tee);
    assert!(claims.measured && !claims.debug);
}

/// A key set is one document for every reader, and tokens verify under it only where it holds their keys.
fn key_set(bytes: &[u8]) {
    let keys = match Jwks::parse(bytes) {
        Ok(keys) => keys,
        Err(refusal) => return refused(&refusal),
    };
    assert_eq!(json::check(bytes, Limits { bytes: 256 * 1024, depth: 8 }), Ok(()));
    let read: Value = serde_json::from_slice(bytes).unwrap();
    assert_eq!(Jwks::parse(&serde_json::to_vec(&read).unwrap()), Ok(keys.clone()));
    if nras(&BUNDLE, &keys).is_some() {
        let ours: Value = serde_json::from_slice(&key_set_json()).unwrap();
        let key = &ours["keys"][0];
        let member = |entry: &Value| ["kid", "x", "y"].iter().all(|name| entry[*name] == key[*name]);
        assert!(read["keys"].as_array().unwrap().iter().any(member));
    }
}

fn es384_key() -> SigningKey {
    SigningKey::from_slice(sha384("es384").as_bytes()).unwrap()
}

/// A token of NVIDIA's service.
fn es384(payload: &[u8]) -> String {
    static KEY: LazyLock<SigningKey> = LazyLock::new(es384_key);
    let input =
        format!("{}.{}", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES384","kid":"ec"}"#), URL_SAFE_NO_PAD.encode(payload));
    let signature: Signature = KEY.sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

/// A token of Google's service.
pub fn rs256(payload: &[u8]) -> String {
    static KEY: LazyLock<rsa::pkcs1v15::SigningKey<Sha256>> =
        LazyLock::new(|| rsa::pkcs1v15::SigningKey::new(RSA.clone()));
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","kid":"rsa","typ":"JWT"}"#);
    let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(KEY.sign(input.as_bytes()).to_bytes()))
}

/// The bundle of these payloads, the device's digest put in where [`DIGEST`] stands.
pub fn bundle(overall: &str, device: &[u8]) -> Vec<u8> {
    let device = es384(device);
    let overall = es384(overall.replace(DIGEST, &sha256(&device).to_string()).as_bytes());
    json!([["JWT", overall], {"GPU-0": device}]).to_string().into_bytes()
}

/// Payloads of a good bundle and of its device.
pub fn nras_payloads() -> [String; 2] {
    let common = json!({
        "iss": "https://nras.attestation.nvidia.com", "eat_nonce": NONCE, "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 3600,
    });
    let with = |more: Value| {
        let mut all = common.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all.to_string()
    };
    let device = json!({
        "measres": "success", "secboot": true, "dbgstat": "disabled", "ueid": "478", "hwmodel": "GH100 A01 GSP BROM",
        "x-nvidia-gpu-driver-version": "580.95.05", "x-nvidia-gpu-vbios-version": "96.00.9F.00.01",
    });
    let submods = json!({"GPU-0": ["DIGEST", ["SHA-256", DIGEST]]});
    [with(json!({"x-nvidia-overall-att-result": true, "submods": submods})), with(device)]
}

/// The payload of a good Confidential Space token.
pub fn space_payload() -> String {
    json!({
        "iss": "https://confidentialcomputing.googleapis.com", "aud": "me", "iat": NOW - 10, "nbf": NOW - 10,
        "exp": NOW + 3600, "eat_nonce": "this-session", "secboot": true, "hwmodel": "GCP_INTEL_TDX",
        "swname": "CONFIDENTIAL_SPACE", "swversion": ["251001"], "dbgstat": "disabled-since-boot",
        "submods": {
            "container": {"image_digest": format!("sha256:{}", "01".repeat(32))},
            "confidential_space": {"support_attributes": ["STABLE", "USABLE"]},
        },
    })
    .to_string()
}

/// Both services' keys.
pub fn key_set_json() -> Vec<u8> {
    let point = VerifyingKey::from(&es384_key()).to_sec1_bytes();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-384", "kid": "ec", "x": number(&point[1..49]), "y": number(&point[49..])},
        {"kty": "RSA", "alg": "RS256", "kid": "rsa", "n": number(&RSA.n().to_be_bytes_trimmed_vartime()), "e": "AQAB"},
    ]});
    set.to_string().into_bytes()
}

static KEYS: LazyLock<Jwks> = LazyLock::new(|| Jwks::parse(&key_set_json()).unwrap());
/// A bundle that is good.
pub static BUNDLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let [overall, device] = nras_payloads();
    bundle(&overall, device.as_bytes())
});
static NRAS: LazyLock<NrasClaims> = LazyLock::new(|| nras(&BUNDLE, &KEYS).expect("a good bundle"));
static SPACE: LazyLock<ConfidentialSpaceClaims> =
    LazyLock::new(|| space(&rs256(space_payload().as_bytes())).expect("a good token"));
