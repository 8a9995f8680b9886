//! The STREAM construction over AES-256-GCM, chunk by chunk.
//!
//! Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance"
//! (CRYPTO 2015), section 7, with the nonce of the `aead-stream` crate's `StreamBE32`: 7 random bytes, the chunk's
//! number as `u32` big-endian, and one byte that is 1 for the last chunk and 0 for every other. The AAD of every chunk
//! is the manifest digest, so a chunk authenticates at one place of one package only.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::aead::{Aead as _, Aes256Gcm, Forged, Nonce};
use super::batch::MAX_BATCH_BYTES;
use super::layout::{Layout, TAG_BYTES};
use crate::fixed::{Digest48, Fixed};
use crate::secret::Secret;

/// Most ciphertext that is tried at other places before a chunk is called forged.
const MAX_TRIAL_BYTES: u64 = 4 << 30;

/// The key and the places of one package.
pub(super) struct Stream {
    aead: Aes256Gcm,
    prefix: Fixed<7>,
    aad: Digest48,
    chunks: u64,
}

impl Stream {
    pub(super) fn new(key: &Secret<32>, prefix: Fixed<7>, manifest_digest: Digest48, layout: &Layout) -> Self {
        Self { aead: Aes256Gcm::new(key.expose()), prefix, aad: manifest_digest, chunks: layout.chunks() }
    }

    /// Seals plaintext that is followed by room for its tag. `None` when the chunk cannot be one of this package.
    pub(super) fn seal(&self, chunk: u64, text_and_tag: &mut [u8]) -> Option<()> {
        let (text, tag) = text_and_tag.split_last_chunk_mut::<TAG_BYTES>()?;
        *tag = self.aead.seal_in_place(&self.nonce(chunk)?, self.aad.as_ref(), text)?;
        Some(())
    }

    /// Opens a sealed chunk into a buffer of its plaintext's length, which stays as it was, or zero, on failure.
    pub(super) fn open(&self, chunk: u64, sealed: &[u8], plaintext: &mut [u8]) -> Result<(), Forged> {
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>().ok_or(Forged)?;
        self.aead.open_into(&self.nonce(chunk).ok_or(Forged)?, self.aad.as_ref(), text, tag, plaintext)
    }

    /// The place other than `chunk` where this sealed chunk authenticates: where it was taken from. Looks at the nearest
    /// places first and at no more than 4 GiB of trials, which covers every place of packages up to that size.
    ///
    /// Only ever runs on the way to a refusal, and hands out no plaintext. It tells an attacker nothing about a chunk
    /// that they did not take from this package, and adds at most 2^32 forgery attempts to the one they made.
    pub(super) fn home_of(&self, chunk: u64, sealed: &[u8]) -> Option<u64> {
        let trials = MAX_TRIAL_BYTES.checked_div(sealed.len() as u64).unwrap_or(1).max(1);
        let near = (1..=trials.min(self.chunks)).flat_map(|d| [chunk.checked_sub(d), chunk.checked_add(d)]).flatten();
        let places: Vec<u64> = near.filter(|at| *at < self.chunks).take(usize::try_from(trials).ok()?).collect();
        // Each worker has one chunk of scratch, and together they have no more than a batch.
        let workers = MAX_BATCH_BYTES.checked_div(sealed.len()).unwrap_or(1).clamp(1, rayon::current_num_threads());
        let found = AtomicBool::new(false);
        (0..workers).into_par_iter().find_map_any(|worker| {
            let mut scratch = Zeroizing::new(vec![0; sealed.len().saturating_sub(TAG_BYTES)]);
            let mut mine = places.iter().skip(worker).step_by(workers);
            let home = mine.find(|at| found.load(Relaxed) || self.open(**at, sealed, &mut scratch).is_ok());
            let home = home.copied().filter(|at| self.open(*at, sealed, &mut scratch).is_ok());
            found.fetch_or(home.is_some(), Relaxed);
            home
        })
    }

    /// Whether a sealed chunk authenticates at a place.
    pub(super) fn authenticates(&self, chunk: u64, sealed: &[u8]) -> bool {
        let mut scratch = Zeroizing::new(vec![0; sealed.len().saturating_sub(TAG_BYTES)]);
        self.open(chunk, sealed, &mut scratch).is_ok()
    }

    fn nonce(&self, chunk: u64) -> Option<Nonce> {
        let last = self.chunks.checked_sub(1)?;
        if chunk > last {
            return None;
        }
        let [p0, p1, p2, p3, p4, p5, p6] = self.prefix.0;
        let [c0, c1, c2, c3] = u32::try_from(chunk).ok()?.to_be_bytes();
        Some([p0, p1, p2, p3, p4, p5, p6, c0, c1, c2, c3, u8::from(chunk == last)])
    }
}
