//! Pseudo-random numbers for resampling, the same everywhere.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

/// SplitMix64 (Steele, Lea and Flood 2014): small, fast, the same everywhere. Statistics only, never keys.
pub(super) struct SplitMix(pub(super) u64);

impl SplitMix {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, with a bias below n / 2^64.
    pub(super) fn below(&mut self, n: usize) -> usize {
        // Below 2^64 * 2^64: it fits.
        (u128::from(self.next()).saturating_mul(n as u128) >> 64) as usize
    }
}
