//! The evidence record: as a file, behind its signature, and behind every signature inside it.

use glasshouse_attest::software::{SoftwarePolicy, SoftwareVerifier};
use glasshouse_core::channel::{EventBody, EventHeader, genesis, raw_genesis};
use glasshouse_core::claims::ReferenceValues;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Blob, Digest48, Nonce32, PublicKey32};
use glasshouse_core::overhead::Row;
use glasshouse_core::protocol::{
    Challenge, EvidenceMessage, SUITES, Signed, TranscriptFields, Verdict, encode, transcript_hash,
};
use glasshouse_core::record::{
    CleanupProof, Envelope, EvidenceRecord, Moment, RawSegmentRecord, RecordError, RecordedEvent, RefusedSession,
    SessionRecord, Signer, VERSION, VerifiedRecord, explain, verify, verify_with,
};
use glasshouse_core::traits::LabelledClaim;
use glasshouse_core::transcript::sha384;
use serde::{Deserialize, Serialize};

use super::mode;
use crate::check;
use crate::keys::{EVENTS, GATE, OTHER};

/// The key that signed the committed vector.
const VECTOR_GATE: &str = include_str!("../../../glasshouse-core/tests/vectors/record/gate.pub");

/// `a`: a file. `b`: a statement, signed here. `c`: an [`OpenRecord`], signed here inside and out.
pub fn run(data: &[u8]) {
    match mode(data) {
        Some((b'a', bytes)) => {
            file(bytes, &PublicKey32::from_hex(VECTOR_GATE.trim()).expect("a key"));
        }
        Some((b'b', statement)) => {
            file(&Envelope::sign(statement.to_vec(), &GATE).to_bytes(), &GATE.public());
        }
        Some((b'c', bytes)) => {
            let Ok(open) = serde_json::from_slice::<OpenRecord>(bytes) else { return };
            closed(open);
        }
        _ => {}
    }
}

/// Refused in one line, or verified: then it has one spelling, says the same without trust, and can be shown.
fn file(bytes: &[u8], gate: &PublicKey32) -> Option<VerifiedRecord> {
    match Envelope::from_bytes(bytes) {
        Ok(envelope) => assert_eq!(envelope.to_bytes(), bytes, "two spellings"),
        Err(error) => refused(&error),
    }
    let anyone = verify(bytes, None, None);
    let verified = match verify(bytes, Some(*gate), None) {
        Ok(verified) => verified,
        Err(error) => {
            refused(&error);
            match anyone {
                // The record holds, but for the signer.
                Ok(v) => assert!(matches!(error, RecordError::UntrustedSigner { .. }), "{error}, {:?}", v.signer),
                Err(error) => refused(&error),
            }
            return None;
        }
    };
    assert_eq!(verified.signer, Signer::Trusted(*gate));
    let anyone = anyone.expect("trust adds a condition");
    assert_eq!(anyone.signer, Signer::Unknown(*gate));
    assert!(verify(bytes, Some(OTHER.public()), None).is_err());
    shown(&verified);
    shown(&anyone);
    for at in [UnixMillis(0), verified.time.time(), UnixMillis(u64::MAX)] {
        if let Err(error) = verify(bytes, Some(*gate), Some(at)) {
            refused(&error);
        }
    }
    let verifier = SoftwareVerifier::new(SoftwarePolicy::default());
    if let Err(error) = verify_with(bytes, Some(*gate), None, Some(&verifier)) {
        refused(&error);
    }
    if *gate == GATE.public() {
        let again = verified.record.clone().sign(&GATE).expect("what verified can be signed");
        assert_eq!(again, bytes, "two spellings of a record");
    }
    Some(verified)
}

fn refused(error: &RecordError) {
    check::one_line(&error.to_string(), 1000);
    assert!(error.code().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
}

fn shown(verified: &VerifiedRecord) {
    check::lines(&explain(verified));
    let public = serde_json::to_string(&verified.public_view()).expect("a public view is JSON");
    check::lines(&public);
}

/// A record whose signatures, hashes and links are not written but made.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRecord {
    pub run: Nonce32,
    pub created_at: UnixMillis,
    pub sessions: Vec<OpenSession>,
    pub refused: Vec<RefusedSession>,
    pub raw_segments: Vec<OpenRawSegment>,
    pub rows: Vec<Row>,
    pub cleanup: Option<CleanupProof>,
    pub timeline: Vec<Moment>,
    pub claims: Vec<LabelledClaim>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    pub challenge: Challenge,
    pub evidence: EvidenceMessage,
    pub verdict: Verdict,
    pub reference: ReferenceValues,
    pub events: Vec<OpenEvent>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenRawSegment {
    pub session: Nonce32,
    pub events: Vec<OpenEvent>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenEvent {
    pub at: UnixMillis,
    pub boot_micros: u64,
    pub body: EventBody,
    /// Whether the record holds the body.
    pub shown: bool,
}

/// Signs it and verifies it.
///
/// # Panics
/// When a property does not hold.
pub fn closed(open: OpenRecord) -> Option<VerifiedRecord> {
    let record = EvidenceRecord {
        version: VERSION.to_owned(),
        run: open.run,
        signer: GATE.public(),
        created_at: open.created_at,
        sessions: open.sessions.into_iter().map(close_session).collect(),
        refused: open.refused,
        raw_segments: open.raw_segments.into_iter().map(close_raw).collect(),
        rows: open.rows,
        cleanup: open.cleanup,
        timeline: open.timeline,
        claims: open.claims,
    };
    match record.clone().sign(&GATE) {
        Ok(bytes) => {
            let verified = file(&bytes, &GATE.public())?;
            assert_eq!(verified.record, record);
            Some(verified)
        }
        Err(error) => {
            refused(&error);
            assert!(!matches!(error, RecordError::NotCanonical { .. }), "a record that does not read back as it was");
            None
        }
    }
}

fn close_session(open: OpenSession) -> SessionRecord {
    let OpenSession { mut challenge, mut evidence, mut verdict, reference, events } = open;
    challenge.gate_key = GATE.public();
    let signed_challenge = Signed::sign(&challenge, &GATE);
    evidence.session = challenge.session;
    evidence.nonce = challenge.nonce;
    evidence.challenge = signed_challenge.digest();
    evidence.event_key = EVENTS.public();
    evidence.t = transcript_hash(&TranscriptFields {
        challenge: &evidence.challenge,
        suites: SUITES,
        hpke_key: &evidence.hpke_key,
        event_key: &evidence.event_key,
        package_digest: &evidence.package_digest,
        manifest_digest: &evidence.manifest_digest,
        claims: &evidence.claims,
        timestamp: evidence.timestamp,
        minimum_assurance: challenge.minimum_assurance,
    });
    let signed_evidence = Signed::sign(&evidence, &EVENTS);
    verdict.session = challenge.session;
    verdict.t = evidence.t;
    verdict.evidence = signed_evidence.digest();
    verdict.lease.key_id = evidence.package_digest;
    let signed_verdict = Signed::sign(&verdict, &GATE);
    let start = genesis(&evidence.t, &signed_verdict);
    let events = close_events(challenge.session, start, events);
    SessionRecord { challenge: signed_challenge, evidence: signed_evidence, verdict: signed_verdict, reference, events }
}

fn close_raw(open: OpenRawSegment) -> RawSegmentRecord {
    let events = close_events(open.session, raw_genesis(&open.session), open.events);
    RawSegmentRecord { session: open.session, event_key: EVENTS.public(), events }
}

fn close_events(session: Nonce32, mut previous: Digest48, events: Vec<OpenEvent>) -> Vec<RecordedEvent> {
    let close = |(seq, event): (usize, OpenEvent)| {
        let body = encode(&event.body);
        let header = EventHeader {
            session,
            seq: seq as u64,
            previous,
            body: sha384(&body),
            terminal: event.body.is_terminal(),
            at: event.at,
            boot_micros: event.boot_micros,
        };
        let header = Signed::sign(&header, &EVENTS);
        previous = header.digest();
        RecordedEvent { header, body: event.shown.then_some(Blob(body)) }
    };
    events.into_iter().enumerate().map(close).collect()
}
