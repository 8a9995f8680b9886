//! Where opened plaintext goes: the index is taken off its front, the rest is entries.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::io;

use zeroize::Zeroizing;

use super::PackageError;
use super::layout::{INDEX_LENGTH_BYTES, index_length, parse_index};
use crate::secret::SecretBuffer;

/// Takes plaintext as it is opened, for entries too large to be held twice.
///
/// # Contract
/// Every byte it is given is authentic and in its place, but the package may still turn out to be truncated or another
/// than expected. Nothing of it may be used before [`open_into`](super::open_into) has returned `Ok`; when it returns an
/// error, the sink wipes what it took.
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

/// Takes the contents of all entries, back to back.
pub(super) trait Destination {
    /// Names and lengths of what follows, once, before all else.
    fn begin(&mut self, names: &[String], lengths: Vec<u64>) -> Result<(), PackageError>;

    /// Puts its own memory in place of each chunk's scratch where all of the chunk goes to one place; says where it did.
    /// The first room takes contents from `at` on, the others follow.
    fn rooms<'r>(&'r mut self, _at: u64, rooms: &mut [&'r mut [u8]]) -> Vec<bool> {
        vec![false; rooms.len()]
    }

    /// Takes contents from `at` on that no room of its own received; called in order.
    fn take(&mut self, at: u64, text: &[u8]) -> Result<(), PackageError>;
}

/// Reads the index off the front of the plaintext and tells the destination where in the contents everything lies.
pub(super) struct Plaintext<'d> {
    names: &'d [String],
    plaintext_bytes: u64,
    index: Zeroizing<Vec<u8>>,
    /// Bytes of the index with its length, once it was read.
    begun: Option<u64>,
    destination: &'d mut dyn Destination,
}

impl<'d> Plaintext<'d> {
    pub(super) fn new(names: &'d [String], plaintext_bytes: u64, destination: &'d mut dyn Destination) -> Self {
        Self { names, plaintext_bytes, index: Zeroizing::new(Vec::new()), begun: None, destination }
    }

    /// As [`Destination::rooms`], with a place in the plaintext. Until the index is known, everything is scratch.
    pub(super) fn rooms<'r>(&'r mut self, at: u64, rooms: &mut [&'r mut [u8]]) -> Vec<bool> {
        match self.begun.and_then(|index| at.checked_sub(index)) {
            Some(at) => self.destination.rooms(at, rooms),
            None => vec![false; rooms.len()],
        }
    }

    /// As [`Destination::take`], with a place in the plaintext.
    pub(super) fn take(&mut self, at: u64, text: &[u8]) -> Result<(), PackageError> {
        let (rest, index) = match self.begun {
            Some(index) => (text, index),
            None => {
                let rest = self.take_index(text)?;
                let Some(index) = self.begun else { return Ok(()) };
                (rest, index)
            }
        };
        let skipped = text.len().saturating_sub(rest.len()) as u64;
        self.destination.take(at.saturating_add(skipped).saturating_sub(index), rest)
    }

    /// Whether the index was there.
    pub(super) fn finish(self) -> Result<(), PackageError> {
        self.begun.map(|_| ()).ok_or(PackageError::Index { why: "the package ends inside it" })
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
            self.destination.begin(self.names, parse_index(body, self.names, contents)?)?;
            self.begun = Some(whole as u64);
        }
        Ok(rest)
    }

    fn grow_index<'t>(&mut self, to: usize, text: &'t [u8]) -> &'t [u8] {
        let missing = to.saturating_sub(self.index.len());
        let (now, rest) = text.split_at(missing.min(text.len()));
        // At once, so that growing leaves no copy of more than the length behind.
        self.index.reserve_exact(missing);
        self.index.extend_from_slice(now);
        rest
    }
}

/// Holds all entries in secret memory, which chunks are opened straight into.
#[derive(Default)]
pub(super) struct Memory {
    names: Vec<String>,
    entries: Vec<SecretBuffer>,
}

impl Memory {
    pub(super) fn into_entries(self) -> BTreeMap<String, SecretBuffer> {
        self.names.into_iter().zip(self.entries).collect()
    }
}

impl Destination for Memory {
    fn begin(&mut self, names: &[String], lengths: Vec<u64>) -> Result<(), PackageError> {
        for (name, bytes) in names.iter().zip(lengths) {
            let no_memory = || PackageError::Memory { name: name.clone(), bytes };
            let length = usize::try_from(bytes).map_err(|_| no_memory())?;
            self.entries.push(SecretBuffer::try_zeroed(length).map_err(|_| no_memory())?);
        }
        self.names = names.to_vec();
        Ok(())
    }

    fn rooms<'r>(&'r mut self, mut at: u64, rooms: &mut [&'r mut [u8]]) -> Vec<bool> {
        let mut entries = self.entries.iter_mut();
        // What is still free of the entry in hand, and where in the contents that begins.
        let (mut free, mut free_at): (&mut [u8], u64) = (&mut [], 0);
        let mut own = |room: &mut &'r mut [u8]| {
            let (start, length) = (at, room.len());
            at = at.saturating_add(length as u64);
            while free_at.saturating_add(free.len() as u64) <= start {
                free_at = free_at.saturating_add(free.len() as u64);
                free = entries.next()?.as_mut_slice();
            }
            let skip = usize::try_from(start.checked_sub(free_at)?).ok()?;
            if free.len().checked_sub(skip)? < length {
                return None;
            }
            let (_, rest) = std::mem::take(&mut free).split_at_mut_checked(skip)?;
            let (now, rest) = rest.split_at_mut_checked(length)?;
            (free, free_at, *room) = (rest, at, now);
            Some(())
        };
        rooms.iter_mut().map(|room| own(room).is_some()).collect()
    }

    fn take(&mut self, at: u64, mut text: &[u8]) -> Result<(), PackageError> {
        let mut start: u64 = 0;
        for entry in &mut self.entries {
            let bytes = entry.len() as u64;
            let skip = at.max(start).saturating_sub(start).min(bytes);
            let room = entry.as_mut_slice().get_mut(usize::try_from(skip).unwrap_or(usize::MAX)..).unwrap_or_default();
            start = start.saturating_add(bytes);
            let (now, rest) = text.split_at(room.len().min(text.len()));
            room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            text = rest;
        }
        if text.is_empty() { Ok(()) } else { Err(PackageError::Index { why: "something follows the last entry" }) }
    }
}

/// Hands entries on to somebody's sink.
pub(super) struct Handing<'s> {
    entries: std::vec::IntoIter<(String, u64)>,
    name: String,
    left: u64,
    sink: &'s mut dyn EntrySink,
}

impl<'s> Handing<'s> {
    pub(super) fn new(sink: &'s mut dyn EntrySink) -> Self {
        Self { entries: Vec::new().into_iter(), name: String::new(), left: 0, sink }
    }

    /// Begins entries up to one that is not empty; `false` when there is none.
    fn begin_next(&mut self) -> Result<bool, PackageError> {
        for (name, bytes) in self.entries.by_ref() {
            let begun = self.sink.begin(&name, bytes);
            begun.map_err(|source| PackageError::Sink { name: name.clone(), source })?;
            (self.name, self.left) = (name, bytes);
            if bytes > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Destination for Handing<'_> {
    fn begin(&mut self, names: &[String], lengths: Vec<u64>) -> Result<(), PackageError> {
        self.entries = names.iter().cloned().zip(lengths).collect::<Vec<_>>().into_iter();
        self.begin_next().map(|_| ())
    }

    fn take(&mut self, _at: u64, mut text: &[u8]) -> Result<(), PackageError> {
        while !text.is_empty() {
            let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(text.len());
            let (now, rest) = text.split_at(n);
            self.sink.piece(now).map_err(|source| PackageError::Sink { name: self.name.clone(), source })?;
            self.left = self.left.saturating_sub(n as u64);
            text = rest;
            if self.left == 0 && !self.begin_next()? && !text.is_empty() {
                return Err(PackageError::Index { why: "something follows the last entry" });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whoever holds the key can seal anything, and a plaintext without a whole index is no package.
    #[test]
    fn a_plaintext_that_ends_inside_its_index_is_refused() {
        let names = ["a".to_owned()];
        for given in [0, 1, INDEX_LENGTH_BYTES, INDEX_LENGTH_BYTES + 1] {
            let mut memory = Memory::default();
            let mut plaintext = Plaintext::new(&names, 100, &mut memory);
            let length = 20_u32.to_be_bytes();
            let text: Vec<u8> = length.into_iter().chain([0; 3]).take(given).collect();
            plaintext.take(0, &text).unwrap();
            assert!(matches!(plaintext.finish(), Err(PackageError::Index { .. })), "{given}");
            assert!(memory.into_entries().is_empty());
        }
    }

    proptest! {
        /// However contents are cut, every byte lands in its entry, directly or from scratch.
        #[test]
        fn rooms_and_scratch_make_the_entries(
            lengths in prop::collection::vec(0u64..40, 0..8),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let contents: Vec<u8> = (1..=lengths.iter().sum::<u64>()).map(|i| i as u8).collect();
            let names: Vec<String> = (0..lengths.len()).map(|i| i.to_string()).collect();
            let mut memory = Memory::default();
            memory.begin(&names, lengths.clone()).unwrap();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < contents.len() {
                let mut scratch: Vec<Vec<u8>> = Vec::new();
                let mut end = at;
                while scratch.len() < 3 && end < contents.len() {
                    let n = (*cuts.next().unwrap()).min(contents.len() - end);
                    scratch.push(vec![0; n]);
                    end += n;
                }
                let mut rooms: Vec<&mut [u8]> = scratch.iter_mut().map(Vec::as_mut_slice).collect();
                let own = memory.rooms(at as u64, &mut rooms);
                let mut from = at;
                for room in &mut rooms {
                    room.copy_from_slice(&contents[from..from + room.len()]);
                    from += room.len();
                }
                for (text, own) in scratch.iter().zip(own) {
                    prop_assert_eq!(own, text.iter().all(|b| *b == 0));
                    if !own {
                        memory.take(at as u64, text).unwrap();
                    }
                    at += text.len();
                }
            }
            let mut start = 0;
            for (entry, length) in memory.entries.iter().zip(lengths) {
                prop_assert_eq!(&**entry, &contents[start..start + length as usize]);
                start += length as usize;
            }
        }
    }
}
