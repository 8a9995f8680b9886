//! Where what lies: the header, the chunks, and the index at the start of the plaintext.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use std::io::Read;

use zeroize::Zeroizing;

use super::PackageError;
use crate::manifest::{MAX_CIPHERTEXT_BYTES, MAX_ENTRIES, MAX_MANIFEST_BYTES, MAX_NAME_BYTES, ManifestError};

/// The first bytes of every package.
pub(super) const MAGIC: [u8; 8] = *b"GHPKG/1\n";
/// Bytes of an AES-GCM tag.
pub(super) const TAG_BYTES: usize = 16;
/// The first bytes of the plaintext.
const INDEX_LABEL: &[u8] = b"gh/index/1";
/// `u32` big-endian length of the index that follows.
pub(super) const INDEX_LENGTH_BYTES: usize = 4;
/// Label, count, then name and length of every entry.
const MAX_INDEX_BYTES: usize = INDEX_LABEL.len() + 4 + MAX_ENTRIES * (4 + MAX_NAME_BYTES + 8);

/// How a ciphertext is cut into chunks. Every chunk but the last holds `chunk_bytes` of plaintext; the last holds 1 to
/// `chunk_bytes`; each is followed by its 16-byte tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    chunk_bytes: usize,
    plaintext_bytes: u64,
    chunks: u64,
}

impl Layout {
    /// The layout of so much plaintext; `None` when it is empty or more than one key may seal.
    pub(crate) fn of_plaintext(chunk_bytes: u32, plaintext_bytes: u64) -> Option<Self> {
        let chunks = plaintext_bytes.div_ceil(u64::from(chunk_bytes).max(1));
        let layout = Self { chunk_bytes: usize::try_from(chunk_bytes).ok()?, plaintext_bytes, chunks };
        // The chunk counter in the nonce has 32 bits.
        let fits = chunks <= u64::from(u32::MAX) && layout.checked_ciphertext_bytes()? <= MAX_CIPHERTEXT_BYTES;
        (plaintext_bytes > 0 && fits).then_some(layout)
    }

    /// The layout of so much ciphertext; `None` when no plaintext has it.
    pub(crate) fn of_ciphertext(chunk_bytes: u32, ciphertext_bytes: u64) -> Option<Self> {
        let tag = TAG_BYTES as u64;
        let chunks = ciphertext_bytes.div_ceil(u64::from(chunk_bytes).checked_add(tag)?);
        let plaintext_bytes = ciphertext_bytes.checked_sub(chunks.checked_mul(tag)?)?;
        let layout = Self::of_plaintext(chunk_bytes, plaintext_bytes)?;
        (layout.ciphertext_bytes() == ciphertext_bytes).then_some(layout)
    }

    /// Number of chunks, at least 1.
    pub fn chunks(&self) -> u64 {
        self.chunks
    }

    /// Bytes of plaintext: the index and all contents.
    pub fn plaintext_bytes(&self) -> u64 {
        self.plaintext_bytes
    }

    /// Bytes of ciphertext with all tags.
    pub fn ciphertext_bytes(&self) -> u64 {
        self.checked_ciphertext_bytes().unwrap_or(u64::MAX)
    }

    /// Plaintext bytes of every chunk but the last.
    pub(super) fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Bytes of every chunk but the last, with its tag.
    pub(super) fn sealed_chunk_bytes(&self) -> usize {
        self.chunk_bytes.saturating_add(TAG_BYTES)
    }

    /// Ciphertext bytes that lie before a chunk.
    pub(super) fn ciphertext_before(&self, chunk: u64) -> u64 {
        chunk.saturating_mul(self.sealed_chunk_bytes() as u64).min(self.ciphertext_bytes())
    }

    /// Plaintext bytes that lie before a chunk.
    pub(super) fn plaintext_before(&self, chunk: u64) -> u64 {
        chunk.saturating_mul(self.chunk_bytes as u64).min(self.plaintext_bytes)
    }

    fn checked_ciphertext_bytes(&self) -> Option<u64> {
        self.plaintext_bytes.checked_add(self.chunks.checked_mul(TAG_BYTES as u64)?)
    }
}

/// The header: magic, `LP(manifest)`.
pub(super) fn header(manifest: &[u8]) -> Vec<u8> {
    let length = u32::try_from(manifest.len()).unwrap_or(u32::MAX);
    [&MAGIC, length.to_be_bytes().as_slice(), manifest].concat()
}

/// Reads the header and gives the manifest's bytes, unparsed.
pub(super) fn read_header(read: &mut dyn Read) -> Result<Vec<u8>, PackageError> {
    let mut fixed = [0; MAGIC.len() + 4];
    let (magic, length) = match fill(read, &mut fixed)? {
        n if n == fixed.len() => fixed.split_at(MAGIC.len()),
        _ => return Err(PackageError::NotAPackage),
    };
    if magic != MAGIC {
        return Err(PackageError::NotAPackage);
    }
    let length = <[u8; 4]>::try_from(length).map(u32::from_be_bytes).map_err(|_| PackageError::NotAPackage)?;
    let too_large = ManifestError::TooLarge { bytes: u64::from(length) };
    let length = usize::try_from(length).ok().filter(|n| *n <= MAX_MANIFEST_BYTES).ok_or(too_large)?;
    let mut manifest = vec![0; length];
    let seen = fill(read, &mut manifest)?;
    if seen < length {
        return Err(PackageError::Truncated { expected: length as u64, seen: seen as u64, what: "manifest" });
    }
    Ok(manifest)
}

/// Reads until the buffer is full or the input ends; gives how much was read.
pub(super) fn fill(read: &mut dyn Read, mut buffer: &mut [u8]) -> Result<usize, PackageError> {
    let mut done: usize = 0;
    while !buffer.is_empty() {
        match read.read(buffer) {
            Ok(0) => break,
            Ok(n) => {
                done = done.saturating_add(n);
                buffer = buffer.get_mut(n..).unwrap_or_default();
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(PackageError::Read { source }),
        }
    }
    Ok(done)
}

/// The index with its length before it, as it starts the plaintext.
pub(super) fn index<'n>(entries: impl Iterator<Item = (&'n str, u64)> + Clone) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(INDEX_LENGTH_BYTES.saturating_add(MAX_INDEX_BYTES)));
    body.extend_from_slice(&[0; INDEX_LENGTH_BYTES]);
    body.extend_from_slice(INDEX_LABEL);
    body.extend_from_slice(&u32::try_from(entries.clone().count()).unwrap_or(u32::MAX).to_be_bytes());
    for (name, bytes) in entries {
        body.extend_from_slice(&u32::try_from(name.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&bytes.to_be_bytes());
    }
    let length = u32::try_from(body.len().saturating_sub(INDEX_LENGTH_BYTES)).unwrap_or(u32::MAX);
    if let Some(start) = body.first_chunk_mut::<INDEX_LENGTH_BYTES>() {
        *start = length.to_be_bytes();
    }
    body
}

/// The length of the index, from the first bytes of the plaintext.
pub(super) fn index_length(start: [u8; INDEX_LENGTH_BYTES]) -> Result<usize, PackageError> {
    let length = usize::try_from(u32::from_be_bytes(start)).ok().filter(|n| *n <= MAX_INDEX_BYTES);
    length.ok_or(PackageError::Index { why: "it is longer than any index" })
}

/// Reads the index (without its length) and checks it against the manifest and the length of the plaintext.
pub(super) fn parse_index(mut body: &[u8], names: &[String], content_bytes: u64) -> Result<Vec<u64>, PackageError> {
    let wrong = |why| PackageError::Index { why };
    body = body.strip_prefix(INDEX_LABEL).ok_or(wrong("it does not begin with its label"))?;
    let count = take_u32(&mut body).ok_or(wrong("it is cut short"))?;
    if usize::try_from(count).ok() != Some(names.len()) {
        return Err(wrong("it has another number of entries than the manifest"));
    }
    let mut lengths = Vec::with_capacity(names.len());
    let mut sum: u64 = 0;
    for name in names {
        let length = take_u32(&mut body).and_then(|n| usize::try_from(n).ok()).ok_or(wrong("it is cut short"))?;
        let (seen, rest) = body.split_at_checked(length).ok_or(wrong("it is cut short"))?;
        if seen != name.as_bytes() {
            return Err(wrong("its names are not those of the manifest"));
        }
        let (bytes, rest) = rest.split_first_chunk::<8>().ok_or(wrong("it is cut short"))?;
        let bytes = u64::from_be_bytes(*bytes);
        sum = sum.checked_add(bytes).ok_or(wrong("its lengths are more than the package holds"))?;
        lengths.push(bytes);
        body = rest;
    }
    if !body.is_empty() {
        return Err(wrong("something follows its last entry"));
    }
    if sum != content_bytes {
        return Err(wrong("its lengths do not add up to what the package holds"));
    }
    Ok(lengths)
}

fn take_u32(body: &mut &[u8]) -> Option<u32> {
    let (value, rest) = body.split_first_chunk::<4>()?;
    *body = rest;
    Some(u32::from_be_bytes(*value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn both_ways(plaintext in 1u64..100_000) {
            let layout = Layout::of_plaintext(4096, plaintext).unwrap();
            prop_assert_eq!(Layout::of_ciphertext(4096, layout.ciphertext_bytes()), Some(layout));
            prop_assert_eq!(layout.ciphertext_before(layout.chunks()), layout.ciphertext_bytes());
        }

        #[test]
        fn an_index_that_was_changed_is_refused(at: usize, to: u8) {
            let names = ["a".to_owned(), "bc".to_owned()];
            let good = index([("a", 5), ("bc", 0)].into_iter());
            let mut body = good[INDEX_LENGTH_BYTES..].to_vec();
            prop_assert_eq!(parse_index(&body, &names, 5).unwrap(), vec![5, 0]);
            let at = at % body.len();
            prop_assume!(body[at] != to);
            body[at] = to;
            prop_assert!(parse_index(&body, &names, 5).is_err());
            prop_assert!(parse_index(&body[..at], &names, 5).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = parse_index(&bytes, &["a".to_owned()], 0);
            let _ = read_header(&mut bytes.as_slice());
        }
    }
}
