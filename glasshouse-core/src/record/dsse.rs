//! DSSE v1.0.2: one signature over a typed payload (<https://github.com/secure-systems-lab/dsse>).
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use serde::{Deserialize, Serialize};

use super::error::RecordError;
use super::statement::MAX_RECORD_BYTES;
use crate::fixed::{Blob, PublicKey32, Signature64};
use crate::protocol::{SigningSecret, decode, encode, verify_signature};
use crate::transcript::sha256;

/// The payload is an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The envelope, in the field order of the specification's example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Envelope {
    /// The signed bytes.
    pub payload: Blob,
    /// What they are.
    pub payload_type: String,
    /// Exactly one.
    pub signatures: Vec<EnvelopeSignature>,
}

/// A signature with the name of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// [`key_id`] of the key that made it.
    pub keyid: String,
    /// Ed25519 over [`pae`], 64 bytes.
    pub sig: Blob,
}

/// The key's name: hex SHA-256 of its 32 bytes.
pub fn key_id(key: &PublicKey32) -> String {
    sha256(key).to_string()
}

/// Pre-authentication encoding: `"DSSEv1" SP len SP type SP len SP body`, lengths in decimal.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

impl Envelope {
    /// Signs a payload of [`PAYLOAD_TYPE`].
    pub fn sign(payload: Vec<u8>, key: &SigningSecret) -> Self {
        let sig = key.sign(&pae(PAYLOAD_TYPE, &payload));
        let signature = EnvelopeSignature { keyid: key_id(&key.public()), sig: Blob(sig.0.to_vec()) };
        Self { payload: Blob(payload), payload_type: PAYLOAD_TYPE.to_owned(), signatures: vec![signature] }
    }

    /// The file: compact JSON and a newline. The only spelling that [`Envelope::from_bytes`] reads.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = encode(self);
        bytes.push(b'\n');
        bytes
    }

    /// Reads a file, and refuses one that spells the same envelope in another way.
    ///
    /// # Errors
    /// [`RecordError::Envelope`], [`RecordError::NotCanonical`], [`RecordError::PayloadType`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RecordError> {
        let envelope: Self = decode("DSSE envelope", bytes, MAX_RECORD_BYTES).map_err(|r| RecordError::envelope(&r))?;
        if envelope.to_bytes() != bytes {
            return Err(RecordError::NotCanonical { what: "envelope" });
        }
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(RecordError::PayloadType);
        }
        Ok(envelope)
    }

    /// Whether it says that this key signed it.
    pub fn names(&self, key: &PublicKey32) -> bool {
        let id = key_id(key);
        self.signatures.iter().any(|s| s.keyid == id)
    }

    /// Checks that exactly this key signed the payload, once.
    ///
    /// # Errors
    /// [`RecordError::KeyId`] when the envelope names another key, [`RecordError::Signature`] when it does not verify.
    pub fn verify(&self, key: &PublicKey32) -> Result<(), RecordError> {
        let [signature] = self.signatures.as_slice() else { return Err(RecordError::Signature) };
        if signature.keyid != key_id(key) {
            return Err(RecordError::KeyId);
        }
        let sig = Signature64::try_from(signature.sig.0.as_slice()).map_err(|_| RecordError::Signature)?;
        match verify_signature(key, &pae(&self.payload_type, &self.payload.0), &sig) {
            true => Ok(()),
            false => Err(RecordError::Signature),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pae_of_the_specification() {
        // protocol.md, "Test Vectors".
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }

    #[test]
    fn one_key_signs_one_payload() {
        let (key, other) = (SigningSecret::random().unwrap(), SigningSecret::random().unwrap());
        let envelope = Envelope::sign(b"{}".to_vec(), &key);
        let read = Envelope::from_bytes(&envelope.to_bytes()).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(read.verify(&key.public()), Ok(()));
        assert_eq!(read.verify(&other.public()), Err(RecordError::KeyId));
        let mut renamed = envelope.clone();
        renamed.signatures[0].keyid = key_id(&other.public());
        assert_eq!(renamed.verify(&other.public()), Err(RecordError::Signature));
        let mut twice = envelope.clone();
        twice.signatures.push(envelope.signatures[0].clone());
        assert_eq!(twice.verify(&key.public()), Err(RecordError::Signature));
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read(bytes: Vec<u8>) {
            let _ = Envelope::from_bytes(&bytes);
        }
    }
}
