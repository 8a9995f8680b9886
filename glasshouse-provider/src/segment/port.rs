//! The segment's two pipes, and the threads that listen for the end.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::task::Poll;
use std::time::Duration;

use glasshouse_core::secret::Secret;
use rustix::process::Signal;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};

use super::stop::{Stop, StopFlag};
use super::watchdog::Watchdog;
use crate::frames::{self, Answer, FromSegment, SegmentStart, ToSegment};
use crate::roles::note;
use crate::wire::{SegmentStep, StepMark};
use crate::{clock, grace};

/// What would end the process at once, and is made a reason to stop.
const ENDING: [SignalKind; 4] =
    [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
/// Handlers stand within milliseconds.
const HANDLERS: Duration = Duration::from_secs(10);

/// What wakes a waiting segment.
pub(super) enum Incoming {
    Message(Box<ToSegment>),
    /// Look at the stop flag.
    Stop,
}

/// The agent's end, as the segment sees it.
pub(super) struct Port {
    output: File,
    incoming: Receiver<Incoming>,
    pub(super) stop: StopFlag,
    pub(super) watchdog: Watchdog,
}

impl Port {
    /// Takes standard input and output for the channel, so that nothing a workload prints can get into it, and waits
    /// for the start. Gives the launch secret with it.
    pub(super) fn open() -> io::Result<(Self, Secret<32>, SegmentStart)> {
        // Second line after the pipe: the kernel asks for the end when the agent dies.
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        let mut input = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?);
        let output = File::from(rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?);
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        rustix::stdio::dup2_stdout(io::stderr())?;
        let (sender, incoming) = channel();
        let (stop, watchdog) = (StopFlag::default(), Watchdog::start()?);
        // Not before the handlers stand may anything secret exist.
        watch_signals(&ENDING, sender.clone(), stop.clone(), watchdog.clone())?;
        let mut secret = [0; 32];
        input.read_exact(&mut secret)?;
        let secret = Secret::take(&mut secret);
        let start = match frames::read(&mut input)? {
            Some(ToSegment::Start(start)) => start,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message is no start")),
        };
        listen(input, sender, stop.clone(), watchdog.clone());
        Ok((Self { output, incoming, stop, watchdog }, secret, start))
    }

    pub(super) fn send(&mut self, message: &FromSegment) -> io::Result<()> {
        self.output.write_all(&frames::encode(message)?)
    }

    /// An agent that is gone is told by its pipe's end, so that what cannot be sent is dropped here.
    pub(super) fn step(&mut self, step: SegmentStep) {
        let _ = self.send(&FromSegment::Step(StepMark { step, boot_micros: clock::boot_micros() }));
    }

    pub(super) fn answer(&mut self, question: u64, answer: Answer) {
        let _ = self.send(&FromSegment::Answer { question, answer });
    }

    /// The next message, if one is there.
    pub(super) fn poll(&self) -> Option<ToSegment> {
        match self.incoming.try_recv() {
            Ok(Incoming::Message(message)) => Some(*message),
            Ok(Incoming::Stop) | Err(TryRecvError::Empty | TryRecvError::Disconnected) => None,
        }
    }

    /// The next message, or `None` when the segment must stop or `patience` is over.
    pub(super) fn wait(&self, patience: Duration) -> Option<ToSegment> {
        if self.stop.get().is_some_and(|stop| stop != Stop::Asked) {
            return None;
        }
        match self.incoming.recv_timeout(patience) {
            Ok(Incoming::Message(message)) => Some(*message),
            Ok(Incoming::Stop) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }
}

fn listen(mut input: File, sender: Sender<Incoming>, stop: StopFlag, watchdog: Watchdog) {
    std::thread::spawn(move || {
        loop {
            match frames::read(&mut input) {
                Ok(Some(message)) => {
                    if sender.send(Incoming::Message(Box::new(message))).is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    note(format_args!("the agent's channel is unreadable: {e}"));
                    break;
                }
            }
        }
        watchdog.limit_life(grace::SEGMENT);
        stop.set(Stop::OwnerLost);
        let _ = sender.send(Incoming::Stop);
    });
}

/// Signals become a reason to stop. A runtime of its own on a thread of its own: the segment itself is synchronous.
///
/// # Errors
/// When the handlers do not stand: a signal would then end the process without zeroization.
fn watch_signals(
    kinds: &'static [SignalKind],
    sender: Sender<Incoming>,
    stop: StopFlag,
    watchdog: Watchdog,
) -> io::Result<()> {
    let (ready, handlers) = channel();
    std::thread::Builder::new().spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => return drop(ready.send(Err(e))),
        };
        runtime.block_on(async {
            let signals: io::Result<Vec<_>> = kinds.iter().map(|kind| Ok((*kind, signal(*kind)?))).collect();
            let mut signals = match signals {
                Ok(signals) => signals,
                Err(e) => return drop(ready.send(Err(e))),
            };
            let _ = ready.send(Ok(()));
            loop {
                let kind = next(&mut signals).await;
                watchdog.limit_life(grace::LETTING_GO);
                stop.set(Stop::Signal(kind.as_raw_value()));
                let _ = sender.send(Incoming::Stop);
            }
        });
    })?;
    let silent = |_| Err(io::Error::other("the signal handlers were not set up in time"));
    handlers.recv_timeout(HANDLERS).unwrap_or_else(silent).map_err(|e| {
        io::Error::new(e.kind(), format!("it cannot listen for signals, which would end it without zeroization: {e}"))
    })
}

/// The next one of these.
async fn next(signals: &mut [(SignalKind, Signals)]) -> SignalKind {
    std::future::poll_fn(|context| {
        for (kind, signals) in signals.iter_mut() {
            if signals.poll_recv(context).is_ready() {
                return Poll::Ready(*kind);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(kinds: &'static [SignalKind]) -> (io::Result<()>, Receiver<Incoming>, StopFlag) {
        let (sender, incoming) = channel();
        let stop = StopFlag::default();
        (watch_signals(kinds, sender, stop.clone(), Watchdog::start().unwrap()), incoming, stop)
    }

    #[test]
    fn a_handler_that_cannot_stand_is_an_error() {
        static KILL: [SignalKind; 2] = [SignalKind::user_defined1(), SignalKind::from_raw(9)];
        let (outcome, incoming, stop) = watched(&KILL);
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("without zeroization"), "{error}");
        assert!(incoming.recv().is_err() && stop.get().is_none());
    }

    #[test]
    fn a_signal_is_a_reason_to_stop() {
        static USER: [SignalKind; 2] = [SignalKind::user_defined1(), SignalKind::user_defined2()];
        let (outcome, incoming, stop) = watched(&USER);
        outcome.unwrap();
        rustix::process::kill_process(rustix::process::getpid(), Signal::USR2).unwrap();
        assert!(matches!(incoming.recv_timeout(Duration::from_secs(20)), Ok(Incoming::Stop)));
        assert_eq!(stop.get(), Some(Stop::Signal(SignalKind::user_defined2().as_raw_value())));
    }
}
