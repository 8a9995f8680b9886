use zeroize::Zeroize as _;

use super::memory::SecretMemory;
use super::{Ledger, SecretError};
use crate::traits::{WipeTarget, ZeroizeError};

/// Secret bytes of any length: plaintext of a package. Never grows; out of core dumps; locked while the limit lasts.
pub struct SecretBuffer(SecretMemory);

impl SecretBuffer {
    /// Copies a vector into secret memory and wipes all of its capacity. For plaintext of some size,
    /// [`zeroed`](Self::zeroed) filled in place needs half the memory.
    pub fn new(mut bytes: Vec<u8>) -> Self {
        match SecretMemory::bulk(bytes.len(), Ledger::process()) {
            Ok(mut memory) => {
                memory.copy_from_slice(&bytes);
                bytes.zeroize();
                Self(memory)
            }
            Err(_) => Self(SecretMemory::bulk_on_heap(bytes, Ledger::process())),
        }
    }

    /// A buffer of zeros to be filled in place, so that plaintext is never moved by a growing vector.
    ///
    /// Out of memory ends the process, as with a `Vec`; where the length comes from outside, use
    /// [`try_zeroed`](Self::try_zeroed).
    pub fn zeroed(length: usize) -> Self {
        Self::try_zeroed(length)
            .unwrap_or_else(|_| Self(SecretMemory::bulk_on_heap(vec![0; length], Ledger::process())))
    }

    /// A buffer of zeros, or an error that the caller can pass on.
    ///
    /// # Errors
    /// [`SecretError::OutOfMemory`].
    pub fn try_zeroed(length: usize) -> Result<Self, SecretError> {
        Self::try_zeroed_in(length, Ledger::process())
    }

    /// The bytes, to write into.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.0
    }

    pub(crate) fn try_zeroed_in(length: usize, ledger: &'static Ledger) -> Result<Self, SecretError> {
        Ok(Self(SecretMemory::bulk(length, ledger)?))
    }
}

impl std::ops::Deref for SecretBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl WipeTarget for SecretBuffer {
    fn bytes(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }
    fn wipe(&mut self) -> Result<(), ZeroizeError> {
        self.0.zeroize();
        Ok(())
    }
    fn is_wiped(&self) -> Result<bool, ZeroizeError> {
        // A block at a time, so that the processor compares many bytes at once.
        Ok(self.chunks(1024).all(|block| block.iter().fold(0, |seen, byte| seen | byte) == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_it_was_given() {
        let buffer = SecretBuffer::new((0..=255).collect());
        assert!(buffer.iter().copied().eq(0..=255));
        assert!(SecretBuffer::new(Vec::new()).is_empty());
        let mut buffer = SecretBuffer::zeroed(3);
        buffer.as_mut_slice().copy_from_slice(b"abc");
        assert_eq!(&*buffer, b"abc");
    }

    #[test]
    fn too_much_is_an_error_not_an_abort() {
        let bytes = usize::MAX / 4;
        assert_eq!(SecretBuffer::try_zeroed(bytes).err(), Some(SecretError::OutOfMemory { bytes }));
    }

    #[test]
    fn the_ledger_follows_it() {
        static LEDGER: Ledger = Ledger::new();
        let buffer = SecretBuffer::try_zeroed_in(1 << 20, &LEDGER).unwrap();
        assert_eq!((LEDGER.tally().bulk, LEDGER.tally().held()), (1 << 20, 1 << 20));
        drop(buffer);
        assert_eq!((LEDGER.tally().bulk, LEDGER.tally().wiped), (0, 1 << 20));
    }

    #[test]
    fn wipes_in_place() {
        let mut buffer = SecretBuffer::new(vec![1; 5000]);
        assert!(!buffer.is_wiped().unwrap());
        buffer.wipe().unwrap();
        assert!(buffer.is_wiped().unwrap());
        assert_eq!((buffer.bytes(), buffer.len()), (5000, 5000));
    }
}
