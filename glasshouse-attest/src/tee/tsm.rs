use std::io;
use std::path::Path;

use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::evidence::CpuEvidence;
use glasshouse_core::fixed::{Blob, Digest64};
use glasshouse_core::traits::AttestError;

/// The kernel's interface to the TEE's security module, of which [`ConfigFs`](super::ConfigFs) is the real one.
pub trait TsmInterface: Send + Sync {
    /// Whether it is there. Without side effects.
    fn is_there(&self) -> bool;
    /// Begins a request of its own.
    ///
    /// # Errors
    /// What the kernel answered.
    fn open(&self) -> io::Result<Box<dyn TsmEntry>>;
    /// Where it was looked for, for messages.
    fn place(&self) -> String;
}

/// One request: attributes by their names.
pub trait TsmEntry {
    /// Reads an attribute whole; `None` where there is none of this name.
    ///
    /// # Errors
    /// What the kernel answered.
    fn read(&self, attribute: &str) -> io::Result<Option<Vec<u8>>>;
    /// Sets an attribute.
    ///
    /// # Errors
    /// What the kernel answered.
    fn write(&mut self, attribute: &str, bytes: &[u8]) -> io::Result<()>;
}

/// Which TEE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeKind {
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    SevSnp,
}

impl TeeKind {
    /// The kind of its evidence.
    pub const fn evidence(self) -> EvidenceKind {
        match self {
            Self::Tdx => EvidenceKind::Tdx,
            Self::SevSnp => EvidenceKind::SevSnp,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Tdx => "Intel TDX",
            Self::SevSnp => "AMD SEV-SNP",
        }
    }

    /// The guest device that the kernel's driver makes: there exactly when the machine is such a guest.
    pub(super) fn device(self) -> &'static Path {
        Path::new(match self {
            Self::Tdx => "/dev/tdx_guest",
            Self::SevSnp => "/dev/sev-guest",
        })
    }

    /// How the kernel's driver names itself in `provider`.
    const fn provider(self) -> &'static str {
        match self {
            Self::Tdx => "tdx_guest",
            Self::SevSnp => "sev_guest",
        }
    }

    /// Where the report data is: behind a quote's header in the TD report (Intel 348549), in the report (AMD 56860). A
    /// quote of version 5 has six bytes of type and size before the TD report; of another version nothing is known.
    fn report_data(self, evidence: &[u8]) -> Option<usize> {
        match (self, evidence.first_chunk().map(|version| u16::from_le_bytes(*version))) {
            (Self::Tdx, Some(4)) => Some(48 + 520),
            (Self::Tdx, Some(5)) => Some(48 + 6 + 520),
            (Self::Tdx, _) => None,
            (Self::SevSnp, _) => Some(0x50),
        }
    }
}

/// Asks for evidence over `report_data`, at a privilege level where one is given.
///
/// The attribute `generation` counts what was written to a request. It is read before and after: evidence that was made
/// while somebody else wrote to the request is not taken.
pub(super) fn quote(
    kind: TeeKind,
    tsm: &dyn TsmInterface,
    privilege_level: Option<u8>,
    report_data: &Digest64,
) -> Result<CpuEvidence, AttestError> {
    let failed = |why: String| AttestError::Failed { what: kind.name(), why };
    let kernel = |what: &str, error: io::Error| failed(format!("{what}: {error}"));
    let mut entry = tsm.open().map_err(|e| kernel("no request could be made", e))?;
    let text = |entry: &dyn TsmEntry, attribute: &str| {
        let read = entry.read(attribute).map_err(|e| kernel(attribute, e))?;
        let bytes = read.ok_or_else(|| failed(format!("the kernel has no attribute {attribute}")))?;
        Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
    };
    let generation = |entry: &dyn TsmEntry| {
        let text = text(entry, "generation")?;
        text.parse::<u64>().map_err(|_| failed(format!("generation is {text:?}, no number")))
    };

    let provider = text(&*entry, "provider")?;
    if provider != kind.provider() {
        return Err(AttestError::NotAvailable {
            what: kind.name(),
            why: format!("the kernel's provider is {provider:?} and not {:?}", kind.provider()),
        });
    }
    let before = generation(&*entry)?;
    if let Some(level) = privilege_level {
        entry.write("privlevel", level.to_string().as_bytes()).map_err(|e| kernel("privlevel", e))?;
    }
    entry.write("inblob", report_data.as_bytes()).map_err(|e| kernel("inblob", e))?;
    let expected = before.saturating_add(1).saturating_add(u64::from(privilege_level.is_some()));
    let evidence = entry.read("outblob").map_err(|e| kernel("outblob", e))?;
    let evidence = evidence.ok_or_else(|| failed("the kernel has no attribute outblob".to_owned()))?;
    let table = entry.read("auxblob").map_err(|e| kernel("auxblob", e))?.filter(|table| !table.is_empty());
    let after = generation(&*entry)?;
    if after != expected {
        return Err(failed(format!("the request was changed by somebody else: generation {after}, not {expected}")));
    }
    let at = kind.report_data(&evidence);
    let at = at.ok_or_else(|| failed("a quote that is of neither version 4 nor 5; update this attestor".to_owned()))?;
    if evidence.get(at..).and_then(|rest| rest.first_chunk()) != Some(report_data.as_bytes()) {
        return Err(failed("evidence that does not carry the report data that was asked for".to_owned()));
    }
    Ok(match kind {
        TeeKind::Tdx => CpuEvidence::Tdx { quote: Blob(evidence) },
        TeeKind::SevSnp => CpuEvidence::SevSnp { report: Blob(evidence), certificates: table.map(Blob) },
    })
}
