use std::fmt::Display;

use glasshouse_core::evidence::{DeviceEvidence, DeviceKind, GpuEvidence};
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::refusal::{Code, Refusal};

use super::decode::certificates;
use crate::nvidia::{ListedEvidence, codes};

/// Evidence of several devices as NVIDIA's tools write it.
pub(super) struct EvidenceList(Vec<ListedEvidence>);

impl EvidenceList {
    /// Reads a list. One that cannot be understood, or that is empty, is evidence that is refused.
    pub(super) fn read(file: &[u8]) -> Result<Self, Refusal> {
        let malformed = |seen: String| refuse(codes::REPORT_MALFORMED, "a list of evidence", seen);
        match ListedEvidence::parse(file) {
            Ok(listed) if listed.is_empty() => Err(malformed("an empty one".to_owned())),
            Ok(listed) => Ok(Self(listed)),
            Err(error) => Err(malformed(error.to_string())),
        }
    }

    /// The nonce that it says was asked for.
    pub(super) fn nonce(&self) -> Option<Nonce32> {
        self.0.iter().find_map(|entry| entry.nonce)
    }

    /// Whether a chain is one of its own.
    pub(super) fn has_chain(&self, chain: &[Vec<u8>]) -> bool {
        self.0.iter().any(|entry| certificates(&entry.chain) == chain)
    }

    /// Its devices. In a case about GPUs, entries that call themselves switches are switches beside GPUs only.
    pub(super) fn devices(&self, kind: DeviceKind) -> GpuEvidence {
        let mixed = kind == DeviceKind::NvidiaGpu && self.0.iter().any(|entry| entry.kind == kind);
        let device = |entry: &ListedEvidence| {
            let evidence = entry.evidence();
            DeviceEvidence { kind: if mixed { entry.kind } else { kind }, ..evidence }
        };
        GpuEvidence(self.0.iter().map(device).collect())
    }

    /// An entry that names another nonce than the one that was asked for is of another request, whatever its report
    /// answers: refused where the nonce is checked, behind whatever is checked before it.
    pub(super) fn of_one_request<T>(&self, decided: Result<T, Refusal>, nonce: Nonce32) -> Result<T, Refusal> {
        let Some(other) = self.0.iter().filter_map(|entry| entry.nonce).find(|stated| *stated != nonce) else {
            return decided;
        };
        let mut before = codes::ALL.iter().take_while(|code| **code != codes::NONCE);
        match decided {
            Err(refusal) if before.any(|code| *code == refusal.code) => Err(refusal),
            _ => Err(refuse(codes::NONCE, nonce, format_args!("an entry that names {other}"))),
        }
    }
}

/// NVIDIA's lists are JSON; a report in raw bytes, hex or base64 never begins like it.
pub(super) fn is_list(file: &[u8]) -> bool {
    matches!(file.trim_ascii_start().first(), Some(b'[' | b'{'))
}

fn refuse(code: Code, expected: impl Display, seen: impl Display) -> Refusal {
    let advice = codes::advice(&code).map(str::to_owned);
    Refusal { advice, ..Refusal::new(code, expected, seen) }
}
