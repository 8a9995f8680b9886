//! The owner's verifier of machines with a TEE: composes Intel TDX, AMD SEV-SNP or Google Confidential Space with
//! NVIDIA's devices and tokens into one appraisal, `CpuTee` or `CpuTeeGpuCc`.
//!
//! [`HardwareVerifier`] checks, in this order: the kind of evidence; the CPU's quote, which must carry all 64 bytes of
//! the session's report data and with them the digest of the GPU evidence; every GPU and switch over the session's GPU
//! nonce, together (no device twice, one mode, switches where the mode needs them); tokens of NVIDIA's service, where
//! the policy takes them; how many devices there are and which; then that the policy's minimum is reached. The parts
//! refuse with the codes of their own modules, what is between them with those of [`codes`].
//!
//! Neither assurance is given without launch measurements: a policy that cannot reach one is refused when the verifier
//! is made. What a CPU quote cannot show is which bus a GPU hangs on; that the attesting GPUs are this machine's rests on
//! the measured guest, or on [`GpuPolicy::serials`] where the owner knows them.

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
mod collateral;
mod cpu;
mod gpu;
mod policy;
mod roots;
mod verifier;

pub use collateral::{AmdCollateral, HardwareCollateral, NvidiaFiles, vek_key};
pub use policy::{ConfidentialSpaceSession, CpuPolicy, GpuPolicy, HardwarePolicy, MinimumAssurance, PolicyError};
pub use roots::HardwareRoots;
pub use verifier::HardwareVerifier;
