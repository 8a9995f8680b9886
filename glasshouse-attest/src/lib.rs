//! glasshouse-attest
