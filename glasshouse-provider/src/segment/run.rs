//! The life of a segment's process from its start to its exit code.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use glasshouse_core::channel::{EventBody, Outcome, Phase, RuntimeChannel};
use glasshouse_core::claims::RuntimeState;
use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_core::job::JobSpec;
use glasshouse_core::package::PackageDigests;
use glasshouse_core::protocol::decode;
use glasshouse_core::refusal::Refusal;
use glasshouse_core::secret::Secret;
use glasshouse_core::segment::LeaseGuard;
use glasshouse_core::traits::{AttestError, Attestor, Workload, WorkloadError, ZeroizeError};

use super::attest::attest;
use super::exports::{Exports, SealTo};
use super::finish::{Held, deliver, finish};
use super::inputs;
use super::port::Port;
use super::stop::Stop;
use super::training::train;
use crate::frames::{FromSegment, SegmentStart};
use crate::raw::{RawOrder, raw_key};
use crate::roles::{LaunchError, Registry, SegmentContext, anti_debug_level, note};
use crate::wire::{SegmentMode, SegmentStep};
use crate::{clock, grace};

/// Why a segment fails. It reaches the owner as a `Failed` event, or before the release as the reason of the exit.
#[derive(Debug, thiserror::Error)]
pub(super) enum SegmentFailure {
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("no attestor for {0} evidence is registered; add it to the Registry")]
    NoAttestor(glasshouse_core::claims::EvidenceKind),
    #[error("no zeroizer for device {0} is registered, so nothing may be opened; add it to the Registry")]
    NoZeroizer(glasshouse_core::traits::Device),
    #[error("no workload {name} is registered; there is: {known}")]
    NoWorkload { name: String, known: String },
    #[error(transparent)]
    Attest(#[from] AttestError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the operating system gives no randomness")]
    NoRandomness,
    #[error("{0}")]
    Package(String),
    #[error("public input {name}: {why}")]
    PublicInput { name: String, why: String },
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error("it panicked; the allocation's log has the place")]
    Panicked,
    #[error(transparent)]
    Zeroize(#[from] ZeroizeError),
    #[error("ended before the release: {0}")]
    Stopped(Stop),
    #[error("no owner came before the linger time was over")]
    NobodyCame,
}

/// What a segment does, and what it does it with.
pub(super) struct Segment<'a> {
    pub(super) registry: &'a Registry,
    pub(super) start: SegmentStart,
    pub(super) context: SegmentContext,
    pub(super) port: Port,
    /// Once there is one, everything is said through it.
    pub(super) channel: Option<RuntimeChannel>,
    /// Everything up to here is durable at the owner.
    pub(super) acknowledged: Option<u64>,
    pub(super) step: SegmentStep,
}

/// What to do, and with what.
pub(super) struct Order {
    pub(super) job: JobSpec,
    pub(super) lease: Option<LeaseGuard>,
    pub(super) source: Source,
}

pub(super) enum Source {
    /// Its data key is held.
    Sealed { digests: PackageDigests, result_key: PublicKey32 },
    /// Nobody proved anything for this one: it is no data key of the gate's.
    Raw { digests: PackageDigests, data_key: Secret<32>, result_key: PublicKey32 },
}

/// Runs a segment. Gives the process's exit code: 0 completed, 1 failed, 3 stopped.
pub(crate) fn main(registry: &Registry) -> i32 {
    // The usual hook prints the message, which may quote data, where the host reads it.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(at) => note(format_args!("a panic at {at}; what it says stays in the segment")),
        None => note(format_args!("a panic; what it says stays in the segment")),
    }));
    let (port, secret, start) = match Port::open() {
        Ok(opened) => opened,
        Err(e) => {
            note(format_args!("a segment cannot start: {e}"));
            return 1;
        }
    };
    let level = match anti_debug_level() {
        Ok(level) => level,
        Err(e) => {
            note(format_args!("a segment cannot start: {e}"));
            return 1;
        }
    };
    let context = SegmentContext::new(start.image_digest, level);
    let step = SegmentStep::Start;
    let mut segment = Segment { registry, start, context, port, channel: None, acknowledged: None, step };
    let (outcome, reason) = segment.live(secret);
    if let Some(reason) = &reason {
        let _ = segment.port.send(&FromSegment::Ending(reason.clone()));
    }
    match outcome {
        Outcome::Completed => 0,
        Outcome::Failed => 1,
        Outcome::Stopped => 3,
    }
}

/// What may panic, so that what was held survives it.
fn guarded<T>(work: impl FnOnce() -> Result<T, SegmentFailure>) -> Result<T, SegmentFailure> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(SegmentFailure::Panicked))
}

impl Segment<'_> {
    fn live(&mut self, secret: Secret<32>) -> (Outcome, Option<String>) {
        let mut held = Held::default();
        let began = guarded(|| self.begin(secret, &mut held));
        let worked = match began {
            Ok(order) => guarded(|| self.work(order, &mut held)),
            // From the grant on only zeroization ends it, in whatever line it failed.
            Err(failure) if held.data_key.is_some() || self.channel.is_some() => Err(failure),
            Err(failure) => return self.fail_before_release(&failure),
        };
        let ended = match worked {
            Ok(None) => (Outcome::Completed, None),
            Ok(Some(stop)) => (Outcome::Stopped, Some(stop.to_string())),
            Err(failure) => self.failed(&failure),
        };
        let step = self.step;
        let ended = finish(self, held, self.start.mode == SegmentMode::Protected, ended);
        match (ended, deliver(self)) {
            // The work is done, but nobody has it.
            ((Outcome::Completed, _), Some(undelivered)) => (Outcome::Stopped, Some(undelivered)),
            // The host reads what is said from here on, and an error of a workload may say something of its inputs. The
            // owner has it sealed, in the events.
            ((Outcome::Failed, _), _) => {
                (Outcome::Failed, Some(format!("it failed in step {step}; the owner has the reason, sealed")))
            }
            (ended, _) => ended,
        }
    }

    /// Nothing was opened yet: there is no key to wipe but the launch secret, which is gone with the session.
    fn fail_before_release(&mut self, failure: &SegmentFailure) -> (Outcome, Option<String>) {
        self.context.enter(RuntimeState::Failed);
        let stopped = matches!(failure, SegmentFailure::Stopped(_));
        (if stopped { Outcome::Stopped } else { Outcome::Failed }, Some(failure.to_string()))
    }

    fn failed(&mut self, failure: &SegmentFailure) -> (Outcome, Option<String>) {
        let message = failure.to_string();
        self.emit(&EventBody::Failed { step: self.step.to_string(), message: message.clone() });
        (Outcome::Failed, Some(message))
    }

    /// Hardens, and gets its order: out of a release, or out of the start.
    fn begin(&mut self, secret: Secret<32>, held: &mut Held) -> Result<Order, SegmentFailure> {
        self.enter(SegmentStep::Harden);
        let kind = self.start.attestor;
        let attestor: Box<dyn Attestor> =
            self.registry.make_attestor(kind, &self.context).ok_or(SegmentFailure::NoAttestor(kind))??;
        match self.start.mode {
            SegmentMode::Protected => {
                // Before there is anything to protect, and not in raw segments, which are what this is compared with.
                ZeroOnFree::guard();
                attest(self, secret, attestor.as_ref(), held)
            }
            SegmentMode::Raw => {
                let order = self.start.job.as_ref().map_or(&[][..], |order| &order.0);
                let order: RawOrder = decode("raw order", order, RawOrder::LIMIT)?;
                let session = self.start.session;
                let (job, data_key, digests) = order.open(&secret, &session)?;
                let result_key = raw_key(&secret, session)?.public();
                self.channel = Some(RuntimeChannel::raw(&secret, self.start.session, &self.start.boot));
                Ok(Order { job, lease: None, source: Source::Raw { digests, data_key, result_key } })
            }
        }
    }

    /// What raw and protected segments do alike. `Some` when it stopped before its end.
    fn work(&mut self, order: Order, held: &mut Held) -> Result<Option<Stop>, SegmentFailure> {
        let Order { job, mut lease, source } = order;
        // Looked at between two batches, and one of them may hang.
        if let Some(left) = lease.as_ref().map(|lease| lease.left(clock::now())) {
            self.port.watchdog.limit_work(left.saturating_add(grace::LETTING_GO));
        }
        let facts = self.registry.device_facts(job.device);
        self.emit(&EventBody::Device { model: facts.model, driver: facts.driver, uuid: facts.uuid });
        let (name, known) = (job.workload.clone(), self.registry.workload_names());
        let workload = self.registry.make_workload(&name).ok_or(SegmentFailure::NoWorkload { name, known })?;
        let workload: &mut dyn Workload = held.workload.insert(workload).as_mut();
        self.enter(SegmentStep::OpenPackage);
        let path = self.start.package.clone();
        let (inputs, owner) = match &source {
            Source::Raw { digests, data_key, result_key } => {
                (inputs::from_package(&path, data_key, digests)?, *result_key)
            }
            Source::Sealed { digests, result_key } => {
                held.zeroizer = self.registry.make_zeroizer(job.device);
                if held.zeroizer.is_none() {
                    return Err(SegmentFailure::NoZeroizer(job.device));
                }
                // Making a workload and a zeroizer takes time that is the registry's.
                if let Some(Err(refusal)) = lease.as_mut().map(|lease| lease.check(0, clock::now())) {
                    return Ok(Some(Stop::Lease(refusal)));
                }
                let data_key = held.data_key.as_ref().ok_or(SegmentFailure::NoRandomness)?;
                (inputs::from_package(&path, data_key, digests)?, *result_key)
            }
        };
        self.context.enter(RuntimeState::Training);
        self.phase(Phase::Opened);
        self.enter(SegmentStep::Prepare);
        workload.prepare(inputs, job.device)?;
        self.phase(Phase::Prepared);
        let seal_to = SealTo { owner, session: self.start.session };
        let stop = train(self, workload, &job, lease.as_mut(), seal_to)?;
        if job.export && stop.as_ref().is_none_or(|stop| *stop == Stop::Asked) {
            self.enter(SegmentStep::Export);
            self.phase(Phase::Exporting);
            workload.export(&mut Exports { segment: self, seal_to })?;
        }
        Ok(stop)
    }

    /// Enters a step, and tells the agent, who tells the owner when this process dies in it.
    pub(super) fn enter(&mut self, step: SegmentStep) {
        self.step = step;
        self.port.step(step);
    }

    /// Says that a phase is entered now.
    pub(super) fn phase(&mut self, phase: Phase) {
        self.phase_at(phase, clock::boot());
    }

    pub(super) fn phase_at(&mut self, phase: Phase, at: std::time::Duration) {
        let boot_micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.emit(&EventBody::Phase { phase, boot_micros });
    }

    /// Signs, chains and seals an event, and hands it to the agent's outbox. What cannot be sent is lost with the agent.
    pub(super) fn emit(&mut self, body: &EventBody) {
        let Some(channel) = self.channel.as_mut() else { return };
        let seq = channel.emitted();
        match channel.emit(body, clock::now()) {
            Ok(record) => {
                let record = glasshouse_core::fixed::Blob(glasshouse_core::protocol::encode(&record));
                let _ = self.port.send(&FromSegment::Record { seq, record });
            }
            Err(refusal) => note(format_args!("an event was not sent: {refusal}")),
        }
    }
}
