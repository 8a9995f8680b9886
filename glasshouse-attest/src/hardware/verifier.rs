use std::sync::Arc;

use glasshouse_core::claims::{Assurance, Claims, EvidenceKind};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::Digest48;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::{Appraisal, Binding, ClaimSource, LabelledClaim, Verifier};
use glasshouse_core::transcript::Transcript;

use super::codes::{self, refuse};
use super::collateral::HardwareCollateral;
use super::cpu::Cpu;
use super::gpu::Gpus;
use super::policy::{HardwarePolicy, MinimumAssurance, PolicyError};
use super::roots::HardwareRoots;

/// Appraises evidence of a CPU's TEE and of confidential GPUs by one policy, under one set of roots.
#[derive(Clone, Debug)]
pub struct HardwareVerifier {
    policy: HardwarePolicy,
    roots: HardwareRoots,
    collateral: Arc<HardwareCollateral>,
    digest: Digest48,
}

impl HardwareVerifier {
    /// A verifier. [`HardwareRoots::vendors`] are the roots of real hardware.
    ///
    /// # Errors
    /// [`PolicyError`] for a policy that can accept nothing at the assurance that it asks for.
    pub fn new(
        policy: HardwarePolicy,
        roots: HardwareRoots,
        collateral: impl Into<Arc<HardwareCollateral>>,
    ) -> Result<Self, PolicyError> {
        policy.check()?;
        // Members in the order of the types and maps in the order of their keys: one policy has one JSON. It always has
        // one: it holds text, numbers and maps with text keys.
        let json = serde_json::to_vec(&policy).unwrap_or_default();
        let digest = Transcript::new("gh/policy/hardware/1").lp(json).lp(roots.digest()).sha384();
        Ok(Self { policy, roots, collateral: collateral.into(), digest })
    }

    /// The policy.
    pub fn policy(&self) -> &HardwarePolicy {
        &self.policy
    }
}

impl Verifier for HardwareVerifier {
    fn kind(&self) -> EvidenceKind {
        self.policy.kind()
    }

    /// SHA-384 over `"gh/policy/hardware/1"`, LP of the policy's JSON and LP of a digest of the roots.
    fn policy_digest(&self) -> Digest48 {
        self.digest
    }

    fn appraise(
        &self,
        cpu: &CpuEvidence,
        gpus: &GpuEvidence,
        binding: &Binding<'_>,
        now: UnixMillis,
    ) -> Result<Appraisal, Refusal> {
        if binding.reference.policy_digest != self.digest {
            let (expected, seen) = (self.digest, binding.reference.policy_digest);
            return Err(Refusal::new(Code::POLICY_DIGEST_MISMATCH, expected, seen));
        }
        let (roots, collateral, at) = (&self.roots, &*self.collateral, self.policy.dangerous_at.unwrap_or(now));
        let appraisal = Cpu { roots, collateral, report_data: binding.report_data, at };
        let mut claims = appraisal.appraise(&self.policy.cpu, cpu)?;
        let devices = Gpus { roots, collateral, nonce: binding.gpu_nonce, at };
        let devices = devices.appraise(&self.policy.gpu, gpus)?;
        if self.policy.minimum_assurance == MinimumAssurance::CpuTeeGpuCc && !devices.measured_gpu {
            return Err(refuse(codes::GPU_MISSING, "at least one confidential GPU that attests", "none"));
        }
        let assurance = if devices.measured_gpu { Assurance::CpuTeeGpuCc } else { Assurance::CpuTee };
        claims.extend(devices.claims);
        claims.extend(asserted(binding.claims));
        Ok(Appraisal { assurance, claims, relaxations: self.policy.relaxations() })
    }
}

/// What the runtime says of itself: as far as the measured guest can be believed, and no hardware signed it apart.
fn asserted(claims: &Claims) -> Vec<LabelledClaim> {
    let Claims { kind, image_digest, container, runtime_measurement, anti_debug, state } = claims;
    let mut all = vec![
        ("evidence-kind", kind.to_string()),
        ("container-id", container.value.clone()),
        ("container-source", container.source.clone()),
        ("runtime-measurement", runtime_measurement.to_string()),
        ("anti-debug-level", anti_debug.level.to_string()),
        ("runtime-state", state.to_string()),
    ];
    all.extend(image_digest.map(|digest| ("image-digest", digest.to_string())));
    let labelled = |(name, value): (&str, String)| LabelledClaim {
        name: name.to_owned(),
        value,
        source: ClaimSource::RuntimeAsserted,
    };
    all.into_iter().map(labelled).collect()
}
