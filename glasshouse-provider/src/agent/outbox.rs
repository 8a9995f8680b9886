//! What a segment has said so far, kept until it is acknowledged.

use std::sync::{Mutex, MutexGuard, PoisonError};

use glasshouse_core::fixed::Blob;
use glasshouse_core::refusal::Refusal;
use tokio::sync::watch;

use super::artifacts::Artifacts;
use crate::clock;
use crate::frames::FromSegment;
use crate::wire::{
    MAX_MESSAGE, OutboxRecord, RecordsPage, SegmentExit, SegmentStatus, SegmentStep, StartSegment, StepMark,
};

/// Unacknowledged records kept per segment; a segment that goes beyond is broken.
const MAX_RECORDS: usize = 1 << 16;
/// A segment that answers challenges again and again enters steps again and again.
const MAX_STEPS: usize = 256;
/// Records in one page weigh at most this, before base64.
const PAGE_BYTES: usize = MAX_MESSAGE;

/// What a segment answered to the last challenge or release.
pub(super) enum Answer {
    Evidence(Blob),
    Released,
    Refused(Refusal),
}

pub(super) struct Outbox {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    steps: Vec<StepMark>,
    records: Vec<OutboxRecord>,
    last_seq: Option<u64>,
    answer: Option<Answer>,
    artifacts: Artifacts,
    reason: Option<String>,
    exit: Option<SegmentExit>,
}

impl State {
    fn step(&self) -> SegmentStep {
        self.steps.last().map_or(SegmentStep::Start, |mark| mark.step)
    }
}

impl Outbox {
    pub(super) fn new(artifacts: Artifacts) -> Self {
        let state = State {
            steps: vec![StepMark { step: SegmentStep::Start, boot_micros: clock::boot_micros() }],
            records: Vec::new(),
            last_seq: None,
            answer: None,
            artifacts,
            reason: None,
            exit: None,
        };
        Self { state: Mutex::new(state), changed: watch::channel(0).0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|version| *version = version.wrapping_add(1));
    }

    /// Changes from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Takes what the segment said. An error ends the segment.
    pub(super) fn take(&self, message: FromSegment) -> Result<(), String> {
        let mut state = self.lock();
        match message {
            FromSegment::Step(mark) => {
                if state.steps.len() >= MAX_STEPS {
                    return Err(format!("{MAX_STEPS} steps were entered"));
                }
                state.steps.push(mark);
            }
            FromSegment::Evidence(evidence) => state.answer = Some(Answer::Evidence(evidence)),
            FromSegment::Released => state.answer = Some(Answer::Released),
            FromSegment::Refused(refusal) => state.answer = Some(Answer::Refused(refusal)),
            FromSegment::Record { seq, record } => {
                if state.records.len() >= MAX_RECORDS {
                    return Err(format!("{MAX_RECORDS} records wait to be acknowledged"));
                }
                state.last_seq = Some(seq);
                state.records.push(OutboxRecord { seq, record });
            }
            FromSegment::Artifact { name, piece, last } => {
                state.artifacts.append(&name, &piece.0, last).map_err(|e| format!("artifact {name}: {e}"))?;
            }
            FromSegment::Ending(reason) => state.reason = Some(reason),
        }
        drop(state);
        self.wake();
        Ok(())
    }

    /// The process is gone.
    pub(super) fn exited(&self, code: Option<i32>, signal: Option<i32>, why: Option<String>) {
        let mut state = self.lock();
        let reason = why.or_else(|| state.reason.clone());
        state.exit = Some(SegmentExit { code, signal, step: state.step(), last_seq: state.last_seq, reason });
        drop(state);
        self.wake();
    }

    pub(super) fn exit(&self) -> Option<SegmentExit> {
        self.lock().exit.clone()
    }

    /// Takes the answer to the last challenge or release.
    pub(super) fn answer(&self) -> Option<Answer> {
        self.lock().answer.take()
    }

    pub(super) fn status(&self, start: &StartSegment, pid: Option<u32>) -> SegmentStatus {
        let state = self.lock();
        SegmentStatus {
            id: start.id.clone(),
            mode: start.mode,
            pid,
            step: state.step(),
            steps: state.steps.clone(),
            last_seq: state.last_seq,
            exit: state.exit.clone(),
        }
    }

    /// Records after `after`, as many as fit in a page.
    pub(super) fn page(&self, after: Option<u64>, start: &StartSegment, pid: Option<u32>) -> RecordsPage {
        let status = self.status(start, pid);
        let state = self.lock();
        let mut bytes = 0_usize;
        let records = state
            .records
            .iter()
            .filter(|record| after.is_none_or(|after| record.seq > after))
            .take_while(|record| {
                // The first one always fits, so that a page never is empty for its size.
                let fits = bytes == 0 || bytes.saturating_add(record.record.0.len()) <= PAGE_BYTES;
                bytes = bytes.saturating_add(record.record.0.len());
                fits
            })
            .cloned()
            .collect();
        RecordsPage { records, status, artifacts: state.artifacts.entries() }
    }

    /// Lets go of everything up to `through`.
    pub(super) fn acknowledge(&self, through: u64) {
        self.lock().records.retain(|record| record.seq > through);
    }

    /// Up to `limit` bytes of an artifact from `offset`; `None` when there is no such artifact.
    pub(super) fn artifact(&self, name: &str, offset: u64, limit: usize) -> Option<std::io::Result<Vec<u8>>> {
        let path = self.lock().artifacts.path(name)?;
        Some(super::artifacts::read_range(&path, offset, limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::fixed::Fixed;

    fn outbox(folder: &std::path::Path) -> (Outbox, StartSegment) {
        let start = StartSegment {
            id: crate::wire::SegmentId::new("a").unwrap(),
            mode: crate::wire::SegmentMode::Raw,
            session: Fixed([0; 32]),
            attestor: glasshouse_core::claims::EvidenceKind::Software,
            package: Fixed([0; 48]),
            job: None,
        };
        (Outbox::new(Artifacts::new(folder.to_owned())), start)
    }

    #[test]
    fn records_stay_until_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let (outbox, start) = outbox(folder.path());
        for seq in 0..3 {
            outbox.take(FromSegment::Record { seq, record: Blob(vec![1; PAGE_BYTES / 2 + 1]) }).unwrap();
        }
        let seqs = |after| outbox.page(after, &start, None).records.iter().map(|r| r.seq).collect::<Vec<_>>();
        assert_eq!(seqs(None), [0]);
        assert_eq!(seqs(Some(0)), [1]);
        outbox.acknowledge(1);
        assert_eq!(seqs(None), [2]);
        assert_eq!(outbox.status(&start, None).last_seq, Some(2));
    }

    #[test]
    fn the_exit_keeps_step_and_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (outbox, _) = outbox(folder.path());
        outbox.take(FromSegment::Step(StepMark { step: SegmentStep::Train, boot_micros: 1 })).unwrap();
        outbox.take(FromSegment::Ending("no more data".into())).unwrap();
        outbox.exited(Some(1), None, None);
        let exit = outbox.exit().unwrap();
        assert_eq!(exit.to_string(), "ended with exit code 1 in step train: no more data");
    }
}
