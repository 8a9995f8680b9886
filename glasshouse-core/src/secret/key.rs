use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use super::memory::SecretMemory;
use super::{Ledger, SecretClass};
use crate::traits::{WipeTarget, ZeroizeError};

/// `N` secret bytes in locked memory. Up to 64 bytes share a page with other keys.
pub struct Secret<const N: usize>(SecretMemory);

impl<const N: usize> Secret<N> {
    /// Fresh bytes from the operating system.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        Self::fill_with(|bytes| getrandom::fill(bytes))
    }

    /// Takes bytes over and wipes where they came from.
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let mut secret = Self::zeroed_in(Ledger::process());
        secret.0.copy_from_slice(bytes);
        bytes.zeroize();
        secret
    }

    /// Lets `fill` write the bytes in place, so that a derived key is never elsewhere.
    ///
    /// # Errors
    /// What `fill` says; what it had written is wiped.
    pub fn fill_with<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self::zeroed_in(Ledger::process());
        fill(secret.expose_mut())?;
        Ok(secret)
    }

    /// Marks a key that signs or seals the receipt: it may outlive zeroization, and the receipt says that it does.
    #[must_use]
    pub fn into_session_key(mut self) -> Self {
        self.0.set_class(SecretClass::SessionKey);
        self
    }

    /// The bytes. Whoever copies them wipes the copy.
    pub fn expose(&self) -> &[u8; N] {
        match self.0.first_chunk() {
            Some(bytes) => bytes,
            None => unreachable!("made with {N} bytes"),
        }
    }

    /// Whether two secrets are equal, in constant time.
    pub fn ct_eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }

    pub(crate) fn zeroed_in(ledger: &'static Ledger) -> Self {
        Self(SecretMemory::key(N, ledger))
    }

    fn expose_mut(&mut self) -> &mut [u8; N] {
        match self.0.first_chunk_mut() {
            Some(bytes) => bytes,
            None => unreachable!("made with {N} bytes"),
        }
    }
}

impl<const N: usize> WipeTarget for Secret<N> {
    fn bytes(&self) -> u64 {
        u64::try_from(N).unwrap_or(u64::MAX)
    }
    fn wipe(&mut self) -> Result<(), ZeroizeError> {
        self.0.zeroize();
        Ok(())
    }
    fn is_wiped(&self) -> Result<bool, ZeroizeError> {
        Ok(self.expose().iter().all(|b| *b == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_bytes_are_wiped_at_their_source() {
        let mut bytes = [7; 32];
        let secret = Secret::take(&mut bytes);
        assert_eq!((bytes, secret.expose()), ([0; 32], &[7; 32]));
        assert!(secret.ct_eq(&Secret::take(&mut [7; 32])));
        assert!(!secret.ct_eq(&Secret::take(&mut [8; 32])));
    }

    #[test]
    fn random_is_not_constant_and_large_ones_work() {
        let (a, b) = (Secret::<100>::random().unwrap(), Secret::<100>::random().unwrap());
        assert!(!a.ct_eq(&b));
        assert!(Secret::<0>::random().unwrap().expose().is_empty());
    }

    #[test]
    fn a_failed_fill_is_an_error() {
        let failed = Secret::<32>::fill_with(|bytes| {
            bytes.fill(1);
            Err("no")
        });
        assert_eq!(failed.err(), Some("no"));
    }

    #[test]
    fn a_session_key_is_not_held() {
        static LEDGER: Ledger = Ledger::new();
        let key = Secret::<32>::zeroed_in(&LEDGER);
        assert_eq!(LEDGER.tally().held(), 32);
        let key = key.into_session_key();
        assert_eq!((LEDGER.tally().held(), LEDGER.tally().session_keys), (0, 32));
        drop(key);
        assert_eq!((LEDGER.tally().session_keys, LEDGER.tally().wiped), (0, 32));
    }

    #[test]
    fn wipes_in_place() {
        let mut secret = Secret::take(&mut [7; 64]);
        assert!(!secret.is_wiped().unwrap());
        secret.wipe().unwrap();
        assert!(secret.is_wiped().unwrap());
        assert_eq!(secret.bytes(), 64);
    }
}
