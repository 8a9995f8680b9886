//! The verifier of a session, on machines that do not exist: accepted under their own roots, refused for each change.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may end at what cannot be"
)]

mod bundle;
mod changes;
#[path = "../common/mod.rs"]
mod common;
mod contract;
#[cfg(feature = "fetch")]
mod fetch;
mod policy;
mod refusals;
#[cfg(feature = "fetch")]
mod service;
mod session;
