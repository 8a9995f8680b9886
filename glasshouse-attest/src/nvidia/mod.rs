//! Offline verification of NVIDIA's confidential-computing evidence: Hopper and Blackwell GPUs and LS10 NVSwitches.
//!
//! A device answers an SPDM 1.1 GET_MEASUREMENTS request (DMTF DSP0274) with its measurements, signed by a key that
//! its boot ROM certified. NVIDIA publishes what they must be in signed reference integrity manifests (RIM), one for
//! each version of driver and VBIOS. [`NvidiaVerifier`] checks, in this order: the report's signature, the chain to
//! the pinned root, validity in time, revocation, nonce, firmware id, the manifests (signature, digest, chain, validity,
//! version, then whether one is missing), measurements, version floors, mode. Each check refuses with its own code of
//! [`codes`]. Clock, manifests and roots are arguments; no network, no file, no clock is touched.
//!
//! Revocation is by NVIDIA's lists and by the OCSP answers that were kept beside them; a nonce of OCSP's own is not asked
//! for. Not covered: that the attesting GPU is in the attesting machine, which the CPU's quote and its measured guest must
//! establish.

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
mod device;
mod evidence_list;
mod fwid;
mod measure;
mod opaque;
mod policy;
mod report;
mod rim;
mod rim_ids;
mod verifier;
mod version;
mod xml;
mod xmldsig;

pub use claims::{Board, DeviceClaims, RimClaims};
pub use device::Device;
pub use evidence_list::{ListError, ListedEvidence};
pub use opaque::{Feature, OpaqueData};
pub use policy::{NvidiaCollateral, NvidiaPolicy, NvidiaRoots};
pub use report::{Measurement, Report, SignedReport};
#[cfg(feature = "fetch")]
pub(crate) use rim::rim_signers;
pub use rim::{VerifiedRim, verify_rim};
pub use verifier::NvidiaVerifier;
pub use version::{DriverVersion, VbiosVersion, Version};
