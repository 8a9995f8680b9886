//! Chunks in flight: a few at a time, so that memory stays bounded however large the package is.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::digest::{Leaf, leaf};
use super::layout::{Layout, TAG_BYTES, fill};
use super::{Input, PackageError};

/// Most plaintext bytes of the chunks that are worked on together (one chunk of 16 MiB is more). Sealing and opening
/// hold three such batches at most, 36 MiB (48 MiB with chunks of 16 MiB), whatever the number of cores.
pub(super) const MAX_BATCH_BYTES: usize = 12 << 20;
/// Fewest, so that starting and joining a batch costs little.
const MIN_BATCH_BYTES: usize = 4 << 20;
/// Most chunks that are worked on together.
const MAX_BATCH_CHUNKS: u64 = 512;

/// How many chunks are worked on together.
#[derive(Clone, Copy)]
pub(super) struct Batching {
    layout: Layout,
    chunks: u64,
}

impl Batching {
    /// Two chunks for every thread of the current pool, within the limits. Smaller is better otherwise: what was just
    /// read or sealed is still in the cache when it is hashed or written.
    pub(super) fn new(layout: &Layout) -> Self {
        let chunk = layout.chunk_bytes();
        let bytes = chunk.saturating_mul(rayon::current_num_threads()).saturating_mul(2);
        let bytes = bytes.clamp(MIN_BATCH_BYTES, MAX_BATCH_BYTES);
        Self { layout: *layout, chunks: (bytes.checked_div(chunk).unwrap_or(1) as u64).clamp(1, MAX_BATCH_CHUNKS) }
    }

    /// Bytes of the batch that begins with a chunk, tags included.
    fn bytes_from(&self, first: u64) -> usize {
        let end = self.layout.ciphertext_before(first.saturating_add(self.chunks));
        usize::try_from(end.saturating_sub(self.layout.ciphertext_before(first))).unwrap_or(usize::MAX)
    }

    /// The chunk after a batch of so many bytes that begins with `first`.
    fn end(&self, first: u64, bytes: usize) -> u64 {
        first.saturating_add(bytes.div_ceil(self.layout.sealed_chunk_bytes().max(1)) as u64)
    }
}

/// Neighbouring chunks with their tags, as they were read. Never holds plaintext, so nothing here is wiped.
pub(super) struct Sealed<'i> {
    batching: Batching,
    first: u64,
    held: Held<'i>,
}

enum Held<'i> {
    /// A part of a package that is in memory anyway.
    Borrowed(&'i [u8]),
    /// What was read: so many bytes of a buffer that is used again for the next batch.
    Read(Vec<u8>, usize),
}

impl<'i> Sealed<'i> {
    pub(super) fn new(batching: Batching) -> Self {
        Self { batching, first: 0, held: Held::Borrowed(&[]) }
    }

    /// Takes the chunks from `first` on.
    pub(super) fn read(&mut self, first: u64, input: &mut Input<'i>) -> Result<(), PackageError> {
        let wanted = self.batching.bytes_from(first);
        let seen = match input {
            Input::Bytes(bytes) => {
                let (now, rest) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
                *bytes = rest;
                self.held = Held::Borrowed(now);
                now.len()
            }
            Input::Reader(read) => {
                if let Held::Borrowed(_) = self.held {
                    self.held = Held::Read(vec![0; wanted.max(self.batching.bytes_from(0))], 0);
                }
                let Held::Read(buffer, used) = &mut self.held else { return Err(PackageError::NotAPackage) };
                *used = wanted;
                fill(read, buffer.get_mut(..wanted).unwrap_or_default())?
            }
        };
        self.first = first;
        if seen < wanted {
            let layout = &self.batching.layout;
            let (expected, before) = (layout.ciphertext_bytes(), layout.ciphertext_before(first));
            return Err(PackageError::Truncated {
                what: "ciphertext",
                expected,
                seen: before.saturating_add(seen as u64),
            });
        }
        Ok(())
    }

    /// All chunks, back to back.
    fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Borrowed(bytes) => bytes,
            Held::Read(buffer, used) => buffer.get(..*used).unwrap_or_default(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The number of its first chunk.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    /// The number of the first chunk after these.
    pub(super) fn end(&self) -> u64 {
        self.batching.end(self.first, self.bytes().len())
    }

    /// One chunk with its tag, when it is here.
    pub(super) fn chunk(&self, chunk: u64) -> Option<&[u8]> {
        let at = usize::try_from(chunk.checked_sub(self.first)?).ok()?;
        self.bytes().chunks(self.batching.layout.sealed_chunk_bytes()).nth(at)
    }

    /// Every chunk with its number.
    pub(super) fn par_chunks(&self) -> impl IndexedParallelIterator<Item = (u64, &[u8])> {
        let first = self.first;
        let chunks = self.bytes().par_chunks(self.batching.layout.sealed_chunk_bytes()).enumerate();
        chunks.map(move |(i, chunk)| (first.saturating_add(i as u64), chunk))
    }

    /// What each chunk adds to the package digest, in order.
    pub(super) fn leaves(&self) -> Vec<Leaf> {
        self.par_chunks().map(|(_, sealed)| leaf(sealed)).collect()
    }
}

/// Room for neighbouring chunks of plaintext, each followed by room for its tag. The same bytes are used for one batch
/// after the other: each overwrites the last one's plaintext, with its own or with ciphertext, so wiping in between
/// would only add time. All of it is wiped before it is freed, on every path.
pub(super) struct Room {
    batching: Batching,
    first: u64,
    used: usize,
    bytes: Zeroizing<Vec<u8>>,
}

impl Room {
    pub(super) fn new(batching: Batching) -> Self {
        Self { batching, first: 0, used: 0, bytes: Zeroizing::new(vec![0; batching.bytes_from(0)]) }
    }

    /// Makes room for the chunks from `first` on; gives the room for each one's plaintext, in order.
    pub(super) fn start(&mut self, first: u64) -> impl Iterator<Item = &mut [u8]> {
        self.first = first;
        self.used = self.batching.bytes_from(first).min(self.bytes.len());
        self.texts()
    }

    /// The plaintext of each chunk, in order.
    pub(super) fn texts(&mut self) -> impl Iterator<Item = &mut [u8]> {
        let used = self.bytes.get_mut(..self.used).unwrap_or_default();
        let chunks = used.chunks_mut(self.batching.layout.sealed_chunk_bytes());
        chunks.filter_map(|chunk| chunk.split_last_chunk_mut::<TAG_BYTES>().map(|(text, _)| text))
    }

    /// Every chunk and its tag with its number, to seal.
    pub(super) fn par_chunks(&mut self) -> impl IndexedParallelIterator<Item = (u64, &mut [u8])> {
        let first = self.first;
        let used = self.bytes.get_mut(..self.used).unwrap_or_default();
        let chunks = used.par_chunks_mut(self.batching.layout.sealed_chunk_bytes()).enumerate();
        chunks.map(move |(i, chunk)| (first.saturating_add(i as u64), chunk))
    }

    /// All chunks, back to back.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or_default()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The number of the first chunk after these.
    pub(super) fn end(&self) -> u64 {
        self.batching.end(self.first, self.used)
    }
}
