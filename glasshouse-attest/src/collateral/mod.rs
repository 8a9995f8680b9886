//! Collateral as an owner keeps it: a signed, versioned bundle of what the vendors publish, a store that refuses versions
//! older than the newest it has seen, and (feature `fetch`) a client of the vendors' services.
//!
//! Nothing in a bundle is trusted for what it says: every part is verified under the vendors' roots when evidence is
//! appraised. What the bundle's own signature adds is that nobody between the person who fetched it and the gate can
//! leave a revocation list out or put an older document, still validly signed by its vendor, in the place of a newer.
//!
//! Revocation is by the vendors' lists, and for NVIDIA, whose certificates name a responder, by OCSP answers too, of devices'
//! chains and of manifests' signers alike. The certificates of Intel and AMD name lists only.

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

#[cfg(feature = "fetch")]
mod answer;
mod bundle;
pub mod codes;
#[cfg(feature = "fetch")]
mod fetch;
#[cfg(feature = "fetch")]
mod services;
mod store;

pub use bundle::{AmdFiles, BUNDLE_SCHEMA, Bundle, NvidiaDocuments};
#[cfg(feature = "fetch")]
pub use fetch::{FetchError, Fetcher};
#[cfg(feature = "fetch")]
pub use services::Services;
pub use store::{CollateralError, CollateralStore};
