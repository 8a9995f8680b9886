//! Byte strings of a fixed length: digests, nonces, public keys and signatures. Lower-case hex in JSON.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// `N` public bytes. In text: exactly `2 * N` lower-case hex digits, so that each value has one spelling.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fixed<const N: usize>(pub [u8; N]);

/// SHA-256 (FIPS 180-4).
pub type Digest32 = Fixed<32>;
/// SHA-384 (FIPS 180-4).
pub type Digest48 = Fixed<48>;
/// SHA-512 (FIPS 180-4); also the 64 bytes of a CPU quote's `report_data`.
pub type Digest64 = Fixed<64>;
/// A fresh challenge nonce, or a session id.
pub type Nonce32 = Fixed<32>;
/// An X25519 or Ed25519 public key (RFC 7748, RFC 8032).
pub type PublicKey32 = Fixed<32>;
/// An Ed25519 signature (RFC 8032).
pub type Signature64 = Fixed<64>;

impl<const N: usize> Fixed<N> {
    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; N] {
        &self.0
    }

    /// Fresh bytes from the operating system.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// Reads exactly `2 * N` lower-case hex digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let mut bytes = [0; N];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// The first eight hex digits, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl<const N: usize> From<[u8; N]> for Fixed<N> {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes)
    }
}

impl<const N: usize> TryFrom<&[u8]> for Fixed<N> {
    type Error = std::array::TryFromSliceError;
    fn try_from(bytes: &[u8]) -> Result<Self, Self::Error> {
        Ok(Self(bytes.try_into()?))
    }
}

impl<const N: usize> AsRef<[u8]> for Fixed<N> {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl<const N: usize> fmt::Display for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl<const N: usize> fmt::Debug for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::from_hex(&text)
            .ok_or_else(|| de::Error::custom(format_args!("expected {} lower-case hex digits", N.saturating_mul(2))))
    }
}

/// Bytes of any length. Standard base64 with padding in JSON, one spelling per value (RFC 4648 section 4).
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map(Blob).map_err(|_| de::Error::custom("expected standard base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_one_spelling() {
        let one: Fixed<2> = serde_json::from_str("\"00ff\"").unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), "\"00ff\"");
        for bad in ["\"00FF\"", "\"00f\"", "\"00ff0\"", "\"00fg\"", "\"\"", "7"] {
            assert!(serde_json::from_str::<Fixed<2>>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Blob>("\"AA==\"").is_ok());
        for bad in ["\"AB==\"", "\"AA\"", "\"A\"", "\"AA==\\n\""] {
            assert!(serde_json::from_str::<Blob>(bad).is_err(), "{bad}");
        }
    }
}
