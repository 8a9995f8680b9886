//! An owner's process: it dials, asks again what was not answered, keeps what came, and dies and starts again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::channel::{Command, EventBody, Outcome, SealedRecord};
use glasshouse_core::clock::Now;
use glasshouse_core::gate::{GateError, GateStore, OwnerSession, StoreError};
use glasshouse_core::protocol::{SealedArtifact, decode, encode};
use glasshouse_core::refusal::Code;
use glasshouse_core::transcript::sha256;

use crate::disk::FaultyStore;
use crate::entropy::Rng;
use crate::net::{Frame, sealed_number};
use crate::plan::Sabotage;
use crate::world::{Setting, Truth};

/// From the first challenge to the end of the run, on the owner's boot clock.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);
pub(crate) const ARTIFACT: &str = "adapter.bin";
const ASK_AGAIN: u64 = 9_000;
const POLL: u64 = 2_000;

/// How an owner says that a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Done,
    Stopped,
    Failed,
    /// Its deadline passed.
    Overdue,
    /// No challenge was answered well enough.
    Exhausted,
}

#[derive(Default)]
pub(crate) struct Owner {
    up: Option<Up>,
    restart_at: u64,
    began: Option<Duration>,
    pub(crate) ended: Option<End>,
    pub(crate) releases: BTreeSet<Vec<u8>>,
    /// It told the allocation that everything before this is durable.
    pub(crate) acknowledged: u64,
    /// On its disk.
    pub(crate) artifact: Option<Vec<u8>>,
    pub(crate) starts: u64,
    farewells: u8,
}

struct Up {
    session: OwnerSession,
    rival: Option<OwnerSession>,
    asked: Option<u64>,
    polled: Option<u64>,
    stop: Option<Vec<u8>>,
}

impl Owner {
    /// Ends the process as SIGKILL does.
    pub(crate) fn crash(&mut self, at: u64, rng: &mut Rng) {
        self.up = None;
        self.restart_at = at + rng.between(500, 8_000);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up.is_some()
    }

    /// One step of its loop. Gives what it sends.
    pub(crate) fn tick(
        &mut self,
        setting: &Setting,
        rng: &mut Rng,
        (at, now): (u64, Now),
        arrived: &[Frame],
        truth: &mut Truth,
    ) -> Vec<Frame> {
        if self.ended.is_some() {
            return self.say_farewell(setting);
        }
        let began = *self.began.get_or_insert(now.boot);
        let patient = setting.plan.sabotage == Some(Sabotage::OwnerHasNoDeadline);
        if now.boot.saturating_sub(began) > LIMIT && !patient {
            self.end(End::Overdue);
            return Vec::new();
        }
        if self.up.is_none() && (at < self.restart_at || !self.start(setting, rng, at, truth)) {
            return Vec::new();
        }
        let mut out = Vec::new();
        if let Err(GateError::Store(_)) = self.work(setting, rng, (at, now), arrived, truth, &mut out) {
            self.crash(at, rng);
        }
        out
    }

    fn end(&mut self, how: End) {
        self.ended = Some(how);
        self.up = None;
        self.farewells = if how == End::Overdue || how == End::Exhausted { 0 } else { 6 };
    }

    /// The last acknowledgement, a few times over.
    fn say_farewell(&mut self, setting: &Setting) -> Vec<Frame> {
        if self.farewells == 0 {
            return Vec::new();
        }
        self.farewells -= 1;
        vec![self.number(setting, 5, self.acknowledged)]
    }

    fn start(&mut self, setting: &Setting, rng: &mut Rng, at: u64, truth: &mut Truth) -> bool {
        self.starts += 1;
        let plan = &setting.plan;
        let opened = FaultyStore::open(&setting.path, rng.next(), plan.disk, plan.sabotage);
        let store: Arc<dyn GateStore> = match opened {
            Ok(store) => Arc::new(store),
            Err(error) => {
                truth.violations.push(format!("after a crash the store does not open: {error}"));
                return false;
            }
        };
        if rng.chance(300) && !matches!(FaultyStore::open(&setting.path, 0, 0, None), Err(StoreError::InUse { .. })) {
            truth.violations.push("two owners have one store open".into());
        }
        let session = match setting.session(&store) {
            Ok(session) => session,
            Err(error) => {
                truth.violations.push(format!("after a crash the session does not open: {error}"));
                return false;
            }
        };
        if session.release_bytes().is_none() && !self.releases.is_empty() {
            truth.violations.push("a restarted gate forgot that it had released".into());
        }
        let rival = plan.rival.then(|| setting.session(&store).ok()).flatten();
        self.up = Some(Up { session, rival, asked: None, polled: None, stop: None });
        self.restart_at = at;
        true
    }

    fn work(
        &mut self,
        setting: &Setting,
        rng: &mut Rng,
        (at, now): (u64, Now),
        arrived: &[Frame],
        truth: &mut Truth,
        out: &mut Vec<Frame>,
    ) -> Result<(), GateError> {
        for frame in arrived {
            match frame {
                Frame::Evidence(bytes) => self.evidence(rng, bytes, now, out)?,
                Frame::Records(bytes) => self.records(bytes)?,
                Frame::Artifact(bytes) => self.artifact(rng, setting, bytes, truth),
                _ => {}
            }
        }
        let Some(up) = self.up.as_mut() else { return Ok(()) };
        if up.session.release_bytes().is_none() {
            return self.ask(rng, at, now, out);
        }
        self.judge(setting);
        let Some(up) = self.up.as_mut() else { return Ok(()) };
        if up.polled.is_some_and(|polled| at < polled + POLL) {
            return Ok(());
        }
        up.polled = Some(at);
        let next = up.session.next_record();
        if next == 0 {
            let release = up.session.release_bytes().unwrap_or_default().to_vec();
            self.releases.insert(release.clone());
            out.push(Frame::Release(release));
        }
        if setting.plan.stop_at.is_some_and(|stop| at >= stop * 1000) {
            if up.stop.is_none() {
                up.stop = Some(encode(&up.session.command(&Command::Stop)?));
            }
            out.extend(up.stop.clone().map(Frame::Command));
        }
        self.acknowledge(setting);
        out.extend([self.number(setting, 5, self.acknowledged), self.number(setting, 4, next)]);
        if self.announced().is_some() && self.artifact.is_none() {
            out.push(self.number(setting, 6, 0));
        }
        Ok(())
    }

    fn ask(&mut self, rng: &mut Rng, at: u64, now: Now, out: &mut Vec<Frame>) -> Result<(), GateError> {
        let Some(up) = self.up.as_mut() else { return Ok(()) };
        if up.asked.is_some_and(|asked| at < asked + ASK_AGAIN) {
            return Ok(());
        }
        up.asked = Some(at);
        let session = match &mut up.rival {
            Some(rival) if rng.chance(500) => rival,
            _ => &mut up.session,
        };
        match session.challenge(now) {
            Ok(challenge) => out.push(Frame::Challenge(challenge)),
            Err(error) if error.code() == Some(&Code::RETRIES_EXHAUSTED) => self.end(End::Exhausted),
            Err(GateError::Refused(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn evidence(&mut self, rng: &mut Rng, bytes: &[u8], now: Now, out: &mut Vec<Frame>) -> Result<(), GateError> {
        let Some(up) = self.up.as_mut() else { return Ok(()) };
        if let Some(rival) = up.rival.as_mut().filter(|_| rng.chance(500)) {
            match rival.evidence(bytes, now) {
                Ok(release) => {
                    self.releases.insert(release.clone());
                    out.push(Frame::Release(release));
                    // The other one learns of it when it next tries; here both are started afresh.
                    return Err(GateError::Store(StoreError::AlreadyReleased { session: "this".into() }));
                }
                Err(GateError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
        match up.session.evidence(bytes, now) {
            Ok(release) => {
                self.releases.insert(release.clone());
                up.polled = None;
                out.push(Frame::Release(release));
                Ok(())
            }
            Err(GateError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn records(&mut self, bytes: &[u8]) -> Result<(), GateError> {
        let Some(up) = self.up.as_mut() else { return Ok(()) };
        let Ok(records) = serde_json::from_slice::<Vec<SealedRecord>>(bytes) else { return Ok(()) };
        match up.session.records(&records) {
            Err(error @ GateError::Store(_)) => Err(error),
            // A page that came before, or was changed: what of it is new will be asked for again.
            _ => Ok(()),
        }
    }

    fn artifact(&mut self, rng: &mut Rng, setting: &Setting, bytes: &[u8], truth: &mut Truth) {
        let (Some(up), Some(digest)) = (self.up.as_ref(), self.announced()) else { return };
        let Ok(sealed) = decode::<SealedArtifact>("sealed artifact", bytes, 1 << 20) else { return };
        let Ok(opened) = up.session.open_artifact(ARTIFACT, &sealed) else { return };
        if sha256(opened.as_slice()) != digest {
            truth.violations.push("an artifact opened that the runtime did not sign for".into());
            return;
        }
        if !rng.chance(setting.plan.disk) {
            self.artifact = Some(opened.to_vec());
        }
    }

    /// The digest of the artifact that the events announced.
    fn announced(&self) -> Option<glasshouse_core::fixed::Digest32> {
        self.bodies().into_iter().find_map(|body| match body {
            EventBody::Artifact { sha256, .. } => Some(sha256),
            _ => None,
        })
    }

    fn bodies(&self) -> Vec<EventBody> {
        let parts = self.up.as_ref().and_then(|up| up.session.record_parts());
        let events = parts.map(|parts| parts.channel.events()).unwrap_or_default();
        events.iter().filter_map(|event| decode("event", &event.body.0, EventBody::LIMIT).ok()).collect()
    }

    /// Ends the run when its end has come home.
    fn judge(&mut self, setting: &Setting) {
        let bodies = self.bodies();
        let missing = self.announced().is_some() && self.artifact.is_none();
        let trusts = setting.plan.sabotage == Some(Sabotage::OwnerTrustsProgress);
        if trusts && bodies.iter().any(|body| matches!(body, EventBody::Measured { .. })) {
            return self.end(End::Done);
        }
        let Some(EventBody::End { outcome, .. }) = bodies.last() else { return };
        if missing && setting.plan.sabotage != Some(Sabotage::OwnerForgetsArtifact) {
            return;
        }
        self.acknowledged = bodies.len() as u64;
        self.end(match outcome {
            Outcome::Completed => End::Done,
            Outcome::Stopped => End::Stopped,
            Outcome::Failed => End::Failed,
        });
    }

    /// All that is durable, but never the end before the artifact.
    fn acknowledge(&mut self, setting: &Setting) {
        let Some(up) = self.up.as_ref() else { return };
        let mut through = up.session.next_record();
        if matches!(self.bodies().last(), Some(EventBody::End { .. })) {
            through = through.saturating_sub(1);
        }
        if setting.plan.sabotage == Some(Sabotage::OwnerAcknowledgesAhead) && through > 0 {
            through += 2;
        }
        self.acknowledged = self.acknowledged.max(through);
    }

    fn number(&self, setting: &Setting, label: u8, number: u64) -> Frame {
        let world = &setting.world;
        let bytes = sealed_number(&world.launch_secret, world.session, label, number);
        match label {
            4 => Frame::Poll(bytes),
            5 => Frame::Ack(bytes),
            _ => Frame::Fetch(bytes),
        }
    }
}
