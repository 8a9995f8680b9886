//! Offline verification of attestation services' tokens: NVIDIA's detached EAT bundles (NRAS) and Google's Confidential
//! Space tokens. The issuer's key set (JWKS) is collateral: an argument, like the clock.
//!
//! A token carries the word of a service, not of hardware: what it says rests on the service's own verification.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

pub mod codes;
mod confidential_space;
mod jwks;
mod nras;
mod times;

/// Clocks that differ by more than ten minutes are wrong: a policy of a session that allows more is refused.
pub const MAX_CLOCK_AHEAD_SECONDS: u32 = 600;

pub use confidential_space::{
    ConfidentialSpaceClaims, ConfidentialSpacePolicy, Hardware, Support, verify_confidential_space,
};
pub use jwks::Jwks;
pub use nras::{NrasClaims, NrasDevice, NrasPolicy, verify_nras};
