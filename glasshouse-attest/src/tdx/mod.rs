//! Offline verification of Intel's DCAP quotes: TDX (versions 4 and 5) and SGX (version 3).
//!
//! A quote is a report that the platform's quoting enclave signed with a key that Intel's PCK certificate vouches for.
//! What the platform's security versions are worth is in Intel's collateral. [`DcapVerifier`] checks, in this order: the
//! quote's form, its signatures, validity of the platform's certificates, validity of the collateral; then chains,
//! revocation, the collateral's signatures, the quoting enclave's identity and the TD's attributes (`dcap-qvl`); report
//! data, measurements, TCB status by the policy, debugging. Each check refuses with its own code of [`codes`]. Clock,
//! collateral and root are arguments; no network, no file, no clock is touched.
//!
//! `dcap-qvl` returns a platform that is out of date as verified; the policy decides here, and accepts `UpToDate` only unless
//! it says otherwise. Bytes behind a quote's structure that are not zero are refused; zeros, to which guest devices pad,
//! carry no meaning and are passed over.

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

mod claims;
pub mod codes;
mod collateral;
mod dcap;
mod policy;
mod quote;
mod verifier;

pub use claims::{Body, DcapClaims, EnclaveClaims, TdClaims};
pub use collateral::Collateral;
pub use dcap::{IntelRoot, quote_fmspc, quote_platform};
pub use policy::{DcapPolicy, EnclaveMeasurements, TcbFloor, TcbStatus, TdMeasurements};
pub use verifier::DcapVerifier;
