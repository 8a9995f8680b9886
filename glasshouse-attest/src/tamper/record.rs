//! The record in the hands of people with reasons to improve it: a stranger, a store, and the owner with the gate's key.

use glasshouse_core::channel::{EventBody, Interval, Outcome, OwnerChannel, RuntimeChannel};
use glasshouse_core::claims::{Assurance, RuntimeState};
use glasshouse_core::fixed::{Digest32, Nonce32};
use glasshouse_core::overhead::{
    Attestation, Cleanup, Label, Measurement, Order, Phase, Protection, RateInterval, Row, SegmentKind, SegmentSample,
};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::record::{
    CleanupProof, Envelope, EvidenceRecord, RawSegmentRecord, RecordError, SessionRecord, VERSION, verify_with,
};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::{ClaimSource, Device, LabelledClaim, Receipt, Unit};
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;

use super::world::{World, at, no_randomness, random};
use super::{Attempt, RefusedBy, Scenario, SuiteError};
use crate::software::{SoftwarePolicy, SoftwareVerifier};

/// Units and microseconds of each steady state here.
const STEADY: Interval = Interval { units: 1000, micros: 5_000_000 };

macro_rules! scenario {
    ($name:literal, $attacker:literal, $code:literal, $run:expr) => {
        &Scenario {
            name: $name,
            attacker: $attacker,
            refused_by: RefusedBy::Record,
            expected: Code::new($code),
            run: $run,
        }
    };
}

pub(super) const ALL: &[&Scenario] = &[
    scenario!(
        "record edited after signing",
        "a store makes a signed record one second younger",
        "record-signature",
        |world| {
            let bytes = signed(world, recorded(world, true)?)?;
            let mut envelope = Envelope::from_bytes(&bytes).map_err(broken)?;
            envelope.payload.0 = rewrite(&envelope.payload.0, &created(100), &created(101))?;
            judge(world, &envelope.to_bytes())
        }
    ),
    scenario!(
        "record signed by a stranger",
        "a stranger puts his key for the gate's and signs the whole record again",
        "record-untrusted-signer",
        |world| {
            let his = SigningSecret::random().map_err(no_randomness)?;
            let mut record = recorded(world, true)?;
            record.signer = his.public();
            judge(world, &record.sign(&his).map_err(broken)?)
        }
    ),
    scenario!(
        "another adapter under the record",
        "the owner names another adapter as the statement's subject and signs with the gate's key",
        "record-subjects",
        |world| {
            let envelope = Envelope::from_bytes(&signed(world, recorded(world, true)?)?).map_err(broken)?;
            let (mine, other) = (Digest32::from([7; 32]).to_string(), Digest32::from([8; 32]).to_string());
            // The first place is the subject; the second is inside the runtime's signed event, in base64.
            let payload = rewrite(&envelope.payload.0, &mine, &other)?;
            judge(world, &Envelope::sign(payload, &world.gate_key).to_bytes())
        }
    ),
    scenario!(
        "overhead row moved between records",
        "the owner moves a better row out of another run's record into this one and signs with the gate's key",
        "overhead-row-foreign",
        |world| {
            let other = recorded(&World::new()?, true)?;
            changed(world, |record| record.rows = other.rows)
        }
    ),
    scenario!(
        "overhead row improved",
        "the owner computes the row from rates that no runtime signed and signs with the gate's key",
        "overhead-row-unproven",
        |world| {
            changed(world, |record| {
                let raw: Vec<_> = record.raw_segments.iter().map(|raw| raw.session).collect();
                record.rows = raw
                    .into_iter()
                    .map(|raw| row(record.run, world.session, raw, STEADY.units.saturating_mul(2)))
                    .collect();
            })
        }
    ),
    scenario!(
        "one session counted twice",
        "the owner lists a good session twice, to have more runs, and signs with the gate's key",
        "record-session-twice",
        |world| changed(world, |record| record.sessions.extend(record.sessions.clone()))
    ),
    scenario!(
        "receipt missing",
        "a runtime says that it completed and never that it wiped anything",
        "receipt-missing",
        |world| {
            let bytes = signed(world, recorded(world, false)?)?;
            judge(world, &bytes)
        }
    ),
    scenario!(
        "cleanup that nobody observed",
        "the owner calls an allocation gone that was seen absent only once, and signs with the gate's key",
        "cleanup-unproven",
        |world| {
            changed(world, |record| {
                if let Some(cleanup) = &mut record.cleanup {
                    cleanup.absent_at.pop();
                }
            })
        }
    ),
    scenario!(
        "owner's claim as the hardware's",
        "the owner labels a claim of his own as verified by hardware and signs with the gate's key",
        "claim-mislabelled",
        |world| {
            changed(world, |record| {
                let (name, value) = ("tee".to_owned(), "tdx".to_owned());
                record.claims.push(LabelledClaim { name, value, source: ClaimSource::HardwareVerified });
            })
        }
    ),
];

/// What an auditor says who trusts the owner's gate and appraises the evidence again.
pub(super) fn judge(world: &World, bytes: &[u8]) -> Result<Attempt, SuiteError> {
    let verifier = SoftwareVerifier::new(SoftwarePolicy::default());
    match verify_with(bytes, Some(world.gate_key.public()), Some(at(10).wall), Some(&verifier)) {
        Ok(_) => Ok(Attempt::Accepted),
        Err(error) => Ok(Attempt::Refused { refusal: refusal(&error)?, key_left: false }),
    }
}

/// A true record with one change, signed with the gate's key.
fn changed(world: &World, change: impl FnOnce(&mut EvidenceRecord)) -> Result<Attempt, SuiteError> {
    let honest = recorded(world, true)?;
    if !honest.rows.iter().all(Row::is_valid) {
        return Err(SuiteError::Unfit("the honest row counts"));
    }
    let mut record = honest.clone();
    change(&mut record);
    match judge(world, &signed(world, honest)?)? {
        Attempt::Accepted => judge(world, &signed(world, record)?),
        Attempt::Refused { refusal, .. } => Err(SuiteError::Refused(refusal)),
    }
}

pub(super) fn signed(world: &World, record: EvidenceRecord) -> Result<Vec<u8>, SuiteError> {
    record.sign(&world.gate_key).map_err(broken)
}

/// A run of one raw and one protected segment that was all right, or only never said that it wiped.
fn recorded(world: &World, wiped: bool) -> Result<EvidenceRecord, SuiteError> {
    let (mut owner, mut grant) = world.granted()?;
    let zeroized = wiped.then_some(EventBody::Zeroized { receipt: empty_receipt() });
    for body in trained().into_iter().chain(zeroized).chain([end()]) {
        owner.records(&[grant.channel.emit(&body, at(5))?])?;
    }
    let (raw_session, raw) = raw_segment()?;
    let parts = owner.record_parts().ok_or(SuiteError::Unfit("a released session has parts for its record"))?;
    let run = random()?;
    Ok(EvidenceRecord {
        version: VERSION.to_owned(),
        run,
        signer: world.gate_key.public(),
        created_at: at(100).wall,
        sessions: vec![SessionRecord::from_parts(&parts, world.reference.clone())?],
        refused: Vec::new(),
        raw_segments: vec![raw],
        rows: vec![row(run, world.session, raw_session, STEADY.units)],
        cleanup: Some(CleanupProof::new(
            Label::lossy("local"),
            "1".to_owned(),
            Some(at(20).wall),
            vec![at(21).wall, at(22).wall],
            None,
        )),
        timeline: Vec::new(),
        claims: Vec::new(),
    })
}

/// A receipt of a runtime that held nothing.
pub(super) fn empty_receipt() -> Receipt {
    Receipt {
        zeroizer: "suite".to_owned(),
        regions: Vec::new(),
        allocator_bytes: None,
        large_blocks: None,
        small_blocks: None,
        unlocked_bytes: 0,
        key_memory: glasshouse_core::secret::KeyMemory::MemfdSecret,
        swapped_bytes: None,
        not_covered: Vec::new(),
        millis: 1,
    }
}

fn raw_segment() -> Result<(Nonce32, RawSegmentRecord), SuiteError> {
    let (session, secret) = (random()?, glasshouse_core::secret::Secret::random().map_err(no_randomness)?);
    let (mut runtime, mut owner) =
        (RuntimeChannel::raw(&secret, session, &session), OwnerChannel::raw(&secret, session, &session));
    for body in trained().into_iter().chain([end()]) {
        owner.accept(&runtime.emit(&body, at(5))?)?;
    }
    Ok((session, RawSegmentRecord::from_channel(&owner)))
}

fn trained() -> [EventBody; 2] {
    let (warm, trained) = (Digest32::from([6; 32]), Digest32::from([7; 32]));
    [
        EventBody::Warm { units: 10, weights: warm },
        EventBody::Measured { total: STEADY, weights: trained, loss: Some(0.5), method: "eager".to_owned() },
    ]
}

fn end() -> EventBody {
    EventBody::End { outcome: Outcome::Completed, reason: None }
}

/// The row of that run, as if the protected segment had done so many units.
fn row(run: Nonce32, session: Nonce32, raw_session: Nonce32, units: u64) -> Row {
    let attested = Protection {
        attestation: Attestation::Verified(Assurance::SelfReported),
        runtime_state: RuntimeState::Zeroized,
    };
    let seconds = STEADY.micros as f64 / 1e6;
    let segment = |session, kind, position, units| SegmentSample {
        session,
        kind,
        position,
        completed: true,
        units,
        seconds,
        intervals: vec![RateInterval { units, seconds }],
        phases: vec![Phase { name: Label::lossy("steady"), seconds }],
        weights_after_warm_up: Some(Digest32::from([6; 32])),
        weights_at_end: Some(Digest32::from([7; 32])),
        method: Some("cpu".to_owned()),
        device: Device::Cpu,
        gpu: None,
        instance: "here".to_owned(),
        peak_rss_bytes: None,
    };
    let measurement = Measurement {
        run,
        provider: Label::lossy("local"),
        machine: Label::lossy("the suite's"),
        workload: Label::lossy("mlp/tiny"),
        unit: Unit::Epoch,
        order: Order::RawFirst,
        repeats: 1,
        duration_seconds: 5.0,
        segments: vec![
            segment(raw_session, SegmentKind::Raw, 0, STEADY.units),
            segment(session, SegmentKind::Protected(attested), 1, units),
        ],
        cleanup: Cleanup::Observed,
    };
    measurement.into_row()
}

fn created(seconds: u64) -> String {
    format!("\"createdAt\":{}", at(seconds).wall.0)
}

fn rewrite(payload: &[u8], from: &str, to: &str) -> Result<Vec<u8>, SuiteError> {
    let text = std::str::from_utf8(payload).map_err(|_| SuiteError::Unfit("a statement is text"))?;
    let other = text.replacen(from, to, 1);
    if other == text {
        return Err(SuiteError::Unfit("the text to rewrite is not in the statement"));
    }
    Ok(other.into_bytes())
}

fn refusal(error: &RecordError) -> Result<Refusal, SuiteError> {
    let text: serde::de::value::StrDeserializer<'_, serde::de::value::Error> = error.code().into_deserializer();
    let code = Code::deserialize(text).map_err(|_| SuiteError::Unfit("a record error has a code"))?;
    Ok(Refusal { advice: None, ..Refusal::new(code, "a record that holds", error) })
}

fn broken(error: RecordError) -> SuiteError {
    match refusal(&error) {
        Ok(refusal) => SuiteError::Refused(refusal),
        Err(other) => other,
    }
}
