//! NVIDIA's verifier against the shared corpus of real evidence, against every change of it, and against evidence
//! under roots of its own.
//!
//! Changes are sampled; all of them: `GLASSHOUSE_EXHAUSTIVE=1 cargo test --release -p glasshouse-attest --test nvidia
//! changes`, in parts with `GLASSHOUSE_SHARD=0/8`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may end, and says aloud when it is skipped"
)]

mod cases;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod corpus;
mod generated;
mod ocsp;
