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
use std::path::Path;

use rayon::prelude::*;

use super::batch::{Batching, Room, Sealed};
use super::destination::{Destination, Handing, Memory, Plaintext};
use super::diagnose::why_not;
use super::digest::{PackageHasher, leaf};
use super::layout::{Layout, fill, read_header};
use super::stream::Stream;
use super::{EntrySink, Input, PackageDigests, PackageError};
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

/// Opens a package into memory, each chunk straight into its entry. Nothing is written to disk; nothing is handed over
/// unless all of it verifies, and what was opened by then is wiped.
///
/// # Errors
/// [`PackageError`], each tamper as its own variant.
pub fn open<'i>(
    package: impl Into<Input<'i>>,
    data_key: &Secret<32>,
    expected: &PackageDigests,
) -> Result<OpenedPackage, PackageError> {
    let mut memory = Memory::default();
    let manifest = open_to(package.into(), data_key, expected, &mut memory)?;
    Ok(OpenedPackage { manifest, entries: memory.into_entries() })
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

/// Opens a package into a sink, which must keep the contract of [`EntrySink`]. Needs up to 48 MiB of memory however
/// large the package is.
///
/// # Errors
/// [`PackageError`], each tamper as its own variant. The sink then holds what must not be used.
pub fn open_into<'i>(
    package: impl Into<Input<'i>>,
    data_key: &Secret<32>,
    expected: &PackageDigests,
    sink: &mut dyn EntrySink,
) -> Result<Manifest, PackageError> {
    open_to(package.into(), data_key, expected, &mut Handing::new(sink))
}

fn open_to(
    mut input: Input<'_>,
    data_key: &Secret<32>,
    expected: &PackageDigests,
    destination: &mut dyn Destination,
) -> Result<Manifest, PackageError> {
    let manifest_bytes = read_header(&mut input)?;
    let seen = sha384(&manifest_bytes);
    if seen != expected.manifest {
        return Err(PackageError::ManifestMismatch { expected: expected.manifest, seen });
    }
    let manifest = Manifest::from_bytes(&manifest_bytes)?;
    let layout = manifest.layout()?;
    let stream = Stream::new(data_key, manifest.nonce_prefix, seen, &layout);
    let mut hasher = PackageHasher::new(&manifest_bytes, layout.ciphertext_bytes());
    let mut plaintext = Plaintext::new(&manifest.entries, layout.plaintext_bytes(), destination);
    open_chunks(&mut input, &stream, &layout, &mut hasher, &mut plaintext)?;
    plaintext.finish()?;
    if fill(&mut input, &mut [0])? != 0 {
        return Err(PackageError::Extended { expected: layout.ciphertext_bytes() });
    }
    let seen = hasher.finish();
    if seen != expected.package {
        return Err(PackageError::DigestMismatch { expected: expected.package, seen });
    }
    Ok(manifest)
}

/// While one batch is opened on all cores, the next one is read.
fn open_chunks<'i>(
    input: &mut Input<'i>,
    stream: &Stream,
    layout: &Layout,
    hasher: &mut PackageHasher,
    plaintext: &mut Plaintext<'_>,
) -> Result<(), PackageError> {
    let batching = Batching::new(layout);
    let (mut opening, mut next): (Sealed<'i>, Sealed<'i>) = (Sealed::new(batching), Sealed::new(batching));
    let mut scratch = Room::new(batching);
    opening.read(0, input)?;
    while !opening.is_empty() {
        let (first, after) = (opening.first(), opening.end());
        let mut rooms: Vec<&mut [u8]> = scratch.start(first).collect();
        let own = plaintext.rooms(layout.plaintext_before(first), &mut rooms);
        let (leaves, moved) = rayon::join(
            || {
                // One task per chunk, tag and leaf: the second pass over a chunk finds it in this core's cache.
                let open = |((chunk, sealed), text): ((u64, &[u8]), &mut [u8])| {
                    stream.open(chunk, sealed, text).ok().map(|()| leaf(sealed))
                };
                opening.par_chunks().zip(rooms).map(open).collect::<Vec<_>>()
            },
            || next.read(after, input),
        );
        if leaves.iter().any(Option::is_none) {
            return Err(why_not(&leaves, &opening, &next, input, stream, layout));
        }
        moved?;
        leaves.iter().flatten().for_each(|leaf| hasher.add(leaf));
        for ((chunk, text), own) in (first..).zip(scratch.texts()).zip(own) {
            if !own {
                plaintext.take(layout.plaintext_before(chunk), text)?;
            }
        }
        std::mem::swap(&mut opening, &mut next);
    }
    Ok(())
}
