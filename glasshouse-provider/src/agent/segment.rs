//! One segment, talked to over its pipes. Handlers run to their end, so that nothing here is left half done; what is asked
//! again is answered again, and done once.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::fixed::Blob;
use glasshouse_core::refusal::Refusal;
use glasshouse_core::transcript::{Transcript, sha384};
use rustix::process::Signal;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin};

use super::outbox::Outbox;
use crate::frames::{self, Answer, FromSegment, ToSegment};
use crate::local::ProcessId;
use crate::roles::note;
use crate::wire::{MAX_WAIT, SegmentStatus, StartSegment, WireCode, WireError};

/// A segment has this long to answer a challenge or a release. Below the 60 s after which proxies cut a request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(50);

/// One segment, running or ended.
pub(super) struct Segment {
    pub(super) start: StartSegment,
    pub(super) process: Option<ProcessId>,
    pub(super) outbox: Outbox,
    /// `None` once it is closed, which tells the segment that its owner is gone.
    pub(super) input: Arc<tokio::sync::Mutex<Option<ChildStdin>>>,
    /// Held over a question and its answer: one is asked at a time.
    pub(super) asking: tokio::sync::Mutex<()>,
}

impl Segment {
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.map(|process| process.pid)
    }

    pub(super) fn status(&self) -> SegmentStatus {
        self.outbox.status(&self.start, self.pid())
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(process) = self.process {
            process.signal(signal);
        }
    }

    pub(super) async fn exited(&self) {
        let mut changes = self.outbox.subscribe();
        while self.outbox.exit().is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Hands over a challenge and gives the evidence. The last challenge again gets the same evidence again: a second
    /// answer would be under other keys than the one that may be on its way.
    pub(super) async fn challenge(&self, bytes: Vec<u8>) -> Result<Blob, WireError> {
        let question = |number| ToSegment::Challenge { question: number, challenge: Blob(bytes.clone()) };
        match self.ask("challenge", &bytes, question).await? {
            Answer::Evidence(evidence) => Ok(evidence),
            Answer::Refused(refusal) => Err(refused(refusal)),
            Answer::Released => Err(WireError::new(WireCode::WrongStep, "the segment has its release")),
        }
    }

    /// Hands over a release. The one that was opened, again, is not a second one.
    pub(super) async fn release(&self, bytes: Vec<u8>) -> Result<(), WireError> {
        let question = |number| ToSegment::Release { question: number, release: Blob(bytes.clone()) };
        match self.ask("release", &bytes, question).await? {
            Answer::Released => Ok(()),
            Answer::Refused(refusal) => Err(refused(refusal)),
            Answer::Evidence(_) => Err(WireError::new(WireCode::WrongStep, "the segment answers a challenge")),
        }
    }

    /// Waits until something changes, at most `wait`; at once when there is something after `after`.
    pub(super) async fn wait_for_records(&self, after: Option<u64>, wait: Duration) {
        let mut changes = self.outbox.subscribe();
        let something = async {
            loop {
                let status = self.status();
                if status.exit.is_some() || status.last_seq.is_some_and(|last| after.is_none_or(|after| last > after)) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(wait.min(MAX_WAIT), something).await;
    }

    pub(super) async fn send(&self, message: &impl Serialize) -> Result<(), WireError> {
        let frame = frames::encode(message).map_err(|e| WireError::new(WireCode::TooLarge, e))?;
        let mut input = self.input.lock().await;
        let written = match input.as_mut() {
            Some(pipe) => pipe.write_all(&frame).await.is_ok(),
            None => false,
        };
        if written { Ok(()) } else { Err(self.ended()) }
    }

    /// Asks, unless this very question was the last one: then only its answer is waited for.
    async fn ask(
        &self,
        kind: &'static str,
        bytes: &[u8],
        question: impl Fn(u64) -> ToSegment,
    ) -> Result<Answer, WireError> {
        let _asking = self.asking.lock().await;
        let digest = Transcript::new("gh/question/1").lp(kind).fixed(sha384(bytes)).sha384();
        let mut changes = self.outbox.subscribe();
        let number = match self.outbox.asked(digest) {
            Some(number) => number,
            None => {
                let number = self.outbox.ask(digest).map_err(|why| WireError::new(WireCode::WrongStep, why))?;
                self.send(&question(number)).await?;
                number
            }
        };
        let answer = async {
            loop {
                if let Some(answer) = self.outbox.answer(number) {
                    return Ok(answer);
                }
                if self.outbox.exit().is_some() || changes.changed().await.is_err() {
                    return Err(self.ended());
                }
            }
        };
        let silent = |_| {
            let message = format!("segment {} did not answer within {} s", self.start.id, ANSWER_DEADLINE.as_secs());
            Err(WireError::new(WireCode::SegmentSilent, message))
        };
        tokio::time::timeout(ANSWER_DEADLINE, answer).await.unwrap_or_else(silent)
    }

    pub(super) fn ended(&self) -> WireError {
        let how = match self.outbox.exit() {
            Some(exit) => exit.to_string(),
            None => format!("closed its input in step {}", self.status().step),
        };
        WireError::new(WireCode::SegmentEnded, format_args!("segment {} {how}", self.start.id))
    }
}

fn refused(refusal: Refusal) -> WireError {
    WireError { refusal: Some(Box::new(refusal.clone())), ..WireError::new(WireCode::SegmentRefused, refusal) }
}

/// Takes everything that the segment says until it ends, then how it ended.
pub(super) async fn follow(segment: Arc<Segment>, mut child: Child) {
    let mut broken = None;
    if let Some(mut stdout) = child.stdout.take() {
        loop {
            match frames::read_async::<FromSegment>(&mut stdout).await {
                Ok(Some(message)) => {
                    if let Err(why) = segment.outbox.take(message) {
                        broken = Some(why);
                        break;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    broken = Some(format!("its channel is unreadable: {e}"));
                    break;
                }
            }
        }
    }
    if broken.is_some() {
        segment.signal(Signal::KILL);
    }
    let status = child.wait().await.ok();
    segment.input.lock().await.take();
    segment.outbox.exited(status.and_then(|s| s.code()), status.as_ref().and_then(ExitStatus::signal), broken);
    if let Some(exit) = segment.outbox.exit() {
        note(format_args!("segment {} {exit}", segment.start.id));
    }
}
