//! The sealed package: what an owner hands to a machine that is not theirs.
//!
//! ```text
//! package    = "GHPKG/1\n" || LP(manifest) || chunk(0) || chunk(1) || ... || chunk(n-1)
//! chunk(i)   = AES-256-GCM(data key, nonce = prefix(7) || u32(i) || last(1), AAD = SHA-384(manifest), text(i))
//! text       = LP(index) || content of every entry, in the manifest's order; cut into pieces of chunk_bytes
//! index      = "gh/index/1" || u32(count) || (LP(name) || u64(bytes)) for every entry
//! ```
//! Integers are big-endian, `LP(x)` is a `u32` length and then `x`. The text is never empty, so there is at least one
//! chunk and no chunk is empty. The data key is 32 fresh random bytes and seals one package only. STREAM
//! (Hoang, Reyhanitabar, Rogaway, Vizár, CRYPTO 2015) makes truncation, reordering and extension fail to authenticate;
//! the AAD binds every chunk to the manifest. There are no digests of entries inside: every byte is authenticated
//! already, and a digest per entry would hold all cores up behind one.
//!
//! # What a refusal can tell
//!
//! | what happened to the package | error |
//! | --- | --- |
//! | cut short, at a chunk's boundary or inside one | [`PackageError::Truncated`] |
//! | bytes or whole chunks appended | [`PackageError::Extended`] |
//! | two chunks exchanged | [`PackageError::ChunkSwapped`] |
//! | a chunk before its place | [`PackageError::ChunkReordered`] |
//! | a chunk once more after its place | [`PackageError::ChunkRepeated`] |
//! | a chunk changed, or taken from another package | [`PackageError::ChunkForged`]; these two cannot be told apart |
//! | the manifest edited | [`PackageError::ManifestMismatch`] |
//! | the wrong key, or everything replaced | [`PackageError::Unopenable`]; these two cannot be told apart |
//! | an authentic package other than the expected one | [`PackageError::DigestMismatch`] |
//!
//! A package of one chunk whose chunk was changed is `Unopenable`: no other chunk shows that the key is right.
//!
//! # The package digest
//!
//! ```text
//! leaf(i)        = BLAKE3-256(chunk(i)), ciphertext and tag
//! package digest = SHA-384("gh/package/1" || LP(manifest) || u64(ciphertext bytes) || leaf(0) || ... || leaf(n-1))
//! ```
//! It covers every byte of the package and needs no key. A SHA-384 over all ciphertext would run at 0.75 GB/s on one
//! core while the others wait; BLAKE3 runs at eight times that on every core. Opening checks each chunk's tag and makes
//! its leaf in one task, while the chunk is in that core's cache, and compares the digest before anything is handed
//! over. The tags alone would not do: they bind the ciphertext only against those who do not have the data key, and the
//! digest in T must name one package for them too.

pub(crate) mod aead;
mod batch;
mod destination;
mod diagnose;
mod digest;
mod error;
mod input;
mod inspect;
mod layout;
mod open;
mod plaintext;
mod seal;
mod stream;
#[cfg(test)]
mod vectors;

use serde::{Deserialize, Serialize};

pub use destination::EntrySink;
pub use error::PackageError;
pub use input::Input;
pub use inspect::{Inspection, inspect, inspect_file};
pub use layout::Layout;
pub use open::{OpenedPackage, open, open_file, open_into};
pub use plaintext::Source;
pub use seal::{PackageBuilder, SealedPackage};

use crate::fixed::Digest48;

/// The two digests that name a package, both part of T.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageDigests {
    /// Over the manifest and all ciphertext; see the documentation of [this module](self).
    pub package: Digest48,
    /// SHA-384 of the manifest.
    pub manifest: Digest48,
}
