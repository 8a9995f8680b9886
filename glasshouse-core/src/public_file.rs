//! Public inputs, checked by digest, and after that the same bytes at every read.
//!
//! A file that anybody may read still decides what is trained, and it lies on the host's disk: what was hashed can be
//! other bytes a moment later, under the same name, behind the same handle or in a memory map whose pages are read again.
//! So the one pass that checks the SHA-256 keeps a BLAKE3 of every block, and every later read is held against those.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

use std::fs::File;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::fixed::{Digest32, Fixed};
use crate::manifest::PublicInput;

/// Bytes that share one BLAKE3.
const BLOCK: u64 = 1 << 20;

/// Why a public input cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublicFileError {
    /// It cannot be opened or read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },
    /// It is not the file that was pinned.
    #[error("expected SHA-256 {expected} of {expected_bytes} bytes, found {found} of {found_bytes}")]
    Digest {
        /// What was pinned.
        expected: Digest32,
        /// Its length.
        expected_bytes: u64,
        /// What lies there.
        found: Digest32,
        /// Its length.
        found_bytes: u64,
    },
    /// It has not even the length of the file that was pinned.
    #[error("{} has {found} bytes, and {expected} were pinned", path.display())]
    Length {
        /// Which file.
        path: PathBuf,
        /// What was pinned.
        expected: u64,
        /// What lies there.
        found: u64,
    },
    /// It was the pinned file when it was opened and is not any more.
    #[error("{} was changed after its digest was checked, about byte {at}; start again with the file left alone", path.display())]
    Changed {
        /// Which file.
        path: PathBuf,
        /// Where the block begins that is another one now.
        at: u64,
    },
    /// A range that does not lie in it.
    #[error("{} has {bytes} bytes, and bytes {start} to {end} were asked for", path.display())]
    Range {
        /// Which file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
        /// The first byte asked for.
        start: u64,
        /// One past the last.
        end: u64,
    },
}

/// A file whose content is known by digest.
#[derive(Debug)]
pub struct PublicFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    sha256: Digest32,
    blocks: Vec<[u8; 32]>,
}

impl PublicFile {
    /// Reads a file once, to know its digest.
    ///
    /// # Errors
    /// [`PublicFileError::Io`].
    pub fn open(path: &Path) -> Result<Self, PublicFileError> {
        let failed = |error| PublicFileError::Io { path: path.to_owned(), error };
        let mut file = File::open(path).map_err(failed)?;
        let (mut whole, mut blocks, mut bytes, mut block) = (Sha256::new(), Vec::new(), 0_u64, Vec::new());
        loop {
            block.clear();
            let count = (&mut file).take(BLOCK).read_to_end(&mut block).map_err(failed)?;
            if count == 0 {
                let sha256 = Fixed(whole.finalize().into());
                return Ok(Self { path: path.to_owned(), file, bytes, sha256, blocks });
            }
            whole.update(&block);
            blocks.push(blake3::hash(&block).into());
            bytes = bytes.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// The file at `path`, if it is the one that `input` pins.
    ///
    /// # Errors
    /// [`PublicFileError::Io`], [`PublicFileError::Length`], [`PublicFileError::Digest`].
    pub fn pinned(path: &Path, input: &PublicInput) -> Result<Self, PublicFileError> {
        // What has another length need not be read, and what is no file never ends.
        let about = std::fs::metadata(path).map_err(|error| PublicFileError::Io { path: path.to_owned(), error })?;
        if !about.is_file() {
            let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file");
            return Err(PublicFileError::Io { path: path.to_owned(), error });
        }
        if about.len() != input.bytes {
            let path = path.to_owned();
            return Err(PublicFileError::Length { path, expected: input.bytes, found: about.len() });
        }
        let found = Self::open(path)?;
        match (found.sha256, found.bytes) == (input.sha256, input.bytes) {
            true => Ok(found),
            false => Err(PublicFileError::Digest {
                expected: input.sha256,
                expected_bytes: input.bytes,
                found: found.sha256,
                found_bytes: found.bytes,
            }),
        }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of its content.
    pub fn sha256(&self) -> Digest32 {
        self.sha256
    }

    /// All of it.
    ///
    /// # Errors
    /// [`PublicFileError::Io`], [`PublicFileError::Changed`].
    pub fn read(&self) -> Result<Vec<u8>, PublicFileError> {
        self.read_range(0..self.bytes)
    }

    /// A part of it. Costs reading and hashing the blocks that the part touches, up to 2 MiB more than the part.
    ///
    /// # Errors
    /// [`PublicFileError::Range`], [`PublicFileError::Io`], [`PublicFileError::Changed`].
    pub fn read_range(&self, range: Range<u64>) -> Result<Vec<u8>, PublicFileError> {
        let Range { start, end } = range;
        let outside = || PublicFileError::Range { path: self.path.clone(), bytes: self.bytes, start, end };
        let length = end.checked_sub(start).filter(|_| end <= self.bytes).ok_or_else(outside)?;
        let mut part = Vec::with_capacity(usize::try_from(length).map_err(|_| outside())?);
        let mut block = Vec::new();
        let mut at = start.saturating_sub(start % BLOCK);
        while at < end {
            let until = at.saturating_add(BLOCK).min(self.bytes);
            self.read_block(at, until, &mut block)?;
            let within = |place: u64| usize::try_from(place.clamp(at, until).saturating_sub(at)).unwrap_or(usize::MAX);
            part.extend_from_slice(block.get(within(start)..within(end)).ok_or_else(outside)?);
            at = until;
        }
        Ok(part)
    }

    /// One block, into memory of this process alone, and only then compared.
    fn read_block(&self, at: u64, until: u64, block: &mut Vec<u8>) -> Result<(), PublicFileError> {
        let changed = || PublicFileError::Changed { path: self.path.clone(), at };
        block.resize(usize::try_from(until.saturating_sub(at)).map_err(|_| changed())?, 0);
        self.file.read_exact_at(block, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => changed(),
            _ => PublicFileError::Io { path: self.path.clone(), error },
        })?;
        let known = at.checked_div(BLOCK).and_then(|number| self.blocks.get(usize::try_from(number).ok()?));
        match known.is_some_and(|known| blake3::hash(block) == *known) {
            true => Ok(()),
            false => Err(changed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;

    /// A file of a few blocks, none like another, and its bytes.
    fn written(length: usize) -> (tempfile::NamedTempFile, Vec<u8>) {
        let bytes: Vec<u8> = (0..length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        (file, bytes)
    }

    fn pin(file: &PublicFile) -> PublicInput {
        PublicInput { name: "a".to_owned(), sha256: file.sha256(), bytes: file.bytes(), source: "file".to_owned() }
    }

    #[test]
    fn what_was_pinned_is_read() {
        for length in [0, 1, BLOCK as usize, 2 * BLOCK as usize + 5] {
            let (file, bytes) = written(length);
            let opened = PublicFile::open(file.path()).unwrap();
            assert_eq!(opened.sha256(), Fixed(Sha256::digest(&bytes).into()));
            assert_eq!(PublicFile::pinned(file.path(), &pin(&opened)).unwrap().read().unwrap(), bytes);
        }
    }

    #[test]
    fn another_file_is_none() {
        let (file, bytes) = written(100);
        let pinned = pin(&PublicFile::open(file.path()).unwrap());
        let refused = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            PublicFile::pinned(file.path(), &pinned).unwrap_err()
        };
        assert!(matches!(refused(&bytes[..99]), PublicFileError::Length { expected: 100, found: 99, .. }));
        assert!(matches!(refused(&[0; 100]), PublicFileError::Digest { .. }));
        let longer = PublicInput { bytes: 101, ..pinned.clone() };
        std::fs::write(file.path(), &bytes).unwrap();
        assert!(matches!(PublicFile::pinned(file.path(), &longer), Err(PublicFileError::Length { .. })));
        assert!(matches!(PublicFile::pinned(Path::new("/dev/zero"), &pinned), Err(PublicFileError::Io { .. })));
        assert!(matches!(PublicFile::pinned(Path::new("/nowhere"), &pinned), Err(PublicFileError::Io { .. })));
    }

    #[test]
    fn what_changes_after_the_check_is_not_given() {
        let (file, mut bytes) = written(3 * BLOCK as usize);
        let opened = PublicFile::open(file.path()).unwrap();
        bytes[BLOCK as usize + 7] ^= 1;
        std::fs::write(file.path(), &bytes).unwrap();
        assert!(opened.read_range(0..BLOCK).is_ok() && opened.read_range(2 * BLOCK..3 * BLOCK).is_ok());
        for range in [0..3 * BLOCK, BLOCK + 7..BLOCK + 8, 2 * BLOCK - 1..2 * BLOCK] {
            assert!(matches!(opened.read_range(range), Err(PublicFileError::Changed { at: BLOCK, .. })));
        }
        file.as_file().set_len(BLOCK + 1).unwrap();
        assert!(matches!(opened.read_range(2 * BLOCK..3 * BLOCK), Err(PublicFileError::Changed { .. })));
    }

    #[test]
    fn the_same_name_may_be_another_file_later() {
        let (file, bytes) = written(10);
        let opened = PublicFile::open(file.path()).unwrap();
        std::fs::remove_file(file.path()).unwrap();
        std::fs::write(file.path(), [9; 10]).unwrap();
        assert_eq!(opened.read().unwrap(), bytes);
    }

    /// One file for all cases.
    static FILE: LazyLock<(tempfile::NamedTempFile, Vec<u8>)> = LazyLock::new(|| written(2_100_000));

    proptest! {
        #[test]
        fn a_range_is_what_lies_there(start in 0..2_200_000_u64, length in 0..1_200_000_u64) {
            static OPENED: LazyLock<PublicFile> = LazyLock::new(|| PublicFile::open(FILE.0.path()).unwrap());
            let end = start + length;
            let read = OPENED.read_range(start..end);
            match FILE.1.get(start as usize..end as usize) {
                Some(part) => prop_assert_eq!(read.unwrap(), part),
                None => {
                    let outside = matches!(read, Err(PublicFileError::Range { .. }));
                    prop_assert!(outside);
                }
            }
        }
    }
}
