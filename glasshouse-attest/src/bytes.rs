//! The one reader of binary structures: SPDM reports and their opaque data, SEV-SNP reports.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use glasshouse_core::fixed::Fixed;

/// Takes little-endian fields from the front of a byte string; every take is checked.
pub(crate) struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        Some(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn fixed<const N: usize>(&mut self) -> Option<Fixed<N>> {
        self.array().map(Fixed)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u24(&mut self) -> Option<u32> {
        let [a, b, c] = self.array()?;
        Some(u32::from_le_bytes([a, b, c, 0]))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Whether so many bytes are zero; `None` where there are not so many.
    pub(crate) fn zeros(&mut self, length: usize) -> Option<bool> {
        Some(self.take(length)?.iter().all(|byte| *byte == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_nothing_is_read_twice() {
        let bytes: Vec<u8> = (1..=23).chain([0, 0, 7]).collect();
        let mut c = Cursor::new(&bytes);
        assert_eq!((c.u8(), c.u16(), c.u24()), (Some(1), Some(0x0302), Some(0x0006_0504)));
        assert_eq!((c.u32(), c.u64()), (Some(0x0a09_0807), Some(0x1211_100f_0e0d_0c0b)));
        assert_eq!((c.array(), c.fixed()), (Some([19, 20]), Some(Fixed([21, 22]))));
        assert_eq!((c.zeros(2), c.zeros(1), c.is_empty()), (Some(false), Some(true), false));
        assert_eq!((c.take(2), c.zeros(2)), (None, None), "more than there is");
        assert_eq!((c.take(1), c.is_empty(), c.u8()), (Some(&[7][..]), true, None));
    }
}
