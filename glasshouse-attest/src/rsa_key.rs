//! RSA public keys, for verification only: RSASSA-PSS of AMD's certificates and RS256 of Google's tokens (RFC 8017).
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fmt;
use std::ops::RangeInclusive;

use rsa::signature::Verifier as _;
use rsa::{BoxedUint, RsaPublicKey, pkcs1v15, pss};
use sha2::{Sha256, Sha384};

/// The public exponent of every key that attestation services use.
const F4: [u8; 3] = [1, 0, 1];

/// A modulus of an accepted length with the public exponent 65537. Equal keys have equal moduli.
#[derive(Clone, PartialEq, Eq)]
pub struct RsaKey {
    modulus: Vec<u8>,
    key: RsaPublicKey,
}

impl RsaKey {
    /// A key from its modulus and public exponent, big-endian. `None` where the modulus is even, begins with a zero
    /// byte or has a length out of `bits`, and where the exponent is not 65537.
    pub fn new(modulus: &[u8], exponent: &[u8], bits: RangeInclusive<usize>) -> Option<Self> {
        if exponent != F4 || modulus.first() == Some(&0) || modulus.len() > MAX_BYTES {
            return None;
        }
        let (n, e) = (BoxedUint::from_be_slice_vartime(modulus), BoxedUint::from_be_slice_vartime(exponent));
        let key = RsaPublicKey::new_with_size_limits(n, e, bits).ok()?;
        Some(Self { modulus: modulus.to_vec(), key })
    }

    /// The modulus, big-endian without leading zeros.
    pub fn modulus(&self) -> &[u8] {
        &self.modulus
    }

    /// Whether a signature is RSASSA-PSS over `message` with SHA-384, MGF1 with SHA-384 and 48 bytes of salt.
    pub(crate) fn verify_pss_sha384(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = pss::VerifyingKey::<Sha384>::new(self.key.clone());
        self.is_as_long(signature)
            && pss::Signature::try_from(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
    }

    /// Whether a signature is RSASSA-PKCS1-v1_5 over `message` with SHA-256: the `RS256` of RFC 7518 section 3.3.
    pub(crate) fn verify_pkcs1_sha256(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = pkcs1v15::VerifyingKey::<Sha256>::new(self.key.clone());
        self.is_as_long(signature)
            && pkcs1v15::Signature::try_from(signature).is_ok_and(|signature| key.verify(message, &signature).is_ok())
    }

    /// RFC 8017 sections 8.1.2 and 8.2.2, step 1.
    fn is_as_long(&self, signature: &[u8]) -> bool {
        signature.len() == self.modulus.len()
    }
}

const MAX_BYTES: usize = 512;

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey({} bytes)", self.modulus.len())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn keys_that_are_none() {
        let odd = [&[0xff; 255][..], &[0xfd]].concat();
        assert!(RsaKey::new(&odd, &F4, 2048..=4096).is_some());
        assert!(RsaKey::new(&odd, &F4, 3072..=4096).is_none());
        assert!(RsaKey::new(&odd, &[3], 2048..=4096).is_none());
        assert!(RsaKey::new(&odd, &[0, 1, 0, 1], 2048..=4096).is_none());
        assert!(RsaKey::new(&[0xff; 255], &F4, 2048..=4096).is_none());
        assert!(RsaKey::new(&[0xfe; 256], &F4, 2048..=4096).is_none());
        assert!(RsaKey::new(&[&[0][..], &odd].concat(), &F4, 2048..=4096).is_none());
        assert!(RsaKey::new(&[0xff; 4096], &F4, 2048..=40960).is_none());
        assert!(RsaKey::new(&[], &F4, 0..=4096).is_none());
    }

    #[test]
    fn signatures_of_another_length_or_value() {
        let key = RsaKey::new(&[&[0xff; 255][..], &[0xfd]].concat(), &F4, 2048..=2048).unwrap();
        for signature in [&[][..], &[1; 255], &[1; 256], &[0; 256], &[0xff; 256], &[1; 257], &[1; 5000]] {
            assert!(!key.verify_pss_sha384(b"", signature) && !key.verify_pkcs1_sha256(b"", signature));
        }
    }
}
