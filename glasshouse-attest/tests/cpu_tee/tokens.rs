//! Tokens of services: real ones with every change of them, and generated ones for what the corpus cannot show.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse_attest::tokens::{
    ConfidentialSpaceClaims, ConfidentialSpacePolicy, Hardware, Jwks, NrasClaims, NrasPolicy, Support,
    verify_confidential_space, verify_nras,
};
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::refusal::Refusal;
use glasshouse_core::transcript::sha256;
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use proptest::prelude::*;
use rsa::signature::SignatureEncoding as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::files::{corpus, flipped, read, time, tried};
use glasshouse_attest_gen::snp::rsa_key;

const NONCE: &str = "931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb";
const AUDIENCE: &str = "https://synddb-sequencer.example.com";

fn real_nras(bundle: &[u8]) -> Result<NrasClaims, Refusal> {
    let keys = Jwks::parse(&read("nras/recovered_jwks.json")).unwrap();
    let nonce = Nonce32::from_hex(NONCE).unwrap();
    verify_nras(bundle, &keys, &nonce, &NrasPolicy::default(), time("2025-06-11T00:31:00Z"))
}

fn real_google(token: &str) -> Result<ConfidentialSpaceClaims, Refusal> {
    let keys = Jwks::parse(&read("gcp_confidential_space/jwks.json")).unwrap();
    let policy = ConfidentialSpacePolicy {
        dangerous_allow_debug: true,
        dangerous_no_measurements: true,
        ..ConfidentialSpacePolicy::default()
    };
    let binding = (AUDIENCE, "sp1-test-nonce-1764708636");
    verify_confidential_space(token, &keys, binding, &policy, time("2025-12-02T20:51:40Z"))
}

#[test]
fn what_real_tokens_establish() {
    if corpus().is_none() {
        return;
    }
    let claims = real_nras(&read("nras/h100_v3_detached_eat.json")).unwrap();
    let device = &claims.devices["GPU-0"];
    assert_eq!((device.model.as_str(), claims.devices.len()), ("GH100 A01 GSP BROM", 1));
    assert_eq!(device.driver_version.as_deref(), Some("550.90.07"));
    let token = String::from_utf8(read("gcp_confidential_space/token_with_nonce.jwt")).unwrap();
    let claims = real_google(token.trim()).unwrap();
    assert_eq!((claims.hardware, claims.debug, claims.is_cpu_tee()), (Hardware::AmdSev, true, false));
    assert!(claims.image_digest.to_string().starts_with("57c5946e"));
}

/// Outside of strings, only white space of the bundle's own JSON may change.
#[test]
fn changes_of_a_bundle() {
    if corpus().is_none() {
        return;
    }
    let bundle = read("nras/h100_v3_detached_eat.json");
    let claims = real_nras(&bundle).unwrap();
    for bit in tried(bundle.len() * 8, 400) {
        if let Ok(changed) = real_nras(&flipped(&bundle, bit)) {
            assert!(bundle[bit / 8].is_ascii_whitespace() && changed == claims, "bit {bit}");
        }
    }
    for length in tried(bundle.trim_ascii_end().len(), 100) {
        assert_eq!(real_nras(&bundle[..length]).unwrap_err().code.as_str(), "token-malformed", "cut to {length}");
    }
}

#[test]
fn changes_of_a_token() {
    if corpus().is_none() {
        return;
    }
    let token = String::from_utf8(read("gcp_confidential_space/token_with_nonce.jwt")).unwrap().trim().to_owned();
    real_google(&token).unwrap();
    for bit in tried(token.len() * 8, 300) {
        if let Ok(changed) = String::from_utf8(flipped(token.as_bytes(), bit)) {
            assert!(real_google(&changed).is_err(), "bit {bit}");
        }
    }
    for length in tried(token.len(), 100) {
        assert!(real_google(&token[..length]).is_err(), "cut to {length}");
    }
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn es384_key() -> SigningKey {
    SigningKey::from_slice(glasshouse_core::transcript::sha384("es384").as_bytes()).unwrap()
}

fn es384(header: &Value, payload: &Value) -> String {
    let input = format!("{}.{}", part(header), part(payload));
    let signature: Signature = es384_key().sign(input.as_bytes());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
}

fn rs256(header: &Value, payload: &Value) -> String {
    let input = format!("{}.{}", part(header), part(payload));
    let key = rsa::pkcs1v15::SigningKey::<Sha256>::new(rsa_key(0).clone());
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).to_bytes()))
}

fn keys() -> Jwks {
    let point = VerifyingKey::from(&es384_key()).to_sec1_bytes();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let modulus = number(&rsa_key(0).n().to_be_bytes_trimmed_vartime());
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-384", "kid": "ec", "x": number(&point[1..49]), "y": number(&point[49..])},
        {"kty": "RSA", "alg": "RS256", "kid": "rsa", "n": modulus, "e": "AQAB", "use": "sig"},
    ]});
    Jwks::parse(set.to_string().as_bytes()).unwrap()
}

/// A bundle to be: tests change payloads before they are signed, or the bundle after.
struct Bundle {
    header: Value,
    overall: Value,
    devices: BTreeMap<String, Value>,
}

impl Bundle {
    fn new() -> Self {
        let common = json!({
            "iss": "https://nras.attestation.nvidia.com", "eat_nonce": NONCE, "iat": 1000, "nbf": 1000, "exp": 2000,
        });
        let with = |more: Value| {
            let mut all = common.clone();
            all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            all
        };
        let device = |ueid: &str| {
            with(json!({
                "measres": "success", "secboot": true, "dbgstat": "disabled", "ueid": ueid, "hwmodel": "GH100",
            }))
        };
        Self {
            header: json!({"alg": "ES384", "kid": "ec"}),
            overall: with(json!({"x-nvidia-overall-att-result": true})),
            devices: [("GPU-0", "1"), ("GPU-1", "2")].map(|(name, ueid)| (name.to_owned(), device(ueid))).into(),
        }
    }

    fn make(&self) -> Value {
        let tokens: BTreeMap<_, _> = self.devices.iter().map(|(n, d)| (n.clone(), es384(&self.header, d))).collect();
        let mut overall = self.overall.clone();
        if overall.get("submods").is_none() {
            let digest = |token: &String| json!(["DIGEST", ["SHA-256", sha256(token).to_string()]]);
            overall["submods"] = tokens.iter().map(|(n, t)| (n.clone(), digest(t))).collect();
        }
        json!([["JWT", es384(&self.header, &overall)], tokens])
    }

    fn verify(&self) -> Result<NrasClaims, Refusal> {
        verify_bundle(&self.make(), &NrasPolicy::default())
    }

    fn device(&mut self) -> &mut Value {
        self.devices.get_mut("GPU-1").unwrap()
    }
}

fn verify_bundle(bundle: &Value, policy: &NrasPolicy) -> Result<NrasClaims, Refusal> {
    let at = glasshouse_core::clock::UnixMillis(1_500_000);
    verify_nras(bundle.to_string().as_bytes(), &keys(), &Nonce32::from_hex(NONCE).unwrap(), policy, at)
}

#[test]
fn bundles_that_are_signed_and_still_refused() {
    assert_eq!(Bundle::new().verify().unwrap().devices.len(), 2);
    type Change = (&'static str, fn(&mut Bundle));
    let changes: [Change; 23] = [
        ("jwt-algorithm", |b| b.header["alg"] = json!("RS256")),
        ("jwt-key-confusion", |b| b.header["alg"] = json!("HS384")),
        ("key-id", |b| b.header["kid"] = json!("other")),
        ("key-id", |b| b.header["kid"] = json!("rsa")), // a key of the same issuer for another algorithm
        ("jwt-malformed", |b| b.header["jwk"] = json!({})),
        ("jwt-malformed", |b| b.header["typ"] = json!("at+jwt")),
        ("issuer", |b| b.overall["iss"] = json!("https://nras.attestation-stg.nvidia.com")),
        ("issuer", |b| b.device()["iss"] = json!("https://example.org")),
        ("expired", |b| b.overall["exp"] = json!(1500)),
        ("expired", |b| b.device()["exp"] = json!(1400)),
        ("not-yet-valid", |b| b.overall["nbf"] = json!(1561)),
        ("not-yet-valid", |b| b.device()["iat"] = json!(1561)),
        ("token-malformed", |b| b.overall["exp"] = json!("2000")),
        ("nonce", |b| b.overall["eat_nonce"] = json!("00".repeat(32))),
        ("nonce", |b| b.device()["eat_nonce"] = json!(NONCE[2..])),
        ("submodule-digest", |b| b.overall["submods"] = json!({})),
        ("submodule-digest", |b| b.overall["submods"] = json!({"GPU-0": ["DIGEST", ["SHA-512", ""]]})),
        ("overall-result", |b| b.overall["x-nvidia-overall-att-result"] = json!(false)),
        ("overall-result", |b| b.device()["measres"] = json!("fail")),
        ("overall-result", |b| b.device()["secboot"] = json!(false)),
        ("overall-result", |b| b.devices.clear()),
        ("debug", |b| b.device()["dbgstat"] = json!("enabled")),
        ("duplicate-device", |b| b.device()["ueid"] = json!("1")),
    ];
    // Other spellings of the same: digits of the other case, and the result in the words of version 2.
    let mut spelled = Bundle::new();
    spelled.device()["eat_nonce"] = json!(NONCE.to_uppercase());
    spelled.device()["measres"] = json!("comparison-successful");
    assert!(spelled.verify().is_ok());
    for (code, change) in changes {
        let mut bundle = Bundle::new();
        change(&mut bundle);
        let refusal = bundle.verify().unwrap_err();
        assert_eq!(refusal.code.as_str(), code, "{refusal}");
        assert!(refusal.advice.is_some());
    }
}

/// The service signs what it likes; what is told of it stays in its line.
#[test]
fn names_that_a_service_gives_are_shown_clean() {
    let mut bundle = Bundle::new();
    let text = "\u{1b}[2J\u{202e}\n".repeat(200);
    let mut device = bundle.devices.remove("GPU-1").unwrap();
    device["hwmodel"] = json!(text);
    bundle.devices.insert(format!("GPU-1{text}"), device);
    let mut token = space();
    token["swversion"] = json!([text]);
    let labelled =
        [bundle.verify().unwrap().labelled(), verify_space(&token, &space_policy()).unwrap().labelled()].concat();
    for text in labelled.iter().flat_map(|claim| [&claim.name, &claim.value]) {
        assert!(text.chars().count() <= 300 && !text.contains(['\u{1b}', '\u{202e}', '\n']), "{text}");
    }
}

#[test]
fn bundles_that_were_put_together() {
    let (good, mut other) = (Bundle::new().make(), Bundle::new());
    other.device()["ueid"] = json!("3");
    let code = |bundle: &Value| verify_bundle(bundle, &NrasPolicy::default()).unwrap_err().code.to_string();
    let mut mixed = good.clone();
    mixed[1]["GPU-1"] = other.make()[1]["GPU-1"].clone();
    assert_eq!(code(&mixed), "submodule-digest", "a device of another bundle");
    let mut fewer = good.clone();
    fewer[1].as_object_mut().unwrap().remove("GPU-1");
    assert_eq!(code(&fewer), "submodule-digest", "a device left out");
    let mut more = good.clone();
    more[1]["GPU-2"] = good[1]["GPU-0"].clone();
    assert_eq!(code(&more), "submodule-digest", "a device added");
    let mut swapped = good.clone();
    swapped[1] = json!({"GPU-0": good[1]["GPU-1"], "GPU-1": good[1]["GPU-0"]});
    assert_eq!(code(&swapped), "submodule-digest");
    for bad in [json!([]), json!({}), json!([["CWT", good[0][1]], good[1]]), json!([good[0], good[1], {}])] {
        assert_eq!(code(&bad), "token-malformed", "{bad}");
    }
    let debug = NrasPolicy { dangerous_allow_debug: true, ..NrasPolicy::default() };
    let mut bundle = Bundle::new();
    bundle.device()["dbgstat"] = json!("enabled");
    assert!(verify_bundle(&bundle.make(), &debug).is_ok());
    assert_eq!(debug.relaxations(), ["dangerous_allow_debug"]);
}

fn space() -> Value {
    json!({
        "iss": "https://confidentialcomputing.googleapis.com", "aud": "me", "iat": 1000, "nbf": 1000, "exp": 2000,
        "eat_nonce": "this-session", "secboot": true, "hwmodel": "GCP_INTEL_TDX", "swname": "CONFIDENTIAL_SPACE",
        "swversion": ["251001"], "dbgstat": "disabled-since-boot",
        "submods": {
            "container": {"image_digest": format!("sha256:{}", "01".repeat(32))},
            "confidential_space": {"support_attributes": ["STABLE", "USABLE"]},
        },
    })
}

fn verify_space(token: &Value, policy: &ConfidentialSpacePolicy) -> Result<ConfidentialSpaceClaims, Refusal> {
    let token = rs256(&json!({"alg": "RS256", "kid": "rsa", "typ": "JWT"}), token);
    let at = glasshouse_core::clock::UnixMillis(1_500_000);
    verify_confidential_space(&token, &keys(), ("me", "this-session"), policy, at)
}

fn space_policy() -> ConfidentialSpacePolicy {
    ConfidentialSpacePolicy { measurements: vec![[1; 32].into()], ..ConfidentialSpacePolicy::default() }
}

#[test]
fn tokens_that_are_signed_and_still_refused() {
    let claims = verify_space(&space(), &space_policy()).unwrap();
    assert!(claims.is_cpu_tee() && claims.measured);
    for (code, pointer, value) in [
        ("issuer", "/iss", json!("https://accounts.google.com")),
        ("expired", "/exp", json!(1500)),
        ("not-yet-valid", "/nbf", json!(1600)),
        ("audience", "/aud", json!("you")),
        ("audience", "/aud", json!(["me", "you"])),
        ("nonce", "/eat_nonce", json!("other-session")),
        ("nonce", "/eat_nonce", json!(["this-session", "other-session"])),
        ("nonce", "/eat_nonce", json!([])),
        ("software", "/swname", json!("GCE")),
        ("debug", "/dbgstat", json!("enabled")),
        ("debug", "/dbgstat", json!("disabled")),
        ("secure-boot", "/secboot", json!(false)),
        ("hardware", "/hwmodel", json!("GCP_SHIELDED_VM")),
        ("token-malformed", "/submods/container/image_digest", json!("01")),
        ("measurement", "/submods/container/image_digest", json!(format!("sha256:{}", "02".repeat(32)))),
        ("token-malformed", "/exp", json!(-1)),
        ("token-malformed", "/submods", json!({})),
    ] {
        let mut token = space();
        *token.pointer_mut(pointer).unwrap() = value.clone();
        let refusal = verify_space(&token, &space_policy()).unwrap_err();
        assert_eq!(refusal.code.as_str(), code, "{pointer} {value}: {refusal}");
        assert!(refusal.advice.is_some());
    }
    let mut token = space();
    token["aud"] = json!(["me"]);
    assert!(verify_space(&token, &space_policy()).is_ok());
    assert_eq!(verify_space(&space(), &ConfidentialSpacePolicy::default()).unwrap_err().code.as_str(), "measurement");
}

#[test]
fn google_policies() {
    let code = |policy| verify_space(&space(), &policy).map(|_| ()).map_err(|refusal| refusal.code.to_string());
    let with = |change: fn(&mut ConfidentialSpacePolicy)| {
        let mut policy = space_policy();
        change(&mut policy);
        policy
    };
    assert_eq!(code(with(|p| p.minimum_support = Some(Support::Stable))), Ok(()));
    assert_eq!(code(with(|p| p.minimum_support = Some(Support::Latest))), Err("tcb".to_owned()));
    assert_eq!(code(with(|p| p.minimum_version = Some(251_001))), Ok(()));
    assert_eq!(code(with(|p| p.minimum_version = Some(251_002))), Err("tcb".to_owned()));
    assert_eq!(code(with(|p| p.hardware = vec![Hardware::AmdSevSnp])), Err("hardware".to_owned()));
    let lax = with(|p| p.dangerous_no_measurements = true);
    assert_eq!(lax.relaxations(), ["dangerous_no_measurements"]);
    for (model, tee) in [("GCP_AMD_SEV", false), ("GCP_AMD_SEV_SNP", true)] {
        let mut token = space();
        token["hwmodel"] = json!(model);
        assert_eq!(verify_space(&token, &space_policy()).unwrap().is_cpu_tee(), tee);
    }
    let unknown: Result<ConfidentialSpacePolicy, _> = serde_json::from_value(json!({"allow_debug": true}));
    assert!(unknown.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_panics(bytes: Vec<u8>, text: String, names: Vec<String>) {
        let nonce = Nonce32::from([0; 32]);
        let at = glasshouse_core::clock::UnixMillis(0);
        prop_assert!(verify_nras(&bytes, &keys(), &nonce, &NrasPolicy::default(), at).is_err());
        prop_assert!(verify_bundle(&json!([["JWT", text], names]), &NrasPolicy::default()).is_err());
        prop_assert!(verify_confidential_space(&text, &keys(), ("", ""), &space_policy(), at).is_err());
    }
}
