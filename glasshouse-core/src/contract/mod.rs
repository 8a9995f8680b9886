//! Public contract tests: call one from a test of your own implementation. Each panics with the clause that failed.
//!
//! Behind the feature `contract-tests`. Every suite follows the `# Contract` section of its trait; a clause that no test
//! can observe from outside is named in the suite's own documentation.

#![allow(clippy::panic)] // a failed clause fails the caller's test, and that is what a panic is for

mod attestor;
mod provider;
mod verifier;
mod workload;
mod zeroizer;

pub use attestor::attestor;
pub use provider::{ProviderCase, provider};
pub use verifier::{VerifierSample, verifier};
pub use workload::workload;
pub use zeroizer::zeroizer;

use std::fmt::{Debug, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Fails the caller's test with the clause, unless it holds.
#[track_caller]
fn clause(clause: &str, holds: bool, seen: impl Display) {
    if !holds {
        panic!("clause `{clause}` is broken: {seen}");
    }
}

/// The value, or the caller's test fails with the clause that promised one.
#[track_caller]
fn promised<T, E: Display>(what: &str, result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("clause `{what}` is broken: {error}"),
    }
}

/// Runs it and fails the caller's test with the clause when it panics.
#[track_caller]
fn no_panic<T>(what: &str, on: impl Debug, call: impl FnOnce() -> T) -> T {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => value,
        Err(_) => panic!("clause `{what}` is broken: it panicked on {on:?}"),
    }
}

/// Bytes without structure that are the same in each run (splitmix64).
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    });
    words.flat_map(u64::to_le_bytes).take(len).collect()
}

/// At most `most` positions below `len`, spread over all of it, the first and the last among them.
fn positions(len: usize, most: usize) -> Vec<usize> {
    let step = len.div_ceil(most.max(1)).max(1);
    (0..len).step_by(step).chain(len.checked_sub(1)).collect()
}

/// Lower-case words joined by hyphens.
fn is_stable_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .split('-')
            .all(|word| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
}
