//! JWS in compact serialization (RFC 7515), as strict as attestation tokens need: the verifier names the algorithm, the
//! token can only agree.
//!
//! Refused, each with its own code: an algorithm other than the verifier's (`none` and key confusion among them,
//! RFC 8725 section 3.1), header members that this verifier does not use (`crit`, `jku`, `jwk`, `x5u`, …), duplicate
//! JSON keys, base64url in any but its one spelling, more or fewer than three parts, and anything beyond the limits.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::refusal::{Code, Refusal};
use p384::ecdsa::signature::Verifier as _;
use serde::{Deserialize, Serialize};

use crate::json::{self, Limits};
use crate::rsa_key::RsaKey;

/// A token's key id is not one of the issuer's keys.
pub const KEY_ID: Code = Code::new("key-id");

/// A key, and with it the only algorithm that its tokens may name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Key {
    /// `EdDSA` with Ed25519 (RFC 8037).
    Ed25519(PublicKey32),
    /// `ES384`: ECDSA with P-384 and SHA-384 (RFC 7518 section 3.4).
    Es384(p384::ecdsa::VerifyingKey),
    /// `RS256`: RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 section 3.3).
    Rs256(RsaKey),
}

impl Key {
    /// The `alg` that a token under this key must name.
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "EdDSA",
            Self::Es384(_) => "ES384",
            Self::Rs256(_) => "RS256",
        }
    }
}

/// The header members that a token may have. Any other member refuses the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
}

/// The same for tokens of an issuer with several keys.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyedHeader {
    alg: String,
    kid: String,
    typ: Option<String>,
}

/// Signs a payload: the compact serialization with the header `{"alg":"EdDSA","typ":"JWT"}`.
pub fn sign(payload: &[u8], key: &SigningKey) -> String {
    let header = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","typ":"JWT"}"#);
    let signing_input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signing_input.as_bytes()).to_bytes());
    format!("{signing_input}.{signature}")
}

/// Verifies a compact token under one key and returns its payload, which is one strict JSON document within the limits.
///
/// The signature is checked before the payload is looked at.
///
/// # Errors
/// `JWT_MALFORMED`, `JWT_ALGORITHM`, `JWT_KEY_CONFUSION` or `JWT_SIGNATURE`. Nothing of the token is repeated in them but the algorithm's name.
pub fn verify(token: &str, key: &Key, limits: Limits) -> Result<Vec<u8>, Refusal> {
    let parts = Parts::split(token, limits)?;
    check_header(&parts.header, key, limits)?;
    parts.payload_under(key, limits)
}

/// Verifies a compact token under the key that its `kid` names, the key naming the algorithm, and returns its payload
/// as [`verify`] does. The header has `alg`, `kid` and at most `typ`.
///
/// # Errors
/// Those of [`verify`], and [`KEY_ID`].
pub fn verify_by_id<'k>(
    token: &str,
    key_of: impl FnOnce(&str) -> Option<&'k Key>,
    limits: Limits,
) -> Result<Vec<u8>, Refusal> {
    let parts = Parts::split(token, limits)?;
    json::check(&parts.header, limits).map_err(|error| malformed("a strict JSON header", error))?;
    let header: KeyedHeader = serde_json::from_slice(&parts.header)
        .map_err(|_| malformed("a header of alg, kid and typ", "other members"))?;
    let Some(key) = key_of(&header.kid) else {
        let advice = Some("fetch the issuer's keys again; a token of another issuer stays refused".to_owned());
        return Err(Refusal { advice, ..Refusal::new(KEY_ID, "a key id of the issuer", format!("{:?}", header.kid)) });
    };
    check_algorithm(&header.alg, key)?;
    if header.typ.is_some_and(|typ| typ != "JWT") {
        return Err(malformed("typ JWT", "another typ"));
    }
    parts.payload_under(key, limits)
}

/// The parts of a token, decoded, nothing of them read.
struct Parts<'a> {
    signing_input: &'a str,
    header: Vec<u8>,
    payload: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn split(token: &'a str, limits: Limits) -> Result<Self, Refusal> {
        if token.len() > limits.bytes {
            let expected = format!("a token of at most {} bytes", limits.bytes);
            return Err(malformed(expected, format!("{} bytes", token.len())));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            let count = token.split('.').count();
            return Err(malformed("three parts joined by dots", format!("{count}")));
        };
        Ok(Self {
            // The token up to its last dot (RFC 7515 section 5.2), by construction of the three parts.
            signing_input: token.strip_suffix(signature).and_then(|t| t.strip_suffix('.')).unwrap_or_default(),
            header: decode(header, "header")?,
            signature: decode(signature, "signature")?,
            payload: decode(payload, "payload")?,
        })
    }

    fn payload_under(self, key: &Key, limits: Limits) -> Result<Vec<u8>, Refusal> {
        check_signature(self.signing_input.as_bytes(), &self.signature, key)?;
        json::check(&self.payload, limits).map_err(|error| malformed("a strict JSON payload", error))?;
        Ok(self.payload)
    }
}

fn check_header(bytes: &[u8], key: &Key, limits: Limits) -> Result<(), Refusal> {
    json::check(bytes, limits).map_err(|error| malformed("a strict JSON header", error))?;
    // The algorithm is looked at first and alone, so that a token for another one is refused as that.
    #[derive(Deserialize)]
    struct AlgorithmOnly {
        alg: String,
    }
    let AlgorithmOnly { alg } =
        serde_json::from_slice(bytes).map_err(|_| malformed("a header with alg", "a header without it"))?;
    check_algorithm(&alg, key)?;
    let header: Header =
        serde_json::from_slice(bytes).map_err(|_| malformed("a header of alg and typ", "other members"))?;
    if header.typ != "JWT" {
        return Err(malformed("typ JWT", "another typ"));
    }
    Ok(())
}

fn check_algorithm(alg: &str, key: &Key) -> Result<(), Refusal> {
    if alg == key.algorithm() {
        return Ok(());
    }
    let seen: String = alg.chars().filter(char::is_ascii_graphic).take(16).collect();
    let code = if alg.starts_with("HS") { Code::JWT_KEY_CONFUSION } else { Code::JWT_ALGORITHM };
    let advice = Code::JWT_ALGORITHM.advice().map(str::to_owned);
    Err(Refusal { advice, ..Refusal::new(code, key.algorithm(), format!("alg {seen:?}")) })
}

fn check_signature(signing_input: &[u8], signature: &[u8], key: &Key) -> Result<(), Refusal> {
    let refused =
        |seen: &str| Refusal::new(Code::JWT_SIGNATURE, format!("a valid {} signature", key.algorithm()), seen);
    match key {
        Key::Ed25519(public) => {
            let verifying =
                VerifyingKey::from_bytes(public.as_bytes()).map_err(|_| refused("a key that is no point"))?;
            let signature = Signature::from_slice(signature).map_err(|_| refused("a signature of another length"))?;
            // Strict: weak keys and non-canonical signatures verify under none of the rules of RFC 8032 that differ.
            verifying.verify_strict(signing_input, &signature).map_err(|_| refused("one that does not verify"))
        }
        Key::Es384(public) => {
            let signature = p384::ecdsa::Signature::from_slice(signature)
                .map_err(|_| refused("a signature of another length or range"))?;
            public.verify(signing_input, &signature).map_err(|_| refused("one that does not verify"))
        }
        Key::Rs256(public) if public.verify_pkcs1_sha256(signing_input, signature) => Ok(()),
        Key::Rs256(_) => Err(refused("one that does not verify")),
    }
}

fn decode(part: &str, what: &str) -> Result<Vec<u8>, Refusal> {
    // Padding, the other alphabet, whitespace and stray trailing bits are each an error in this engine.
    URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed(format!("canonical base64url in the {what}"), "something else"))
}

fn malformed(expected: impl std::fmt::Display, seen: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::JWT_MALFORMED, expected, seen)
}

#[cfg(test)]
#[path = "jws_tests.rs"]
mod tests;
