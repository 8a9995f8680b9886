//! glasshouse-attest

pub mod nvidia;
pub mod x509;
