//! Tokens of NVIDIA's remote attestation service: a detached EAT bundle (RFC 9711 section 5) under a key of this crate's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse_attest::tokens::Jwks;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind};
use glasshouse_core::fixed::{Blob, Digest32};
use glasshouse_core::transcript::{sha256, sha384};
use p384::ecdsa::signature::Signer as _;
use p384::ecdsa::{Signature, SigningKey, VerifyingKey};
use serde_json::{Map, Value, json};

use crate::AUDIT_TIME;

/// The issuer that policies accept when nothing else is said.
pub const NRAS: &str = "https://nras.attestation.nvidia.com";

/// A bundle to be: tests change fields before it is signed.
#[derive(Clone, Debug)]
pub struct TokenDraft {
    /// `iss`.
    pub issuer: String,
    /// `eat_nonce`.
    pub nonce: Digest32,
    /// How many GPUs it is for.
    pub devices: u32,
    /// `dbgstat` of each.
    pub debug: &'static str,
    /// `iat` and `nbf`; it ends an hour later.
    pub issued: UnixMillis,
    /// Puts another genuine token of the service in the place of the first, whose digest was signed.
    pub exchanged: bool,
}

impl TokenDraft {
    /// Right in every respect.
    pub fn new(nonce: Digest32, devices: u32) -> Self {
        Self { issuer: NRAS.to_owned(), nonce, devices, debug: "disabled", issued: AUDIT_TIME, exchanged: false }
    }

    /// The bundle among a machine's evidence.
    pub fn evidence(&self) -> DeviceEvidence {
        let (kind, report) = (DeviceKind::NrasToken, Blob(self.bundle()));
        DeviceEvidence { kind, serial: Blob::default(), report, chain: Blob::default() }
    }

    /// The bundle as the service returns it.
    pub fn bundle(&self) -> Vec<u8> {
        let mut tokens: Map<_, _> = (0..self.devices).map(|i| (format!("GPU-{i}"), json!(self.device(i)))).collect();
        let digest = |token: &Value| json!(["DIGEST", ["SHA-256", sha256(token.as_str().unwrap()).to_string()]]);
        let digests: Map<_, _> = tokens.iter().map(|(name, token)| (name.clone(), digest(token))).collect();
        let overall = self.jwt(&json!({"x-nvidia-overall-att-result": true, "submods": digests}));
        if self.exchanged {
            tokens.insert("GPU-0".to_owned(), json!(self.device(self.devices)));
        }
        json!([["JWT", overall], tokens]).to_string().into_bytes()
    }

    fn device(&self, number: u32) -> String {
        self.jwt(&json!({
            "measres": "success", "secboot": true, "dbgstat": self.debug, "ueid": number.to_string(),
            "hwmodel": "GH100 A01 GSP BROM",
        }))
    }

    fn jwt(&self, claims: &Value) -> String {
        let issued = self.issued.0 / 1000;
        let mut all = json!({
            "iss": self.issuer, "eat_nonce": self.nonce.to_string(), "iat": issued, "nbf": issued, "exp": issued + 3600,
        });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let input = format!("{}.{}", part(&json!({"alg": "ES384", "kid": "generated", "typ": "JWT"})), part(&all));
        let signature: Signature = key().sign(input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature.to_bytes()))
    }
}

/// The key set of the service that is made here, JSON.
pub fn jwks_json() -> String {
    let point = VerifyingKey::from(&key()).to_sec1_bytes();
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = (number(&point[1..49]), number(&point[49..]));
    json!({"keys": [{"kty": "EC", "crv": "P-384", "kid": "generated", "x": x, "y": y}]}).to_string()
}

/// The same, read.
pub fn jwks() -> Jwks {
    Jwks::parse(jwks_json().as_bytes()).unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_slice(sha384("Generated attestation service").as_bytes()).unwrap()
}
