//! One session, followed again from challenge to terminal event.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use super::model::{RawSegmentRecord, RecordedEvent, SessionRecord};
use crate::channel::{
    ChainVerifier, EventBody, EventHeader, Interval, Outcome, Phase, check_body, genesis, raw_genesis,
};
use crate::evidence::{gpu_nonce, report_data};
use crate::fixed::{Digest32, Digest48, Digest64, Nonce32, PublicKey32};
use crate::gate::check_claims;
use crate::protocol::{
    Challenge, EvidenceMessage, SUITES, Signed, TranscriptFields, VERSION, Verdict, transcript_hash,
};
use crate::refusal::{Code, Refusal};
use crate::traits::{Binding, ClaimSource, Receipt, Verifier};

/// A session whose every message was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedSession {
    /// As signed by the gate.
    pub challenge: Challenge,
    /// As signed by the runtime.
    pub evidence: EvidenceMessage,
    /// As signed by the gate.
    pub verdict: Verdict,
    /// T, recomputed.
    pub t: Digest48,
    /// What the CPU's quote has to carry, recomputed. Whether it does is for a verifier to say.
    pub report_data: Digest64,
    /// Whether the evidence was appraised again, by a verifier that was given.
    pub appraised_again: bool,
    /// What the runtime said.
    pub events: SessionEvents,
}

impl VerifiedSession {
    /// The session's id.
    pub const fn id(&self) -> Nonce32 {
        self.challenge.session
    }
}

/// What a chain of events says, in the runtime's words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionEvents {
    /// How many there are.
    pub count: u64,
    /// Phases with the boot clock's microseconds at which they were entered, in order.
    pub phases: Vec<(Phase, u64)>,
    /// Warm-up: units and the weights after them.
    pub warm: Option<(u64, Digest32)>,
    /// Steady state: units and time, and the weights at its end.
    pub measured: Option<(Interval, Digest32)>,
    /// The device's model.
    pub device: Option<String>,
    /// Artifacts: name, SHA-256, size.
    pub artifacts: Vec<(String, Digest32, u64)>,
    /// The receipt.
    pub receipt: Option<Receipt>,
    /// How it ended; absent when the end was not seen.
    pub outcome: Option<Outcome>,
}

/// Follows one session again.
pub(super) fn verify_session(record: &SessionRecord, gate: &PublicKey32) -> Result<VerifiedSession, Refusal> {
    let challenge = record.challenge.verify(gate)?;
    if challenge.gate_key != *gate {
        return Err(Refusal::new(Code::GATE_KEY_FOREIGN, gate.short(), challenge.gate_key.short()));
    }
    if (challenge.version.as_str(), challenge.suites.as_str()) != (VERSION, SUITES) {
        return Err(Refusal::new(Code::MESSAGE_MALFORMED, format!("{VERSION} with {SUITES}"), "other names"));
    }
    let evidence = verify_evidence(record, &challenge)?;
    let t = transcript_hash(&TranscriptFields {
        challenge: &record.challenge.digest(),
        suites: SUITES,
        hpke_key: &evidence.hpke_key,
        event_key: &evidence.event_key,
        package_digest: &evidence.package_digest,
        manifest_digest: &evidence.manifest_digest,
        claims: &evidence.claims,
        timestamp: evidence.timestamp,
        minimum_assurance: challenge.minimum_assurance,
    });
    same(Code::COMPOSITE_HASH_MISMATCH, &t, &evidence.t)?;
    let verdict = verify_verdict(record, &challenge, &evidence, &t, gate)?;
    let chain = ChainVerifier::new(challenge.session, evidence.event_key, genesis(&t, &record.verdict));
    let events = follow(chain, &record.events)?;
    let report_data = report_data(&t, &evidence.gpus.digest());
    Ok(VerifiedSession { challenge, evidence, verdict, t, report_data, appraised_again: false, events })
}

/// Follows a raw segment's chain.
pub(super) fn verify_raw(record: &RawSegmentRecord) -> Result<SessionEvents, Refusal> {
    let chain = ChainVerifier::new(record.session, record.event_key, raw_genesis(&record.session));
    follow(chain, &record.events)
}

/// Appraises the evidence again, at the time of the verdict, with a verifier of the same policy.
pub(super) fn appraise_again(
    session: &mut VerifiedSession,
    record: &SessionRecord,
    verifier: &dyn Verifier,
    at: crate::clock::UnixMillis,
) -> Result<(), Refusal> {
    if verifier.kind() != session.evidence.claims.kind || verifier.policy_digest() != session.challenge.policy_digest {
        return Ok(());
    }
    let binding = Binding {
        gpu_nonce: &gpu_nonce(&session.t),
        report_data: &session.report_data,
        reference: &record.reference,
        claims: &session.evidence.claims,
    };
    let appraisal = verifier.appraise(&session.evidence.cpu, &session.evidence.gpus, &binding, at)?;
    if appraisal.assurance < session.verdict.appraisal.assurance {
        let (expected, seen) = (session.verdict.appraisal.assurance, appraisal.assurance);
        return Err(Refusal::new(Code::ASSURANCE_TOO_LOW, expected, seen));
    }
    session.appraised_again = true;
    Ok(())
}

fn verify_evidence(record: &SessionRecord, challenge: &Challenge) -> Result<EvidenceMessage, Refusal> {
    let named: EvidenceMessage = record.evidence.peek()?;
    let evidence = record.evidence.verify(&named.event_key)?;
    let reference = &record.reference;
    if evidence.session != challenge.session {
        return Err(Refusal::new(Code::SESSION_MISMATCH, challenge.session.short(), evidence.session.short()));
    }
    if evidence.nonce != challenge.nonce {
        return Err(Refusal::new(Code::NONCE_UNKNOWN, challenge.nonce.short(), evidence.nonce.short()));
    }
    same(Code::COMPOSITE_HASH_MISMATCH, &record.challenge.digest(), &evidence.challenge)?;
    same(Code::POLICY_DIGEST_MISMATCH, &challenge.policy_digest, &evidence.policy_digest)?;
    same(Code::POLICY_DIGEST_MISMATCH, &challenge.policy_digest, &reference.policy_digest)?;
    if reference.minimum_assurance != challenge.minimum_assurance {
        return Err(Refusal::new(Code::ASSURANCE_TOO_LOW, challenge.minimum_assurance, reference.minimum_assurance));
    }
    check_claims(&evidence.claims, reference)?;
    Ok(evidence)
}

fn verify_verdict(
    record: &SessionRecord,
    challenge: &Challenge,
    evidence: &EvidenceMessage,
    t: &Digest48,
    gate: &PublicKey32,
) -> Result<Verdict, Refusal> {
    let signed: &Signed<Verdict> = &record.verdict;
    let verdict = signed.verify(gate).map_err(|refusal| match refusal.code == Code::SIGNATURE_INVALID {
        true => Refusal::new(Code::VERDICT_FORGED, "a verdict signed by the gate", "another signature"),
        false => refusal,
    })?;
    if verdict.session != challenge.session {
        return Err(Refusal::new(Code::SESSION_MISMATCH, challenge.session.short(), verdict.session.short()));
    }
    same(Code::RELEASE_FOREIGN, t, &verdict.t)?;
    same(Code::RELEASE_FOREIGN, &record.evidence.digest(), &verdict.evidence)?;
    same(Code::PACKAGE_DIGEST_MISMATCH, &verdict.lease.key_id, &evidence.package_digest)?;
    let assurance = verdict.appraisal.assurance;
    if assurance < challenge.minimum_assurance {
        return Err(Refusal::new(Code::ASSURANCE_TOO_LOW, challenge.minimum_assurance, assurance));
    }
    if verdict.at.is_set_back_from(challenge.issued_at) {
        let expected = format!("a verdict after {}", challenge.issued_at);
        return Err(Refusal::new(Code::CLOCK_SET_BACK, expected, verdict.at));
    }
    Ok(verdict)
}

fn follow(mut chain: ChainVerifier, events: &[RecordedEvent]) -> Result<SessionEvents, Refusal> {
    let mut said = SessionEvents::default();
    let mut boot = 0;
    for event in events {
        let header: EventHeader = chain.accept_header(&event.header)?;
        if header.boot_micros < boot {
            return Err(Refusal::new(Code::CLOCK_SET_BACK, format!("a boot clock from {boot} on"), header.boot_micros));
        }
        boot = header.boot_micros;
        match &event.body {
            Some(body) => said.take(check_body(&header, &body.0)?),
            // A terminal event says how the run ended: without its body that is not known.
            None if header.terminal => {
                return Err(Refusal::new(Code::CHAIN_BODY, "the terminal event's body", "none"));
            }
            None => {}
        }
    }
    said.count = chain.len();
    Ok(said)
}

impl SessionEvents {
    fn take(&mut self, body: EventBody) {
        match body {
            EventBody::Phase { phase, boot_micros } => self.phases.push((phase, boot_micros)),
            EventBody::Warm { units, weights } => self.warm = Some((units, weights)),
            EventBody::Measured { total, weights, .. } => self.measured = Some((total, weights)),
            EventBody::Device { model, .. } => self.device = Some(model),
            EventBody::Artifact { name, sha256, bytes, .. } => self.artifacts.push((name, sha256, bytes)),
            EventBody::Zeroized { receipt } => self.receipt = Some(receipt),
            EventBody::End { outcome, .. } => self.outcome = Some(outcome),
            EventBody::Progress { .. } | EventBody::Failed { .. } => {}
        }
    }

    /// Steady-state rate, units per second.
    pub fn rate(&self) -> Option<f64> {
        let (total, _) = self.measured?;
        (total.micros > 0).then(|| total.units as f64 / (total.micros as f64 / 1e6))
    }
}

/// A claim of an appraisal that says more than its assurance allows.
pub(super) fn mislabelled(session: &VerifiedSession) -> Option<&str> {
    let appraisal = &session.verdict.appraisal;
    let below_tee = appraisal.assurance < crate::claims::Assurance::CpuTee;
    let bad = |c: &&crate::traits::LabelledClaim| below_tee && c.source == ClaimSource::HardwareVerified;
    appraisal.claims.iter().find(bad).map(|c| c.name.as_str())
}

fn same(code: Code, expected: &Digest48, seen: &Digest48) -> Result<(), Refusal> {
    match expected == seen {
        true => Ok(()),
        false => Err(Refusal::new(code, expected.short(), seen.short())),
    }
}
