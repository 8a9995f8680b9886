//! Opening: with the key, to memory or to a sink.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::batch::Batch;
use super::digest::{PackageHasher, chunk_hash};
use super::layout::{INDEX_LENGTH_BYTES, Layout, TAG_BYTES, fill, index_length, parse_index, read_header};
use super::stream::Stream;
use super::{PackageDigests, PackageError};
use crate::manifest::Manifest;
use crate::secret::{Secret, SecretBuffer};
use crate::transcript::sha384;

/// A package that was opened whole.
pub struct OpenedPackage {
    /// Its public part.
    pub manifest: Manifest,
    /// Every entry by name, in memory only; what [`Inputs::sealed`](crate::traits::Inputs) takes.
    pub entries: BTreeMap<String, SecretBuffer>,
}

/// Takes plaintext as it is opened, for entries too large to be held twice.
///
/// # Contract
/// Every byte it is given is authentic and in its place, but the package may still turn out to be truncated or another
/// than expected. Nothing of it may be used before [`open_into`] has returned `Ok`; when it returns an error, the sink
/// wipes what it took.
pub trait EntrySink: Send {
    /// The next entry begins. Entries come in the manifest's order, one after the other.
    ///
    /// # Errors
    /// Whatever keeps the sink from taking it; opening ends with [`PackageError::Sink`].
    fn begin(&mut self, name: &str, bytes: u64) -> io::Result<()>;

    /// The next piece of the entry that began last.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    fn piece(&mut self, plaintext: &[u8]) -> io::Result<()>;
}

/// Opens a package into memory. Nothing is written to disk; nothing is handed over unless all of it verifies.
///
/// # Errors
/// [`PackageError`], each tamper as its own variant.
pub fn open(
    read: impl Read + Send,
    data_key: &Secret<32>,
    expected: &PackageDigests,
) -> Result<OpenedPackage, PackageError> {
    let mut sink = MemorySink::default();
    let manifest = open_into(read, data_key, expected, &mut sink).map_err(|error| sink.explain(error))?;
    Ok(OpenedPackage { manifest, entries: sink.finish() })
}

/// Opens a package file into memory.
///
/// # Errors
/// As [`open`], and [`PackageError::File`].
pub fn open_file(
    path: impl AsRef<Path>,
    data_key: &Secret<32>,
    expected: &PackageDigests,
) -> Result<OpenedPackage, PackageError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| PackageError::File { path: path.to_owned(), source })?;
    open(file, data_key, expected)
}

/// Opens a package into a sink, which must keep the contract of [`EntrySink`]. Needs 48 MiB of memory however large
/// the package is.
///
/// # Errors
/// [`PackageError`], each tamper as its own variant. The sink then holds what must not be used.
pub fn open_into(
    mut read: impl Read + Send,
    data_key: &Secret<32>,
    expected: &PackageDigests,
    sink: &mut dyn EntrySink,
) -> Result<Manifest, PackageError> {
    let manifest_bytes = read_header(&mut read)?;
    let seen = sha384(&manifest_bytes);
    if seen != expected.manifest {
        return Err(PackageError::ManifestMismatch { expected: expected.manifest, seen });
    }
    let manifest = Manifest::from_bytes(&manifest_bytes)?;
    let layout = manifest.layout()?;
    let stream = Stream::new(data_key, manifest.nonce_prefix, seen, &layout);
    let mut hasher = PackageHasher::new(&manifest_bytes, layout.ciphertext_bytes());
    let mut splitter = Splitter::new(&manifest.entries, layout.plaintext_bytes(), sink);
    open_chunks(&mut read, &stream, &layout, &mut hasher, &mut splitter)?;
    splitter.finish()?;
    if fill(&mut read, &mut [0])? != 0 {
        return Err(PackageError::Extended { expected: layout.ciphertext_bytes() });
    }
    let seen = hasher.finish();
    if seen != expected.package {
        return Err(PackageError::DigestMismatch { expected: expected.package, seen });
    }
    Ok(manifest)
}

/// While one batch is opened on all cores, the next one is read.
fn open_chunks(
    read: &mut (impl Read + Send),
    stream: &Stream,
    layout: &Layout,
    hasher: &mut PackageHasher,
    splitter: &mut Splitter<'_>,
) -> Result<(), PackageError> {
    let (mut opening, mut next, mut opened) = (Batch::new(layout), Batch::new(layout), Batch::new(layout));
    opening.read(0, read)?;
    while !opening.is_empty() {
        let after = opening.end();
        opened.start(opening.first());
        let (hashes, moved) = rayon::join(
            || {
                let pairs = opening.par_chunks().zip(opened.par_chunks_mut());
                let opened = pairs.map(|((chunk, sealed), (_, room))| {
                    let (text, _) = room.split_last_chunk_mut::<TAG_BYTES>()?;
                    stream.open(chunk, sealed, text).ok().map(|()| chunk_hash(sealed))
                });
                opened.collect::<Vec<_>>()
            },
            || next.read(after, read),
        );
        if hashes.iter().any(Option::is_none) {
            return Err(why_not(&hashes, &opening, &next, read, stream, layout));
        }
        moved?;
        hashes.iter().flatten().for_each(|hash| hasher.add(hash));
        opened.texts_mut().try_for_each(|text| splitter.take(text))?;
        std::mem::swap(&mut opening, &mut next);
    }
    Ok(())
}

/// Finds out what happened to the first chunk that does not authenticate. Nothing is opened to anybody here.
fn why_not(
    opened: &[Option<Vec<u8>>],
    batch: &Batch,
    next: &Batch,
    read: &mut dyn Read,
    stream: &Stream,
    layout: &Layout,
) -> PackageError {
    let at = opened.iter().position(Option::is_none).unwrap_or_default() as u64;
    let chunk = batch.first().saturating_add(at);
    let chunks = layout.chunks();
    let home = batch.chunk(chunk).and_then(|sealed| stream.home_of(chunk, sealed));
    match home {
        None if chunk == 0 && opened.iter().all(Option::is_none) => PackageError::Unopenable,
        None => PackageError::ChunkForged { chunk, chunks },
        Some(copy_of) if copy_of < chunk => PackageError::ChunkRepeated { chunk, copy_of },
        Some(belongs) => {
            let there = at_place(belongs, batch, next, read, layout);
            match there {
                Some(there) if stream.authenticates(chunk, &there) => {
                    PackageError::ChunkSwapped { chunk, with: belongs }
                }
                _ => PackageError::ChunkReordered { chunk, belongs },
            }
        }
    }
}

/// The sealed bytes that stand at a later place, from what was read or by reading on.
fn at_place(place: u64, batch: &Batch, next: &Batch, read: &mut dyn Read, layout: &Layout) -> Option<Vec<u8>> {
    if let Some(sealed) = batch.chunk(place).or_else(|| next.chunk(place)) {
        return Some(sealed.to_vec());
    }
    let position = layout.ciphertext_before(next.end().max(batch.end()));
    let skip = layout.ciphertext_before(place).checked_sub(position)?;
    io::copy(&mut (&mut *read).take(skip), &mut io::sink()).ok()?;
    let length = layout.ciphertext_before(place.saturating_add(1)).checked_sub(layout.ciphertext_before(place))?;
    let mut sealed = vec![0; usize::try_from(length).ok()?];
    (fill(read, &mut sealed).ok()? == sealed.len()).then_some(sealed)
}

/// Cuts the plaintext into index and entries.
struct Splitter<'s> {
    names: std::slice::Iter<'s, String>,
    all_names: &'s [String],
    plaintext_bytes: u64,
    index: Zeroizing<Vec<u8>>,
    lengths: Option<std::vec::IntoIter<u64>>,
    current: &'s str,
    left: u64,
    sink: &'s mut dyn EntrySink,
}

impl<'s> Splitter<'s> {
    fn new(names: &'s [String], plaintext_bytes: u64, sink: &'s mut dyn EntrySink) -> Self {
        let index = Zeroizing::new(Vec::new());
        Self {
            names: names.iter(),
            all_names: names,
            plaintext_bytes,
            index,
            lengths: None,
            current: "",
            left: 0,
            sink,
        }
    }

    fn take(&mut self, mut text: &[u8]) -> Result<(), PackageError> {
        if self.lengths.is_none() {
            text = self.take_index(text)?;
        }
        while !text.is_empty() {
            let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(text.len());
            let (now, rest) = text.split_at(n);
            self.sink.piece(now).map_err(|source| PackageError::Sink { name: self.current.to_owned(), source })?;
            self.left = self.left.saturating_sub(n as u64);
            text = rest;
            if self.left == 0 && !self.begin_next()? && !text.is_empty() {
                return Err(PackageError::Index { why: "something follows the last entry" });
            }
        }
        Ok(())
    }

    /// Begins entries up to one that is not empty; `false` when there is none.
    fn begin_next(&mut self) -> Result<bool, PackageError> {
        while let (Some(name), Some(bytes)) = (self.names.next(), self.lengths.as_mut().and_then(Iterator::next)) {
            self.sink.begin(name, bytes).map_err(|source| PackageError::Sink { name: name.clone(), source })?;
            (self.current, self.left) = (name, bytes);
            if bytes > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes what belongs to the index and gives the rest.
    fn take_index<'t>(&mut self, text: &'t [u8]) -> Result<&'t [u8], PackageError> {
        let rest = self.grow_index(INDEX_LENGTH_BYTES, text);
        let Some(start) = self.index.first_chunk::<INDEX_LENGTH_BYTES>() else { return Ok(rest) };
        let whole = index_length(*start)?.saturating_add(INDEX_LENGTH_BYTES);
        let rest = self.grow_index(whole, rest);
        if self.index.len() == whole {
            let contents = self.plaintext_bytes.saturating_sub(whole as u64);
            let body = self.index.get(INDEX_LENGTH_BYTES..).unwrap_or_default();
            self.lengths = Some(parse_index(body, self.all_names, contents)?.into_iter());
            self.begin_next()?;
        }
        Ok(rest)
    }

    fn grow_index<'t>(&mut self, to: usize, text: &'t [u8]) -> &'t [u8] {
        let n = to.saturating_sub(self.index.len()).min(text.len());
        let (now, rest) = text.split_at(n);
        self.index.extend_from_slice(now);
        rest
    }

    fn finish(self) -> Result<(), PackageError> {
        let done = self.lengths.is_some() && self.left == 0;
        if done { Ok(()) } else { Err(PackageError::Index { why: "the package ends inside it" }) }
    }
}

/// Holds all entries in memory that is wiped.
#[derive(Default)]
struct MemorySink {
    entries: BTreeMap<String, Zeroizing<Vec<u8>>>,
    name: String,
    no_memory: Option<u64>,
}

impl MemorySink {
    fn finish(mut self) -> BTreeMap<String, SecretBuffer> {
        let entries = std::mem::take(&mut self.entries);
        entries.into_iter().map(|(name, mut bytes)| (name, SecretBuffer::new(std::mem::take(&mut *bytes)))).collect()
    }

    fn explain(&self, error: PackageError) -> PackageError {
        match (error, self.no_memory) {
            (PackageError::Sink { name, .. }, Some(bytes)) => PackageError::Memory { name, bytes },
            (error, _) => error,
        }
    }
}

impl EntrySink for MemorySink {
    fn begin(&mut self, name: &str, bytes: u64) -> io::Result<()> {
        let mut room = Zeroizing::new(Vec::new());
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        // Reserved at once: a vector that grows would leave copies of plaintext behind.
        if room.try_reserve_exact(length).is_err() {
            self.no_memory = Some(bytes);
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        name.clone_into(&mut self.name);
        self.entries.insert(name.to_owned(), room);
        Ok(())
    }

    fn piece(&mut self, plaintext: &[u8]) -> io::Result<()> {
        let room = self.entries.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?;
        room.extend_from_slice(plaintext);
        Ok(())
    }
}
