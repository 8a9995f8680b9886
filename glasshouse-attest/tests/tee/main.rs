//! The attestor of machines with a TEE over a fake kernel on a temporary folder and fake GPUs, with the generator's
//! evidence: what it makes is accepted by the verifier, and what interface or device do wrong is told.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod fakes;
mod tee;
