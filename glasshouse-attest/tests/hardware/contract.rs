//! The core's contract of verifiers, for every kind of evidence.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse_attest::hardware::{ConfidentialSpaceSession, CpuPolicy};
use glasshouse_attest::tokens::{ConfidentialSpacePolicy, Jwks};
use glasshouse_attest_gen::snp::rsa_key;
use glasshouse_attest_gen::{AUDIT_TIME, Platform};
use glasshouse_core::claims::Assurance;
use glasshouse_core::contract::{VerifierSample, verifier};
use glasshouse_core::evidence::{CpuEvidence, eat_nonce};
use glasshouse_core::traits::{ClaimSource, Verifier as _};
use rsa::signature::{SignatureEncoding as _, Signer as _};
use rsa::traits::PublicKeyParts as _;
use serde_json::json;
use sha2::Sha256;

use crate::session::{Made, Session};

/// A quote's bytes before the chain in PEM, whose white space carries no meaning.
const QUOTE_BEFORE_CHAIN: usize = 1258;

fn sample(session: &Session, made: &Made, signed_bytes: usize) -> VerifierSample {
    VerifierSample {
        claims: session.claims(),
        reference: session.reference(),
        gpu_nonce: session.nonce(),
        report_data: session.report_data(&made.gpus),
        cpu: made.cpu.clone(),
        gpus: made.gpus.clone(),
        now: AUDIT_TIME,
        signed_bytes,
    }
}

fn keeps_the_contract(session: &Session, made: &Made, signed_bytes: usize, reached: Assurance) {
    assert_eq!(session.appraise(made).unwrap().assurance, reached);
    verifier(&session.verifier(), || sample(session, made, signed_bytes));
}

#[test]
fn tdx_with_gpus() {
    let session = Session::new(Platform::tdx(2));
    keeps_the_contract(&session, &session.make(), QUOTE_BEFORE_CHAIN, Assurance::CpuTeeGpuCc);
}

#[test]
fn tdx_alone() {
    let session = Session::new(Platform::tdx(0));
    keeps_the_contract(&session, &session.make(), QUOTE_BEFORE_CHAIN, Assurance::CpuTee);
}

#[test]
fn sev_snp_with_a_gpu() {
    let session = Session::new(Platform::snp(1));
    keeps_the_contract(&session, &session.make(), usize::MAX, Assurance::CpuTeeGpuCc);
}

#[test]
fn sev_snp_alone() {
    let session = Session::new(Platform::snp(0));
    keeps_the_contract(&session, &session.make(), usize::MAX, Assurance::CpuTee);
}

const AUDIENCE: &str = "https://owner.example/glasshouse";
const GOOGLE: &str = "https://confidentialcomputing.googleapis.com";

/// Google's token, signed by a key of the generator's.
fn google() -> (Session, Made) {
    let mut session = Session::new(Platform::tdx(0));
    let image = [0x44; 32];
    session.policy.cpu = CpuPolicy::ConfidentialSpace(ConfidentialSpaceSession {
        audience: AUDIENCE.to_owned(),
        token: ConfidentialSpacePolicy { measurements: vec![image.into()], ..ConfidentialSpacePolicy::default() },
    });
    let modulus = URL_SAFE_NO_PAD.encode(rsa_key(0).n().to_be_bytes_trimmed_vartime());
    let keys = json!({"keys": [{"kty": "RSA", "kid": "g", "n": modulus, "e": "AQAB"}]});
    let keys = Jwks::parse(keys.to_string().as_bytes()).unwrap();
    session.collateral.jwks = BTreeMap::from([(GOOGLE.to_owned(), keys)]);
    let gpus = session.platform.gpu_evidence(&session.nonce());
    let now = AUDIT_TIME.0 / 1000;
    let payload = json!({
        "iss": GOOGLE, "aud": AUDIENCE, "iat": now, "nbf": now, "exp": now + 3600,
        "eat_nonce": eat_nonce(&session.report_data(&gpus)), "secboot": true, "hwmodel": "GCP_INTEL_TDX",
        "swname": "CONFIDENTIAL_SPACE", "swversion": ["251001"], "dbgstat": "disabled-since-boot",
        "submods": {"container": {"image_digest": format!("sha256:{}", "44".repeat(32))}},
    });
    let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let input = format!("{}.{}", part(&json!({"alg": "RS256", "kid": "g", "typ": "JWT"})), part(&payload));
    let key = rsa::pkcs1v15::SigningKey::<Sha256>::new(rsa_key(0).clone());
    let jwt = format!("{input}.{}", URL_SAFE_NO_PAD.encode(key.sign(input.as_bytes()).to_bytes()));
    (session, Made { cpu: CpuEvidence::ConfidentialSpace { jwt }, gpus })
}

#[test]
fn confidential_space() {
    let (session, made) = google();
    let appraisal = session.appraise(&made).unwrap();
    assert!(appraisal.claims.iter().all(|c| c.source != ClaimSource::HardwareVerified), "Google's word is Google's");
    keeps_the_contract(&session, &made, usize::MAX, Assurance::CpuTee);
}

#[test]
fn a_policys_digest_covers_policy_and_roots() {
    let session = Session::new(Platform::tdx(1));
    let digest = session.verifier().policy_digest();
    assert_eq!(Session::new(Platform::tdx(1)).verifier().policy_digest(), digest);
    let mut other = Session::new(Platform::tdx(1));
    other.policy.gpu.gpus = Some(1);
    assert_ne!(other.verifier().policy_digest(), digest);
    let real = glasshouse_attest::hardware::HardwareRoots::vendors();
    let real = glasshouse_attest::hardware::HardwareVerifier::new(session.policy.clone(), real, Platform::collateral());
    assert_ne!(real.unwrap().policy_digest(), digest);
}
