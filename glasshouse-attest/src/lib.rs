//! Attestors and verifiers of Glasshouse: what a runtime can prove of itself, and how an owner appraises it.
//!
//! The words are those of RATS (RFC 9334): an *attester* makes *evidence*, a *verifier* appraises it against *reference
//! values* and a policy. Nothing here talks to a provider or touches a tensor.
//!
//! | attestor and verifier | assurance it can reach |
//! | --- | --- |
//! | [`software`] | `SelfReported`: the runtime measures itself, so a malicious host can forge all of it |
//! | [`snp`] | AMD SEV-SNP reports, offline; `CpuTee` with launch measurements |
//! | [`tdx`] | Intel TDX and SGX quotes with their collateral, offline; `CpuTee` with launch measurements |
//! | [`tokens`] | tokens of Google Confidential Space (`CpuTee`) and of NVIDIA's remote attestation service |
//! | [`nvidia`] | GPU and NVSwitch reports with their reference manifests, offline; on top of a CPU TEE `CpuTeeGpuCc` |
//!
//! [`tee`] is the attestor on machines that have them, [`hardware`] composes them into the [`Verifier`](glasshouse_core::traits::Verifier) of a session, and [`collateral`] keeps what that needs. [`corpus`] holds all of them to files of real evidence; [`tamper`] is the suite of attacks that all of it, gate and runtime included, is held to.

mod bytes;
mod codes;
pub mod collateral;
pub mod corpus;
pub mod hardware;
pub mod json;
pub mod jws;
pub mod nvidia;
mod report_data;
mod rsa_key;
pub mod snp;
pub mod software;
pub mod tamper;
pub mod tdx;
pub mod tee;
pub mod tokens;
pub mod x509;

pub use report_data::ReportData;
pub use rsa_key::RsaKey;
