use std::io;
use std::path::PathBuf;

use crate::fixed::Digest48;
use crate::manifest::ManifestError;
use crate::refusal::{Code, Refusal};

/// Why a package could not be sealed or was refused. Nothing of a refused package was handed over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackageError {
    /// It does not begin like a package.
    #[error("this is not a sealed package; pass the file that sealing wrote")]
    NotAPackage,
    /// The manifest, or what was to go into one, is not valid.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest is not the one that was expected.
    #[error(
        "the package has manifest digest {seen} and {expected} was expected; use the package that this session was made for"
    )]
    ManifestMismatch {
        /// The digest that was expected.
        expected: Digest48,
        /// The digest of the manifest that was read.
        seen: Digest48,
    },
    /// It ends before its manifest says so.
    #[error("the package is truncated: its {what} has {seen} of {expected} bytes; upload it again")]
    Truncated {
        /// Which part: `manifest` or `ciphertext`.
        what: &'static str,
        /// Bytes that the part should have.
        expected: u64,
        /// Bytes that were there.
        seen: u64,
    },
    /// It goes on after its manifest says that it ends.
    #[error("the package goes on after its {expected} bytes of ciphertext; upload it again")]
    Extended {
        /// Bytes of ciphertext that the manifest states.
        expected: u64,
    },
    /// The first chunk does not authenticate, and nothing near it does: the key is another package's, or everything was
    /// replaced. Cryptography cannot tell these two apart.
    #[error(
        "the package does not open with this key: it was sealed with another key, or replaced; use the key that sealing returned"
    )]
    Unopenable,
    /// A chunk does not authenticate here nor anywhere else in this package: changed, or from another package.
    #[error("chunk {chunk} of {chunks} was changed or comes from another package; upload the package again")]
    ChunkForged {
        /// Its place, from 0.
        chunk: u64,
        /// How many there are.
        chunks: u64,
    },
    /// Two chunks of this package stand in each other's place.
    #[error("chunks {chunk} and {with} were swapped; upload the package again")]
    ChunkSwapped {
        /// The earlier place, from 0.
        chunk: u64,
        /// The later place.
        with: u64,
    },
    /// A chunk that belongs later in this package.
    #[error("chunk {belongs} stands at place {chunk}; upload the package again")]
    ChunkReordered {
        /// The place where it was found, from 0.
        chunk: u64,
        /// Its own place.
        belongs: u64,
    },
    /// A chunk that was there before.
    #[error("chunk {copy_of} stands again at place {chunk}; upload the package again")]
    ChunkRepeated {
        /// The place where it was found, from 0.
        chunk: u64,
        /// Its own place.
        copy_of: u64,
    },
    /// Every chunk authenticates and the index inside is not what the manifest promises: the sealer is broken.
    #[error("the index inside the package is wrong: {why}; seal the package again with a version that works")]
    Index {
        /// What is wrong.
        why: &'static str,
    },
    /// The whole authenticates and is not the package that was expected.
    #[error(
        "the package has digest {seen} and {expected} was expected; use the package that this session was made for"
    )]
    DigestMismatch {
        /// The digest that was expected.
        expected: Digest48,
        /// The digest of what was read.
        seen: Digest48,
    },
    /// More than one package may hold.
    #[error(
        "the entries are {bytes} bytes together, more than one package may hold with chunks of {chunk_bytes}; use larger chunks or several packages"
    )]
    TooLarge {
        /// Bytes of all entries and the index.
        bytes: u64,
        /// The chunk size.
        chunk_bytes: u32,
    },
    /// There is no memory for what the package holds.
    #[error("there is no memory for the {bytes} bytes of entry {name}; open the package on a larger machine")]
    Memory {
        /// Name of the entry.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// A source of an entry cannot be read.
    #[error("entry {name} cannot be read: {source}")]
    Source {
        /// Name of the entry.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// A source has another length than it had, or than was said.
    #[error("entry {name} did not have the {expected} bytes it was said to have; leave it alone while it is sealed")]
    SourceChanged {
        /// Name of the entry.
        name: String,
        /// The length that was said.
        expected: u64,
    },
    /// The package cannot be read.
    #[error("the package cannot be read: {source}")]
    Read {
        /// What the system said.
        source: io::Error,
    },
    /// The package cannot be written.
    #[error("the package cannot be written: {source}")]
    Write {
        /// What the system said.
        source: io::Error,
    },
    /// A package file cannot be opened, made or put in its place.
    #[error("{}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A sink did not take an entry.
    #[error("entry {name} was not taken: {source}")]
    Sink {
        /// Name of the entry.
        name: String,
        /// What the sink said.
        source: io::Error,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness; nothing was sealed")]
    Randomness,
}

impl PackageError {
    /// The refusal of a package that is not what it should be; `None` for what is no refusal (files, memory, sources).
    pub fn refusal(&self) -> Option<Refusal> {
        let refusal = match self {
            Self::NotAPackage => Refusal::new(Code::PACKAGE_MALFORMED, "a sealed package", "other bytes"),
            Self::Manifest(error) => Refusal::new(Code::MANIFEST_MALFORMED, "a canonical manifest", error),
            Self::ManifestMismatch { expected, seen } => Refusal::new(Code::MANIFEST_HASH_MISMATCH, expected, seen),
            Self::Truncated { what, expected, seen } => Refusal::new(
                Code::PACKAGE_TRUNCATED,
                format_args!("{expected} bytes of {what}"),
                format_args!("{seen} bytes"),
            ),
            Self::Extended { expected } => Refusal::new(
                Code::PACKAGE_EXTENDED,
                format_args!("{expected} bytes of ciphertext"),
                "more bytes after them",
            ),
            Self::Unopenable => Refusal::new(
                Code::PACKAGE_UNOPENABLE,
                "chunks that authenticate with the package's key",
                "none that does among the first",
            ),
            Self::ChunkForged { chunk, chunks } => Refusal::new(
                Code::PACKAGE_CHUNK_FORGED,
                format_args!("an authentic chunk {chunk} of {chunks}"),
                "a chunk that authenticates nowhere in this package",
            ),
            Self::ChunkSwapped { chunk, with } => Refusal::new(
                Code::PACKAGE_CHUNK_SWAPPED,
                format_args!("chunk {chunk}"),
                format_args!("chunk {with}, and chunk {chunk} in its place"),
            ),
            Self::ChunkReordered { chunk, belongs } => Refusal::new(
                Code::PACKAGE_CHUNK_REORDERED,
                format_args!("chunk {chunk}"),
                format_args!("chunk {belongs}, which belongs later"),
            ),
            Self::ChunkRepeated { chunk, copy_of } => Refusal::new(
                Code::PACKAGE_CHUNK_REPEATED,
                format_args!("chunk {chunk}"),
                format_args!("chunk {copy_of} once more"),
            ),
            Self::Index { why } => {
                Refusal::new(Code::PACKAGE_INDEX_MALFORMED, "an index that agrees with the manifest", why)
            }
            Self::DigestMismatch { expected, seen } => Refusal::new(Code::PACKAGE_DIGEST_MISMATCH, expected, seen),
            _ => return None,
        };
        Some(refusal)
    }
}
