//! Secrets: no `Debug`, no `Clone`, no `Serialize`, wiped on drop, compared in constant time.

use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// `N` secret bytes.
pub struct Secret<const N: usize>(Box<Zeroizing<[u8; N]>>);

impl<const N: usize> Secret<N> {
    /// Fresh bytes from the operating system.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Self(Box::new(Zeroizing::new([0; N])));
        getrandom::fill(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// Takes bytes over and wipes where they came from.
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let mut secret = Self(Box::new(Zeroizing::new([0; N])));
        secret.0.copy_from_slice(bytes);
        bytes.zeroize();
        secret
    }

    /// The bytes. Whoever copies them wipes the copy.
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// Whether two secrets are equal, in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

/// Secret bytes of any length: plaintext of a package.
pub struct SecretBuffer(Zeroizing<Vec<u8>>);

impl SecretBuffer {
    /// Takes a vector over; it is wiped when dropped.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A buffer of zeros to be filled in place, so that plaintext is never moved by a growing vector.
    pub fn zeroed(length: usize) -> Self {
        Self::new(vec![0; length])
    }

    /// The bytes, to write into.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl std::ops::Deref for SecretBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}
