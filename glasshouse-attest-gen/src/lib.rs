//! Evidence of hardware that does not exist: TDX quotes with Intel's collateral, SEV-SNP reports with AMD's chain, and
//! NVIDIA reports with their manifests, all under roots of this crate's own.
//!
//! The production verifiers accept it when a caller gives them these roots, and refuse it otherwise. The secret keys
//! are derived from labels and stand in this source for all to see. The crate is not published, and nothing but
//! dev-dependencies may name it, so that none of it can get into a user's build.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "it makes test evidence from constants: what cannot be made ends the test"
)]

mod attestor;
mod collateral;
mod der;
pub mod nvidia;
mod platform;
mod rsa_keys;
pub mod snp;
pub mod tamper;
pub mod tdx;
pub mod token;

pub use attestor::GeneratedAttestor;
pub use collateral::bundle;
pub use platform::{AUDIT_TIME, Cpu, Platform};
