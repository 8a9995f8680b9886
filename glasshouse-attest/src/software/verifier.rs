//! The owner's side of [`SoftwareAttestor`](super::SoftwareAttestor).
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Assurance, Claims, EvidenceKind};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence, eat_nonce};
use glasshouse_core::fixed::Digest48;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::{Appraisal, Binding, ClaimSource, LabelledClaim, Verifier};

use super::harden::level_of;
use super::policy::SoftwarePolicy;
use super::token::Token;
use crate::json::Limits;
use crate::jws::{self, Key};

/// A token is about 1.3 KiB; its measurements are one array in another.
const LIMITS: Limits = Limits { bytes: 8 * 1024, depth: 4 };

/// Appraises self-reported evidence. Never gives more than [`Assurance::SelfReported`].
#[derive(Clone, Debug)]
pub struct SoftwareVerifier {
    policy: SoftwarePolicy,
}

impl SoftwareVerifier {
    /// A verifier for one policy.
    pub const fn new(policy: SoftwarePolicy) -> Self {
        Self { policy }
    }

    fn check_time(&self, token: &Token, now: UnixMillis) -> Result<(), Refusal> {
        let issued = UnixMillis(token.iat.saturating_mul(1000));
        let (age, ahead) = (self.policy.max_token_age(), self.policy.max_clock_ahead());
        if issued > now.after(ahead) {
            let expected = format!("iat at most {} s ahead of {now}", ahead.as_secs());
            return Err(Refusal::new(Code::TIMESTAMP_FUTURE, expected, issued));
        }
        if now > issued.after(age) {
            let expected = format!("iat at most {} s before {now}", age.as_secs());
            return Err(Refusal::new(Code::TIMESTAMP_STALE, expected, issued));
        }
        Ok(())
    }

    fn check_anti_debug(&self, claimed: &AntiDebug) -> Result<(), Refusal> {
        if claimed.profile != ANTI_DEBUG_PROFILE {
            let seen = format!("profile {:?}", claimed.profile.chars().take(64).collect::<String>());
            return Err(Refusal::new(Code::ANTI_DEBUG_DOWNGRADE, ANTI_DEBUG_PROFILE, seen));
        }
        if self.policy.dangerous_allow_anti_debug_off {
            return Ok(());
        }
        // Neither the level's name nor the checks under it count alone.
        let holds = claimed.level.min(level_of(claimed));
        let minimum = self.policy.minimum_anti_debug.level();
        if holds >= minimum {
            return Ok(());
        }
        let code = if holds == AntiDebugLevel::Off { Code::ANTI_DEBUG_DISABLED } else { Code::ANTI_DEBUG_DOWNGRADE };
        Err(Refusal::new(code, format!("anti-debug level {minimum} or more"), describe(claimed, holds)))
    }
}

impl Verifier for SoftwareVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Software
    }

    fn policy_digest(&self) -> Digest48 {
        self.policy.digest()
    }

    fn appraise(
        &self,
        cpu: &CpuEvidence,
        gpus: &GpuEvidence,
        binding: &Binding<'_>,
        now: UnixMillis,
    ) -> Result<Appraisal, Refusal> {
        let CpuEvidence::Software { jwt, public_key } = cpu else {
            return Err(Refusal::new(
                Code::EVIDENCE_KIND_UNSUPPORTED,
                "a software token",
                "another kind of CPU evidence",
            ));
        };
        if !gpus.0.is_empty() {
            let seen = format!("{} GPU reports, which bind nothing without a CPU quote", gpus.0.len());
            return Err(Refusal::new(Code::EVIDENCE_KIND_UNSUPPORTED, "no GPU evidence", seen));
        }
        if binding.reference.policy_digest != self.policy_digest() {
            let seen = binding.reference.policy_digest;
            return Err(Refusal::new(Code::POLICY_DIGEST_MISMATCH, self.policy_digest(), seen));
        }
        let payload = jws::verify(jwt, &Key::Ed25519(*public_key), LIMITS)?;
        let token = parse(&payload)?;
        if token.eat_nonce != eat_nonce(binding.report_data) {
            let seen = "the nonce of other report data";
            return Err(Refusal::new(Code::REPORT_DATA_MISMATCH, "eat_nonce of this session's report data", seen));
        }
        self.check_time(&token, now)?;
        let expected = Token::new(binding.claims, binding.report_data, now);
        if let Some(claim) = token.first_difference(&expected) {
            let seen = format!("another {claim} in the token");
            return Err(Refusal::new(Code::JWT_CLAIM_MISMATCH, format!("{claim} as in the evidence"), seen));
        }
        self.check_anti_debug(&binding.claims.anti_debug)?;
        Ok(Appraisal {
            assurance: Assurance::SelfReported,
            claims: labelled(binding.claims, &token),
            relaxations: self.policy.relaxations(),
        })
    }
}

fn parse(payload: &[u8]) -> Result<Token, Refusal> {
    let refused = |seen: &str| Refusal::new(Code::JWT_MALFORMED, "the claims of a software token, and no others", seen);
    let token: Token = serde_json::from_slice(payload).map_err(|_| refused("other claims, or of other types"))?;
    // One spelling per token: no second form in which the same bytes could be read to mean something else.
    if serde_json::to_vec(&token).ok().as_deref() != Some(payload) {
        return Err(refused("another spelling of them"));
    }
    Ok(token)
}

fn describe(claimed: &AntiDebug, holds: AntiDebugLevel) -> String {
    let AntiDebug { level, not_dumpable, no_core_files, no_tracer, no_preload, ptrace_scope, .. } = claimed;
    let scope = ptrace_scope.map_or("no Yama".to_owned(), |scope| format!("ptrace_scope {scope}"));
    format!(
        "{holds} (claimed {level}; not_dumpable {not_dumpable}, no_core_files {no_core_files}, no_tracer {no_tracer}, \
         no_preload {no_preload}, {scope})"
    )
}

/// Everything here rests on the runtime's word.
fn labelled(claims: &Claims, token: &Token) -> Vec<LabelledClaim> {
    let Claims { kind, image_digest, container, runtime_measurement, anti_debug, state } = claims;
    let mut all = vec![
        ("evidence-kind", kind.to_string()),
        ("container-id", container.value.clone()),
        ("container-source", container.source.clone()),
        ("runtime-measurement", runtime_measurement.to_string()),
        ("anti-debug-profile", anti_debug.profile.clone()),
        ("anti-debug-level", anti_debug.level.to_string()),
        ("anti-debug-not-dumpable", anti_debug.not_dumpable.to_string()),
        ("anti-debug-no-core-files", anti_debug.no_core_files.to_string()),
        ("anti-debug-no-tracer", anti_debug.no_tracer.to_string()),
        ("anti-debug-no-preload", anti_debug.no_preload.to_string()),
        ("runtime-state", state.to_string()),
        ("token-issued-at", UnixMillis(token.iat.saturating_mul(1000)).to_string()),
    ];
    all.extend(image_digest.map(|digest| ("image-digest", digest.to_string())));
    all.extend(anti_debug.ptrace_scope.map(|scope| ("anti-debug-ptrace-scope", scope.to_string())));
    all.into_iter()
        .map(|(name, value)| LabelledClaim { name: name.to_owned(), value, source: ClaimSource::RuntimeAsserted })
        .collect()
}

#[cfg(test)]
#[path = "verifier_tests.rs"]
mod tests;
