//! Compact JWS, the strict look at JSON under it, and the software verifier above it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer as _, SigningKey};
use glasshouse_attest::json::{self, Limits};
use glasshouse_attest::jws::{self, Key};
use glasshouse_attest::software::{PROFILE, SoftwarePolicy, SoftwareVerifier};
use glasshouse_core::claims::{
    ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Assurance, Claims, ContainerId, EvidenceKind, ReferenceValues,
    RuntimeState,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence, eat_nonce};
use glasshouse_core::fixed::{Digest32, Digest64, Fixed};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::{Appraisal, Binding, ClaimSource, Verifier as _};
use serde_json::Value;

use super::{line, mode};
use crate::check;

const LIMITS: Limits = Limits { bytes: 8 * 1024, depth: 4 };
const NOW: UnixMillis = UnixMillis(1_795_417_080_000);
const REPORT_DATA: Digest64 = Fixed([3; 64]);

/// `a`: a token. `b`: header and payload, signed here. `c`: the payload of a software token, signed here. `d`: a whole
/// CPU evidence. `e`: JSON alone.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', bytes)) => {
            if let Ok(token) = std::str::from_utf8(bytes) {
                verified(token);
            }
        }
        Some((b'b', bytes)) => {
            let (header, payload) = line(bytes);
            signed_here(header, payload);
        }
        Some((b'c', payload)) => {
            software(payload);
        }
        Some((b'd', bytes)) => {
            if let Ok(cpu) = serde_json::from_slice::<CpuEvidence>(bytes) {
                let _ = appraised(&cpu);
            }
        }
        Some((b'e', bytes)) => strict(bytes),
        _ => {}
    }
}

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn verifying() -> Key {
    Key::Ed25519(key().verifying_key().to_bytes().into())
}

/// Any token: refused with a code, or one spelling of a payload that the key's holder signed.
fn verified(token: &str) -> Option<Vec<u8>> {
    match jws::verify(token, &verifying(), LIMITS) {
        Ok(payload) => {
            assert!(token.len() <= LIMITS.bytes);
            strict(&payload);
            let parts: Vec<_> = token.split('.').collect();
            assert_eq!(parts.len(), 3);
            assert_eq!(parts[1], URL_SAFE_NO_PAD.encode(&payload), "two spellings of a payload");
            let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[0]).unwrap()).unwrap();
            assert_eq!(header, serde_json::json!({"alg": "EdDSA", "typ": "JWT"}), "a header that says more");
            // RFC 8032 signatures are deterministic, and verified strictly there is no second one by this key.
            let input = token.rsplit_once('.').unwrap().0;
            assert_eq!(parts[2], URL_SAFE_NO_PAD.encode(key().sign(input.as_bytes()).to_bytes()));
            let other = Key::Ed25519(SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes().into());
            assert_eq!(jws::verify(token, &other, LIMITS).unwrap_err().code, Code::JWT_SIGNATURE);
            Some(payload)
        }
        Err(refusal) => {
            check::refusal(&refusal);
            let known = [Code::JWT_MALFORMED, Code::JWT_ALGORITHM, Code::JWT_KEY_CONFUSION, Code::JWT_SIGNATURE];
            assert!(known.contains(&refusal.code), "{refusal}");
            None
        }
    }
}

/// Behind a good signature: header and payload alone decide.
fn signed_here(header: &[u8], payload: &[u8]) {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(key().sign(input.as_bytes()).to_bytes()));
    let exact: Option<Value> = serde_json::from_slice(header).ok();
    let accepted = verified(&token);
    if let Some(accepted) = &accepted {
        assert_eq!(accepted, payload);
    }
    let header_is_ours = exact == Some(serde_json::json!({"alg": "EdDSA", "typ": "JWT"}));
    let payload_is_strict = json::check(payload, LIMITS).is_ok();
    if json::check(header, LIMITS).is_ok() && token.len() <= LIMITS.bytes {
        assert_eq!(accepted.is_some(), header_is_ours && payload_is_strict);
    }
}

/// JSON that is accepted is accepted by every reader, and as the same document.
fn strict(bytes: &[u8]) {
    match json::check(bytes, LIMITS) {
        Ok(()) => {
            let value: Value = serde_json::from_slice(bytes).expect("strict JSON is JSON");
            assert!(bytes.len() <= LIMITS.bytes && depth(&value) <= LIMITS.depth);
            let members = count(&value);
            let written = serde_json::to_vec(&value).unwrap();
            assert_eq!(json::check(&written, Limits { bytes: usize::MAX, ..LIMITS }), Ok(()));
            assert_eq!(colons(bytes), members, "members that another reader would see");
        }
        Err(error) => check::one_line(&error.to_string(), 200),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.len() + members.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Members of valid JSON: the colons outside strings.
fn colons(bytes: &[u8]) -> usize {
    let (mut in_string, mut escaped, mut colons) = (false, false, 0);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b':' if !in_string => colons += 1,
            _ => {}
        }
    }
    colons
}

/// A hardened runtime's claims.
pub fn claims() -> Claims {
    Claims {
        kind: EvidenceKind::Software,
        image_digest: None,
        container: ContainerId { source: "boot-id".into(), value: "host:1".into() },
        runtime_measurement: Fixed([5; 32]),
        anti_debug: AntiDebug {
            profile: ANTI_DEBUG_PROFILE.to_owned(),
            level: AntiDebugLevel::Basic,
            not_dumpable: true,
            no_core_files: true,
            no_tracer: true,
            no_preload: true,
            ptrace_scope: None,
        },
        state: RuntimeState::Ready,
    }
}

/// The payload of a software token for these claims, spelled as the attestor spells it.
pub fn payload() -> String {
    let claims = claims();
    let measurement =
        URL_SAFE_NO_PAD.encode(format!(r#"{{"executable":{{"sha-256":"{}"}}}}"#, claims.runtime_measurement));
    format!(
        r#"{{"eat_nonce":"{}","iat":{},"eat_profile":"{PROFILE}","dbgstat":"disabled","swname":"glasshouse-attest","swversion":["0.1.0"],"measurements":[[50,"{measurement}"]],"gh_kind":"software","gh_container_source":"boot-id","gh_container_id":"host:1","gh_runtime_measurement":"{}","gh_anti_debug_profile":"{ANTI_DEBUG_PROFILE}","gh_anti_debug_level":"basic","gh_not_dumpable":true,"gh_no_core_files":true,"gh_no_tracer":true,"gh_no_preload":true,"gh_state":"ready"}}"#,
        eat_nonce(&REPORT_DATA),
        NOW.0 / 1000,
        claims.runtime_measurement,
    )
}

/// Behind a good signature there is one payload that is accepted for these claims, but for its time and version.
pub fn software(payload: &[u8]) -> bool {
    let jwt = jws::sign(payload, &key());
    let cpu = CpuEvidence::Software { jwt, public_key: key().verifying_key().to_bytes().into() };
    let accepted = appraised(&cpu).is_ok();
    if accepted {
        let mut seen: Value = serde_json::from_slice(payload).unwrap();
        let expected: Value = serde_json::from_str(&self::payload()).unwrap();
        let iat = seen["iat"].as_u64().unwrap();
        assert!((NOW.0 / 1000 - 120..=NOW.0 / 1000 + 60).contains(&iat), "iat {iat}");
        for free in ["iat", "swversion"] {
            seen[free] = expected[free].clone();
        }
        assert_eq!(seen, expected, "another claim was let through");
    }
    accepted
}

/// Appraises twice, and never believes more than the runtime's own word.
fn appraised(cpu: &CpuEvidence) -> Result<Appraisal, Refusal> {
    let claims = claims();
    let verifier = SoftwareVerifier::new(SoftwarePolicy::default());
    let reference = ReferenceValues {
        kind: EvidenceKind::Software,
        image_digest: None,
        container: claims.container.clone(),
        runtime_measurement: claims.runtime_measurement,
        anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
        anti_debug_level: AntiDebugLevel::Basic,
        policy_digest: verifier.policy_digest(),
        minimum_assurance: Assurance::SelfReported,
    };
    let gpu_nonce = Digest32::from([0; 32]);
    let binding = Binding { gpu_nonce: &gpu_nonce, report_data: &REPORT_DATA, reference: &reference, claims: &claims };
    let appraise = |now| verifier.appraise(cpu, &GpuEvidence::default(), &binding, now);
    let outcome = appraise(NOW);
    assert_eq!(appraise(NOW), outcome);
    match &outcome {
        Ok(appraisal) => {
            assert_eq!(appraisal.assurance, Assurance::SelfReported);
            assert!(appraisal.claims.iter().all(|claim| claim.source == ClaimSource::RuntimeAsserted));
            assert!(appraisal.relaxations.is_empty());
            assert!(appraise(UnixMillis(0)).is_err() && appraise(UnixMillis(u64::MAX)).is_err());
        }
        Err(refusal) => check::refusal(refusal),
    }
    outcome
}
