//! What a quote's 64 bytes of report data are held against.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use glasshouse_core::fixed::Digest64;
use glasshouse_core::refusal::{Code, Refusal};

/// What the report data must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportData<'a> {
    /// All 64 bytes, as the gate computes them. What every session of Glasshouse uses.
    Full(&'a Digest64),
    /// The first bytes, at least one. For evidence that was made by others for other purposes.
    Prefix(&'a [u8]),
    /// Not known: refused unless the policy says `dangerous_no_report_data`.
    Unknown,
}

impl ReportData<'_> {
    pub(crate) fn check(self, seen: &[u8; 64], allow_unknown: bool, code: Code) -> Result<(), Refusal> {
        let (holds, expected) = match self {
            Self::Full(all) => (all.as_bytes() == seen, all.to_string()),
            Self::Prefix(start) => (!start.is_empty() && seen.starts_with(start), format!("{}…", hex::encode(start))),
            Self::Unknown => (allow_unknown, "report data that the verifier was told".to_owned()),
        };
        if holds {
            return Ok(());
        }
        let advice = Some("the quote was made for another session, key or GPU; ask for a fresh one".to_owned());
        Err(Refusal { advice, ..Refusal::new(code, expected, hex::encode(seen)) })
    }
}
