//! Conformance: runs a corpus of evidence and says, case by case, whether the verifiers decide as it expects.
//!
//! A corpus is a JSON file `{"note": …, "cases": [{"id", "kind", "at", "policy", "expect", "fails_at", …}]}` with paths
//! relative to it. `at` is the clock; `policy` lies over the kind's default policy; `fails_at` is the code of the check
//! that must refuse. Files are raw, hex, base64, PEM or DER, or the lists that NVIDIA's tools write. A kind or policy key
//! that is not known, a member of another type, or a file that is not there, breaks its case and no other: it is counted as
//! not as expected, and never taken for a refusal. A file that is there and cannot be understood is evidence, and refused,
//! and so is evidence whose nonce or audience the case does not name. Members that no kind has are passed over, and so are
//! relaxations (`allow_…`, `dangerous_…`) of another kind.
//!
//! | kind | members |
//! | --- | --- |
//! | `nvidia-gpu`, `nvidia-switch` | `report`, `chain` and `rims` (one file or a list of them), `nonce`; an evidence list brings its own chain and nonce (a `chain` beside it must be one of its own) |
//! | `nvidia-rim` | `rim` |
//! | `nras-eat` | `token`, `jwks`, `nonce` |
//! | `sev-snp` | `report`, `vek`, optional `chain`, `report_data` or `report_data_prefix`, `vmpl` |
//! | `tdx`, `sgx` | `quote`, `collateral`, optional `report_data` or `report_data_prefix` |
//! | `gcp-confidential-space` | `token`, `jwks`, `audience`, `nonce` |
//!
//! `at` is RFC 3339 or seconds since 1970. `report_data` of fewer than 64 bytes is followed by zeros, as guests pad it.

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

mod case;
mod decode;
mod files;
mod kinds;
mod list;
mod members;
mod policy;
mod report;
mod time;

pub use case::{Case, Corpus, CorpusError, Expectation};
pub use decode::{binary, certificates, document, manifest, pem_chain};
pub use report::{CaseReport, CorpusReport, Outcome};
