//! Chunks in flight: a few at a time, so that memory stays bounded however large the package is.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::io::Read;

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::PackageError;
use super::digest::chunk_hash;
use super::layout::{Layout, TAG_BYTES, fill};

/// Plaintext bytes of the chunks that are worked on together. Sealing and opening each hold three such batches, which
/// is 36 MiB (48 MiB with chunks of 16 MiB) whatever the chunk size and the number of cores.
pub(super) const BATCH_BYTES: usize = 12 << 20;
/// Most chunks that are worked on together.
const BATCH_CHUNKS: usize = 512;

/// Neighbouring chunks, each with its tag (or room for it), back to back.
pub(super) struct Batch {
    layout: Layout,
    first: u64,
    used: usize,
    bytes: Zeroizing<Vec<u8>>,
}

impl Batch {
    /// An empty batch with room for [`BATCH_BYTES`] or [`BATCH_CHUNKS`], or for the whole package when it is smaller.
    pub(super) fn new(layout: &Layout) -> Self {
        let chunks = BATCH_BYTES.checked_div(layout.chunk_bytes()).unwrap_or(1).clamp(1, BATCH_CHUNKS) as u64;
        let room = usize::try_from(layout.ciphertext_before(chunks)).unwrap_or(usize::MAX);
        Self { layout: *layout, first: 0, used: 0, bytes: Zeroizing::new(vec![0; room]) }
    }

    /// Makes room for the chunks from `first` on; gives that room.
    pub(super) fn start(&mut self, first: u64) -> &mut [u8] {
        let left = self.layout.ciphertext_bytes().saturating_sub(self.layout.ciphertext_before(first));
        self.first = first;
        self.used = usize::try_from(left).unwrap_or(usize::MAX).min(self.bytes.len());
        self.bytes.get_mut(..self.used).unwrap_or_default()
    }

    /// Fills it with the chunks from `first` on.
    pub(super) fn read(&mut self, first: u64, read: &mut dyn Read) -> Result<(), PackageError> {
        let before = self.layout.ciphertext_before(first);
        let expected = self.layout.ciphertext_bytes();
        let room = self.start(first);
        let seen = fill(read, room)?;
        if seen < room.len() {
            let seen = before.saturating_add(seen as u64);
            return Err(PackageError::Truncated { what: "ciphertext", expected, seen });
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The number of its first chunk.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the first chunk after these.
    pub(super) fn end(&self) -> u64 {
        self.first.saturating_add(self.used.div_ceil(self.layout.sealed_chunk_bytes().max(1)) as u64)
    }

    /// All chunks, back to back.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    /// One chunk with its tag, when it is here.
    pub(super) fn chunk(&self, chunk: u64) -> Option<&[u8]> {
        let at = usize::try_from(chunk.checked_sub(self.first)?).ok()?;
        self.bytes().chunks(self.layout.sealed_chunk_bytes()).nth(at)
    }

    /// Every chunk with its number.
    pub(super) fn par_chunks(&self) -> impl IndexedParallelIterator<Item = (u64, &[u8])> {
        let first = self.first;
        let chunks = self.bytes().par_chunks(self.layout.sealed_chunk_bytes()).enumerate();
        chunks.map(move |(i, chunk)| (first.saturating_add(i as u64), chunk))
    }

    /// Every chunk with its number, to change.
    pub(super) fn par_chunks_mut(&mut self) -> impl IndexedParallelIterator<Item = (u64, &mut [u8])> {
        let first = self.first;
        let used = self.bytes.get_mut(..self.used).unwrap_or_default();
        let chunks = used.par_chunks_mut(self.layout.sealed_chunk_bytes()).enumerate();
        chunks.map(move |(i, chunk)| (first.saturating_add(i as u64), chunk))
    }

    /// The room for plaintext of every chunk, in order.
    pub(super) fn texts_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let used = self.bytes.get_mut(..self.used).unwrap_or_default();
        let chunks = used.chunks_mut(self.layout.sealed_chunk_bytes());
        chunks.filter_map(|chunk| chunk.split_last_chunk_mut::<TAG_BYTES>().map(|(text, _)| text))
    }

    /// What each chunk adds to the package digest, in order.
    pub(super) fn hashes(&self) -> Vec<Vec<u8>> {
        self.par_chunks().map(|(_, sealed)| chunk_hash(sealed)).collect()
    }
}
