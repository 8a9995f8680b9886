//! The attestor of machines with a TEE: Intel TDX and AMD SEV-SNP through Linux's configfs-tsm, NVIDIA's GPUs through
//! NVML (feature `nvml`).
//!
//! [`TeeAttestor::tdx`] and [`TeeAttestor::sev_snp`] find out without side effects whether the machine is one, and say
//! [`NotAvailable`](glasshouse_core::traits::AttestError::NotAvailable) when it is not. The kernel's interface and the
//! driver's stand behind [`TsmInterface`] and [`GpuInterface`], so that everything above them runs in tests.
//!
//! Not covered: NVSwitches, whose reports NVML does not give; a machine in protected-PCIe mode is then refused by the
//! owner's verifier.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod attestor;
mod configfs;
mod gpu;
#[cfg(feature = "nvml")]
mod nvml;
mod tsm;

pub use attestor::TeeAttestor;
pub use configfs::{ConfigFs, ConfigFsEntry};
pub use gpu::{ConfidentialState, GpuInterface, RawEvidence};
#[cfg(feature = "nvml")]
pub use nvml::NvmlGpus;
pub use tsm::{TeeKind, TsmEntry, TsmInterface};
