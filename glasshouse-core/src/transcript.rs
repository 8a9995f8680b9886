//! The one injective encoding that everything hashed or signed goes through.
//!
//! `LP(x)` is the length of `x` as an unsigned 32-bit big-endian integer, then `x`. Integers are unsigned 64-bit
//! big-endian; an optional field is a presence byte (0 or 1), then the field when present.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::fixed::{Digest32, Digest48, Digest64};

/// Builds a byte string from a domain label and typed fields, without ambiguity between neighbours.
#[derive(Clone)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// Starts with the label as raw bytes: labels are constants and none is a prefix of another.
    pub fn new(label: &'static str) -> Self {
        Self(label.as_bytes().to_vec())
    }

    /// Appends `LP(bytes)`.
    #[must_use]
    pub fn lp(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        // Nothing that is hashed here comes near 4 GiB: messages are capped far below, packages are hashed by chunk.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends bytes whose length is fixed by their type.
    #[must_use]
    pub fn fixed(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// Appends an unsigned 64-bit big-endian integer.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// Appends a presence byte and, when present, `LP(bytes)`.
    #[must_use]
    pub fn optional(mut self, bytes: Option<impl AsRef<[u8]>>) -> Self {
        match bytes {
            None => {
                self.0.push(0);
                self
            }
            Some(bytes) => {
                self.0.push(1);
                self.lp(bytes)
            }
        }
    }

    /// The bytes themselves, to sign or to use as AAD.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// SHA-256 of the bytes.
    pub fn sha256(&self) -> Digest32 {
        sha256(&self.0)
    }

    /// SHA-384 of the bytes.
    pub fn sha384(&self) -> Digest48 {
        sha384(&self.0)
    }

    /// SHA-512 of the bytes.
    pub fn sha512(&self) -> Digest64 {
        Digest64::from(<[u8; 64]>::from(Sha512::digest(&self.0)))
    }
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: impl AsRef<[u8]>) -> Digest32 {
    Digest32::from(<[u8; 32]>::from(Sha256::digest(bytes.as_ref())))
}

/// SHA-384 of some bytes.
pub fn sha384(bytes: impl AsRef<[u8]>) -> Digest48 {
    Digest48::from(<[u8; 48]>::from(Sha384::digest(bytes.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn neighbours_cannot_trade_bytes(a: Vec<u8>, b: Vec<u8>, c: Vec<u8>, d: Vec<u8>) {
            let left = Transcript::new("t").lp(&a).lp(&b).into_bytes();
            let right = Transcript::new("t").lp(&c).lp(&d).into_bytes();
            prop_assert_eq!(left == right, a == c && b == d);
        }
    }

    #[test]
    fn absent_and_empty_differ() {
        let absent = Transcript::new("t").optional(None::<&[u8]>).into_bytes();
        let empty = Transcript::new("t").optional(Some(b"")).into_bytes();
        assert_eq!(absent, b"t\0");
        assert_eq!(empty, b"t\x01\0\0\0\0");
    }
}
