//! Checking a record offline, from its bytes.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;
use std::time::Duration;

use super::dsse::Envelope;
use super::error::RecordError;
use super::model::{CleanupProof, EvidenceRecord};
use super::rows::{Ground, verify_rows};
use super::session::{SessionEvents, VerifiedSession, appraise_again, mislabelled, verify_raw, verify_session};
use super::statement::{Statement, Subject, subjects};
use crate::clock::UnixMillis;
use crate::fixed::{Nonce32, PublicKey32};
use crate::refusal::one_line;
use crate::traits::{ClaimSource, Verifier};

/// Who signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The key that was given as trusted.
    Trusted(PublicKey32),
    /// No key was given: the record is whole, but anyone could have made it.
    Unknown(PublicKey32),
}

/// Where the time of verification comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// It was stated.
    Stated(UnixMillis),
    /// None was stated: the last verdict's own time, or the record's where there is no verdict.
    Record(UnixMillis),
}

impl TimeSource {
    /// The time.
    pub const fn time(self) -> UnixMillis {
        match self {
            Self::Stated(at) | Self::Record(at) => at,
        }
    }
}

/// A record that holds.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedRecord {
    /// What it says.
    pub record: EvidenceRecord,
    /// Who signed it.
    pub signer: Signer,
    /// The time that it was verified for.
    pub time: TimeSource,
    /// The artifacts.
    pub subjects: Vec<Subject>,
    /// Its sessions, followed again.
    pub sessions: Vec<VerifiedSession>,
    /// Its raw segments, followed again.
    pub raw_segments: Vec<(Nonce32, SessionEvents)>,
}

/// Checks everything that can be checked from the bytes alone: signature, spelling, and each session from challenge to
/// terminal event; subjects, rows, cleanup and labels against the sessions; the stated time against challenge and lease.
///
/// # Errors
/// [`RecordError`] names the first thing that does not hold.
pub fn verify(bytes: &[u8], trust: Option<PublicKey32>, at: Option<UnixMillis>) -> Result<VerifiedRecord, RecordError> {
    verify_with(bytes, trust, at, None)
}

/// As [`verify`], and appraises evidence of the verifier's kind and policy again, at each verdict's time.
///
/// # Errors
/// As [`verify`], and [`RecordError::Appraisal`].
pub fn verify_with(
    bytes: &[u8],
    trust: Option<PublicKey32>,
    at: Option<UnixMillis>,
    verifier: Option<&dyn Verifier>,
) -> Result<VerifiedRecord, RecordError> {
    let envelope = Envelope::from_bytes(bytes)?;
    // Nothing of the payload is looked at before the trusted key's signature holds; another key's name is told later.
    if let Some(trusted) = trust.filter(|key| envelope.names(key)) {
        envelope.verify(&trusted)?;
    }
    let Statement { subject, predicate: record, .. } = Statement::parse(&envelope.payload.0)?;
    envelope.verify(&record.signer)?;
    let signer = match trust {
        Some(trusted) if trusted != record.signer => {
            return Err(RecordError::UntrustedSigner { trusted, seen: record.signer });
        }
        Some(trusted) => Signer::Trusted(trusted),
        None => Signer::Unknown(record.signer),
    };
    let sessions = verify_sessions(&record, verifier)?;
    let raw_segments = verify_raw_segments(&record)?;
    no_session_twice(&record, &sessions)?;
    if subject != subjects(&record) {
        return Err(RecordError::Subjects);
    }
    verify_labels(&record, &sessions)?;
    verify_cleanup(record.cleanup.as_ref())?;
    verify_ends(&sessions)?;
    verify_rows(&record, &Ground::new(&record, &sessions, &raw_segments))?;
    let time = verify_time(&record, &sessions, at)?;
    Ok(VerifiedRecord { signer, time, subjects: subject, sessions, raw_segments, record })
}

fn verify_sessions(
    record: &EvidenceRecord,
    verifier: Option<&dyn Verifier>,
) -> Result<Vec<VerifiedSession>, RecordError> {
    let verify_one = |session: &super::model::SessionRecord| {
        let named = session.challenge.peek().map_or(Nonce32::from([0; 32]), |c| c.session);
        let mut verified = verify_session(session, &record.signer).map_err(|r| RecordError::session(named, r))?;
        if let Some(verifier) = verifier {
            let at = verified.verdict.at;
            appraise_again(&mut verified, session, verifier, at)
                .map_err(|refusal| RecordError::Appraisal { session: named, refusal: Box::new(refusal) })?;
        }
        Ok(verified)
    };
    record.sessions.iter().map(verify_one).collect()
}

fn verify_raw_segments(record: &EvidenceRecord) -> Result<Vec<(Nonce32, SessionEvents)>, RecordError> {
    let verify_one = |raw: &super::model::RawSegmentRecord| {
        let events = verify_raw(raw).map_err(|r| RecordError::session(raw.session, r))?;
        Ok((raw.session, events))
    };
    record.raw_segments.iter().map(verify_one).collect()
}

fn no_session_twice(record: &EvidenceRecord, sessions: &[VerifiedSession]) -> Result<(), RecordError> {
    let mut seen = BTreeSet::new();
    // A refusal may stand beside a verdict of the same session: the next challenge was answered better.
    for session in sessions.iter().map(VerifiedSession::id).chain(record.raw_segments.iter().map(|r| r.session)) {
        if !seen.insert(session) {
            return Err(RecordError::SessionTwice { session });
        }
    }
    Ok(())
}

fn verify_labels(record: &EvidenceRecord, sessions: &[VerifiedSession]) -> Result<(), RecordError> {
    let may_say = |source| matches!(source, ClaimSource::OwnerAsserted | ClaimSource::ProviderAsserted);
    let owners = record.claims.iter().find(|c| !may_say(c.source)).map(|c| c.name.as_str());
    match owners.or_else(|| sessions.iter().find_map(mislabelled)) {
        Some(name) => Err(RecordError::ClaimMislabelled { name: one_line(name) }),
        None => Ok(()),
    }
}

fn verify_cleanup(cleanup: Option<&CleanupProof>) -> Result<(), RecordError> {
    let Some(cleanup) = cleanup else { return Ok(()) };
    if !cleanup.absent_at.is_sorted() {
        return Err(RecordError::Cleanup { why: "its sightings are not in order" });
    }
    if cleanup.outcome != CleanupProof::outcome_of(cleanup.requested_at, &cleanup.absent_at) {
        return Err(RecordError::Cleanup { why: "its outcome does not follow from what was seen" });
    }
    Ok(())
}

fn verify_ends(sessions: &[VerifiedSession]) -> Result<(), RecordError> {
    for session in sessions {
        let (id, events) = (session.id(), &session.events);
        if events.outcome.is_none() {
            return Err(RecordError::TerminalMissing { session: id, events: events.count });
        }
        if events.receipt.is_none() {
            return Err(RecordError::ReceiptMissing { session: id });
        }
    }
    Ok(())
}

fn verify_time(
    record: &EvidenceRecord,
    sessions: &[VerifiedSession],
    at: Option<UnixMillis>,
) -> Result<TimeSource, RecordError> {
    let from = sessions.iter().map(|s| s.challenge.issued_at).min();
    // Whichever of its two clocks ends a lease first; the wall clock's end is the one an auditor can know.
    let end = |s: &VerifiedSession| s.verdict.lease.not_after.min(lease_end(s));
    let until = sessions.iter().map(end).max();
    match (at, from.zip(until)) {
        (Some(at), Some((from, until))) if at < from => Err(RecordError::BeforeChallenge { at, from, until }),
        (Some(at), Some((from, until))) if at > until => Err(RecordError::AfterLease { at, from, until }),
        (Some(at), _) => Ok(TimeSource::Stated(at)),
        (None, _) => {
            let last = sessions.iter().map(|s| s.verdict.at).max();
            Ok(TimeSource::Record(last.unwrap_or(record.created_at)))
        }
    }
}

fn lease_end(session: &VerifiedSession) -> UnixMillis {
    let lease = &session.verdict.lease;
    lease.issued_at.after(Duration::from_millis(lease.ttl_millis))
}
