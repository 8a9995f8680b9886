//! The attestor of machines with a TEE: Intel TDX and AMD SEV-SNP through Linux's configfs-tsm, NVIDIA's GPUs through
//! NVML (feature `nvml`).
//!
//! [`TeeAttestor::tdx`] and [`TeeAttestor::sev_snp`] find out without side effects whether the machine is one, and say
//! [`NotAvailable`](glasshouse_core::traits::AttestError::NotAvailable) when it is not. The kernel's interface and the
//! driver's stand behind [`TsmInterface`] and [`GpuInterface`], so that everything above them runs in tests.
//!
//! A machine without GPUs attests without them. One whose GPUs are there and do not attest, because confidential computing is
//! off on one of them, unknown to it or open to developer tools, says so with
//! [`NotAvailable`](glasshouse_core::traits::AttestError::NotAvailable), which names the GPU: an owner who asks for
//! `CpuTeeGpuCc` is refused with those words, and a session that asks for less goes on with the CPU's evidence alone, reaches
//! `CpuTee`, and has the same words in the allocation's log.
//!
//! Not available here: evidence of NVSwitches. NVML gives none, and NVIDIA's library that does (NSCQ) is not a part of the
//! driver. GPUs in protected-PCIe mode, whose traffic crosses the switches in the clear, are therefore refused by the
//! owner's verifier (`switch-missing`); single-GPU and multi-GPU passthrough need no switch to attest. Who runs
//! protected PCIe lets NVIDIA's collector answer the session's nonce on the machine and hands the list to an
//! [`Attestor`](glasshouse_core::traits::Attestor) of their own, which wraps this one and adds each
//! [`ListedEvidence::evidence`](crate::nvidia::ListedEvidence::evidence) to its GPU evidence before the quote is made: the
//! verifier takes switches from whoever brings them.

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
