//! The package digest: SHA-384 over the manifest and every byte of ciphertext, as a list of hashes so that all cores
//! can work on it.
//!
//! ```text
//! leaf(x)        = SHA-384(x)
//! package digest = SHA-384("gh/package/1" || LP(manifest) || u64(ciphertext bytes) || chunk(0) || chunk(1) || ...)
//! chunk(i)       = leaf of each 64 KiB piece of the chunk's ciphertext, in order (the last piece may be shorter),
//!                  then the chunk's 16-byte tag
//! ```
//! One SHA-384 over 4 GiB would keep one core busy for six seconds while the others wait; leaves are hashed on all
//! cores, and several per core at a time ([`lanes`](super::lanes)). The
//! manifest fixes the chunk size and so, with the length, where every leaf and tag lies: the encoding is injective, and
//! two packages of one digest would be a collision of SHA-384. Nothing here needs a key.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use sha2::{Digest as _, Sha384};

use super::lanes::sha384_pieces;
use super::layout::TAG_BYTES;
use crate::fixed::Digest48;
use crate::transcript::Transcript;

/// Ciphertext bytes per leaf.
const LEAF_BYTES: usize = 64 << 10;

/// What one sealed chunk adds to the package digest. Chunks may be hashed in any order, on any core.
pub(super) fn chunk_hash(sealed: &[u8]) -> Vec<u8> {
    let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().unwrap_or((sealed, &[0; TAG_BYTES]));
    let leaves = text.len().div_ceil(LEAF_BYTES).saturating_mul(48);
    let mut out = Vec::with_capacity(leaves.saturating_add(TAG_BYTES));
    sha384_pieces(text, LEAF_BYTES, &mut out);
    out.extend_from_slice(tag);
    out
}

/// The package digest as it grows, chunk after chunk.
pub(super) struct PackageHasher(Sha384);

impl PackageHasher {
    pub(super) fn new(manifest: &[u8], ciphertext_bytes: u64) -> Self {
        let start = Transcript::new("gh/package/1").lp(manifest).u64(ciphertext_bytes).into_bytes();
        Self(Sha384::new_with_prefix(start))
    }

    /// Takes the next chunk's [`chunk_hash`].
    pub(super) fn add(&mut self, chunk_hash: &[u8]) {
        self.0.update(chunk_hash);
    }

    pub(super) fn finish(self) -> Digest48 {
        Digest48::from(<[u8; 48]>::from(self.0.finalize()))
    }
}
