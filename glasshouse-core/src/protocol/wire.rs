//! Strict JSON: size and depth capped, unknown and duplicate keys refused, nothing after the value.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::marker::PhantomData;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fixed::{Blob, Digest48, PublicKey32, Signature64};
use crate::protocol::keys::{SigningSecret, verify_signature};
use crate::refusal::{Code, Refusal};
use crate::transcript::Transcript;

/// No message of the protocol nests deeper.
const MAX_DEPTH: u32 = 16;

/// A message type: its label under signatures, its name for people, its size limit.
pub trait Message: Serialize + DeserializeOwned {
    /// Domain label under signatures.
    const LABEL: &'static str;
    /// What to call it in an error.
    const NAME: &'static str;
    /// Largest encoding accepted, in bytes.
    const LIMIT: usize;
}

/// Reads a message, or refuses it with a code for what is wrong.
///
/// # Errors
/// `message-too-large`, `message-too-deep`, `message-duplicate-key`, `message-malformed`.
pub fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8], limit: usize) -> Result<T, Refusal> {
    if bytes.len() > limit {
        let seen = format!("{} bytes", bytes.len());
        return Err(Refusal::new(Code::MESSAGE_TOO_LARGE, format!("{name} of at most {limit} bytes"), seen));
    }
    if depth_exceeds(bytes, MAX_DEPTH) {
        return Err(Refusal::new(Code::MESSAGE_TOO_DEEP, format!("{name} nested at most {MAX_DEPTH} deep"), "deeper"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let seen = error.to_string();
        // serde's derive is what finds duplicates; its message is the only place where it says so.
        let code =
            if seen.starts_with("duplicate field") { Code::MESSAGE_DUPLICATE_KEY } else { Code::MESSAGE_MALFORMED };
        Refusal::new(code, format!("a well-formed {name}"), seen)
    })
}

/// Writes a message. The one encoding that is hashed, signed and sent.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Message types hold strings, integers, finite numbers and lists of these: none of them can fail to serialize.
    serde_json::to_vec(message).unwrap_or_default()
}

fn depth_exceeds(bytes: &[u8], limit: u32) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_u32, false, false);
    for byte in bytes {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_string = false,
            (true, _) => {}
            (false, b'"') => in_string = true,
            (false, b'[' | b'{') => {
                depth = depth.saturating_add(1);
                if depth > limit {
                    return true;
                }
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            (false, _) => {}
        }
    }
    false
}

/// A message as it was signed: the exact bytes, so that nothing hangs on re-encoding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, bound = "")]
pub struct Signed<M> {
    /// The encoded message.
    payload: Blob,
    /// Ed25519 over the label and LP of the payload.
    signature: Signature64,
    #[serde(skip)]
    message: PhantomData<fn() -> M>,
}

impl<M: Message> Signed<M> {
    /// Signs a message.
    pub fn sign(message: &M, key: &SigningSecret) -> Self {
        let payload = encode(message);
        let signature = key.sign(&Self::signed_bytes(&payload));
        Self { payload: Blob(payload), signature, message: PhantomData }
    }

    /// Reads a signed message without trusting it: for the key or session that it names, before [`Signed::verify`].
    ///
    /// # Errors
    /// As [`decode`].
    pub fn peek(&self) -> Result<M, Refusal> {
        decode(M::NAME, &self.payload.0, M::LIMIT)
    }

    /// Reads it after checking its signature.
    ///
    /// # Errors
    /// `signature-invalid`, or as [`decode`].
    pub fn verify(&self, key: &PublicKey32) -> Result<M, Refusal> {
        if !verify_signature(key, &Self::signed_bytes(&self.payload.0), &self.signature) {
            let expected = format!("{} signed with {}", M::NAME, key.short());
            return Err(Refusal::new(Code::SIGNATURE_INVALID, expected, "a signature that does not verify"));
        }
        self.peek()
    }

    /// SHA-384 over label, payload and signature.
    pub fn digest(&self) -> Digest48 {
        Transcript::new("gh/signed/1").lp(M::LABEL).lp(&self.payload.0).lp(self.signature).sha384()
    }

    /// Reads the envelope from bytes. The payload is not looked at yet.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Refusal> {
        // base64 and the frame add less than half.
        decode(M::NAME, bytes, M::LIMIT.saturating_add(M::LIMIT / 2).saturating_add(1024))
    }

    /// The envelope's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }

    fn signed_bytes(payload: &[u8]) -> Vec<u8> {
        Transcript::new("gh/sig/1").lp(M::LABEL).lp(payload).into_bytes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Note {
        text: String,
    }

    impl Message for Note {
        const LABEL: &'static str = "gh/test/1";
        const NAME: &'static str = "note";
        const LIMIT: usize = 64;
    }

    fn code(json: &str) -> String {
        decode::<Note>("note", json.as_bytes(), 64).unwrap_err().code.to_string()
    }

    #[test]
    fn each_defect_has_its_code() {
        assert_eq!(code(r#"{"text":"a","text":"b"}"#), "message-duplicate-key");
        assert_eq!(code(r#"{"text":"a","more":1}"#), "message-malformed");
        assert_eq!(code(r#"{"text":"a"} x"#), "message-malformed");
        assert_eq!(code(&"[".repeat(20)), "message-too-deep");
        assert_eq!(code(&" ".repeat(65)), "message-too-large");
    }

    #[test]
    fn a_signature_covers_every_byte() {
        let key = SigningSecret::random().unwrap();
        let signed = Signed::sign(&Note { text: "hello".into() }, &key);
        assert_eq!(signed.verify(&key.public()).unwrap().text, "hello");
        for index in 0..signed.payload.0.len() {
            let mut changed = signed.clone();
            changed.payload.0[index] ^= 1;
            assert_eq!(changed.verify(&key.public()).unwrap_err().code, Code::SIGNATURE_INVALID);
        }
        let other = SigningSecret::random().unwrap();
        assert!(signed.verify(&other.public()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode::<Note>("note", &bytes, 64);
            let _ = Signed::<Note>::from_bytes(&bytes);
        }
    }
}
