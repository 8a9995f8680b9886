//! One thing wrong at a time, with everything around it made to fit: each check of gate and segment answers with its own
//! code, and what lies exactly on a limit passes. Taking a check out makes one of these fail.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of a test

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::{LEASE_SECONDS, TestAttestor, TestVerifier, World, now};
use glasshouse_core::claims::{AntiDebugLevel, Assurance, Claims, EvidenceKind, RuntimeState};
use glasshouse_core::clock::{Now, UnixMillis};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence, report_data};
use glasshouse_core::fixed::{Digest48, Nonce32};
use glasshouse_core::gate::{LeaseTerms, MemoryGateStore, OwnerConfig, OwnerSession, PackageKey};
use glasshouse_core::protocol::{
    Challenge, EvidenceMessage, LaunchKeys, Release, SUITES, Signed, SigningSecret, TranscriptFields, VERSION, Verdict,
    decode, encode, transcript_hash,
};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::secret::Secret;
use glasshouse_core::segment::{SegmentConfig, SegmentError, SegmentSession};
use glasshouse_core::traits::{Appraisal, Attestor as _, Binding, Verifier};

type Change = fn(&mut EvidenceMessage);

/// A runtime that knows the launch secret and sends what it likes, consistent with itself.
fn forged(world: &World, challenge: &[u8], at: Now, change: Change, own_t: bool) -> Vec<u8> {
    let genuine = world.runtime().challenge(challenge, &world.attestor, at).unwrap();
    let mut message = Signed::<EvidenceMessage>::from_bytes(&genuine).unwrap().peek().unwrap();
    let event_key = SigningSecret::random().unwrap();
    message.event_key = event_key.public();
    change(&mut message);
    if own_t {
        message.t = transcript_hash(&TranscriptFields {
            challenge: &Signed::<Challenge>::from_bytes(challenge).unwrap().digest(),
            suites: SUITES,
            hpke_key: &message.hpke_key,
            event_key: &message.event_key,
            package_digest: &message.package_digest,
            manifest_digest: &message.manifest_digest,
            claims: &message.claims,
            timestamp: message.timestamp,
            minimum_assurance: world.reference.minimum_assurance,
        });
        message.cpu = world.attestor.quote(&report_data(&message.t, &message.gpus.digest())).unwrap();
    }
    let keys = LaunchKeys::new(&world.launch_secret, message.session);
    message.mac = keys.mac_transcript(&message.t);
    message.keys_mac = keys.mac_keys(&message.nonce, &message.hpke_key, &message.event_key);
    Signed::sign(&message, &event_key).to_bytes()
}

/// What the gate says to it; nothing when it releases.
fn said(change: Change, own_t: bool) -> Option<Code> {
    let world = World::new();
    let mut owner = world.owner();
    let challenge = owner.challenge(now(1000)).unwrap();
    let evidence = forged(&world, &challenge, now(1000), change, own_t);
    let answer = owner.evidence(&evidence, now(1000));
    assert_eq!(answer.is_ok(), world.store.committed(&world.session).unwrap().is_some());
    answer.err().map(|error| error.code().unwrap().clone())
}

#[test]
fn each_field_of_the_evidence_has_its_refusal() {
    assert_eq!(said(|_| {}, true), None, "the forger's own making is accepted where nothing is wrong");
    let cases: &[(Change, Code)] = &[
        (|m| m.session = Nonce32::from([9; 32]), Code::SESSION_MISMATCH),
        (|m| m.nonce = Nonce32::from([9; 32]), Code::NONCE_UNKNOWN),
        (|m| m.policy_digest = Digest48::from([8; 48]), Code::POLICY_DIGEST_MISMATCH),
        (|m| m.package_digest = Digest48::from([8; 48]), Code::PACKAGE_DIGEST_MISMATCH),
        (|m| m.manifest_digest = Digest48::from([8; 48]), Code::MANIFEST_HASH_MISMATCH),
        (|m| m.challenge = Digest48::from([8; 48]), Code::COMPOSITE_HASH_MISMATCH),
        (|m| m.claims.kind = EvidenceKind::Tdx, Code::EVIDENCE_KIND_UNSUPPORTED),
        (|m| m.claims.image_digest = Some([8; 32].into()), Code::IMAGE_DIGEST_MISMATCH),
        (|m| m.claims.container.value = "host:2".into(), Code::CONTAINER_ID_MISMATCH),
        (|m| m.claims.container.source = "cgroup".into(), Code::CONTAINER_ID_MISMATCH),
        (|m| m.claims.runtime_measurement = [8; 32].into(), Code::RUNTIME_MEASUREMENT_MISMATCH),
        (|m| m.claims.anti_debug.level = AntiDebugLevel::Off, Code::ANTI_DEBUG_DISABLED),
        (|m| m.claims.anti_debug.not_dumpable = false, Code::ANTI_DEBUG_DISABLED),
        (|m| m.claims.anti_debug.no_core_files = false, Code::ANTI_DEBUG_DISABLED),
        (|m| m.claims.anti_debug.no_tracer = false, Code::ANTI_DEBUG_DISABLED),
        (|m| m.claims.anti_debug.no_preload = false, Code::ANTI_DEBUG_DISABLED),
        (|m| m.claims.anti_debug.profile = "none/1".into(), Code::ANTI_DEBUG_DOWNGRADE),
        (|m| strict(&mut m.claims, 0), Code::ANTI_DEBUG_DISABLED),
        (|m| strict(&mut m.claims, 1), Code::ANTI_DEBUG_MISMATCH),
        (|m| m.claims.state = RuntimeState::Zeroized, Code::RUNTIME_STATE_INVALID),
        (|m| m.timestamp.0 -= 150_001, Code::TIMESTAMP_STALE),
        (|m| m.timestamp.0 += 120_001, Code::TIMESTAMP_FUTURE),
    ];
    for (change, code) in cases {
        assert_eq!(said(*change, true).as_ref(), Some(code));
    }
    // Up to the limits themselves, which are the time to live of a challenge and the skew.
    assert_eq!(said(|m| m.timestamp.0 -= 150_000, true), None);
    assert_eq!(said(|m| m.timestamp.0 += 120_000, true), None);
    assert_eq!(said(|m| m.t = Digest48::from([8; 48]), false), Some(Code::COMPOSITE_HASH_MISMATCH));
    let other = |m: &mut EvidenceMessage| m.cpu = CpuEvidence::ConfidentialSpace { jwt: String::new() };
    assert_eq!(said(other, false), Some(Code::COMPOSITE_HASH_MISMATCH), "the forger's key is not in this T");
}

fn strict(claims: &mut Claims, scope: u8) {
    claims.anti_debug.level = AntiDebugLevel::Strict;
    claims.anti_debug.ptrace_scope = Some(scope);
}

#[test]
fn a_runtime_below_the_level_asked_for_is_refused() {
    let mut world = World::new();
    world.reference.anti_debug_level = AntiDebugLevel::Strict;
    let mut owner = world.owner();
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = world.runtime().challenge(&challenge, &world.attestor, now(0)).unwrap();
    assert_eq!(owner.evidence(&evidence, now(0)).unwrap_err().code(), Some(&Code::ANTI_DEBUG_DOWNGRADE));
    // Nothing asked for, nothing applied, and nothing to refuse.
    let mut world = World::new();
    world.reference.anti_debug_level = AntiDebugLevel::Off;
    world.attestor.claims.anti_debug.level = AntiDebugLevel::Off;
    let mut owner = world.owner();
    let challenge = owner.challenge(now(0)).unwrap();
    owner.evidence(&world.runtime().challenge(&challenge, &world.attestor, now(0)).unwrap(), now(0)).unwrap();
}

#[test]
fn a_challenge_is_answered_up_to_its_last_millisecond() {
    for (late, code) in [(30_000, None), (30_001, Some(Code::CHALLENGE_EXPIRED))] {
        let world = World::new();
        let (mut owner, at) = (world.owner(), now(0));
        let challenge = owner.challenge(at).unwrap();
        let evidence = world.runtime().challenge(&challenge, &world.attestor, at).unwrap();
        let answer = Now { boot: at.boot + Duration::from_millis(late), ..at };
        assert_eq!(owner.evidence(&evidence, answer).err().map(|error| error.code().unwrap().clone()), code);
    }
}

/// Says one thing and is another.
struct Odd {
    kind: EvidenceKind,
    policy: Digest48,
}

impl Verifier for Odd {
    fn kind(&self) -> EvidenceKind {
        self.kind
    }
    fn policy_digest(&self) -> Digest48 {
        self.policy
    }
    fn appraise(&self, _: &CpuEvidence, _: &GpuEvidence, _: &Binding<'_>, _: UnixMillis) -> Result<Appraisal, Refusal> {
        Ok(Appraisal { assurance: Assurance::CpuTee, claims: vec![], relaxations: vec![] })
    }
}

fn owner_with(world: &World, verifier: impl Verifier + 'static) -> OwnerSession {
    let config = OwnerConfig {
        session: world.session,
        gate_key: Arc::clone(&world.gate_key),
        result_key: Arc::clone(&world.result_key),
        launch_secret: Arc::clone(&world.launch_secret),
        package: PackageKey {
            package_digest: Digest48::from([1; 48]),
            manifest_digest: Digest48::from([2; 48]),
            data_key: Secret::take(&mut [5; 32]),
        },
        job: world.job(),
        reference: world.reference.clone(),
        lease: LeaseTerms { ttl: Duration::from_secs(LEASE_SECONDS), max_units: None },
        challenge_ttl: Duration::from_secs(30),
        max_skew: Duration::from_secs(120),
        max_challenges: 8,
    };
    OwnerSession::new(config, Arc::clone(&world.store), Arc::new(verifier)).unwrap()
}

#[test]
fn a_verifier_of_another_kind_or_policy_releases_nothing() {
    let world = World::new();
    let (kind, policy) = (TestVerifier.kind(), TestVerifier.policy_digest());
    let other_policy = Odd { kind, policy: Digest48::from([7; 48]) };
    let error = owner_with(&world, other_policy).challenge(now(0)).unwrap_err();
    assert_eq!(error.code(), Some(&Code::POLICY_DIGEST_MISMATCH));
    let mut owner = owner_with(&world, Odd { kind: EvidenceKind::Tdx, policy });
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = world.runtime().challenge(&challenge, &world.attestor, now(0)).unwrap();
    assert_eq!(owner.evidence(&evidence, now(0)).unwrap_err().code(), Some(&Code::EVIDENCE_KIND_UNSUPPORTED));
    // More than the minimum is enough.
    let mut owner = owner_with(&world, Odd { kind, policy });
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = world.runtime().challenge(&challenge, &world.attestor, now(0)).unwrap();
    owner.evidence(&evidence, now(0)).unwrap();
}

fn code<T>(answer: Result<T, SegmentError>) -> Option<Code> {
    answer.err().map(|error| match error {
        SegmentError::Refused(refusal) => refusal.code,
        other => panic!("{other}"),
    })
}

#[test]
fn a_segment_takes_no_challenge_that_is_not_its_own() {
    let world = World::new();
    let challenge = world.owner().challenge(now(0)).unwrap();
    let answered = |change: fn(&mut Challenge), key: &SigningSecret| {
        let mut changed = Signed::<Challenge>::from_bytes(&challenge).unwrap().peek().unwrap();
        change(&mut changed);
        let bytes = Signed::sign(&changed, key).to_bytes();
        code(world.runtime().challenge(&bytes, &world.attestor, now(0)))
    };
    let (gate, other) = (&*world.gate_key, SigningSecret::random().unwrap());
    assert_eq!(answered(|_| {}, gate), None);
    assert_eq!(answered(|_| {}, &other), Some(Code::SIGNATURE_INVALID));
    assert_eq!(answered(|c| c.gate_key = [9; 32].into(), gate), Some(Code::GATE_KEY_FOREIGN));
    assert_eq!(answered(|c| c.session = [9; 32].into(), gate), Some(Code::SESSION_MISMATCH));
    assert_eq!(answered(|c| c.version = "glasshouse/0".into(), gate), Some(Code::MESSAGE_MALFORMED));
    assert_eq!(answered(|c| c.suites = "none".into(), gate), Some(Code::MESSAGE_MALFORMED));
    assert_eq!((VERSION, SUITES.is_empty()), ("glasshouse/1", false));
    // After its release, none at all; and no release before a challenge.
    let (mut owner, mut runtime) = (world.owner(), world.runtime());
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
    let release = owner.evidence(&evidence, now(0)).unwrap();
    assert_eq!(code(world.runtime().release(&release, now(0))), Some(Code::OUT_OF_ORDER));
    runtime.release(&release, now(0)).unwrap();
    assert_eq!(code(runtime.challenge(&challenge, &world.attestor, now(0))), Some(Code::OUT_OF_ORDER));
    assert_eq!(code(runtime.release(&release, now(0))), Some(Code::OUT_OF_ORDER));
}

#[test]
fn a_segment_takes_no_release_that_is_not_for_it() {
    let world = World::new();
    let opened = |change: fn(&mut Release, &mut Verdict), key: Option<&SigningSecret>| {
        let world = world.again(Arc::new(MemoryGateStore::default()));
        let (mut owner, mut runtime) = (world.owner(), world.runtime());
        let challenge = owner.challenge(now(0)).unwrap();
        let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
        let bytes = owner.evidence(&evidence, now(0)).unwrap();
        let mut release: Release = decode("release", &bytes, Release::LIMIT).unwrap();
        let mut verdict = release.verdict.peek().unwrap();
        change(&mut release, &mut verdict);
        release.verdict = Signed::sign(&verdict, key.unwrap_or(&world.gate_key));
        code(runtime.release(&encode(&release), now(0)))
    };
    let foreign = Some(Code::RELEASE_FOREIGN);
    assert_eq!(opened(|_, _| {}, None), None);
    assert_eq!(opened(|_, _| {}, Some(&SigningSecret::random().unwrap())), Some(Code::VERDICT_FORGED));
    assert_eq!(opened(|_, v| v.session = [9; 32].into(), None), foreign);
    assert_eq!(opened(|_, v| v.t = [9; 48].into(), None), foreign);
    assert_eq!(opened(|_, v| v.evidence = [9; 48].into(), None), foreign);
    assert_eq!(opened(|_, v| v.lease.key_id = [9; 48].into(), None), foreign);
    assert_eq!(opened(|_, v| v.ciphertext_digest = [9; 48].into(), None), Some(Code::RELEASE_UNOPENABLE));
    assert_eq!(opened(|r, _| r.ciphertext.0[0] ^= 1, None), Some(Code::RELEASE_UNOPENABLE));
    // The lease is under the ciphertext's authentication: not even the gate changes it afterwards.
    assert_eq!(opened(|_, v| v.lease.ttl_millis += 1, None), Some(Code::RELEASE_UNOPENABLE));
    assert_eq!(opened(|_, v| v.lease.max_units = Some(1), None), Some(Code::RELEASE_UNOPENABLE));
}

#[test]
fn another_launch_secret_or_package_opens_no_release() {
    let world = World::new();
    let mut owner = world.owner();
    let challenge = owner.challenge(now(0)).unwrap();
    let config = |secret: &mut [u8; 32]| SegmentConfig {
        session: world.session,
        gate_key: world.gate_key.public(),
        launch_secret: Secret::take(secret),
        package_digest: Digest48::from([1; 48]),
        manifest_digest: Digest48::from([2; 48]),
    };
    let mut runtime = SegmentSession::new(config(&mut [3; 32]));
    let evidence = runtime.challenge(&challenge, &TestAttestor { ..world.attestor.clone() }, now(0)).unwrap();
    assert_eq!(owner.evidence(&evidence, now(0)).unwrap_err().code(), Some(&Code::LAUNCH_SECRET_WRONG));
    assert!(world.store.committed(&world.session).unwrap().is_none());
}
