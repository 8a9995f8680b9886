//! What happened to a chunk that does not authenticate. Nothing is opened to anybody here.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::io::{self, Read as _};

use super::batch::Sealed;
use super::digest::Leaf;
use super::layout::{Layout, fill};
use super::stream::Stream;
use super::{Input, PackageError};

/// Finds out what happened to the first chunk of a batch that was not opened.
pub(super) fn why_not(
    opened: &[Option<Leaf>],
    batch: &Sealed<'_>,
    next: &Sealed<'_>,
    input: &mut Input<'_>,
    stream: &Stream,
    layout: &Layout,
) -> PackageError {
    let at = opened.iter().position(Option::is_none).unwrap_or_default() as u64;
    let chunk = batch.first().saturating_add(at);
    let chunks = layout.chunks();
    let home = batch.chunk(chunk).and_then(|sealed| stream.home_of(chunk, sealed));
    match home {
        None if chunk == 0 && opened.iter().all(Option::is_none) => PackageError::Unopenable,
        None => PackageError::ChunkForged { chunk, chunks },
        Some(copy_of) if copy_of < chunk => PackageError::ChunkRepeated { chunk, copy_of },
        Some(belongs) => {
            let there = at_place(belongs, batch, next, input, layout);
            match there {
                Some(there) if stream.authenticates(chunk, &there) => {
                    PackageError::ChunkSwapped { chunk, with: belongs }
                }
                _ => PackageError::ChunkReordered { chunk, belongs },
            }
        }
    }
}

/// The sealed bytes that stand at a later place, from what was read or by reading on.
fn at_place(
    place: u64,
    batch: &Sealed<'_>,
    next: &Sealed<'_>,
    input: &mut Input<'_>,
    layout: &Layout,
) -> Option<Vec<u8>> {
    if let Some(sealed) = batch.chunk(place).or_else(|| next.chunk(place)) {
        return Some(sealed.to_vec());
    }
    let position = layout.ciphertext_before(next.end().max(batch.end()));
    let skip = layout.ciphertext_before(place).checked_sub(position)?;
    io::copy(&mut input.by_ref().take(skip), &mut io::sink()).ok()?;
    let length = layout.ciphertext_before(place.saturating_add(1)).checked_sub(layout.ciphertext_before(place))?;
    let mut sealed = vec![0; usize::try_from(length).ok()?];
    (fill(input, &mut sealed).ok()? == sealed.len()).then_some(sealed)
}
