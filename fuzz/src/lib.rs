//! Fuzz targets of every Glasshouse parser that reads outside bytes, and what each asserts beyond "it does not panic".
//!
//! The targets are plain functions here: `fuzz_targets/` hands them to libFuzzer, `tests/corpus.rs` runs them over the
//! committed corpora with the stable toolchain.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a fuzz target finds by panicking

pub mod check;
pub mod keys;
pub mod targets;

// The agent's messages, compiled in from the provider's sources: the crate itself would bring axum, reqwest and TLS.
#[path = "../../glasshouse-provider/src/frames.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs)]
mod frames;
#[path = "../../glasshouse-provider/src/raw.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs)]
mod raw;
#[path = "../../glasshouse-provider/src/wire/mod.rs"]
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs)]
mod wire;
