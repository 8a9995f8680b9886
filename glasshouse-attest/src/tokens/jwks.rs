use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use glasshouse_core::refusal::{Code, Refusal};
use p384::ecdsa::VerifyingKey;
use serde::Deserialize;

use super::codes::{self, refuse};
use crate::json::{self, Limits};
use crate::jws::{self, Key};
use crate::rsa_key::RsaKey;

const LIMITS: Limits = Limits { bytes: 256 * 1024, depth: 8 };

/// An issuer's public keys by their id (RFC 7517): `ES384` and `RS256` only, others are passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwks {
    keys: BTreeMap<String, Key>,
}

impl Jwks {
    /// Reads a key set.
    ///
    /// # Errors
    /// [`codes::KEYS_MALFORMED`]: no strict JSON, a key with an id and of a known type that is none, two keys with one id, or no key.
    pub fn parse(json: &[u8]) -> Result<Self, Refusal> {
        let refused = |seen: String| refuse(codes::KEYS_MALFORMED, "a JWKS with ES384 or RS256 keys", seen);
        json::check(json, LIMITS).map_err(|e| refused(e.to_string()))?;
        let set: Set = serde_json::from_slice(json).map_err(|_| refused("no list of keys".to_owned()))?;
        let mut keys = BTreeMap::new();
        for entry in set.keys.iter().filter(|entry| entry.is_of_use()) {
            // No token can name a key without id, and the id is optional (RFC 7517 section 4.5): it is passed over.
            let Some(id) = &entry.kid else { continue };
            let key = entry.key().ok_or_else(|| refused(format!("a key {id:?} that is none")))?;
            if keys.insert(id.clone(), key).is_some() {
                return Err(refused(format!("two keys with the id {id:?}")));
            }
        }
        if keys.is_empty() {
            return Err(refused("no key of these".to_owned()));
        }
        Ok(Self { keys })
    }

    /// Verifies a token under the key that it names, if that is for `algorithm`; its payload is strict JSON.
    pub(super) fn verify(&self, token: &str, algorithm: &str, limits: Limits) -> Result<Vec<u8>, Refusal> {
        let key_of = |id: &str| self.keys.get(id).filter(|key| key.algorithm() == algorithm);
        jws::verify_by_id(token, key_of, limits).map_err(|refusal| match refusal.code == Code::JWT_SIGNATURE {
            true => refuse(codes::SIGNATURE, refusal.expected, refusal.seen),
            false => refusal,
        })
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Entry>,
}

/// Members that are not listed say nothing of a key's value (RFC 7517 section 4).
#[derive(Deserialize)]
struct Entry {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Entry {
    fn is_of_use(&self) -> bool {
        let for_signatures = self.usage.as_deref().is_none_or(|usage| usage == "sig");
        let alg = self.alg.as_deref();
        let known = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-384")) => alg.is_none_or(|alg| alg == "ES384"),
            ("RSA", _) => alg.is_none_or(|alg| alg == "RS256"),
            _ => false,
        };
        for_signatures && known
    }

    fn key(&self) -> Option<Key> {
        let number = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        if self.kty == "EC" {
            let (x, y) = (number(&self.x)?, number(&self.y)?);
            // RFC 7518 section 6.2.1.2: the full size of a coordinate.
            if x.len() != 48 || y.len() != 48 {
                return None;
            }
            let point = [&[4][..], &x, &y].concat();
            return VerifyingKey::from_sec1_bytes(&point).ok().map(Key::Es384);
        }
        RsaKey::new(&number(&self.n)?, &number(&self.e)?, 2048..=4096).map(Key::Rs256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn code(set: serde_json::Value) -> Result<usize, String> {
        Jwks::parse(set.to_string().as_bytes()).map(|set| set.keys.len()).map_err(|r| r.code.to_string())
    }

    /// RFC 7515 appendix A.2.1's modulus stands for any.
    fn rsa(id: &str) -> serde_json::Value {
        let n = URL_SAFE_NO_PAD.encode([&[0xff; 255][..], &[0xfd]].concat());
        json!({"kty": "RSA", "kid": id, "n": n, "e": "AQAB"})
    }

    #[test]
    fn key_sets() {
        let malformed = Err("jwks-malformed".to_owned());
        assert_eq!(code(json!({"keys": [rsa("a"), rsa("b")]})), Ok(2));
        assert_eq!(code(json!({"keys": [rsa("a"), {"kty": "OKP", "crv": "Ed25519", "x": "AA"}]})), Ok(1));
        assert_eq!(code(json!({"keys": [rsa("a"), rsa("a")]})), malformed);
        assert_eq!(code(json!({"keys": []})), malformed);
        assert_eq!(code(json!({"keys": [{"kty": "oct", "k": "AA", "kid": "a"}]})), malformed);
        assert_eq!(code(json!([])), malformed);
        for (member, value) in [("e", "Aw"), ("e", "AQAB="), ("n", "AQAB"), ("n", "AA")] {
            let mut key = rsa("a");
            key[member] = json!(value);
            assert_eq!(code(json!({"keys": [key]})), malformed, "{member} {value}");
        }
        let mut unnamed = rsa("a");
        unnamed.as_object_mut().unwrap().remove("kid");
        assert_eq!(code(json!({"keys": [unnamed]})), malformed, "no other key");
        assert_eq!(code(json!({"keys": [unnamed, rsa("b")]})), Ok(1));
        let off_curve = URL_SAFE_NO_PAD.encode([1; 48]);
        assert_eq!(
            code(json!({"keys": [{"kty": "EC", "crv": "P-384", "kid": "a", "x": off_curve, "y": off_curve}]})),
            malformed
        );
        assert!(Jwks::parse(br#"{"keys":[],"keys":[]}"#).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, text: String) {
            let _ = Jwks::parse(&bytes);
            let _ = code(json!({"keys": [{"kty": "RSA", "kid": text, "n": text, "e": text}]}));
            let _ = code(json!({"keys": [{"kty": "EC", "crv": "P-384", "kid": text, "x": text, "y": text}]}));
        }
    }
}
