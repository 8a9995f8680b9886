//! What a record holds.

use serde::{Deserialize, Serialize};

use crate::channel::{ChainVerifier, Event, EventBody, EventHeader, OwnerChannel};
use crate::claims::ReferenceValues;
use crate::clock::UnixMillis;
use crate::fixed::{Blob, Nonce32, PublicKey32};
use crate::gate::SessionRecordParts;
use crate::overhead::{Cleanup, Figure, Label, Row};
use crate::protocol::{Challenge, EvidenceMessage, Release, Signed, Verdict, decode};
use crate::refusal::Refusal;
use crate::traits::LabelledClaim;

/// What a record of this version says in `version`.
pub const VERSION: &str = "glasshouse/evidence/1";

/// Everything that a run leaves behind. Signed by the gate with [`EvidenceRecord::sign`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct EvidenceRecord {
    /// [`VERSION`].
    pub version: String,
    /// The run; overhead rows carry the same.
    pub run: Nonce32,
    /// The gate's key, which signs the record, its challenges and its verdicts.
    pub signer: PublicKey32,
    /// The owner's wall clock when the record was made.
    pub created_at: UnixMillis,
    /// Sessions that had a verdict, in the order they ran.
    pub sessions: Vec<SessionRecord>,
    /// Sessions that were refused.
    pub refused: Vec<RefusedSession>,
    /// Raw segments, for comparison; nothing about them is attested.
    pub raw_segments: Vec<RawSegmentRecord>,
    /// Overhead rows of this run.
    pub rows: Vec<Row>,
    /// That the allocation is gone; absent when nobody looked.
    pub cleanup: Option<CleanupProof>,
    /// The owner's moments, in order.
    pub timeline: Vec<Moment>,
    /// What the owner or the provider says beyond that. Only those two may be named as sources here.
    pub claims: Vec<LabelledClaim>,
}

/// One session, in the bytes that were signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct SessionRecord {
    /// Signed by the gate.
    pub challenge: Signed<Challenge>,
    /// Raw evidence and collateral, signed by the runtime.
    pub evidence: Signed<EvidenceMessage>,
    /// Verdict and lease, signed by the gate. The sealed key beside it is in no record.
    pub verdict: Signed<Verdict>,
    /// What the owner expected; nobody else vouches for these values.
    pub reference: ReferenceValues,
    /// Every event header, with the bodies that carry claims.
    pub events: Vec<RecordedEvent>,
}

/// An event header as signed, and its body where the body carries a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordedEvent {
    /// Signed with the runtime's event key.
    pub header: Signed<EventHeader>,
    /// The body's bytes; absent for progress, whose hash still stands in the header.
    pub body: Option<Blob>,
}

/// A session that got nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefusedSession {
    /// Its id.
    pub session: Nonce32,
    /// The owner's wall clock.
    pub at: UnixMillis,
    /// Why.
    pub refusal: Refusal,
}

/// A raw segment: its events are signed with a key that owner and allocation share, so they stop accidents only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RawSegmentRecord {
    /// Its session.
    pub session: Nonce32,
    /// The key that its events are signed with.
    pub event_key: PublicKey32,
    /// Every event header, with the bodies that carry claims.
    pub events: Vec<RecordedEvent>,
}

/// How the owner saw that the allocation is gone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CleanupProof {
    /// The provider's stable name.
    pub provider: Label,
    /// The allocation, as the provider names it. Never published.
    pub allocation: String,
    /// When its end was asked for; absent when it was not.
    pub requested_at: Option<UnixMillis>,
    /// Each time that the provider said it does not exist.
    pub absent_at: Vec<UnixMillis>,
    /// What that comes to: observed takes two sightings of absence after the request.
    pub outcome: Cleanup,
    /// What was billed, when the provider told.
    pub spend: Option<BilledSpend>,
}

/// What was billed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BilledSpend {
    /// US dollars.
    pub dollars: Figure,
    /// When it was read.
    pub read_at: UnixMillis,
    /// Whether the provider may still add to it.
    pub is_final: bool,
}

/// One moment of the owner's timeline.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// What happened.
    pub name: Label,
    /// In which session, if in one.
    pub session: Option<Nonce32>,
    /// Microseconds since the run began, on the owner's monotonic clock.
    pub micros: u64,
}

impl SessionRecord {
    /// A session out of what the gate kept of it. The sealed key and progress bodies stay behind.
    ///
    /// # Errors
    /// A refusal when the kept bytes cannot be read.
    pub fn from_parts(parts: &SessionRecordParts<'_>, reference: ReferenceValues) -> Result<Self, Refusal> {
        let release: Release = decode("release", &parts.release.0, Release::LIMIT)?;
        Ok(Self {
            challenge: Signed::from_bytes(&parts.challenge.0)?,
            evidence: Signed::from_bytes(&parts.evidence.0)?,
            verdict: release.verdict,
            reference,
            events: record_events(parts.channel.events()),
        })
    }
}

impl RawSegmentRecord {
    /// A raw segment out of the owner's end of its channel.
    pub fn from_channel(channel: &OwnerChannel) -> Self {
        let chain: &ChainVerifier = channel.chain();
        Self { session: chain.session(), event_key: chain.key(), events: record_events(channel.events()) }
    }
}

impl CleanupProof {
    /// A proof whose outcome follows from what was seen.
    pub fn new(
        provider: Label,
        allocation: String,
        requested_at: Option<UnixMillis>,
        absent_at: Vec<UnixMillis>,
        spend: Option<BilledSpend>,
    ) -> Self {
        let outcome = Self::outcome_of(requested_at, &absent_at);
        Self { provider, allocation, requested_at, absent_at, outcome, spend }
    }

    /// Observed takes a request and two sightings of absence not before it.
    pub fn outcome_of(requested_at: Option<UnixMillis>, absent_at: &[UnixMillis]) -> Cleanup {
        match requested_at {
            None => Cleanup::Kept,
            Some(asked) if absent_at.iter().filter(|at| **at >= asked).count() >= 2 => Cleanup::Observed,
            Some(_) => Cleanup::Unconfirmed,
        }
    }
}

fn record_events(events: &[Event]) -> Vec<RecordedEvent> {
    events
        .iter()
        .map(|event| {
            let body: Result<EventBody, _> = decode("event", &event.body.0, EventBody::LIMIT);
            let carries_claim = !matches!(body, Ok(EventBody::Progress { .. }));
            RecordedEvent { header: event.header.clone(), body: carries_claim.then(|| event.body.clone()) }
        })
        .collect()
}
