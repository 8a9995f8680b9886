//! Evidence records: what holds, what does not and by which code, the public view, the explanation.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod common;

use std::path::{Path, PathBuf};

use common::run::{Run, Script, run, run_with, session, slim, slim_bodies, slimmest};
use common::{TestVerifier, now};
use glasshouse_core::channel::EventBody;
use glasshouse_core::claims::Assurance;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::CpuEvidence;
use glasshouse_core::fixed::{Blob, Nonce32, PublicKey32};
use glasshouse_core::overhead::Order;
use glasshouse_core::protocol::{Signed, SigningSecret, Verdict};
use glasshouse_core::record::{
    Envelope, EvidenceRecord, RecordError, RefusedSession, Signer, TimeSource, explain, verify, verify_with,
};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::ClaimSource;
use proptest::prelude::*;

type Edit = fn(&Run, &mut EvidenceRecord);

/// Each defect that the gate itself signs for: an owner who lies, or a tool that is broken.
const SIGNED_DEFECTS: &[(&str, &str, Edit)] = &[
    ("terminal-event-missing", "terminal-event-missing", |_, r| drop(r.sessions[0].events.pop())),
    ("terminal-body-missing", "chain-body", |_, r| r.sessions[0].events.last_mut().unwrap().body = None),
    ("all-events-missing", "terminal-event-missing", |_, r| r.sessions[0].events.clear()),
    ("chain-gap", "chain-gap", |_, r| drop(r.sessions[0].events.remove(3))),
    ("chain-fork", "chain-fork", |_, r| {
        let again = r.sessions[0].events[3].clone();
        r.sessions[0].events.insert(4, again);
    }),
    ("chain-signature", "chain-signature", |run, r| {
        r.sessions[0].events[2] = another_session(run).events[2].clone();
    }),
    ("chain-body-changed", "chain-body", |_, r| {
        r.sessions[0].events[3].body.as_mut().unwrap().0[30] ^= 1;
    }),
    ("event-after-terminal", "event-after-terminal", |_, r| {
        let again = r.sessions[0].events.last().unwrap().clone();
        r.sessions[0].events.push(again);
    }),
    ("verdict-forged", "verdict-forged", |_, r| {
        let verdict = r.sessions[0].verdict.peek().unwrap();
        r.sessions[0].verdict = Signed::sign(&verdict, &SigningSecret::random().unwrap());
    }),
    ("verdict-of-another-session", "session-mismatch", |run, r| {
        r.sessions[0].verdict = another_session(run).verdict;
    }),
    ("verdict-for-other-evidence", "release-foreign", |run, r| {
        let verdict = Verdict { evidence: [1; 48].into(), ..r.sessions[0].verdict.peek().unwrap() };
        r.sessions[0].verdict = Signed::sign(&verdict, &run.world.gate_key);
    }),
    ("verdict-changed-after-the-run", "chain-fork", |run, r| {
        let mut verdict = r.sessions[0].verdict.peek().unwrap();
        verdict.lease.ttl_millis += 1;
        r.sessions[0].verdict = Signed::sign(&verdict, &run.world.gate_key);
    }),
    ("assurance-raised", "claim-mislabelled", |_, r| r.claims[0].source = ClaimSource::HardwareVerified),
    ("evidence-of-another-run", "session-mismatch", |run, r| r.sessions[0].evidence = another_session(run).evidence),
    ("evidence-signature", "signature-invalid", |_, r| {
        let evidence = r.sessions[0].evidence.peek().unwrap();
        r.sessions[0].evidence = Signed::sign(&evidence, &SigningSecret::random().unwrap());
    }),
    ("challenge-of-another-gate", "signature-invalid", |_, r| {
        let challenge = r.sessions[0].challenge.peek().unwrap();
        r.sessions[0].challenge = Signed::sign(&challenge, &SigningSecret::random().unwrap());
    }),
    ("challenge-changed", "composite-hash-mismatch", |run, r| {
        let mut challenge = r.sessions[0].challenge.peek().unwrap();
        challenge.issued_at.0 += 1;
        r.sessions[0].challenge = Signed::sign(&challenge, &run.world.gate_key);
    }),
    ("reference-container", "container-id-mismatch", |_, r| r.sessions[0].reference.container.value = "host:2".into()),
    ("reference-measurement", "runtime-measurement-mismatch", |_, r| {
        r.sessions[0].reference.runtime_measurement = [4; 32].into();
    }),
    ("reference-policy", "policy-digest-mismatch", |_, r| r.sessions[0].reference.policy_digest = [1; 48].into()),
    ("reference-assurance", "assurance-too-low", |_, r| {
        r.sessions[0].reference.minimum_assurance = Assurance::CpuTee;
    }),
    ("session-twice", "record-session-twice", |_, r| r.sessions.push(r.sessions[0].clone())),
    ("receipt-missing", "receipt-missing", |run, r| {
        let script = Script { bodies: without_receipt, ..Script::default() };
        let mut world = run.world.again(std::sync::Arc::new(glasshouse_core::gate::MemoryGateStore::default()));
        world.session = Nonce32::random().unwrap();
        r.sessions.push(session(&world, &script, 1_000_000, 0));
    }),
    ("overhead-row-foreign", "overhead-row-foreign", |_, r| r.rows = slim().record.rows),
    ("overhead-row-of-a-session-left-out", "overhead-row-foreign", |_, r| r.sessions.clear()),
    ("overhead-row-of-a-raw-segment-left-out", "overhead-row-foreign", |_, r| r.raw_segments.clear()),
    ("overhead-row-twice", "overhead-row-foreign", |_, r| r.rows.push(r.rows[0].clone())),
    ("overhead-row-rate", "overhead-row-unproven", |run, r| r.rows = rated(run, 1.0001)),
    ("overhead-row-cleanup", "overhead-row-unproven", |_, r| r.cleanup = None),
    ("cleanup-unproven", "cleanup-unproven", |_, r| r.cleanup.as_mut().unwrap().absent_at.truncate(1)),
    ("cleanup-before-the-request", "cleanup-unproven", |_, r| {
        r.cleanup.as_mut().unwrap().absent_at[0].0 = 5;
    }),
    ("cleanup-out-of-order", "cleanup-unproven", |_, r| r.cleanup.as_mut().unwrap().absent_at.reverse()),
];

type FileEdit = fn(&Run, Vec<u8>) -> Vec<u8>;

/// Each defect of the file that anyone can make.
const FILE_DEFECTS: &[(&str, &str, FileEdit)] = &[
    ("not-a-record", "record-envelope", |_, _| b"{\"schema\":\"glasshouse/overhead/1\",\"rows\":[]}\n".to_vec()),
    ("empty", "record-envelope", |_, _| Vec::new()),
    ("truncated", "record-envelope", |_, b| b[..b.len() / 2].to_vec()),
    ("no-final-newline", "record-not-canonical", |_, b| b[..b.len() - 1].to_vec()),
    ("indented", "record-not-canonical", |_, b| {
        let value: serde_json::Value = serde_json::from_slice(&b).unwrap();
        serde_json::to_vec_pretty(&value).unwrap()
    }),
    ("field-twice", "record-envelope", |_, b| {
        String::from_utf8(b).unwrap().replacen("{\"payload\"", "{\"payloadType\":\"\",\"payload\"", 1).into_bytes()
    }),
    ("payload-type", "record-payload-type", |_, b| {
        String::from_utf8(b).unwrap().replace("in-toto+json", "in-toto+jsom").into_bytes()
    }),
    ("payload-edited", "record-signature", |run, b| {
        with_statement(run, &b, |s| s.replacen("local", "cloud", 1), false)
    }),
    ("statement-spelled-otherwise", "record-not-canonical", |run, b| {
        with_statement(run, &b, |s| s.replacen("\"subject\":", "\"subject\": ", 1), true)
    }),
    ("subject-swapped", "record-subjects", |run, b| {
        with_statement(run, &b, |s| s.replacen(&"09".repeat(32), &"0a".repeat(32), 1), true)
    }),
    ("predicate-type", "record-statement", |run, b| {
        with_statement(run, &b, |s| s.replacen("evidence/v1", "evidence/v2", 1), true)
    }),
    ("unknown-field", "record-statement", |run, b| {
        with_statement(run, &b, |s| s.replacen("{\"_type\"", "{\"x\":1,\"_type\"", 1), true)
    }),
    ("signature-edited", "record-signature", |_, b| {
        let mut envelope = Envelope::from_bytes(&b).unwrap();
        envelope.signatures[0].sig.0[5] ^= 1;
        envelope.to_bytes()
    }),
    ("signature-short", "record-signature", |_, b| {
        let mut envelope = Envelope::from_bytes(&b).unwrap();
        envelope.signatures[0].sig.0.pop();
        envelope.to_bytes()
    }),
    ("signature-twice", "record-signature", |_, b| {
        let mut envelope = Envelope::from_bytes(&b).unwrap();
        envelope.signatures.push(envelope.signatures[0].clone());
        envelope.to_bytes()
    }),
    ("key-id-of-another-key", "record-key-id", |_, b| {
        let mut envelope = Envelope::from_bytes(&b).unwrap();
        envelope.signatures[0].keyid = "00".repeat(32);
        envelope.to_bytes()
    }),
    ("signed-by-another-gate", "record-key-id", |_, b| {
        let payload = Envelope::from_bytes(&b).unwrap().payload.0;
        Envelope::sign(payload, &SigningSecret::random().unwrap()).to_bytes()
    }),
];

fn with_statement(run: &Run, bytes: &[u8], edit: impl Fn(&str) -> String, sign: bool) -> Vec<u8> {
    let mut envelope = Envelope::from_bytes(bytes).unwrap();
    let before = String::from_utf8(envelope.payload.0.clone()).unwrap();
    let after = edit(&before);
    assert_ne!(before, after, "the edit does something");
    if sign {
        return Envelope::sign(after.into_bytes(), &run.world.gate_key).to_bytes();
    }
    envelope.payload = Blob(after.into_bytes());
    envelope.to_bytes()
}

fn another_session(run: &Run) -> glasshouse_core::record::SessionRecord {
    let mut world = run.world.again(std::sync::Arc::new(glasshouse_core::gate::MemoryGateStore::default()));
    world.session = Nonce32::random().unwrap();
    session(&world, &Script { bodies: slim_bodies, ..Script::default() }, 1_000_000, 0)
}

/// What a defect is made of: the row and what it rests on only where the defect is about them.
fn base(name: &str) -> Run {
    if name.starts_with("overhead-row") { slim() } else { slimmest() }
}

fn without_receipt(script: &Script, units: u64) -> Vec<EventBody> {
    let bodies = common::run::all_bodies(script, units);
    bodies.into_iter().filter(|b| !matches!(b, EventBody::Zeroized { .. })).collect()
}

/// The run's row with a raw rate that no segment reported; consistent in itself.
fn rated(run: &Run, factor: f64) -> Vec<glasshouse_core::overhead::Row> {
    let mut json = serde_json::to_value(&run.record.rows).unwrap();
    let row = &mut json[0];
    let raw = row["pairs"][0]["rawEpochsPerSec"].as_f64().unwrap() * factor;
    let protected = row["pairs"][0]["protectedEpochsPerSec"].as_f64().unwrap();
    row["pairs"][0]["rawEpochsPerSec"] = raw.into();
    row["rawEpochsPerSec"] = raw.into();
    row["overheadPct"] = ((raw - protected) / raw * 100.0).into();
    row["intervalPct"] = vec![-9.0, 9.0].into();
    serde_json::from_value(json).unwrap()
}

#[test]
fn a_good_record_holds() {
    for (order, repeats) in [(Order::RawFirst, 1), (Order::Abba, 2)] {
        let run = run(order, repeats);
        let bytes = run.bytes();
        let verified = verify(&bytes, Some(run.key()), None).unwrap();
        assert_eq!(verified.record, run.record);
        assert_eq!(verified.signer, Signer::Trusted(run.key()));
        assert!(matches!(verified.time, TimeSource::Record(_)));
        assert_eq!(verified.subjects.len(), 2 * verified.sessions.len());
        assert!(verified.record.rows[0].is_valid());
        assert!(verified.sessions.iter().all(|s| !s.appraised_again && s.events.receipt.is_some()));
        assert_eq!(verify(&bytes, None, None).unwrap().signer, Signer::Unknown(run.key()));
        let again = verify_with(&bytes, Some(run.key()), None, Some(&TestVerifier)).unwrap();
        assert!(again.sessions.iter().all(|s| s.appraised_again));
    }
}

#[test]
fn no_secret_key_and_no_progress_is_in_a_record() {
    let run = run(Order::RawFirst, 1);
    let events = &run.record.sessions[0].events;
    assert_eq!(events.iter().filter(|e| e.body.is_none()).count(), 1, "progress bodies stay behind");
    let payload = String::from_utf8(Envelope::from_bytes(&run.bytes()).unwrap().payload.0).unwrap();
    assert!(!payload.contains("ciphertext\""), "the sealed key stays behind");
}

#[test]
fn every_signed_defect_has_its_code() {
    for (name, code, edit) in SIGNED_DEFECTS {
        let run = base(name);
        let mut record = run.record.clone();
        edit(&run, &mut record);
        assert_ne!(record, run.record, "{name}");
        let error = verify(&run.sign(record), Some(run.key()), None).expect_err(name);
        assert_eq!(error.code(), *code, "{name}: {error}");
    }
}

#[test]
fn every_defect_of_the_file_has_its_code() {
    for (name, code, edit) in FILE_DEFECTS {
        let run = base(name);
        let bytes = edit(&run, run.bytes());
        for trust in [Some(run.key()), None] {
            let error = verify(&bytes, trust, None).expect_err(name);
            assert_eq!(error.code(), *code, "{name}: {error}");
            assert!(!error.to_string().contains('\n'), "{name}");
        }
    }
}

#[test]
fn evidence_that_does_not_appraise_again_is_told() {
    let mut run = run(Order::RawFirst, 1);
    run.record.rows.clear();
    let mut world = run.world.again(std::sync::Arc::new(glasshouse_core::gate::MemoryGateStore::default()));
    world.session = Nonce32::random().unwrap();
    let mut forged = session(&world, &Script::default(), 1_000_000, 0);
    // An event key of the owner's own making: everything but the quote can be made to fit.
    let event_key = SigningSecret::random().unwrap();
    let mut evidence = forged.evidence.peek().unwrap();
    evidence.event_key = event_key.public();
    evidence.cpu = CpuEvidence::Software { jwt: "00".into(), public_key: PublicKey32::from([0; 32]) };
    let t = glasshouse_core::protocol::transcript_hash(&glasshouse_core::protocol::TranscriptFields {
        challenge: &forged.challenge.digest(),
        suites: glasshouse_core::protocol::SUITES,
        hpke_key: &evidence.hpke_key,
        event_key: &evidence.event_key,
        package_digest: &evidence.package_digest,
        manifest_digest: &evidence.manifest_digest,
        claims: &evidence.claims,
        timestamp: evidence.timestamp,
        minimum_assurance: Assurance::SelfReported,
    });
    evidence.t = t;
    forged.evidence = Signed::sign(&evidence, &event_key);
    let verdict = Verdict { t, evidence: forged.evidence.digest(), ..forged.verdict.peek().unwrap() };
    forged.verdict = Signed::sign(&verdict, &run.world.gate_key);
    forged.events.clear();
    run.record.sessions = vec![forged];
    let bytes = run.bytes();
    let error = verify_with(&bytes, Some(run.key()), None, Some(&TestVerifier)).unwrap_err();
    assert!(matches!(error, RecordError::Appraisal { .. }), "{error}");
    assert_eq!(error.code(), "report-data-mismatch");
    assert_eq!(verify(&bytes, None, None).unwrap_err().code(), "terminal-event-missing");
}

#[test]
fn the_wrong_key_and_the_wrong_clock_are_said_plainly() {
    let run = run(Order::RawFirst, 1);
    let bytes = run.bytes();
    let other = SigningSecret::random().unwrap().public();
    let error = verify(&bytes, Some(other), None).unwrap_err();
    assert_eq!(error, RecordError::UntrustedSigner { trusted: other, seen: run.key() });
    assert!(error.to_string().contains(&other.to_string()), "{error}");

    let at = |seconds: u64| verify(&bytes, Some(run.key()), Some(now(seconds).wall));
    assert!(matches!(at(61).unwrap().time, TimeSource::Stated(_)));
    let late = at(60 + 3602).unwrap_err();
    assert_eq!(late.code(), "time-after-lease");
    assert!(late.to_string().contains("another machine's"), "{late}");
    let early = verify(&bytes, None, Some(UnixMillis(0))).unwrap_err();
    assert_eq!(early.code(), "time-before-challenge");
    assert!(early.to_string().contains("1970-01-01"), "{early}");
}

#[test]
fn a_run_whose_end_was_not_seen_can_be_signed_and_says_so() {
    let run = run(Order::RawFirst, 1);
    let mut record = run.record.clone();
    record.sessions[0].events.truncate(9);
    let error = verify(&run.sign(record), None, None).unwrap_err();
    assert!(matches!(error, RecordError::TerminalMissing { events: 9, .. }), "{error}");
    assert!(error.to_string().contains("9 events verify, but the terminal event is missing"), "{error}");
}

#[test]
fn only_the_signers_own_key_signs() {
    let run = run(Order::RawFirst, 1);
    assert_eq!(run.record.clone().sign(&SigningSecret::random().unwrap()).unwrap_err(), RecordError::KeyId);
}

#[test]
fn a_row_that_does_not_count_may_name_a_segment_of_which_nothing_came_home() {
    let mut run = slim();
    run.measurement.segments[1].completed = false;
    run.record.rows = vec![run.measurement.clone().into_row()];
    run.record.sessions.clear();
    let verified = verify(&run.bytes(), Some(run.key()), None).unwrap();
    assert!(!verified.record.rows[0].is_valid());
    assert!(explain(&verified).contains("protected-incomplete"));
    run.measurement.run = Nonce32::from([1; 32]);
    run.record.rows = vec![run.measurement.clone().into_row()];
    assert_eq!(verify(&run.bytes(), None, None).unwrap_err().code(), "overhead-row-foreign");
}

#[test]
fn a_refusal_before_a_verdict_stands_beside_it() {
    let mut run = slim();
    let session = run.record.sessions[0].challenge.peek().unwrap().session;
    let refusal = Refusal::new(Code::CHALLENGE_EXPIRED, "an answer in time", "a late one");
    run.record.refused = vec![RefusedSession { session, at: now(0).wall, refusal }; 2];
    assert!(verify(&run.bytes(), Some(run.key()), None).is_ok());
}

#[test]
fn a_refused_session_is_in_the_record_and_its_row_out_of_every_number() {
    let mut run = run(Order::RawFirst, 1);
    let session = run.record.sessions[0].challenge.peek().unwrap().session;
    run.record.sessions.clear();
    let refusal = Refusal::new(Code::RUNTIME_MEASUREMENT_MISMATCH, "one executable", "another\u{1b}[2J");
    run.record.refused.push(RefusedSession { session, at: now(5).wall, refusal });
    assert_eq!(verify(&run.bytes(), None, None).unwrap_err().code(), "overhead-row-unproven", "it still counts");
    run.record.rows.clear();
    let verified = verify(&run.bytes(), None, None).unwrap();
    let text = explain(&verified);
    assert!(text.contains("was refused") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(verified.public_view().refused, [Code::RUNTIME_MEASUREMENT_MISMATCH]);
}

#[test]
fn an_explanation_says_what_is_proven_and_what_is_not() {
    let run = run(Order::Abba, 2);
    let text = explain(&verify(&run.bytes(), None, None).unwrap());
    if let Some(path) = std::env::var_os("GLASSHOUSE_EXPLAIN") {
        std::fs::write(path, &text).unwrap();
    }
    for part in [
        "integrity only, signer unknown",
        "no time was stated",
        "attestation verified, SelfReported",
        "[runtime-asserted",
        "[owner-asserted",
        "[provider-asserted",
        "at most 9 bytes at a time in pages that core dumps leave out, and at most 7 not locked; 5 bytes, all together",
        "32 bytes: overwritten with zeros; read back",
        "What it does not prove",
        "can all be forged",
        "not appraised again here",
        "adapter_model.safetensors",
    ] {
        assert!(text.contains(part), "{part}:\n{text}");
    }
    assert!(!text.contains("hardware-verified"), "{text}");
}

#[test]
fn the_public_view_is_the_published_row_and_digests() {
    let mut run = run(Order::RawFirst, 1);
    let refusal = Refusal::new(Code::new("https-token-abc"), "free text", "more of it");
    run.record.refused.push(RefusedSession { session: Nonce32::from([1; 32]), at: now(0).wall, refusal });
    let verified = verify(&run.bytes(), Some(run.key()), None).unwrap();
    let view = serde_json::to_value(verified.public_view()).unwrap();
    let row = &view["rows"][0];
    assert_eq!((row["attestation"].as_str(), row["assurance"].as_str()), (Some("verified"), Some("SelfReported")));
    assert_eq!(view["refused"], serde_json::json!([]), "only codes of this crate are published");
    for private in ["machine", "allocation", "jwt", "container", "signature", "payload", "endpoint", "token"] {
        assert!(!view.to_string().contains(private), "{private}");
    }
}

#[test]
fn an_artifact_name_that_is_no_file_name_is_not_published() {
    fn bodies(script: &Script, units: u64) -> Vec<EventBody> {
        let mut bodies = slim_bodies(script, units);
        for body in &mut bodies {
            if let EventBody::Artifact { name, .. } = body {
                *name = "https://host/?token=1".into();
            }
        }
        bodies
    }
    let run = run_with(Order::RawFirst, 1, &Script { bodies, ..Script::default() });
    let view = verify(&run.bytes(), None, None).unwrap().public_view();
    assert_eq!(view.sessions[0].artifacts[0].name.as_str(), "unnamed");
}

#[test]
fn a_record_edited_in_any_byte_no_longer_verifies() {
    let run = slimmest();
    let bytes = run.bytes();
    let holds = |bytes: &[u8]| verify(bytes, Some(run.key()), None).is_ok();
    assert!(holds(&bytes));
    for index in 0..bytes.len() {
        let mut edited = bytes.clone();
        edited[index] ^= 1 << (index % 8);
        assert!(!holds(&edited), "byte {index} flipped");
    }
    for index in (0..bytes.len()).step_by(61) {
        let mut longer = bytes.clone();
        longer.insert(index, bytes[index]);
        assert!(!holds(&longer), "byte {index} doubled");
        let mut spaced = bytes.clone();
        spaced.insert(index, b' ');
        assert!(!holds(&spaced), "space before byte {index}");
        let mut shorter = bytes.clone();
        shorter.remove(index);
        assert!(!holds(&shorter), "byte {index} removed");
        assert!(!holds(&bytes[..index]), "cut before byte {index}");
        // Without a trusted key another path leads to the same end.
        let mut edited = bytes.clone();
        edited[index] ^= 1;
        assert!(verify(&edited, None, None).is_err(), "byte {index} flipped, no key");
    }
    assert!(!holds(&[bytes.as_slice(), b"\n"].concat()));
}

#[test]
fn committed_vectors() {
    let dir = vectors();
    if std::env::var_os("GLASSHOUSE_REGENERATE").is_some() {
        regenerate(&dir);
    }
    let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
    let trust = PublicKey32::from_hex(String::from_utf8(read("gate.pub")).unwrap().trim()).unwrap();
    let verified = verify(&read("good.json"), Some(trust), None).unwrap();
    assert!(verified.record.rows[0].is_valid());
    let names: Vec<_> =
        SIGNED_DEFECTS.iter().map(|d| (d.0, d.1)).chain(FILE_DEFECTS.iter().map(|d| (d.0, d.1))).collect();
    for (name, code) in &names {
        let error = verify(&read(&format!("bad/{name}.json")), Some(trust), None).expect_err(name);
        assert_eq!(error.code(), *code, "{name}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir.join("bad")).unwrap().count(), names.len(), "every file is read");
}

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/record")
}

fn regenerate(dir: &Path) {
    let whole = slim();
    let mut session_only = whole.record.clone();
    session_only.rows.clear();
    session_only.raw_segments.clear();
    let of = |name: &str| if name.starts_with("overhead-row") { &whole.record } else { &session_only };
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir.join("bad")).unwrap();
    std::fs::write(dir.join("gate.pub"), format!("{}\n", whole.key())).unwrap();
    std::fs::write(dir.join("good.json"), whole.bytes()).unwrap();
    for (name, _, edit) in SIGNED_DEFECTS {
        let mut record = of(name).clone();
        edit(&whole, &mut record);
        std::fs::write(dir.join(format!("bad/{name}.json")), whole.sign(record)).unwrap();
    }
    for (name, _, edit) in FILE_DEFECTS {
        let bytes = whole.sign(of(name).clone());
        std::fs::write(dir.join(format!("bad/{name}.json")), edit(&whole, bytes)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// The marker stands wherever free text can: containers, devices, methods, failures, receipts, reasons, moments,
    /// machine, allocation, further claims.
    #[test]
    fn the_public_view_has_nothing_that_is_not_listed(
        marker in "(rpa_[A-Z0-9]{20}|AKIA[0-9A-Z]{16}|https://[a-z]{8}\\.example/[a-z]{4}|hf_[a-zA-Z]{16}|node-[a-z]{8}\\.internal)",
    ) {
        let run = run_with(Order::RawFirst, 1, &Script { secret: marker.clone(), ..Script::default() });
        let verified = verify(&run.bytes(), Some(run.key()), None).unwrap();
        let everything = format!("{verified:?}");
        prop_assert!(everything.contains(&marker), "the marker is in the record");
        let view = serde_json::to_string(&verified.public_view()).unwrap();
        prop_assert!(!view.contains(&marker), "{}", view);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, cut in 0..400usize) {
        let _ = verify(&bytes, None, None);
        // A payload of anything, signed properly.
        let key = SigningSecret::random().unwrap();
        let start = br#"{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"https://glasshouse.dev/evidence/v1","predicate":{"version":"glasshouse/evidence/1","run":""#;
        let payload = [&start[..cut.min(start.len())], bytes.as_slice()].concat();
        prop_assert!(verify(&Envelope::sign(payload, &key).to_bytes(), Some(key.public()), None).is_err());
    }
}
