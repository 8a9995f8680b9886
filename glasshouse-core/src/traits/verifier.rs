use serde::{Deserialize, Serialize};

use crate::claims::{Assurance, Claims, EvidenceKind, ReferenceValues};
use crate::clock::UnixMillis;
use crate::evidence::{CpuEvidence, GpuEvidence};
use crate::fixed::{Digest32, Digest48, Digest64};
use crate::refusal::Refusal;

/// What the evidence must be bound to. Computed by the gate from its own values, never taken from a message.
#[derive(Clone, Copy, Debug)]
pub struct Binding<'a> {
    /// The nonce that every GPU report must carry.
    pub gpu_nonce: &'a Digest32,
    /// The bytes that the CPU quote must carry.
    pub report_data: &'a Digest64,
    /// What the owner expects.
    pub reference: &'a ReferenceValues,
    /// What the runtime says of itself. The gate has already compared it with `reference`.
    pub claims: &'a Claims,
}

/// On whose word a claim rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimSource {
    /// Signed by hardware, verified to the vendor's root.
    HardwareVerified,
    /// The runtime says so.
    RuntimeAsserted,
    /// The owner says so.
    OwnerAsserted,
    /// The provider says so.
    ProviderAsserted,
}

/// One claim with its source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelledClaim {
    /// What is claimed, in lower-case words joined by hyphens.
    pub name: String,
    /// Its value in text.
    pub value: String,
    /// On whose word.
    pub source: ClaimSource,
}

/// The outcome of a successful appraisal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appraisal {
    /// How far it can be believed.
    pub assurance: Assurance,
    /// What was established, claim by claim.
    pub claims: Vec<LabelledClaim>,
    /// Every relaxation of the policy that was in force (`dangerous_…`, `allow_…`); printed with the verdict.
    pub relaxations: Vec<String>,
}

/// Appraises evidence at the owner.
///
/// # Contract
/// - Takes the time as an argument and reads no clock, no network and no file while appraising.
/// - Accepts only evidence that carries `binding.report_data` (and, with GPUs, `binding.gpu_nonce`) in full.
/// - Never returns an assurance above what verified claims support; `CpuTee` and above need launch measurements.
/// - Refuses with a stable code; never panics, whatever the evidence holds.
/// - `policy_digest` covers everything that changes the outcome, collateral aside.
///
/// [`contract::verifier`](crate::contract::verifier) checks an implementation.
pub trait Verifier: Send + Sync {
    /// The kind of evidence that this verifier appraises.
    fn kind(&self) -> EvidenceKind;

    /// SHA-384 over the policy.
    fn policy_digest(&self) -> Digest48;

    /// Appraises, or refuses.
    fn appraise(
        &self,
        cpu: &CpuEvidence,
        gpus: &GpuEvidence,
        binding: &Binding<'_>,
        now: UnixMillis,
    ) -> Result<Appraisal, Refusal>;
}
