//! What is sealed: the index, then the contents of all entries.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::PackageError;
use super::batch::Room;
use super::layout::{fill, index};
use crate::secret::SecretBuffer;

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

/// The part of a chunk's plaintext that lies in memory: where in the chunk it goes, and what. Whoever seals the chunk
/// copies it, so that all cores do and the bytes are in the right one's cache.
pub(super) type Pieces<'p> = Vec<(usize, &'p [u8])>;

/// The index, then the contents of all entries.
pub(super) struct Plaintext<'p> {
    index: Zeroizing<Vec<u8>>,
    index_done: usize,
    entries: VecDeque<Entry<'p>>,
}

struct Entry<'p> {
    name: &'p str,
    content: Content<'p>,
    bytes: u64,
    done: u64,
}

enum Content<'p> {
    Memory(&'p [u8]),
    Reader(&'p mut (dyn Read + Send)),
    File(&'p Path, Option<File>),
}

impl<'p> Plaintext<'p> {
    /// Looks at the lengths of all sources; gives the length of everything.
    pub(super) fn new(sources: &'p mut [(String, Source<'_>)]) -> Result<(Self, u64), PackageError> {
        let entries = sources.iter_mut().map(|(name, source)| Entry::new(name, source));
        let entries = entries.collect::<Result<VecDeque<_>, _>>()?;
        let index = index(entries.iter().map(|entry| (entry.name, entry.bytes)));
        let contents = entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.bytes));
        let bytes = contents.saturating_add(index.len() as u64);
        Ok((Self { index, index_done: 0, entries }, bytes))
    }

    /// Names of all entries, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| entry.name)
    }

    /// Fills the chunks from `first` on, but for what lies in memory: that is given back, chunk by chunk.
    pub(super) fn fill(&mut self, room: &mut Room, first: u64) -> Result<Vec<Pieces<'p>>, PackageError> {
        room.start(first).map(|text| self.fill_text(text)).collect()
    }

    fn fill_text(&mut self, mut text: &mut [u8]) -> Result<Pieces<'p>, PackageError> {
        let index = self.index.get(self.index_done..).unwrap_or_default();
        let n = index.len().min(text.len());
        let (start, rest) = text.split_at_mut(n);
        start.copy_from_slice(index.get(..n).unwrap_or_default());
        self.index_done = self.index_done.saturating_add(n);
        text = rest;
        let (mut at, mut pieces) = (n, Vec::new());
        while let (false, Some(entry)) = (text.is_empty(), self.entries.front_mut()) {
            let n = usize::try_from(entry.left()).unwrap_or(usize::MAX).min(text.len());
            let (now, rest) = text.split_at_mut(n);
            pieces.extend(entry.read(now)?.map(|piece| (at, piece)));
            at = at.saturating_add(n);
            text = rest;
            if entry.left() == 0 {
                entry.end()?;
                self.entries.pop_front();
            }
        }
        Ok(pieces)
    }

    /// Ends what holds nothing: empty entries after the last byte.
    pub(super) fn finish(&mut self) -> Result<(), PackageError> {
        self.entries.iter_mut().try_for_each(Entry::end)
    }
}

impl<'p> Entry<'p> {
    fn new(name: &'p str, source: &'p mut Source<'_>) -> Result<Self, PackageError> {
        let (bytes, content) = match source {
            Source::Memory(bytes) => (bytes.len() as u64, Content::Memory(bytes)),
            Source::Slice(bytes) => (bytes.len() as u64, Content::Memory(bytes)),
            Source::Reader { bytes, read } => (*bytes, Content::Reader(read.as_mut())),
            Source::File(path) => match path.metadata() {
                Ok(data) if data.is_file() => (data.len(), Content::File(path, None)),
                Ok(_) => {
                    let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
                    return Err(PackageError::File { path: path.clone(), source });
                }
                Err(source) => return Err(PackageError::File { path: path.clone(), source }),
            },
        };
        Ok(Self { name, content, bytes, done: 0 })
    }

    fn left(&self) -> u64 {
        self.bytes.saturating_sub(self.done)
    }

    /// Reads exactly so much, or gives it when it lies in memory.
    fn read(&mut self, text: &mut [u8]) -> Result<Option<&'p [u8]>, PackageError> {
        let (seen, piece) = match &mut self.content {
            Content::Memory(rest) => {
                let (piece, after) = rest.split_at_checked(text.len()).unwrap_or((rest, &[]));
                *rest = after;
                (Ok(piece.len()), Some(piece))
            }
            Content::Reader(read) => (fill(*read, text), None),
            Content::File(path, open) => {
                if open.is_none() {
                    let failed = |source| PackageError::File { path: path.to_owned(), source };
                    *open = Some(File::open(*path).map_err(failed)?);
                }
                (open.as_mut().map_or(Ok(0), |file| fill(file, text)), None)
            }
        };
        let seen = seen.map_err(|error| self.unreadable(error))?;
        self.done = self.done.saturating_add(seen as u64);
        if seen == text.len() { Ok(piece) } else { Err(self.changed()) }
    }

    /// Makes sure that nothing follows what was sealed: a source that grew is not the one that was asked for.
    fn end(&mut self) -> Result<(), PackageError> {
        let mut one = Zeroizing::new([0; 1]);
        let more = match &mut self.content {
            Content::Reader(read) => fill(*read, one.as_mut_slice()),
            Content::File(_, Some(file)) => fill(file, one.as_mut_slice()),
            Content::File(_, None) | Content::Memory(_) => Ok(0),
        };
        match more {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.changed()),
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn changed(&self) -> PackageError {
        PackageError::SourceChanged { name: self.name.to_owned(), expected: self.bytes }
    }

    fn unreadable(&self, error: PackageError) -> PackageError {
        match error {
            PackageError::Read { source } => PackageError::Source { name: self.name.to_owned(), source },
            other => other,
        }
    }
}
