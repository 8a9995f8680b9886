//! The public part of a sealed package: what it is for, what is in it, how it is sealed. No key and no plaintext digest.
//!
//! A manifest has exactly one spelling. Its bytes are compact JSON with the fields in the order of [`Manifest`]; bytes
//! that parse to the same values but are spelled otherwise (space, order, escapes, repeated or unknown keys) are
//! refused, so the stored bytes are the canonical bytes and `manifest digest = SHA-384(bytes)`.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::claims::Assurance;
use crate::fixed::{Digest32, Digest48, Fixed};
use crate::package::Layout;
use crate::refusal::one_line;
use crate::transcript::sha384;

/// The only format so far.
pub const MANIFEST_FORMAT: &str = "glasshouse-package/1";
/// Most bytes that a manifest may have.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;
/// Most entries, and most public inputs, in one package.
pub const MAX_ENTRIES: usize = 1024;
/// Most bytes of an entry's, a public input's or a workload's name.
pub const MAX_NAME_BYTES: usize = 128;
/// Most bytes of a public input's source.
pub const MAX_SOURCE_BYTES: usize = 2048;
/// Plaintext bytes per chunk unless the owner says otherwise: a chunk stays in one core's cache, and a batch has enough of
/// them for many cores.
pub const DEFAULT_CHUNK_BYTES: u32 = 256 << 10;
/// Smallest chunk.
pub const MIN_CHUNK_BYTES: u32 = 4 << 10;
/// Largest chunk.
pub const MAX_CHUNK_BYTES: u32 = 16 << 20;
/// Most ciphertext bytes under one key: 16 TiB, 2^40 AES blocks, which keeps the distinguishing advantage of AES-GCM
/// under 2^-48 (SP 800-38D; birthday bound of a 128-bit permutation).
pub const MAX_CIPHERTEXT_BYTES: u64 = 1 << 44;

/// What anybody may know of a package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: String,
    /// Random, so that two packages of one content differ.
    pub package_id: Fixed<16>,
    /// The workload that takes these entries.
    pub workload: String,
    /// Names of the sealed entries, in the order in which they are sealed. Their lengths are inside the ciphertext.
    pub entries: Vec<String>,
    /// Inputs that anybody may read: pinned by digest, not sealed.
    pub public_inputs: Vec<PublicInput>,
    /// Whether the owner marked the data public, so that a raw segment may read it on somebody else's machine.
    pub public_data: bool,
    /// The gate releases nothing below this.
    pub minimum_assurance: Assurance,
    /// Plaintext bytes of every chunk but the last: a power of two, 4 KiB to 16 MiB.
    pub chunk_bytes: u32,
    /// The first 7 bytes of every chunk's nonce, random per package.
    pub nonce_prefix: Fixed<7>,
    /// Bytes that follow the manifest: all chunks with their 16-byte tags.
    pub ciphertext_bytes: u64,
}

/// An input that anybody may read (base weights, a tokenizer), pinned by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicInput {
    /// The file name under which the workload finds it.
    pub name: String,
    /// SHA-256 of its content.
    pub sha256: Digest32,
    /// Its length in bytes.
    pub bytes: u64,
    /// Where it can be had; no credentials.
    pub source: String,
}

/// Why something is not a manifest. Each says what to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// More bytes than a manifest may have.
    #[error("the manifest has {bytes} bytes and may have {MAX_MANIFEST_BYTES}; use fewer entries or shorter sources")]
    TooLarge {
        /// Its length.
        bytes: u64,
    },
    /// Not the JSON of a manifest: a syntax error, a missing, unknown or repeated key, a value of the wrong type.
    #[error("the manifest is not one that this version reads: {why}")]
    Malformed {
        /// What the parser found, and where.
        why: String,
    },
    /// The same values, spelled another way.
    #[error("the manifest is not in its one canonical spelling; it was changed after it was made")]
    NotCanonical,
    /// Another format.
    #[error(
        "the package has format {format:?} and this version reads {MANIFEST_FORMAT:?}; use a version that reads it"
    )]
    Format {
        /// The format it states.
        format: String,
    },
    /// A name that cannot be a file name everywhere.
    #[error(
        "the {what} name {name:?} is not allowed; use 1 to {MAX_NAME_BYTES} printable ASCII characters without / \\ : and not . or .."
    )]
    Name {
        /// What is named.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Two things have one name.
    #[error("the name {name:?} is used twice; entries and public inputs share one set of names")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Too many entries or public inputs.
    #[error("the package has {count} {what} and may have {MAX_ENTRIES}; join some of them")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A source that is too long or not printable.
    #[error("the source of public input {name:?} is not allowed; use at most {MAX_SOURCE_BYTES} printable characters")]
    Source {
        /// Name of the public input.
        name: String,
    },
    /// A chunk size that is not allowed.
    #[error("the chunk size is {chunk_bytes} bytes; use a power of two from {MIN_CHUNK_BYTES} to {MAX_CHUNK_BYTES}")]
    ChunkBytes {
        /// The size.
        chunk_bytes: u32,
    },
    /// A ciphertext length that no package of this chunk size has.
    #[error("no package with chunks of {chunk_bytes} bytes has {ciphertext_bytes} bytes of ciphertext")]
    CiphertextBytes {
        /// The length.
        ciphertext_bytes: u64,
        /// The chunk size.
        chunk_bytes: u32,
    },
}

impl Manifest {
    /// Reads stored bytes, strictly.
    ///
    /// # Errors
    /// [`ManifestError`] for anything but the one spelling of a valid manifest.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX) });
        }
        let manifest: Self =
            // The parser's message repeats what it read, which may be a mebibyte of anything.
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Malformed { why: one_line(&e.to_string()) })?;
        let canonical = manifest.to_bytes()?;
        if canonical == bytes { Ok(manifest) } else { Err(ManifestError::NotCanonical) }
    }

    /// The canonical bytes.
    ///
    /// # Errors
    /// [`ManifestError`] when the manifest is not valid; what is not valid has no bytes.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let bytes = serde_json::to_vec(self).map_err(|e| ManifestError::Malformed { why: e.to_string() })?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLarge { bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX) });
        }
        Ok(bytes)
    }

    /// SHA-384 of the canonical bytes.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes).
    pub fn digest(&self) -> Result<Digest48, ManifestError> {
        Ok(sha384(self.to_bytes()?))
    }

    /// How the ciphertext is cut.
    ///
    /// # Errors
    /// [`ManifestError::ChunkBytes`] and [`ManifestError::CiphertextBytes`].
    pub fn layout(&self) -> Result<Layout, ManifestError> {
        check_chunk_bytes(self.chunk_bytes)?;
        Layout::of_ciphertext(self.chunk_bytes, self.ciphertext_bytes).ok_or(ManifestError::CiphertextBytes {
            ciphertext_bytes: self.ciphertext_bytes,
            chunk_bytes: self.chunk_bytes,
        })
    }

    fn check(&self) -> Result<(), ManifestError> {
        if self.format != MANIFEST_FORMAT {
            return Err(ManifestError::Format { format: self.format.chars().take(MAX_NAME_BYTES).collect() });
        }
        check_name("workload", &self.workload)?;
        for (what, count) in [("entries", self.entries.len()), ("public inputs", self.public_inputs.len())] {
            if count > MAX_ENTRIES {
                return Err(ManifestError::TooMany { what, count });
            }
        }
        let mut names = BTreeSet::new();
        let entries = self.entries.iter().map(|name| ("entry", name));
        let public = self.public_inputs.iter().map(|input| ("public input", &input.name));
        for (what, name) in entries.chain(public) {
            check_name(what, name)?;
            if !names.insert(name) {
                return Err(ManifestError::DuplicateName { name: name.clone() });
            }
        }
        for PublicInput { name, source, .. } in &self.public_inputs {
            if source.len() > MAX_SOURCE_BYTES || source.chars().any(char::is_control) {
                return Err(ManifestError::Source { name: name.clone() });
            }
        }
        self.layout().map(|_| ())
    }
}

/// Whether a chunk size is a power of two from [`MIN_CHUNK_BYTES`] to [`MAX_CHUNK_BYTES`].
pub(crate) fn check_chunk_bytes(chunk_bytes: u32) -> Result<(), ManifestError> {
    let allowed = chunk_bytes.is_power_of_two() && (MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES).contains(&chunk_bytes);
    if allowed { Ok(()) } else { Err(ManifestError::ChunkBytes { chunk_bytes }) }
}

/// A name that is a plain file name on every system: it may become a path below a folder that we choose.
fn check_name(what: &'static str, name: &str) -> Result<(), ManifestError> {
    let plain = |b: u8| (b.is_ascii_graphic() || b == b' ') && !matches!(b, b'/' | b'\\' | b':');
    let allowed = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(plain)
        && name.trim() == name
        && !matches!(name, "." | "..");
    if allowed { Ok(()) } else { Err(ManifestError::Name { what, name: name.chars().take(MAX_NAME_BYTES).collect() }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Manifest {
        Manifest {
            format: MANIFEST_FORMAT.into(),
            package_id: Fixed([1; 16]),
            workload: "mlp".into(),
            entries: vec!["config.json".into(), "data.bin".into()],
            public_inputs: vec![PublicInput {
                name: "base.safetensors".into(),
                sha256: Fixed([2; 32]),
                bytes: 7,
                source: "hf://org/model@0123".into(),
            }],
            public_data: false,
            minimum_assurance: Assurance::CpuTee,
            chunk_bytes: 4096,
            nonce_prefix: Fixed([3; 7]),
            ciphertext_bytes: 5000,
        }
    }

    fn text() -> String {
        String::from_utf8(example().to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn one_spelling() {
        let manifest = Manifest::from_bytes(text().as_bytes()).unwrap();
        assert_eq!(manifest, example());
        let spaced = text().replacen(':', ": ", 1);
        assert_eq!(Manifest::from_bytes(spaced.as_bytes()), Err(ManifestError::NotCanonical));
        let escaped = text().replace("\"mlp\"", "\"\\u006dlp\"");
        assert_eq!(Manifest::from_bytes(escaped.as_bytes()), Err(ManifestError::NotCanonical));
        let newline = text() + "\n";
        assert_eq!(Manifest::from_bytes(newline.as_bytes()), Err(ManifestError::NotCanonical));
    }

    #[test]
    fn repeated_unknown_and_missing_keys_are_refused() {
        let twice = text().replacen("\"public_data\":false", "\"public_data\":false,\"public_data\":false", 1);
        let unknown = text().replacen("\"public_data\":false", "\"public_data\":false,\"plaintext_sha256\":\"\"", 1);
        let missing = text().replacen("\"public_data\":false,", "", 1);
        for (bad, word) in [(twice, "duplicate field"), (unknown, "unknown field"), (missing, "missing field")] {
            let why = Manifest::from_bytes(bad.as_bytes()).unwrap_err().to_string();
            assert!(why.contains(word), "{why}");
        }
        let deep = "[".repeat(100_000);
        assert!(matches!(Manifest::from_bytes(deep.as_bytes()), Err(ManifestError::Malformed { .. })));
        let long = " ".repeat(MAX_MANIFEST_BYTES + 1);
        assert!(matches!(Manifest::from_bytes(long.as_bytes()), Err(ManifestError::TooLarge { .. })));
    }

    #[test]
    fn a_refusal_repeats_one_short_clean_line() {
        let long = "\\u001b[2J".repeat(9000);
        let key = text().replacen("\"public_data\"", &format!("\"{long}\":0,\"public_data\""), 1);
        let format = text().replacen(MANIFEST_FORMAT, &long, 1);
        for bad in [key, format] {
            let why = Manifest::from_bytes(bad.as_bytes()).unwrap_err().to_string();
            assert!(why.chars().count() < 900 && !why.contains(char::is_control), "{why}");
        }
    }

    #[test]
    fn names_are_plain_file_names() {
        for bad in ["", ".", "..", "a/b", "a\\b", "C:", "a\nb", "a\0", "\u{e9}", " a", "a ", &"x".repeat(129)] {
            let manifest = Manifest { entries: vec![bad.to_owned()], ..example() };
            assert!(matches!(manifest.to_bytes(), Err(ManifestError::Name { .. })), "{bad:?}");
        }
        let twice = Manifest { entries: vec!["base.safetensors".into()], ..example() };
        assert!(matches!(twice.to_bytes(), Err(ManifestError::DuplicateName { .. })));
        let many = Manifest { entries: (0..=MAX_ENTRIES).map(|i| i.to_string()).collect(), ..example() };
        assert!(matches!(many.to_bytes(), Err(ManifestError::TooMany { .. })));
    }

    #[test]
    fn sizes_fit_each_other() {
        for chunk_bytes in [0, 1, 2048, 4097, 32 << 20] {
            assert!(matches!(Manifest { chunk_bytes, ..example() }.to_bytes(), Err(ManifestError::ChunkBytes { .. })));
        }
        for ciphertext_bytes in [0, 16, 4112 + 1, 4112 + 16, MAX_CIPHERTEXT_BYTES + 4112, u64::MAX] {
            let manifest = Manifest { ciphertext_bytes, ..example() };
            assert!(matches!(manifest.to_bytes(), Err(ManifestError::CiphertextBytes { .. })), "{ciphertext_bytes}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = Manifest::from_bytes(&bytes);
        }

        #[test]
        fn an_edited_manifest_is_refused_or_has_another_digest(at in 0usize..600, to: u8) {
            let mut bytes = text().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            if let Ok(manifest) = Manifest::from_bytes(&bytes) {
                prop_assert_ne!(manifest.digest().unwrap(), example().digest().unwrap());
            }
        }
    }
}
