//! Sealing: from memory, files and readers, to a writer or a file.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::batch::Batch;
use super::digest::{PackageHasher, chunk_hash};
use super::layout::{Layout, fill, header, index};
use super::stream::Stream;
use super::{PackageDigests, PackageError};
use crate::claims::Assurance;
use crate::fixed::Fixed;
use crate::manifest::{DEFAULT_CHUNK_BYTES, MANIFEST_FORMAT, Manifest, PublicInput, check_chunk_bytes};
use crate::secret::{Secret, SecretBuffer};
use crate::transcript::sha384;

/// Where the content of an entry comes from. It is read once, from front to back.
#[non_exhaustive]
pub enum Source<'a> {
    /// Bytes that the package takes over and wipes.
    Memory(SecretBuffer),
    /// Bytes that stay with the caller.
    Slice(&'a [u8]),
    /// A regular file. Its length must not change while it is sealed.
    File(PathBuf),
    /// Anything that reads exactly so many bytes.
    Reader {
        /// The content.
        read: Box<dyn Read + Send + 'a>,
        /// Its length.
        bytes: u64,
    },
}

/// A package in the making.
pub struct PackageBuilder<'a> {
    workload: String,
    entries: Vec<(String, Source<'a>)>,
    public_inputs: Vec<PublicInput>,
    public_data: bool,
    minimum_assurance: Assurance,
    chunk_bytes: u32,
}

/// A package that was sealed: everything that the owner keeps of it.
pub struct SealedPackage {
    /// Its public part.
    pub manifest: Manifest,
    /// What names it, and what opening expects.
    pub digests: PackageDigests,
    /// The only key that opens it. Whoever has it can read the package.
    pub data_key: Secret<32>,
    /// Bytes of the whole package.
    pub bytes: u64,
}

impl<'a> PackageBuilder<'a> {
    /// A package for a workload: no entries, private data, chunks of 1 MiB, minimum assurance
    /// [`Assurance::CpuTeeGpuCc`] until a lower one is asked for.
    pub fn new(workload: impl Into<String>) -> Self {
        Self {
            workload: workload.into(),
            entries: Vec::new(),
            public_inputs: Vec::new(),
            public_data: false,
            minimum_assurance: Assurance::CpuTeeGpuCc,
            chunk_bytes: DEFAULT_CHUNK_BYTES,
        }
    }

    /// Adds an entry to seal.
    #[must_use]
    pub fn entry(mut self, name: impl Into<String>, source: Source<'a>) -> Self {
        self.entries.push((name.into(), source));
        self
    }

    /// Pins an input that is not sealed.
    #[must_use]
    pub fn public_input(mut self, input: PublicInput) -> Self {
        self.public_inputs.push(input);
        self
    }

    /// The gate will release the key to nothing below this.
    #[must_use]
    pub fn minimum_assurance(mut self, minimum: Assurance) -> Self {
        self.minimum_assurance = minimum;
        self
    }

    /// Says that anybody may see this data. It is sealed all the same; raw segments may then read it anywhere.
    #[must_use]
    pub fn data_is_public(mut self) -> Self {
        self.public_data = true;
        self
    }

    /// Plaintext bytes per chunk: a power of two, 4 KiB to 16 MiB.
    #[must_use]
    pub fn chunk_bytes(mut self, chunk_bytes: u32) -> Self {
        self.chunk_bytes = chunk_bytes;
        self
    }

    /// Seals to a writer. Needs 48 MiB of memory however much is sealed. When it fails, what was written is not a
    /// package and must be thrown away; [`seal_to_file`](Self::seal_to_file) does so.
    ///
    /// # Errors
    /// [`PackageError`]: an invalid manifest, a source that cannot be read or changes, a writer that fails.
    pub fn seal_to(self, out: impl Write + Send) -> Result<SealedPackage, PackageError> {
        let fresh = Fresh {
            data_key: Secret::random().map_err(|_| PackageError::Randomness)?,
            package_id: Fixed::random().map_err(|_| PackageError::Randomness)?,
            nonce_prefix: Fixed::random().map_err(|_| PackageError::Randomness)?,
        };
        self.seal_with(fresh, out)
    }

    /// Seals to a file that appears whole and synced, or not at all; an existing file is replaced.
    ///
    /// # Errors
    /// As [`seal_to`](Self::seal_to), and [`PackageError::File`].
    pub fn seal_to_file(self, path: impl AsRef<Path>) -> Result<SealedPackage, PackageError> {
        let path = path.as_ref();
        let failed = |source| PackageError::File { path: path.to_owned(), source };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
        let sealed = self.seal_to(file.as_file_mut())?;
        file.as_file().sync_all().map_err(failed)?;
        file.persist(path).map_err(|e| failed(e.error))?;
        // The rename is durable once the folder is synced.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(sealed)
    }

    /// Seals with given randomness: vectors need it, and nobody else may have it.
    pub(super) fn seal_with(self, fresh: Fresh, mut out: impl Write + Send) -> Result<SealedPackage, PackageError> {
        check_chunk_bytes(self.chunk_bytes)?;
        let Fresh { data_key, package_id, nonce_prefix } = fresh;
        let (plaintext, plaintext_bytes) = Plaintext::new(self.entries)?;
        let layout = Layout::of_plaintext(self.chunk_bytes, plaintext_bytes)
            .ok_or(PackageError::TooLarge { bytes: plaintext_bytes, chunk_bytes: self.chunk_bytes })?;
        let manifest = Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            package_id,
            workload: self.workload,
            entries: plaintext.entries.iter().map(|entry| entry.name.clone()).collect(),
            public_inputs: self.public_inputs,
            public_data: self.public_data,
            minimum_assurance: self.minimum_assurance,
            chunk_bytes: self.chunk_bytes,
            nonce_prefix,
            ciphertext_bytes: layout.ciphertext_bytes(),
        };
        let manifest_bytes = manifest.to_bytes()?;
        let manifest_digest = sha384(&manifest_bytes);
        let header = header(&manifest_bytes);
        out.write_all(&header).map_err(|source| PackageError::Write { source })?;

        let stream = Stream::new(&data_key, nonce_prefix, manifest_digest, &layout);
        let mut hasher = PackageHasher::new(&manifest_bytes, layout.ciphertext_bytes());
        seal_chunks(plaintext, &stream, &layout, &mut hasher, &mut out)?;
        out.flush().map_err(|source| PackageError::Write { source })?;

        let digests = PackageDigests { package: hasher.finish(), manifest: manifest_digest };
        let bytes = (header.len() as u64).saturating_add(layout.ciphertext_bytes());
        Ok(SealedPackage { manifest, digests, data_key, bytes })
    }
}

/// What must be fresh for every package.
pub(super) struct Fresh {
    pub(super) data_key: Secret<32>,
    pub(super) package_id: Fixed<16>,
    pub(super) nonce_prefix: Fixed<7>,
}

/// While one batch is sealed on all cores, the one before it is written and the one after it is read.
fn seal_chunks(
    mut plaintext: Plaintext<'_>,
    stream: &Stream,
    layout: &Layout,
    hasher: &mut PackageHasher,
    out: &mut (impl Write + Send),
) -> Result<(), PackageError> {
    let (mut sealed, mut sealing, mut next) = (Batch::new(layout), Batch::new(layout), Batch::new(layout));
    plaintext.fill(&mut sealing, 0)?;
    while !sealing.is_empty() {
        let after = sealing.end();
        let (hashes, moved) = rayon::join(
            || {
                let seal = |(chunk, bytes): (u64, &mut [u8])| stream.seal(chunk, bytes).map(|()| chunk_hash(bytes));
                sealing.par_chunks_mut().map(seal).collect::<Option<Vec<_>>>()
            },
            || {
                write(out, sealed.bytes())?;
                plaintext.fill(&mut next, after)
            },
        );
        moved?;
        // Cannot be for a valid layout; were it, the chunk would stay unsealed and must not be written.
        let hashes = hashes.ok_or(PackageError::TooLarge {
            bytes: layout.plaintext_bytes(),
            chunk_bytes: u32::try_from(layout.chunk_bytes()).unwrap_or(u32::MAX),
        })?;
        hashes.iter().for_each(|hash| hasher.add(hash));
        std::mem::swap(&mut sealed, &mut sealing);
        std::mem::swap(&mut sealing, &mut next);
    }
    plaintext.finish()?;
    write(out, sealed.bytes())
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), PackageError> {
    out.write_all(bytes).map_err(|source| PackageError::Write { source })
}

/// The index, then the contents of all entries.
struct Plaintext<'a> {
    index: Zeroizing<Vec<u8>>,
    index_done: usize,
    entries: VecDeque<Entry<'a>>,
}

struct Entry<'a> {
    name: String,
    source: Source<'a>,
    bytes: u64,
    done: u64,
    open: Option<File>,
}

impl<'a> Plaintext<'a> {
    /// Looks at the lengths of all sources; gives the length of everything.
    fn new(entries: Vec<(String, Source<'a>)>) -> Result<(Self, u64), PackageError> {
        let entries = entries.into_iter().map(|(name, source)| Entry::new(name, source));
        let entries = entries.collect::<Result<VecDeque<_>, _>>()?;
        let index = index(entries.iter().map(|entry| (entry.name.as_str(), entry.bytes)));
        let contents = entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.bytes));
        let bytes = contents.saturating_add(index.len() as u64);
        Ok((Self { index, index_done: 0, entries }, bytes))
    }

    /// Fills a batch with the chunks from `first` on.
    fn fill(&mut self, batch: &mut Batch, first: u64) -> Result<(), PackageError> {
        batch.start(first);
        batch.texts_mut().try_for_each(|text| self.fill_text(text))
    }

    fn fill_text(&mut self, mut text: &mut [u8]) -> Result<(), PackageError> {
        let index = self.index.get(self.index_done..).unwrap_or_default();
        let n = index.len().min(text.len());
        let (start, rest) = text.split_at_mut(n);
        start.copy_from_slice(index.get(..n).unwrap_or_default());
        self.index_done = self.index_done.saturating_add(n);
        text = rest;
        while let (false, Some(entry)) = (text.is_empty(), self.entries.front_mut()) {
            let n = usize::try_from(entry.left()).unwrap_or(usize::MAX).min(text.len());
            let (now, rest) = text.split_at_mut(n);
            entry.read(now)?;
            text = rest;
            if entry.left() == 0 {
                entry.end()?;
                self.entries.pop_front();
            }
        }
        Ok(())
    }

    /// Ends what holds nothing: empty entries after the last byte.
    fn finish(&mut self) -> Result<(), PackageError> {
        self.entries.iter_mut().try_for_each(Entry::end)
    }
}

impl<'a> Entry<'a> {
    fn new(name: String, source: Source<'a>) -> Result<Self, PackageError> {
        let bytes = match &source {
            Source::Memory(bytes) => bytes.len() as u64,
            Source::Slice(bytes) => bytes.len() as u64,
            Source::Reader { bytes, .. } => *bytes,
            Source::File(path) => match path.metadata() {
                Ok(data) if data.is_file() => data.len(),
                Ok(_) => {
                    let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
                    return Err(PackageError::File { path: path.clone(), source });
                }
                Err(source) => return Err(PackageError::File { path: path.clone(), source }),
            },
        };
        Ok(Self { name, source, bytes, done: 0, open: None })
    }

    fn left(&self) -> u64 {
        self.bytes.saturating_sub(self.done)
    }

    /// Reads exactly so much.
    fn read(&mut self, text: &mut [u8]) -> Result<(), PackageError> {
        let start = usize::try_from(self.done).unwrap_or(usize::MAX);
        let from_memory = |bytes: &[u8], text: &mut [u8]| match bytes.get(start..start.saturating_add(text.len())) {
            Some(piece) => {
                text.copy_from_slice(piece);
                Ok(text.len())
            }
            None => Ok(0),
        };
        let seen = match &mut self.source {
            Source::Memory(bytes) => from_memory(bytes, text),
            Source::Slice(bytes) => from_memory(bytes, text),
            Source::Reader { read, .. } => fill(read, text),
            Source::File(path) => {
                if self.open.is_none() {
                    let opened = File::open(&*path);
                    self.open = Some(opened.map_err(|source| PackageError::File { path: path.clone(), source })?);
                }
                self.open.as_mut().map_or(Ok(0), |file| fill(file, text))
            }
        };
        let seen = seen.map_err(|error| self.unreadable(error))?;
        self.done = self.done.saturating_add(seen as u64);
        if seen == text.len() { Ok(()) } else { Err(self.changed()) }
    }

    /// Makes sure that nothing follows what was sealed: a source that grew is not the one that was asked for.
    fn end(&mut self) -> Result<(), PackageError> {
        let mut one = Zeroizing::new([0; 1]);
        let more = match (&mut self.source, &mut self.open) {
            (Source::Reader { read, .. }, _) => fill(read, one.as_mut_slice()),
            (_, Some(file)) => fill(file, one.as_mut_slice()),
            _ => Ok(0),
        };
        match more {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.changed()),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn changed(&self) -> PackageError {
        PackageError::SourceChanged { name: self.name.clone(), expected: self.bytes }
    }

    fn unreadable(&self, error: PackageError) -> PackageError {
        match error {
            PackageError::Read { source } => PackageError::Source { name: self.name.clone(), source },
            other => other,
        }
    }
}
