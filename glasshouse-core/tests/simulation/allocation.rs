//! The allocation: an agent that holds the sealed outbox, and a segment that attests, trains and wipes.

use std::time::Duration;

use glasshouse_core::channel::{EventBody, Interval, Outcome, RuntimeChannel, SealedRecord};
use glasshouse_core::clock::Now;
use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::protocol::{EvidenceMessage, Signed, encode, seal_artifact};
use glasshouse_core::secret::{Ledger, Secret};
use glasshouse_core::segment::{LeaseGuard, SegmentConfig, SegmentError, SegmentSession};
use glasshouse_core::traits::{Progress, Zeroizer as _};
use glasshouse_core::transcript::sha256;

use crate::entropy::Rng;
use crate::net::{Frame, open_number};
use crate::owner::ARTIFACT;
use crate::plan::Sabotage;
use crate::world::{Completed, Setting, Truth};

/// Without a word of the owner's for this long, a segment ends, and its results wait no longer.
pub(crate) const LINGER: Duration = Duration::from_secs(30);
/// Records in one answer.
const PAGE: usize = 5;

pub(crate) struct Allocation {
    segment: Option<Segment>,
    outbox: Vec<(u64, SealedRecord)>,
    artifact: Option<Vec<u8>>,
    restart_at: Option<u64>,
    pub(crate) restarts: u64,
}

struct Segment {
    session: SegmentSession,
    work: Option<Work>,
    heard: Duration,
    acknowledged: u64,
}

struct Work {
    key: Option<Secret<32>>,
    lease: LeaseGuard,
    channel: RuntimeChannel,
    owner: PublicKey32,
    budget: u64,
    done: u64,
    asked_to_stop: bool,
    granted: Duration,
    ended: Option<Duration>,
}

impl Allocation {
    pub(crate) fn new(setting: &Setting, now: Now) -> Self {
        let segment = setting.plan.genuine.then(|| Segment::new(setting, now));
        Self { segment, outbox: Vec::new(), artifact: None, restart_at: None, restarts: 0 }
    }

    /// Whether anything runs or will run here.
    pub(crate) fn is_alive(&self) -> bool {
        self.segment.is_some() || self.restart_at.is_some()
    }

    /// The segment's process dies and one of the same id takes its place; with the agent, the outbox goes too.
    pub(crate) fn crash(&mut self, at: u64, rng: &mut Rng, agent_too: bool) {
        if self.segment.take().is_some() {
            self.restart_at = Some(at + rng.between(1_000, 8_000));
        }
        if agent_too {
            self.outbox.clear();
            self.artifact = None;
        }
    }

    pub(crate) fn tick(
        &mut self,
        setting: &Setting,
        (at, now): (u64, Now),
        arrived: &[Frame],
        truth: &mut Truth,
    ) -> Vec<Frame> {
        if self.restart_at.is_some_and(|restart| at >= restart) {
            self.restart_at = None;
            self.restarts += 1;
            self.segment = Some(Segment::new(setting, now));
        }
        let mut out = Vec::new();
        for frame in arrived {
            self.take(setting, frame, now, truth, &mut out);
        }
        if let Some(segment) = &mut self.segment {
            segment.work(setting, at, now, &mut self.outbox, &mut self.artifact, truth);
            if segment.must_exit(setting, now) {
                self.segment = None;
            }
        }
        out
    }

    /// How long a key has been alive beyond its lease, if it has.
    pub(crate) fn key_overdue(&self, now: Now) -> Option<Duration> {
        let work = self.segment.as_ref()?.work.as_ref().filter(|work| work.key.is_some())?;
        let age = now.boot.saturating_sub(work.granted);
        age.checked_sub(Duration::from_millis(work.lease.lease().ttl_millis)).filter(|over| !over.is_zero())
    }

    fn take(&mut self, setting: &Setting, frame: &Frame, now: Now, truth: &mut Truth, out: &mut Vec<Frame>) {
        let world = &setting.world;
        let number = |label, bytes: &[u8]| open_number(&world.launch_secret, world.session, label, bytes);
        let Some(segment) = self.segment.as_mut() else { return };
        match frame {
            Frame::Challenge(bytes) => match segment.session.challenge(bytes, &world.attestor, now) {
                Ok(evidence) => {
                    segment.heard = now.boot;
                    let message = Signed::<EvidenceMessage>::from_bytes(&evidence).unwrap().peek().unwrap();
                    truth.attested_keys.insert(message.hpke_key);
                    out.push(Frame::Evidence(evidence));
                }
                Err(error) => out.push(refused(&error)),
            },
            Frame::Release(bytes) if segment.work.is_none() => match segment.session.release(bytes, now) {
                Ok(grant) => {
                    truth.grants += 1;
                    segment.heard = now.boot;
                    if grant.data_key.expose() != &world.data_key {
                        truth.violations.push("a release opened to another key".into());
                    }
                    let budget = match grant.job.budget {
                        glasshouse_core::job::Budget::Units(units) => units,
                        glasshouse_core::job::Budget::Millis(_) => 0,
                    };
                    segment.work = Some(Work {
                        key: Some(grant.data_key),
                        lease: grant.lease,
                        channel: grant.channel,
                        owner: grant.result_key,
                        budget,
                        done: 0,
                        asked_to_stop: false,
                        granted: now.boot,
                        ended: None,
                    });
                }
                Err(error) => out.push(refused(&error)),
            },
            Frame::Command(bytes) => {
                let work = segment.work.as_mut();
                let opened = work.and_then(|work| {
                    let record = serde_json::from_slice::<SealedRecord>(bytes).ok()?;
                    work.channel.command(&record).ok().map(|_| work)
                });
                if let Some(work) = opened {
                    work.asked_to_stop = true;
                }
            }
            Frame::Poll(bytes) => {
                let Some(from) = number(4, bytes) else { return };
                segment.heard = now.boot;
                let page: Vec<_> =
                    self.outbox.iter().filter(|(seq, _)| *seq >= from).take(PAGE).map(|(_, r)| r).collect();
                if !page.is_empty() {
                    out.push(Frame::Records(encode(&page)));
                }
            }
            Frame::Ack(bytes) => {
                let Some(through) = number(5, bytes) else { return };
                segment.heard = now.boot;
                segment.acknowledged = segment.acknowledged.max(through);
                self.outbox.retain(|(seq, _)| *seq >= through);
            }
            Frame::Fetch(bytes) if number(6, bytes).is_some() => {
                segment.heard = now.boot;
                out.extend(self.artifact.clone().map(Frame::Artifact));
            }
            _ => {}
        }
    }
}

impl Segment {
    fn new(setting: &Setting, now: Now) -> Self {
        Self { session: setting.world.runtime(), work: None, heard: now.boot, acknowledged: 0 }
    }

    fn work(
        &mut self,
        setting: &Setting,
        at: u64,
        now: Now,
        outbox: &mut Vec<(u64, SealedRecord)>,
        artifact: &mut Option<Vec<u8>>,
        truth: &mut Truth,
    ) {
        let (plan, silent) = (&setting.plan, now.boot.saturating_sub(self.heard) > LINGER);
        let Some(work) = self.work.as_mut().filter(|work| work.ended.is_none()) else { return };
        let mut emit = |channel: &mut RuntimeChannel, body: EventBody| {
            let seq = channel.emitted();
            let record = channel.emit(&body, now).unwrap();
            truth.emitted.push(encode(&body));
            outbox.push((seq, record));
        };
        let lenient = plan.sabotage == Some(Sabotage::RuntimeIgnoresLease);
        let leaves = plan.sabotage != Some(Sabotage::RuntimeLingersForEver);
        let lease = if lenient { Ok(()) } else { work.lease.check(work.done, now) };
        let stop = match lease {
            Err(refusal) => Some(refusal.to_string()),
            Ok(()) if work.asked_to_stop => Some("the owner asked for it".into()),
            Ok(()) if silent && leaves => Some("the owner is gone".into()),
            Ok(()) => None,
        };
        let fails = plan.training_fails && work.done >= plan.units / 2;
        if work.done < work.budget && stop.is_none() && !fails {
            if at.is_multiple_of(1000) {
                work.done += work.lease.allowance(work.done, 1);
                let progress = Progress { done: work.done, loss: Some(0.5), ..Progress::default() };
                emit(
                    &mut work.channel,
                    EventBody::Progress { progress, interval: Interval { units: 1, micros: 1_000_000 } },
                );
            }
            return;
        }
        let (weights, all) = (sha256(work.done.to_be_bytes()), work.done >= work.budget && stop.is_none() && !fails);
        let overstates = plan.sabotage == Some(Sabotage::RuntimeOverstates);
        let claims_all = all || (overstates && !fails);
        if claims_all {
            let total = Interval { units: work.done, micros: work.done * 1_000_000 };
            emit(&mut work.channel, EventBody::Measured { total, weights, loss: None, method: "simulated".into() });
            let plain = work.done.to_be_bytes().repeat(9);
            let sealed = encode(&seal_artifact(&work.owner, &setting.world.session, ARTIFACT, &plain).unwrap());
            let announced = EventBody::Artifact {
                name: ARTIFACT.into(),
                sha256: sha256(&plain),
                bytes: plain.len() as u64,
                sealed_sha256: Some(sha256(&sealed)),
            };
            emit(&mut work.channel, announced);
            *artifact = Some(sealed);
            if all {
                truth.completed = Some(Completed { units: work.done, weights, artifact: plain });
            }
        }
        static NO_OTHERS: Ledger = Ledger::new();
        let mut zeroizer = HostZeroizer::with_ledger(&NO_OTHERS);
        if plan.sabotage != Some(Sabotage::RuntimeKeepsKey)
            && let Some(key) = work.key.take()
        {
            zeroizer.track_key("data key", key);
        }
        emit(&mut work.channel, EventBody::Zeroized { receipt: zeroizer.zeroize().unwrap() });
        let (outcome, reason) = match (claims_all, fails) {
            (true, _) => (Outcome::Completed, None),
            (_, true) => (Outcome::Failed, Some("training failed".into())),
            _ => (Outcome::Stopped, stop),
        };
        emit(&mut work.channel, EventBody::End { outcome, reason });
        work.ended = Some(now.boot);
        if work.key.is_some() {
            truth.violations.push("a key is alive after the receipt".into());
        }
    }

    fn must_exit(&self, setting: &Setting, now: Now) -> bool {
        if setting.plan.sabotage == Some(Sabotage::RuntimeLingersForEver) {
            return false;
        }
        match &self.work {
            None => now.boot.saturating_sub(self.heard) > LINGER,
            Some(Work { ended: Some(ended), channel, .. }) => {
                self.acknowledged >= channel.emitted() || now.boot.saturating_sub(*ended) > LINGER
            }
            Some(_) => false,
        }
    }
}

fn refused(error: &SegmentError) -> Frame {
    Frame::Refused(error.to_string().into_bytes())
}

/// A segment in this session with other knowledge, for impostors.
pub(crate) fn segment_with(setting: &Setting, secret: Secret<32>, package: u8) -> SegmentSession {
    SegmentSession::new(SegmentConfig {
        session: setting.world.session,
        gate_key: setting.world.gate_key.public(),
        launch_secret: secret,
        package_digest: [package; 48].into(),
        manifest_digest: [2; 48].into(),
    })
}
