//! Sealing: from memory, files and readers, to a writer or a file.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rayon::prelude::*;

use super::batch::{Batching, Room};
use super::digest::{Leaf, PackageHasher, leaf};
use super::layout::{Layout, header};
use super::plaintext::{Pieces, Plaintext, Source};
use super::stream::Stream;
use super::{PackageDigests, PackageError};
use crate::claims::Assurance;
use crate::fixed::Fixed;
use crate::manifest::{DEFAULT_CHUNK_BYTES, MANIFEST_FORMAT, Manifest, PublicInput, check_chunk_bytes};
use crate::secret::Secret;
use crate::transcript::sha384;

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
    /// A package for a workload: no entries, private data, chunks of 256 KiB, minimum assurance
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

    /// Seals to a writer. Needs up to 48 MiB of memory however much is sealed. When it fails, what was written is not a
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
    pub(super) fn seal_with(mut self, fresh: Fresh, mut out: impl Write + Send) -> Result<SealedPackage, PackageError> {
        check_chunk_bytes(self.chunk_bytes)?;
        let Fresh { data_key, package_id, nonce_prefix } = fresh;
        let (plaintext, plaintext_bytes) = Plaintext::new(&mut self.entries)?;
        let layout = Layout::of_plaintext(self.chunk_bytes, plaintext_bytes)
            .ok_or(PackageError::TooLarge { bytes: plaintext_bytes, chunk_bytes: self.chunk_bytes })?;
        let manifest = Manifest {
            format: MANIFEST_FORMAT.to_owned(),
            package_id,
            workload: self.workload,
            entries: plaintext.names().map(str::to_owned).collect(),
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
    let batching = Batching::new(layout);
    let (mut sealed, mut sealing, mut next) = (Room::new(batching), Room::new(batching), Room::new(batching));
    let mut pieces = plaintext.fill(&mut sealing, 0)?;
    while !sealing.is_empty() {
        let after = sealing.end();
        let (leaves, filled) = rayon::join(
            || {
                let chunks = sealing.par_chunks().zip(&pieces);
                chunks
                    .map(|((chunk, text), pieces)| seal_chunk(stream, chunk, text, pieces))
                    .collect::<Option<Vec<_>>>()
            },
            || {
                write(out, sealed.bytes())?;
                plaintext.fill(&mut next, after)
            },
        );
        pieces = filled?;
        // Cannot be for a valid layout; were it, the chunk would stay unsealed and must not be written.
        let leaves = leaves.ok_or(PackageError::TooLarge {
            bytes: layout.plaintext_bytes(),
            chunk_bytes: u32::try_from(layout.chunk_bytes()).unwrap_or(u32::MAX),
        })?;
        leaves.iter().for_each(|leaf| hasher.add(leaf));
        std::mem::swap(&mut sealed, &mut sealing);
        std::mem::swap(&mut sealing, &mut next);
    }
    plaintext.finish()?;
    write(out, sealed.bytes())
}

/// Puts the rest of the plaintext in its place and seals it there: copying first costs a few per cent, and `aes-gcm`
/// encrypts in place faster than from one buffer to another unless it is optimized across crates.
fn seal_chunk(stream: &Stream, chunk: u64, text_and_tag: &mut [u8], pieces: &Pieces<'_>) -> Option<Leaf> {
    for (at, piece) in pieces {
        text_and_tag.get_mut(*at..at.checked_add(piece.len())?)?.copy_from_slice(piece);
    }
    stream.seal(chunk, text_and_tag)?;
    Some(leaf(text_and_tag))
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), PackageError> {
    out.write_all(bytes).map_err(|source| PackageError::Write { source })
}
