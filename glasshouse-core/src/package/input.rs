#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs::File;
use std::io::{self, Read};

/// Where a sealed package comes from. It is read once, from front to back.
#[non_exhaustive]
pub enum Input<'a> {
    /// A package in memory: opened from there without a copy, on all cores.
    Bytes(&'a [u8]),
    /// Anything that reads. One thread reads ahead while all others open.
    Reader(Box<dyn Read + Send + 'a>),
}

impl<'a> Input<'a> {
    /// From a reader.
    pub fn reader(read: impl Read + Send + 'a) -> Self {
        Self::Reader(Box::new(read))
    }
}

impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Input<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<File> for Input<'_> {
    /// Never mapped into memory: a chunk is read twice while it is opened, once for its tag and once to decrypt it, and
    /// whoever can write the file could change it in between.
    fn from(file: File) -> Self {
        Self::reader(file)
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Bytes(bytes) => bytes.read(buffer),
            Self::Reader(read) => read.read(buffer),
        }
    }
}
