//! The gate against a runtime, message by message, without sockets.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{LEASE_SECONDS, TestAttestor, World, now};
use glasshouse_core::channel::{Command, EventBody, Outcome, SealedRecord};
use glasshouse_core::claims::{Assurance, Claims, RuntimeState};
use glasshouse_core::clock::Now;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64, Fixed, Nonce32};
use glasshouse_core::gate::{
    BurnOutcome, CommittedRelease, FileGateStore, GateError, GateStore, MemoryGateStore, StoreError,
};
use glasshouse_core::protocol::{EvidenceMessage, Signed, SigningSecret, seal_artifact};
use glasshouse_core::refusal::Code;
use glasshouse_core::traits::{AttestError, Attestor};

#[test]
fn a_session_from_challenge_to_terminal_event() {
    let world = World::new();
    let mut owner = world.owner();
    let mut runtime = world.runtime();
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(1)).unwrap();
    let release = owner.evidence(&evidence, now(2)).unwrap();
    assert_eq!(owner.verdict().unwrap().appraisal.assurance, Assurance::SelfReported);
    let mut grant = runtime.release(&release, now(3)).unwrap();
    assert_eq!(grant.data_key.expose(), &world.data_key);
    assert_eq!(grant.job, world.job());
    let chain = owner.record_parts().unwrap().channel.chain();
    assert!(chain.finish().is_err() && !chain.is_ended() && chain.is_empty() && !grant.channel.is_ended());

    let end = EventBody::End { outcome: Outcome::Completed, reason: None };
    let record = grant.channel.emit(&end, now(4)).unwrap();
    let events = owner.records(&[record]).unwrap();
    assert_eq!(events[0].1, end);
    let chain = owner.record_parts().unwrap().channel.chain();
    assert!(chain.finish().is_ok() && chain.is_ended() && !chain.is_empty());
    assert_eq!((chain.len(), grant.channel.emitted(), grant.channel.is_ended()), (1, 1, true));
    assert_eq!(world.store.sessions().unwrap(), [world.session]);
    assert_eq!(grant.channel.emit(&end, now(5)).unwrap_err().code, Code::EVENT_AFTER_TERMINAL);

    let stop = owner.command(&Command::Stop).unwrap();
    assert_eq!(grant.channel.command(&stop).unwrap(), Command::Stop);
}

#[test]
fn an_artifact_opens_for_its_session_and_name_alone() {
    let world = World::new();
    let owner = world.owner();
    let sealed = seal_artifact(&world.result_key.public(), &world.session, "adapter", b"weights").unwrap();
    assert_eq!(*owner.open_artifact("adapter", &sealed).unwrap(), b"weights");
    let another = seal_artifact(&world.result_key.public(), &Fixed([9; 32]), "adapter", b"weights").unwrap();
    for (name, sealed) in [("evaluation", &sealed), ("adapter", &another)] {
        let error = owner.open_artifact(name, sealed).unwrap_err();
        assert!(matches!(&error, GateError::Refused(refusal) if refusal.code == Code::ARTIFACT_UNOPENABLE), "{error}");
    }
}

#[test]
fn the_nonce_is_burned_whatever_else_is_wrong() {
    let world = World::new();
    let mut owner = world.owner();
    let mut runtime = world.runtime();
    let challenge = owner.challenge(now(0)).unwrap();
    let mut spoofed = world.attestor.clone();
    spoofed.claims.state = RuntimeState::Training;
    let evidence = runtime.challenge(&challenge, &spoofed, now(1)).unwrap();
    assert_eq!(owner.evidence(&evidence, now(1)).unwrap_err().code(), Some(&Code::RUNTIME_STATE_INVALID));
    let good = runtime.challenge(&challenge, &world.attestor, now(1)).unwrap();
    assert_eq!(owner.evidence(&good, now(1)).unwrap_err().code(), Some(&Code::NONCE_REPLAYED));
    assert!(world.store.committed(&world.session).unwrap().is_none());

    let challenge = owner.challenge(now(2)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(2)).unwrap();
    owner.evidence(&evidence, now(2)).unwrap();
    assert_eq!(owner.evidence(&evidence, now(2)).unwrap_err().code(), Some(&Code::ALREADY_RELEASED));
    assert_eq!(owner.challenge(now(2)).unwrap_err().code(), Some(&Code::ALREADY_RELEASED));
}

#[test]
fn a_late_answer_and_an_answer_to_an_earlier_challenge_are_refused() {
    let world = World::new();
    let mut owner = world.owner();
    let mut runtime = world.runtime();
    let first = owner.challenge(now(0)).unwrap();
    let answer = runtime.challenge(&first, &world.attestor, now(0)).unwrap();
    let second = owner.challenge(now(1)).unwrap();
    assert_eq!(owner.evidence(&answer, now(1)).unwrap_err().code(), Some(&Code::CHALLENGE_EXPIRED));
    let answer = runtime.challenge(&second, &world.attestor, now(1)).unwrap();
    assert_eq!(owner.evidence(&answer, now(32)).unwrap_err().code(), Some(&Code::CHALLENGE_EXPIRED));
    for _ in 2..8 {
        owner.challenge(now(33)).unwrap();
    }
    assert_eq!(owner.challenge(now(33)).unwrap_err().code(), Some(&Code::RETRIES_EXHAUSTED));
}

#[test]
fn the_runtimes_clock_is_checked_for_skew_and_staleness() {
    for (offset, code) in [(-200_i64, Code::TIMESTAMP_STALE), (200, Code::TIMESTAMP_FUTURE)] {
        let world = World::new();
        let mut owner = world.owner();
        let challenge = owner.challenge(now(1000)).unwrap();
        let mut wrong = now(1000);
        wrong.wall.0 = wrong.wall.0.saturating_add_signed(offset * 1000);
        let evidence = world.runtime().challenge(&challenge, &world.attestor, wrong).unwrap();
        assert_eq!(owner.evidence(&evidence, now(1000)).unwrap_err().code(), Some(&code));
    }
}

#[test]
fn every_flipped_bit_of_evidence_and_release_is_refused() {
    let world = World::new();
    let mut owner = world.owner();
    let mut runtime = world.runtime();
    let challenge = owner.challenge(now(0)).unwrap();
    for index in (0..challenge.len()).step_by(7) {
        let mut changed = challenge.clone();
        changed[index] ^= 1;
        assert!(world.runtime().challenge(&changed, &world.attestor, now(0)).is_err(), "challenge byte {index}");
    }
    let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
    for index in (0..evidence.len()).step_by(31) {
        let world = world.again(Arc::new(MemoryGateStore::default()));
        let mut owner = world.owner();
        let challenge = owner.challenge(now(0)).unwrap();
        let mut changed = world.runtime().challenge(&challenge, &world.attestor, now(0)).unwrap();
        let index = index % changed.len();
        changed[index] ^= 1;
        assert!(owner.evidence(&changed, now(0)).is_err(), "evidence byte {index}");
        assert!(world.store.committed(&world.session).unwrap().is_none());
    }
    let release = owner.evidence(&evidence, now(0)).unwrap();
    for index in (0..release.len()).step_by(7) {
        let mut changed = release.clone();
        changed[index] ^= 1;
        assert!(runtime.release(&changed, now(0)).is_err(), "release byte {index}");
    }
    assert!(runtime.release(&release, now(0)).is_ok());
}

#[test]
fn a_restarted_gate_repeats_the_same_bytes_and_follows_the_chain_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gate");
    let world = World::new().again(Arc::new(FileGateStore::open(&path).unwrap()));
    let mut owner = world.owner();
    let mut runtime = world.runtime();
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
    let release = owner.evidence(&evidence, now(0)).unwrap();
    let mut grant = runtime.release(&release, now(1)).unwrap();
    let phase = EventBody::Failed { step: "test".into(), message: "first".into() };
    let records: Vec<_> = (0..3).map(|_| grant.channel.emit(&phase, now(2)).unwrap()).collect();
    owner.records(&records[..2]).unwrap();
    drop(owner);
    let world = { world }.drop_store_and(|| Arc::new(FileGateStore::open(&path).unwrap()));
    let mut owner = world.owner();
    assert_eq!(owner.release_bytes().unwrap(), release);
    assert_eq!(owner.challenge(now(3)).unwrap_err().code(), Some(&Code::ALREADY_RELEASED));
    assert_eq!(owner.next_record(), 2);
    owner.records(&records[2..]).unwrap();
    assert_eq!(owner.record_parts().unwrap().channel.events().len(), 3);
}

#[test]
fn a_man_in_the_middle_without_the_launch_secret_cannot_put_his_keys_in() {
    let world = World::new();
    let mut owner = world.owner();
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = world.runtime().challenge(&challenge, &world.attestor, now(0)).unwrap();
    let mut message = Signed::<EvidenceMessage>::from_bytes(&evidence).unwrap().peek().unwrap();
    let his = SigningSecret::random().unwrap();
    message.event_key = his.public();
    let swapped = Signed::sign(&message, &his).to_bytes();
    assert_eq!(owner.evidence(&swapped, now(0)).unwrap_err().code(), Some(&Code::KEYS_SWAPPED));

    let challenge = owner.challenge(now(0)).unwrap();
    let other = World::new();
    let mut runtime = other.runtime_of(&world);
    let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
    assert_eq!(owner.evidence(&evidence, now(0)).unwrap_err().code(), Some(&Code::LAUNCH_SECRET_WRONG));
}

#[test]
fn assurance_below_the_minimum_gets_nothing() {
    let mut world = World::new();
    world.reference.minimum_assurance = Assurance::CpuTee;
    let mut owner = world.owner();
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = world.runtime().challenge(&challenge, &world.attestor, now(0)).unwrap();
    assert_eq!(owner.evidence(&evidence, now(0)).unwrap_err().code(), Some(&Code::ASSURANCE_TOO_LOW));
}

/// With GPUs that cannot attest, or, where it is broken, that can and did not.
struct SilentGpus<'a>(&'a TestAttestor, bool);

impl Attestor for SilentGpus<'_> {
    fn measure(&self) -> Result<Claims, AttestError> {
        self.0.measure()
    }
    fn gpu_evidence(&self, _: &Digest32) -> Result<GpuEvidence, AttestError> {
        Err(match self.1 {
            true => AttestError::Failed { what: "a GPU", why: "it is lost".into() },
            false => AttestError::NotAvailable { what: "a GPU", why: "it is off".into() },
        })
    }
    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        self.0.quote(report_data)
    }
}

#[test]
fn gpus_that_cannot_attest_are_left_out_where_nobody_asks_for_them() {
    for (minimum, broken, goes_on) in [
        (Assurance::SelfReported, false, true),
        (Assurance::CpuTee, false, true),
        (Assurance::CpuTeeGpuCc, false, false),
        (Assurance::SelfReported, true, false),
    ] {
        let mut world = World::new();
        world.reference.minimum_assurance = minimum;
        let (mut owner, mut runtime) = (world.owner(), world.runtime());
        let challenge = owner.challenge(now(0)).unwrap();
        let evidence = runtime.challenge(&challenge, &SilentGpus(&world.attestor, broken), now(1));
        assert_eq!(evidence.is_ok(), goes_on, "{minimum} {broken}");
        let told = runtime.without_gpus().map(ToString::to_string);
        assert_eq!(told.is_some_and(|told| told.contains("it is off")), goes_on);
        // The next answer is of its own.
        runtime.challenge(&challenge, &world.attestor, now(1)).unwrap();
        assert!(runtime.without_gpus().is_none());
    }
}

#[test]
fn a_lease_ends_by_its_own_clock() {
    let world = World::new();
    let mut owner = world.owner();
    let mut runtime = world.runtime();
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
    let release = owner.evidence(&evidence, now(0)).unwrap();
    let mut grant = runtime.release(&release, now(0)).unwrap();
    assert!(grant.lease.check(0, now(3600)).is_ok());
    let mut late = now(3601);
    late.boot += Duration::from_secs(1);
    assert_eq!(grant.lease.check(0, late).unwrap_err().code, Code::LEASE_EXPIRED);
}

#[test]
fn a_release_that_was_held_back_is_not_opened() {
    let world = World::new();
    let ttl = LEASE_SECONDS;
    let held_back = |come: glasshouse_core::clock::Now| {
        let world = world.again(Arc::new(MemoryGateStore::default()));
        let (mut owner, mut runtime) = (world.owner(), world.runtime());
        let challenge = owner.challenge(now(1000)).unwrap();
        let evidence = runtime.challenge(&challenge, &world.attestor, now(1000)).unwrap();
        let release = owner.evidence(&evidence, now(1000)).unwrap();
        let grant = runtime.release(&release, come).map_err(|error| match error {
            glasshouse_core::segment::SegmentError::Refused(refusal) => refusal.code,
            other => panic!("{other}"),
        });
        grant.map(|mut grant| grant.lease.check(0, come).unwrap())
    };
    held_back(now(1000 + ttl)).unwrap();
    // With the wall clock held still, and with the boot clock of a machine that slept no second.
    let (mut stopped, mut slow) = (now(1001 + ttl), now(1001 + ttl));
    stopped.wall = now(1000).wall;
    slow.boot = now(1000).boot;
    for late in [now(1001 + ttl), stopped, slow] {
        assert_eq!(held_back(late), Err(Code::LEASE_EXPIRED));
    }
    let mut back = now(1001);
    back.wall = now(800).wall;
    assert_eq!(held_back(back), Err(Code::CLOCK_SET_BACK));
}

#[test]
fn the_lease_runs_from_the_evidence_not_from_the_release() {
    let world = World::new();
    let ttl = LEASE_SECONDS;
    let (mut owner, mut runtime) = (world.owner(), world.runtime());
    let challenge = owner.challenge(now(0)).unwrap();
    let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
    let release = owner.evidence(&evidence, now(20)).unwrap();
    let mut lease = runtime.release(&release, now(ttl - 1)).unwrap().lease;
    lease.check(0, now(ttl)).unwrap();
    assert_eq!(lease.check(0, now(ttl + 1)).unwrap_err().code, Code::LEASE_EXPIRED);
}

/// A store whose disk fails on demand, for one record at a time.
#[derive(Default)]
struct Stumbling {
    inner: MemoryGateStore,
    /// The next record is refused.
    fails: AtomicBool,
    /// The next record is kept, and the store says that it is not.
    lies: AtomicBool,
}

impl GateStore for Stumbling {
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError> {
        self.inner.issue(session, nonce)
    }
    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError> {
        self.inner.burn(session, nonce)
    }
    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError> {
        self.inner.commit(release)
    }
    fn sessions(&self) -> Result<Vec<Nonce32>, StoreError> {
        self.inner.sessions()
    }
    fn committed(&self, session: &Nonce32) -> Result<Option<CommittedRelease>, StoreError> {
        self.inner.committed(session)
    }
    fn keep(&self, session: &Nonce32, record: &SealedRecord) -> Result<(), StoreError> {
        let failed = || StoreError::Io { path: "memory".into(), what: "written", why: "told to fail".into() };
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(failed());
        }
        self.inner.keep(session, record)?;
        if self.lies.swap(false, Ordering::SeqCst) { Err(failed()) } else { Ok(()) }
    }
    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError> {
        self.inner.kept(session)
    }
}

#[test]
fn a_record_that_was_not_kept_was_not_taken() {
    for lies in [false, true] {
        let store = Arc::new(Stumbling::default());
        let world = World::new().again(Arc::clone(&store) as Arc<dyn GateStore>);
        let (mut owner, mut runtime) = (world.owner(), world.runtime());
        let challenge = owner.challenge(now(0)).unwrap();
        let evidence = runtime.challenge(&challenge, &world.attestor, now(0)).unwrap();
        let mut grant = runtime.release(&owner.evidence(&evidence, now(0)).unwrap(), now(0)).unwrap();
        let said = EventBody::Failed { step: "test".into(), message: "said".into() };
        let end = EventBody::End { outcome: Outcome::Completed, reason: None };
        let records = [said, end].map(|body| grant.channel.emit(&body, now(1)).unwrap());
        owner.records(&records[..1]).unwrap();
        if lies { &store.lies } else { &store.fails }.store(true, Ordering::SeqCst);
        assert!(matches!(owner.records(&records[1..]), Err(GateError::Store(StoreError::Io { .. }))));
        // What would be acknowledged, reported and put into a record is what is durable, and not the end of the run.
        assert_eq!(owner.next_record(), 1, "a record counts that was not kept");
        let channel = owner.record_parts().unwrap().channel;
        assert_eq!((channel.events().len(), channel.chain().len(), channel.chain().is_ended()), (1, 1, false));
        // The same record again is taken, once.
        owner.records(&records[1..]).unwrap();
        assert_eq!((owner.next_record(), store.kept(&world.session).unwrap().len()), (2, 2));
        drop(owner);
        assert!(world.owner().record_parts().unwrap().channel.chain().is_ended(), "a restarted gate reads it");
    }
}

#[test]
fn no_key_under_a_clock_that_no_record_would_take() {
    // The runtime's clock goes back with the gate's, so that its timestamp tells nothing.
    let answered_with_a_clock_set_back = |seconds: u64| {
        let world = World::new();
        let (mut owner, mut runtime) = (world.owner(), world.runtime());
        let challenge = owner.challenge(now(1000)).unwrap();
        let later = Now { wall: now(1000 - seconds).wall, boot: now(1001).boot };
        let evidence = runtime.challenge(&challenge, &world.attestor, later).unwrap();
        let answer = owner.evidence(&evidence, later).map_err(|error| error.code().cloned());
        assert_eq!(answer.is_ok(), world.store.committed(&world.session).unwrap().is_some());
        answer
    };
    assert_eq!(answered_with_a_clock_set_back(121).unwrap_err(), Some(Code::CLOCK_SET_BACK));
    // Time daemons step by less, and that is no reason to refuse.
    answered_with_a_clock_set_back(120).unwrap();
}
