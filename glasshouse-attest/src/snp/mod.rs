//! Offline verification of AMD SEV-SNP attestation reports: Milan, Genoa and Turin, signed by a VCEK or a VLEK.
//!
//! A guest asks the security processor for a report over 64 bytes of its own (AMD 56860 section 7.3). The report is
//! signed by a key that AMD certifies for one chip at one TCB (VCEK), or for a cloud provider (VLEK, AMD 58369).
//! [`SnpVerifier`] checks, in this order: the report's signature, the chain to the pinned root, validity in time, the
//! report's form (reserved bytes are zero), product, report data, chip, privilege level, launch measurement, TCB of report
//! and certificate and the policy's floor, debugging, migration, further bits of the guest's policy. Each check refuses
//! with its own code of [`codes`]. Clock and roots are arguments; no network, no file, no clock is touched.
//!
//! [`SnpVerifier::verify_unrevoked`] also looks issuers up in AMD's revocation lists, right after validity. Not covered:
//! mitigation vectors of version 5.
//!
//! The crate `sev` parses before it verifies, reads versions that it does not know as version 5, checks neither validity
//! nor chip nor TCB, and is of the dependency generation before this workspace's; hence the parser here.

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

mod certificate;
mod claims;
pub mod codes;
mod crl;
mod known;
mod policy;
mod report;
mod roots;
mod table;
mod tcb;
mod verifier;

pub use claims::SnpClaims;
#[cfg(feature = "fetch")]
pub(crate) use crl::is_list;
pub use policy::SnpPolicy;
pub use report::{GuestPolicy, REPORT_LENGTH, Report, SignedReport, SigningKey};
pub use roots::SnpRoots;
pub use table::CertificateTable;
pub use tcb::{Product, Tcb, TcbBytes};
pub use verifier::{SnpEvidence, SnpVerifier};
