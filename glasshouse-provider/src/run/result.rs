//! What came home of one segment.

use std::path::PathBuf;
use std::time::Duration;

use glasshouse_core::channel::{EventBody, EventHeader, Interval, Outcome, Phase};
use glasshouse_core::claims::RuntimeState;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest32, Nonce32};
use glasshouse_core::overhead::{
    Attestation, GpuIdentity, Label, Mode, Phase as SamplePhase, Protection, RateInterval, SegmentKind, SegmentSample,
};
use glasshouse_core::record::{RawSegmentRecord, SessionRecord};
use glasshouse_core::refusal::Refusal;
use glasshouse_core::traits::{Device, Receipt};
use glasshouse_core::transcript::sha256;

use super::RunError;
use crate::wire::{SegmentStep, StepMark};

/// An artifact as the workload exported it, durable in the output folder.
#[derive(Clone, PartialEq, Eq)]
pub struct TrainedArtifact {
    /// File name.
    pub name: String,
    /// SHA-256, as the runtime signed it and the owner checked it.
    pub sha256: Digest32,
    /// Its length.
    pub bytes: u64,
    /// Where it lies.
    pub path: PathBuf,
}

impl TrainedArtifact {
    /// Its content, if that is still what came home.
    ///
    /// # Errors
    /// [`RunError::Artifact`] when the file was removed or changed.
    pub fn read(&self) -> Result<Vec<u8>, RunError> {
        let wrong = |why: String| RunError::Artifact { name: self.name.clone(), why };
        let bytes = std::fs::read(&self.path).map_err(|e| wrong(format!("{}: {e}", self.path.display())))?;
        match sha256(&bytes) == self.sha256 {
            true => Ok(bytes),
            false => Err(wrong(format!("{} was changed since it came home", self.path.display()))),
        }
    }
}

impl std::fmt::Debug for TrainedArtifact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({} bytes, {})", self.name, self.bytes, self.sha256.short())
    }
}

/// When a segment entered its phases, on the allocation's boot clock, out of its signed events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline(pub Vec<(Phase, Duration)>);

impl Timeline {
    /// When a phase was entered.
    pub fn at(&self, phase: Phase) -> Option<Duration> {
        self.0.iter().find(|(seen, _)| *seen == phase).map(|(_, at)| *at)
    }

    /// Time between two phases.
    pub fn between(&self, from: Phase, to: Phase) -> Option<Duration> {
        self.at(to)?.checked_sub(self.at(from)?)
    }
}

/// How the gate's part of a segment went.
#[derive(Debug)]
pub(super) enum Protocol {
    Raw(Box<RawSegmentRecord>),
    Released(Box<SessionRecord>, glasshouse_core::claims::Assurance),
    Refused {
        refusal: Refusal,
        at: UnixMillis,
    },
    /// It never came to a verdict.
    Nothing,
}

/// What came home of one segment, however it ended.
#[derive(Debug)]
pub(super) struct SegmentResult {
    pub(super) session: Nonce32,
    pub(super) mode: Mode,
    pub(super) position: usize,
    pub(super) events: Vec<(EventHeader, EventBody)>,
    pub(super) steps: Vec<StepMark>,
    pub(super) protocol: Protocol,
    pub(super) artifacts: Vec<TrainedArtifact>,
}

impl SegmentResult {
    pub(super) fn outcome(&self) -> Option<(Outcome, Option<String>)> {
        self.find(|body| match body {
            EventBody::End { outcome, reason } => Some((*outcome, reason.clone())),
            _ => None,
        })
    }

    pub(super) fn receipt(&self) -> Option<Receipt> {
        self.find(|body| match body {
            EventBody::Zeroized { receipt } => Some(receipt.clone()),
            _ => None,
        })
    }

    pub(super) fn measured(&self) -> Option<(Interval, Digest32, Option<f64>)> {
        self.find(|body| match body {
            EventBody::Measured { total, weights, loss, .. } => Some((*total, *weights, *loss)),
            _ => None,
        })
    }

    /// How it trained, as it signed it.
    pub(super) fn method(&self) -> Option<String> {
        self.find(|body| match body {
            EventBody::Measured { method, .. } => Some(method.clone()),
            _ => None,
        })
    }

    pub(super) fn timeline(&self) -> Timeline {
        Timeline(
            self.events
                .iter()
                .filter_map(|(_, body)| match body {
                    EventBody::Phase { phase, boot_micros } => Some((*phase, Duration::from_micros(*boot_micros))),
                    _ => None,
                })
                .collect(),
        )
    }

    fn find<T>(&self, pick: impl Fn(&EventBody) -> Option<T>) -> Option<T> {
        self.events.iter().find_map(|(_, body)| pick(body))
    }

    /// The segment as the statistics take it.
    pub(super) fn sample(&self, device: Device, instance: String) -> SegmentSample {
        let total = self.measured();
        SegmentSample {
            session: self.session,
            kind: self.kind(),
            position: self.position,
            completed: matches!(self.outcome(), Some((Outcome::Completed, _))),
            units: total.map_or(0, |(total, ..)| total.units),
            seconds: total.map_or(0.0, |(total, ..)| seconds(total.micros)),
            intervals: self.intervals(),
            phases: phases(&self.steps),
            weights_after_warm_up: self.find(|body| match body {
                EventBody::Warm { weights, .. } => Some(*weights),
                _ => None,
            }),
            weights_at_end: total.map(|(_, weights, _)| weights),
            method: self.method(),
            device,
            gpu: self.gpu(device),
            instance,
            peak_rss_bytes: None,
        }
    }

    fn kind(&self) -> SegmentKind {
        let attestation = match &self.protocol {
            Protocol::Raw(_) => return SegmentKind::Raw,
            Protocol::Nothing if self.mode == Mode::Raw => return SegmentKind::Raw,
            Protocol::Released(_, assurance) => Attestation::Verified(*assurance),
            Protocol::Refused { refusal, .. } => Attestation::Refused(refusal.code.clone()),
            Protocol::Nothing => Attestation::Missing,
        };
        SegmentKind::Protected(Protection { attestation, runtime_state: self.state() })
    }

    /// The last state that signed events show.
    fn state(&self) -> RuntimeState {
        let failed = self.find(|body| matches!(body, EventBody::Failed { .. }).then_some(())).is_some();
        let timeline = self.timeline();
        match (self.receipt(), failed) {
            (Some(_), _) => RuntimeState::Zeroized,
            (None, true) => RuntimeState::Failed,
            (None, false) if timeline.at(Phase::Zeroizing).is_some() => RuntimeState::Zeroizing,
            (None, false) if timeline.at(Phase::Released).is_some() => RuntimeState::Training,
            (None, false) => RuntimeState::Ready,
        }
    }

    fn intervals(&self) -> Vec<RateInterval> {
        let each = self.events.iter().filter_map(|(_, body)| match body {
            EventBody::Progress { interval, .. } => {
                Some(RateInterval { units: interval.units, seconds: seconds(interval.micros) })
            }
            _ => None,
        });
        each.collect()
    }

    fn gpu(&self, device: Device) -> Option<GpuIdentity> {
        if device == Device::Cpu {
            return None;
        }
        let label = |text: &Option<String>| Label::lossy(text.as_deref().unwrap_or("unknown"));
        self.find(|body| match body {
            EventBody::Device { model, driver, uuid } => {
                Some(GpuIdentity { model: Label::lossy(model), driver: label(driver), uuid: label(uuid) })
            }
            _ => None,
        })
    }
}

/// Each step's length, from its own mark to the next one's. Waiting for the owner's acknowledgement is no work.
fn phases(steps: &[StepMark]) -> Vec<SamplePhase> {
    let ends = steps.iter().skip(1);
    steps
        .iter()
        .zip(ends)
        .filter(|(mark, _)| !matches!(mark.step, SegmentStep::AwaitAck | SegmentStep::Done))
        .map(|(mark, next)| SamplePhase {
            name: Label::lossy(&mark.step.to_string()),
            seconds: seconds(next.boot_micros.saturating_sub(mark.boot_micros)),
        })
        .collect()
}

#[allow(clippy::cast_precision_loss)] // 2^53 microseconds are 285 years
pub(super) fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
