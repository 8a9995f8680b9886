//! The corpus lies beside the repository and is never part of it; without it the tests say so and pass.

use std::path::PathBuf;

use glasshouse_core::clock::UnixMillis;

pub(crate) use crate::common::tried;

/// The corpus, or nothing and a line on the terminal.
pub(crate) fn corpus() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation-vectors");
    if folder.join("cases.json").is_file() {
        return Some(folder);
    }
    println!("SKIPPED: no corpus at {}", folder.display());
    None
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(corpus().unwrap().join(name)).unwrap()
}

/// `2024-01-01T00:00:00Z`.
pub(crate) fn time(text: &str) -> UnixMillis {
    let time = humantime::parse_rfc3339(text).unwrap();
    UnixMillis(time.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis().try_into().unwrap())
}

pub(crate) fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 1 << (bit % 8);
    bytes
}
