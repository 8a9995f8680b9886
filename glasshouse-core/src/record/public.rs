//! What of a record may be published: an allow-list by type.
//!
//! No field here can hold bytes, a URL, a host name or free text of a message. Texts are [`Label`]s that the owner or
//! the workload chose as names; everything else is a number, a digest, or one of a fixed set of words.

use serde::Serialize;

use super::session::VerifiedSession;
use super::verify::{Signer, VerifiedRecord};
use crate::channel::{Outcome, Phase};
use crate::claims::{AntiDebugLevel, Assurance, EvidenceKind, RuntimeState};
use crate::clock::UnixMillis;
use crate::fixed::{Digest32, Digest48, Nonce32, PublicKey32};
use crate::overhead::{Attestation, Cleanup, Exclusion, Figure, IntervalMethod, Label, Order, Row, Status};
use crate::refusal::Code;
use crate::refusal::one_line;
use crate::traits::{Device, Unit};

/// The publishable part of a verified record. It is not signed: whoever wants proof needs the record.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicRecord {
    /// The run.
    pub run: Nonce32,
    /// Who signed the record, and whether the key was checked.
    pub signer: PublicSigner,
    /// When the record was made, by the owner's clock.
    pub created_at: UnixMillis,
    /// Sessions with a verdict.
    pub sessions: Vec<PublicSession>,
    /// Codes of the sessions that were refused; only codes that this crate knows.
    pub refused: Vec<Code>,
    /// Overhead rows.
    pub rows: Vec<PublicRow>,
    /// What became of the allocation.
    pub cleanup: Option<Cleanup>,
}

/// Who signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicSigner {
    /// The key in the record.
    pub key: PublicKey32,
    /// Whether the verifier was given that key as trusted.
    pub trusted: bool,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicSession {
    /// Its id.
    pub session: Nonce32,
    /// When it was challenged.
    pub challenged_at: UnixMillis,
    /// When it was appraised.
    pub verdict_at: UnixMillis,
    /// The kind of evidence.
    pub evidence_kind: EvidenceKind,
    /// How far the appraisal can be believed.
    pub assurance: Assurance,
    /// T.
    pub t: Digest48,
    /// The package.
    pub package: Digest48,
    /// Its manifest.
    pub manifest: Digest48,
    /// The executable.
    pub runtime_measurement: Digest32,
    /// The image.
    pub image: Option<Digest32>,
    /// The anti-debug level.
    pub anti_debug: AntiDebugLevel,
    /// Number of events.
    pub events: u64,
    /// Phases, microseconds after the first.
    pub phases: Vec<PublicPhase>,
    /// Artifacts.
    pub artifacts: Vec<PublicArtifact>,
    /// Bytes that the receipt says were wiped.
    pub wiped_bytes: Option<u64>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// A phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicPhase {
    /// Which.
    pub phase: Phase,
    /// Microseconds after the first phase.
    pub micros: u64,
}

/// An artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicArtifact {
    /// Its file name: the name that the workload gave it.
    pub name: Label,
    /// What it hashes to.
    pub sha256: Digest32,
    /// Its size.
    pub bytes: u64,
}

/// The outcome of an appraisal; "verified" comes with its assurance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "attestation", rename_all = "kebab-case")]
pub enum PublicAttestation {
    /// Accepted.
    Verified {
        /// How far it can be believed.
        assurance: Assurance,
    },
    /// Refused.
    Refused,
    /// None was seen.
    Missing,
}

/// An overhead row under its published names, without the machine and the GPU's serial.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicRow {
    /// The provider's stable name.
    pub provider: Label,
    /// The GPU's model.
    pub gpu_model: Option<Label>,
    /// Its driver.
    pub gpu_driver: Option<Label>,
    /// Where it computed.
    pub device: Device,
    /// The workload.
    pub workload: Label,
    /// What a unit is.
    pub unit: Unit,
    /// Whether all ran on one instance.
    pub same_instance: bool,
    /// Seconds a segment.
    pub duration_sec: Figure,
    /// The order.
    pub order: Order,
    /// Compared pairs; 0 when excluded.
    pub pairs: usize,
    /// Absent when excluded.
    pub protected_epochs_per_sec: Option<Figure>,
    /// Absent when excluded.
    pub raw_epochs_per_sec: Option<Figure>,
    /// Absent when excluded.
    pub overhead_pct: Option<Figure>,
    /// Its 95 % interval.
    pub interval_pct: Option<(Figure, Figure)>,
    /// How that was made.
    pub method: IntervalMethod,
    /// With its assurance.
    #[serde(flatten)]
    pub attestation: PublicAttestation,
    /// How the runtimes ended.
    pub runtime_state: Option<RuntimeState>,
    /// What became of the allocation.
    pub cleanup: Cleanup,
    /// What the duration lets one conclude.
    pub status: Status,
    /// Whether it counts.
    pub valid: bool,
    /// Why not.
    pub reasons: Vec<Exclusion>,
}

impl VerifiedRecord {
    /// The publishable part.
    pub fn public_view(&self) -> PublicRecord {
        let (key, trusted) = match self.signer {
            Signer::Trusted(key) => (key, true),
            Signer::Unknown(key) => (key, false),
        };
        let known = |code: &Code| Code::ALL.iter().find(|known| *known == code).cloned();
        PublicRecord {
            run: self.record.run,
            signer: PublicSigner { key, trusted },
            created_at: self.record.created_at,
            sessions: self.sessions.iter().map(session).collect(),
            refused: self.record.refused.iter().filter_map(|r| known(&r.refusal.code)).collect(),
            rows: self.record.rows.iter().map(row).collect(),
            cleanup: self.record.cleanup.as_ref().map(|c| c.outcome),
        }
    }
}

fn session(s: &VerifiedSession) -> PublicSession {
    let first = s.events.phases.iter().map(|(_, at)| *at).min().unwrap_or_default();
    let phase = |(phase, at): &(Phase, u64)| PublicPhase { phase: *phase, micros: at.saturating_sub(first) };
    let wiped =
        |r: &crate::traits::Receipt| r.regions.iter().fold(0u64, |sum, region| sum.saturating_add(region.bytes));
    PublicSession {
        session: s.id(),
        challenged_at: s.challenge.issued_at,
        verdict_at: s.verdict.at,
        evidence_kind: s.evidence.claims.kind,
        assurance: s.verdict.appraisal.assurance,
        t: s.t,
        package: s.evidence.package_digest,
        manifest: s.evidence.manifest_digest,
        runtime_measurement: s.evidence.claims.runtime_measurement,
        image: s.evidence.claims.image_digest,
        anti_debug: s.evidence.claims.anti_debug.level,
        events: s.events.count,
        phases: s.events.phases.iter().map(phase).collect(),
        artifacts: s.events.artifacts.iter().map(|(name, sha256, bytes)| artifact(name, *sha256, *bytes)).collect(),
        wiped_bytes: s.events.receipt.as_ref().map(wiped),
        outcome: s.events.outcome,
    }
}

/// A name that is no plain file name is not published.
fn artifact(name: &str, sha256: Digest32, bytes: u64) -> PublicArtifact {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = if name.chars().all(plain) { Label::lossy(&one_line(name)) } else { Label::lossy("unnamed") };
    PublicArtifact { name, sha256, bytes }
}

fn row(row: &Row) -> PublicRow {
    let (facts, figures) = (row.facts(), row.figures());
    PublicRow {
        provider: facts.provider.clone(),
        gpu_model: facts.gpu.as_ref().map(|g| g.model.clone()),
        gpu_driver: facts.gpu.as_ref().map(|g| g.driver.clone()),
        device: facts.device,
        workload: facts.workload.clone(),
        unit: facts.unit,
        same_instance: facts.same_instance,
        duration_sec: facts.duration_sec,
        order: facts.order,
        pairs: figures.map_or(0, |f| f.pairs.len()),
        protected_epochs_per_sec: figures.map(|f| f.protected_rate),
        raw_epochs_per_sec: figures.map(|f| f.raw_rate),
        overhead_pct: figures.map(|f| f.overhead_pct),
        interval_pct: figures.and_then(|f| f.interval_pct),
        method: figures.map_or(IntervalMethod::None, |f| f.method),
        attestation: match &facts.attestation {
            Attestation::Verified(assurance) => PublicAttestation::Verified { assurance: *assurance },
            Attestation::Refused(_) => PublicAttestation::Refused,
            Attestation::Missing => PublicAttestation::Missing,
        },
        runtime_state: facts.runtime_state,
        cleanup: facts.cleanup,
        status: row.status(),
        valid: row.is_valid(),
        reasons: match row.outcome() {
            crate::overhead::Outcome::Counted(_) => Vec::new(),
            crate::overhead::Outcome::Excluded { reasons, .. } => reasons.clone(),
        },
    }
}
