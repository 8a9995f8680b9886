//! The training loop, the same for raw and protected: warm-up, then steady state in launch batches.

use std::time::Duration;

use glasshouse_core::channel::{EventBody, Interval, Phase};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::segment::LeaseGuard;
use glasshouse_core::traits::{Progress, Workload};

use super::exports::{Exports, SealTo};
use super::run::{Segment, SegmentFailure};
use super::stop::Stop;
use crate::clock;
use crate::frames::{Answer, ToSegment};
use crate::progress;
use crate::wire::SegmentStep;

/// Events that may wait at the agent for an owner who is away, before progress waits for the owner too.
const MAX_UNACKNOWLEDGED: u64 = 256;

/// Trains until the budget is used, the workload is finished, or something stops it.
pub(super) fn train(
    segment: &mut Segment<'_>,
    workload: &mut dyn Workload,
    job: &JobSpec,
    lease: Option<&mut LeaseGuard>,
    seal_to: SealTo,
) -> Result<Option<Stop>, SegmentFailure> {
    let batch = workload.launch_batch().max(1);
    let checkpoints = job.export.then_some(seal_to);
    let mut training = Training { segment, workload, lease, checkpoints, batch, progress: Progress::default() };
    let warm_up = job.warmup_units.next_multiple_of(batch);
    if let Some(stop) = training.warm_up(warm_up)? {
        return Ok(Some(stop));
    }
    training.steady(job)
}

struct Training<'a, 'b> {
    segment: &'a mut Segment<'b>,
    workload: &'a mut dyn Workload,
    lease: Option<&'a mut LeaseGuard>,
    /// Whom checkpoints are sealed to; absent where nothing is exported.
    checkpoints: Option<SealTo>,
    batch: u64,
    progress: Progress,
}

impl Training<'_, '_> {
    /// One launch batch, unless something stops it before.
    fn advance(&mut self) -> Result<Option<Stop>, SegmentFailure> {
        if let Some(stop) = self.must_stop() {
            return Ok(Some(stop));
        }
        self.progress = self.workload.advance(self.batch)?;
        if let Some(seal_to) = self.checkpoints {
            self.workload.checkpoint(&mut Exports { segment: self.segment, seal_to })?;
        }
        Ok(None)
    }

    fn must_stop(&mut self) -> Option<Stop> {
        while let Some(message) = self.segment.port.poll() {
            self.segment.obey(message);
        }
        if let Some(stop) = self.segment.port.stop.get() {
            return Some(stop);
        }
        let (lease, done) = (self.lease.as_mut()?, self.progress.done);
        if let Err(refusal) = lease.check(done, clock::now()) {
            return Some(Stop::Lease(refusal));
        }
        let allowed = lease.allowance(done, self.batch);
        (allowed < self.batch).then(|| {
            let expected = format!("{} more units in one launch", self.batch);
            Stop::Lease(Refusal::new(Code::LEASE_STEPS, expected, format!("{allowed} left")))
        })
    }

    fn warm_up(&mut self, units: u64) -> Result<Option<Stop>, SegmentFailure> {
        self.segment.enter(SegmentStep::WarmUp);
        let mut first = true;
        while self.progress.done < units && !self.progress.is_finished() {
            if let Some(stop) = self.advance()? {
                return Ok(Some(stop));
            }
            if std::mem::take(&mut first) {
                self.segment.phase(Phase::FirstStep);
            }
        }
        let weights = self.workload.weights_digest()?;
        self.segment.emit(&EventBody::Warm { units: self.progress.done, weights });
        Ok(None)
    }

    fn steady(&mut self, job: &JobSpec) -> Result<Option<Stop>, SegmentFailure> {
        self.segment.enter(SegmentStep::Train);
        let every = Duration::from_millis(job.progress_millis.max(1));
        let mut total = Stretch::begin(self.progress.done);
        self.segment.phase_at(Phase::Training, total.began);
        let mut latest = total;
        let stop = loop {
            if self.progress.is_finished() || total.is_used(job.budget, self.progress.done) {
                break None;
            }
            if let Some(stop) = self.advance()? {
                break Some(stop);
            }
            let now = clock::boot();
            total.ended = now;
            // Progress that nobody takes is held back: the stretch goes on, and the next one to be said is longer.
            let due = progress::interval(every, total.length());
            if now.saturating_sub(latest.began) >= due && self.segment.unacknowledged() < MAX_UNACKNOWLEDGED {
                latest.ended = now;
                self.report(&latest);
                latest = Stretch { began: now, ended: now, first: self.progress.done };
            }
        };
        if self.progress.done > latest.first {
            latest.ended = total.ended;
            self.report(&latest);
        }
        if !self.segment.port.stop.is_urgent() {
            let weights = self.workload.weights_digest()?;
            let method = self.workload.method();
            let (total, loss) = (total.interval(self.progress.done), self.progress.loss);
            self.segment.emit(&EventBody::Measured { total, weights, loss, method });
        }
        Ok(stop)
    }

    fn report(&mut self, stretch: &Stretch) {
        let interval = stretch.interval(self.progress.done);
        self.segment.emit(&EventBody::Progress { progress: self.progress, interval });
    }
}

/// A stretch of training on the boot clock.
#[derive(Clone, Copy)]
struct Stretch {
    began: Duration,
    ended: Duration,
    first: u64,
}

impl Stretch {
    fn begin(first: u64) -> Self {
        let now = clock::boot();
        Self { began: now, ended: now, first }
    }

    fn length(&self) -> Duration {
        self.ended.saturating_sub(self.began)
    }

    fn is_used(&self, budget: Budget, done: u64) -> bool {
        match budget {
            Budget::Units(units) => done >= units,
            Budget::Millis(millis) => self.length() >= Duration::from_millis(millis),
        }
    }

    fn interval(&self, done: u64) -> Interval {
        let micros = u64::try_from(self.length().as_micros()).unwrap_or(u64::MAX);
        Interval { units: done.saturating_sub(self.first), micros }
    }
}

impl Segment<'_> {
    /// Takes a message that came outside the attestation.
    pub(super) fn obey(&mut self, message: ToSegment) {
        match message {
            ToSegment::Ack { through } => self.acknowledged = self.acknowledged.max(Some(through)),
            ToSegment::Command(record) => self.command(&record.0),
            // The agent answers a repeated release itself, and a challenge now is a mistake of the gate's.
            ToSegment::Challenge { question, .. } | ToSegment::Release { question, .. } => {
                let refusal = Refusal::new(Code::OUT_OF_ORDER, "a command", "a message from before the release");
                self.port.answer(question, Answer::Refused(refusal));
            }
            ToSegment::Start(_) | ToSegment::OwnerIsThere => {}
        }
    }

    fn unacknowledged(&self) -> u64 {
        let emitted = self.channel.as_ref().map_or(0, |channel| channel.emitted());
        emitted.saturating_sub(self.acknowledged.map_or(0, |through| through.saturating_add(1)))
    }

    fn command(&mut self, bytes: &[u8]) {
        use glasshouse_core::channel::{Command, SealedRecord};
        use glasshouse_core::protocol::decode;
        let Some(channel) = self.channel.as_mut() else { return };
        let opened = decode("sealed record", bytes, SealedRecord::LIMIT)
            .and_then(|record: SealedRecord| channel.command(&record));
        match opened {
            Ok(Command::Stop) => self.port.stop.set(Stop::Asked),
            // Forged or repeated: who cannot seal a command gets no answer either.
            Err(refusal) => crate::roles::note(format_args!("a command was ignored: {refusal}")),
        }
    }
}
