//! One module per target; each has a `run` that takes any bytes. The first byte often chooses what the rest is read as,
//! a letter so that corpora can be looked at.

pub mod agent;
pub mod appraisal;
pub mod bundle;
pub mod chain;
pub mod container;
pub mod dcap;
pub mod jwt;
pub mod manifest;
pub mod nvidia;
pub mod overhead;
pub mod package;
pub mod record;
pub mod rim;
pub mod session;
pub mod snp;
pub mod tokens;
pub mod wire;
pub mod x509;

/// The first byte, and what follows it.
fn mode(data: &[u8]) -> Option<(u8, &[u8])> {
    data.split_first().map(|(mode, rest)| (*mode, rest))
}

/// What stands before the first line feed, and after it.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|b| *b == b'\n') {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
