//! What a segment has said so far, kept until it is acknowledged.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use glasshouse_core::fixed::Digest48;
use glasshouse_core::refusal::one_line;
use tokio::sync::watch;

use super::artifacts::Artifacts;
use crate::clock;
use crate::frames::{Answer, FromSegment};
use crate::wire::{
    MAX_MESSAGE, OutboxRecord, RecordsPage, SegmentExit, SegmentStatus, SegmentStep, StartSegment, StepMark,
};

/// Unacknowledged records kept per segment, and their bytes. A segment holds progress back long before; this is a broken one.
const MAX_RECORDS: usize = 1 << 14;
const MAX_BYTES: usize = 64 << 20;
/// A gate gives up after a few challenges.
const MAX_QUESTIONS: usize = 64;
/// A segment that answers challenges again and again enters steps again and again.
const MAX_STEPS: usize = 256;
/// Records in one page weigh at most this, before base64.
const PAGE_BYTES: usize = MAX_MESSAGE;

pub(super) struct Outbox {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

struct State {
    steps: Vec<StepMark>,
    records: VecDeque<OutboxRecord>,
    bytes: usize,
    last_seq: Option<u64>,
    /// Digests of the questions, each at the place of its number.
    questions: Vec<Digest48>,
    /// What the last one came to.
    answer: Option<Answer>,
    /// The question with the release that was opened.
    opened: Option<u64>,
    artifacts: Artifacts,
    reason: Option<String>,
    exit: Option<SegmentExit>,
}

impl State {
    fn step(&self) -> SegmentStep {
        self.steps.last().map_or(SegmentStep::Start, |mark| mark.step)
    }

    /// The number of the last question.
    fn current(&self) -> Option<u64> {
        u64::try_from(self.questions.len().checked_sub(1)?).ok()
    }
}

impl Outbox {
    pub(super) fn new(artifacts: Artifacts) -> Self {
        let state = State {
            steps: vec![StepMark { step: SegmentStep::Start, boot_micros: clock::boot_micros() }],
            records: VecDeque::new(),
            bytes: 0,
            last_seq: None,
            questions: Vec::new(),
            answer: None,
            opened: None,
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
            FromSegment::Answer { question, answer } => {
                if state.current().is_none_or(|current| question > current) {
                    return Err(format!("question {question} was answered, and not asked"));
                }
                // Whoever asked may have stopped waiting: a release that is open stays so, other late answers are nobody's.
                match answer {
                    Answer::Released => state.opened = Some(question),
                    answer if state.current() == Some(question) => state.answer = Some(answer),
                    _ => {}
                }
            }
            FromSegment::Record { seq, record } => {
                let bytes = state.bytes.saturating_add(record.0.len());
                if state.records.len() >= MAX_RECORDS || bytes > MAX_BYTES {
                    return Err(format!("{} records of {bytes} bytes wait to be acknowledged", state.records.len()));
                }
                state.bytes = bytes;
                state.last_seq = Some(seq);
                state.records.push_back(OutboxRecord { seq, record });
            }
            FromSegment::Artifact { name, piece, last } => {
                state.artifacts.append(&name, &piece.0, last).map_err(|e| format!("artifact {name}: {e}"))?;
            }
            FromSegment::Ending(reason) => state.reason = Some(one_line(&reason)),
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

    /// The number of this question, when it is the last one or the release that was opened.
    pub(super) fn asked(&self, digest: Digest48) -> Option<u64> {
        let state = self.lock();
        let number = u64::try_from(state.questions.iter().rposition(|asked| *asked == digest)?).ok()?;
        (state.current() == Some(number) || state.opened == Some(number)).then_some(number)
    }

    /// A number for a new question.
    pub(super) fn ask(&self, digest: Digest48) -> Result<u64, String> {
        let mut state = self.lock();
        if state.questions.len() >= MAX_QUESTIONS {
            return Err(format!("{MAX_QUESTIONS} challenges and releases were sent to this segment; start another"));
        }
        state.answer = None;
        state.questions.push(digest);
        state.current().ok_or_else(|| "there is no question".to_owned())
    }

    /// What a question came to, as far as it is known.
    pub(super) fn answer(&self, question: u64) -> Option<Answer> {
        let state = self.lock();
        match state.opened == Some(question) {
            true => Some(Answer::Released),
            false => state.answer.clone().filter(|_| state.current() == Some(question)),
        }
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
        let mut state = self.lock();
        let kept = state.records.iter().position(|record| record.seq > through).unwrap_or(state.records.len());
        let let_go: usize = state.records.drain(..kept).map(|record| record.record.0.len()).sum();
        state.bytes = state.bytes.saturating_sub(let_go);
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
    use glasshouse_core::fixed::{Blob, Fixed};

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
    fn unacknowledged_records_are_bounded_in_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (outbox, _) = outbox(folder.path());
        let record = |seq| FromSegment::Record { seq, record: Blob(vec![1; 8 << 20]) };
        (0..8).for_each(|seq| outbox.take(record(seq)).unwrap());
        assert!(outbox.take(record(8)).unwrap_err().contains("wait to be acknowledged"));
        outbox.acknowledge(0);
        outbox.take(record(8)).unwrap();
    }

    #[test]
    fn an_answer_belongs_to_its_question() {
        let folder = tempfile::tempdir().unwrap();
        let (outbox, _) = outbox(folder.path());
        let answer = |question, answer| outbox.take(FromSegment::Answer { question, answer });
        let evidence = |byte| Answer::Evidence(Blob(vec![byte]));
        answer(0, evidence(0)).unwrap_err();
        let [one, two, release, three] = [1, 2, 3, 4].map(|byte| Fixed([byte; 48]));
        assert_eq!((outbox.ask(one), outbox.asked(one)), (Ok(0), Some(0)));
        assert_eq!((outbox.ask(two), outbox.asked(one)), (Ok(1), None));
        // The first one's answer comes late: nobody gets it.
        answer(0, evidence(1)).unwrap();
        assert!(outbox.answer(0).is_none() && outbox.answer(1).is_none());
        answer(1, evidence(2)).unwrap();
        assert!(matches!(outbox.answer(1), Some(Answer::Evidence(Blob(bytes))) if bytes == [2]));
        // A release that is opened after the next question.
        assert_eq!((outbox.ask(release), outbox.ask(three)), (Ok(2), Ok(3)));
        answer(2, Answer::Released).unwrap();
        assert_eq!((outbox.answer(3).is_none(), outbox.asked(release)), (true, Some(2)));
        assert!(matches!(outbox.answer(2), Some(Answer::Released)));
        answer(9, Answer::Released).unwrap_err();
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
