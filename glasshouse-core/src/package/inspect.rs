//! Looking at a package without its key.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs::File;
use std::path::Path;

use super::batch::{Batching, Sealed};
use super::digest::PackageHasher;
use super::layout::{fill, header, read_header};
use super::{Input, PackageDigests, PackageError};
use crate::manifest::Manifest;
use crate::transcript::sha384;

/// What anybody can tell of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its public part.
    pub manifest: Manifest,
    /// Its digests as they are. Whether they are the owner's, only the owner can say.
    pub digests: PackageDigests,
    /// Bytes of the whole package.
    pub bytes: u64,
}

/// Reads a package to its end without a key: its manifest, its digests, its length.
///
/// # Errors
/// [`PackageError`] when it is no package, truncated or extended. Forged chunks show only in the digest.
pub fn inspect<'i>(package: impl Into<Input<'i>>) -> Result<Inspection, PackageError> {
    let mut read = package.into();
    let manifest_bytes = read_header(&mut read)?;
    let manifest = Manifest::from_bytes(&manifest_bytes)?;
    let layout = manifest.layout()?;
    let mut hasher = PackageHasher::new(&manifest_bytes, layout.ciphertext_bytes());
    let batching = Batching::new(&layout);
    let (mut hashing, mut next) = (Sealed::new(batching), Sealed::new(batching));
    hashing.read(0, &mut read)?;
    while !hashing.is_empty() {
        let after = hashing.end();
        let (leaves, moved) = rayon::join(|| hashing.leaves(), || next.read(after, &mut read));
        moved?;
        leaves.iter().for_each(|leaf| hasher.add(leaf));
        std::mem::swap(&mut hashing, &mut next);
    }
    if fill(&mut read, &mut [0])? != 0 {
        return Err(PackageError::Extended { expected: layout.ciphertext_bytes() });
    }
    let digests = PackageDigests { package: hasher.finish(), manifest: sha384(&manifest_bytes) };
    let bytes = (header(&manifest_bytes).len() as u64).saturating_add(layout.ciphertext_bytes());
    Ok(Inspection { manifest, digests, bytes })
}

/// [`inspect`]s a file.
///
/// # Errors
/// As [`inspect`], and [`PackageError::File`].
pub fn inspect_file(path: impl AsRef<Path>) -> Result<Inspection, PackageError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| PackageError::File { path: path.to_owned(), source })?;
    inspect(file)
}
