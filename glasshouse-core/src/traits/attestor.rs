use crate::claims::Claims;
use crate::evidence::{CpuEvidence, GpuEvidence};
use crate::fixed::{Digest32, Digest64};

/// Why no evidence could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttestError {
    /// The machine has no such hardware or interface; found without side effects.
    #[error("{what} is not available here: {why}")]
    NotAvailable {
        /// The interface.
        what: &'static str,
        /// What was looked for.
        why: String,
    },
    /// Something that must be measured could not be read.
    #[error("cannot measure {what}: {why}; run the agent where this can be read")]
    Unreadable {
        /// What was to be measured.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A protection could not be applied, or did not hold when read back.
    #[error("anti-debug {check} does not hold: {why}")]
    NotHardened {
        /// The check.
        check: &'static str,
        /// What was read back.
        why: String,
    },
    /// The device or kernel made no usable evidence.
    #[error("{what} made no evidence: {why}")]
    Failed {
        /// The interface.
        what: &'static str,
        /// What it answered.
        why: String,
    },
}

/// Makes evidence on the allocation.
///
/// # Contract
/// - `measure` reads the machine at each call and returns what it read, never what was configured.
/// - `quote` binds all 64 bytes of `report_data`; equal inputs may give different bytes, but always verifiable ones.
/// - `gpu_evidence` answers with an empty list where there is no GPU, with [`AttestError::NotAvailable`] where there is one
///   whose evidence would be worth nothing (its confidential computing is off or unknown, or developer tools may read its
///   memory), saying which and why, and with another error when one could attest and does not answer. Every report in the
///   answer carries the nonce given.
/// - `measure().kind` is the kind of the evidence that `quote` returns.
/// - No call has side effects beyond making the evidence; none blocks longer than the hardware does.
///
/// [`contract::attestor`](crate::contract::attestor) checks an implementation.
pub trait Attestor: Send + Sync {
    /// What this machine and program are.
    fn measure(&self) -> Result<Claims, AttestError>;

    /// Evidence of every confidential GPU and switch over one nonce. [`AttestError::NotAvailable`] ends a session whose owner
    /// asks for confidential GPUs; any other goes on without them.
    fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError>;

    /// The CPU's quote over `report_data`. Called last.
    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError>;
}
