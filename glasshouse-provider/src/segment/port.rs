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
use std::time::Duration;

use glasshouse_core::secret::Secret;
use rustix::process::Signal;

use super::stop::{Stop, StopFlag};
use crate::clock;
use crate::frames::{self, Answer, FromSegment, SegmentStart, ToSegment};
use crate::roles::note;
use crate::wire::{SegmentStep, StepMark};

/// Once the owner is gone, the process has this long to zeroize; then the kernel takes its memory.
const LAST_GRACE: Duration = Duration::from_secs(4);

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
        let mut secret = [0; 32];
        input.read_exact(&mut secret)?;
        let secret = Secret::take(&mut secret);
        let start = match frames::read(&mut input)? {
            Some(ToSegment::Start(start)) => start,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message is no start")),
        };
        let (sender, incoming) = channel();
        let stop = StopFlag::default();
        listen(input, sender.clone(), stop.clone());
        watch_signals(sender, stop.clone());
        Ok((Self { output, incoming, stop }, secret, start))
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

fn listen(mut input: File, sender: Sender<Incoming>, stop: StopFlag) {
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
        stop.set(Stop::OwnerLost);
        let _ = sender.send(Incoming::Stop);
        std::thread::sleep(LAST_GRACE);
        note(format_args!("the segment did not end in time; the kernel takes its memory"));
        std::process::exit(70) // EX_SOFTWARE
    });
}

/// Signals become a reason to stop. A runtime of its own on a thread of its own: the segment itself is synchronous.
fn watch_signals(sender: Sender<Incoming>, stop: StopFlag) {
    use tokio::signal::unix::{SignalKind, signal};
    let (ready, listening) = channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else {
            note(format_args!("cannot listen for signals; they end this process at once"));
            return;
        };
        runtime.block_on(async {
            let (Ok(mut terminate), Ok(mut interrupt)) =
                (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
            else {
                return;
            };
            let _ = ready.send(());
            loop {
                let number = tokio::select! {
                    _ = terminate.recv() => SignalKind::terminate(),
                    _ = interrupt.recv() => SignalKind::interrupt(),
                };
                stop.set(Stop::Signal(number.as_raw_value()));
                let _ = sender.send(Incoming::Stop);
            }
        });
    });
    // Not before the handlers stand may anything secret exist.
    let _ = listening.recv_timeout(Duration::from_secs(2));
}
