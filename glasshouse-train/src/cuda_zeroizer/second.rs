//! A second process that wipes a device which this one can use no more: started, heard and ended in bounded time.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::io::{Read as _, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use glasshouse_core::traits::ZeroizeError;

use super::memory::DeviceMemory;
use super::not_wiped;
use super::report::{HELD_AT_MOST, MOST, Report, Wiped};
use super::sweep::sweep;

/// A driver takes a context that has just ended down in its own time.
const SETTLING: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(50);

/// Which devices CUDA shows a process, and in which order.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// Runs a command that wipes the device of this UUID, which is the only one that CUDA shows it, and gives what it says when
/// that can be believed. It is gone `within` this, unless not even the kernel can end it.
///
/// # Errors
/// [`ZeroizeError`] saying what it did instead.
pub(super) fn by_second_process(mut command: Command, device: &str, within: Duration) -> Result<Wiped, ZeroizeError> {
    // Where CUDA does not take that (a part of a GPU has a UUID of another form) it finds no device, and nothing is claimed.
    command.env(VISIBLE, device);
    match hear(command, within).map_err(not_wiped)? {
        Report::Wiped(wiped) => wiped.believed(device),
        Report::Failed(why) => Err(not_wiped(format!("a second process was to wipe it: {why}"))),
    }
}

/// What a command is told with: nothing goes in, one line comes out.
fn hear(mut command: Command, within: Duration) -> Result<Report, String> {
    let deadline = Instant::now().checked_add(within);
    let left = || deadline.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let child = child.map_err(|error| format!("a second process to wipe it cannot be started: {error}"))?;
    let mut child = Ending(Some(child));
    let stdout = child
        .0
        .as_mut()
        .and_then(|child| child.stdout.take())
        .ok_or_else(|| "a second process has no output".to_owned())?;
    let (tell, told) = mpsc::channel();
    let read = move || {
        let (mut said, most) = (Vec::new(), u64::try_from(MOST).unwrap_or(u64::MAX).saturating_add(1));
        // Nobody listens any more when it took too long.
        let _ = tell.send(stdout.take(most).read_to_end(&mut said).map(|_| said));
    };
    std::thread::Builder::new().spawn(read).map_err(|error| error.to_string())?;
    let silent = || format!("a second process was to wipe it, and did not end within {within:?}");
    let said = told.recv_timeout(left()).map_err(|_| silent())?.map_err(|error| error.to_string())?;
    loop {
        match child.ended()? {
            // One that failed says why, if it can.
            Some(status) if status.success() || matches!(Report::parse(&said), Ok(Report::Failed(_))) => break,
            Some(status) => return Err(format!("a second process was to wipe it, and ended with {status}")),
            None if left().is_zero() => return Err(silent()),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    Report::parse(&said)
}

/// Whatever becomes of it, the process is ended, and reaped by a thread of its own: one in a call of the driver's may take
/// its time.
struct Ending(Option<Child>);

impl Ending {
    fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        self.0.as_mut().map_or(Ok(None), Child::try_wait).map_err(|error| error.to_string())
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if matches!(self.ended(), Ok(Some(_))) {
            return;
        }
        let Some(mut child) = self.0.take() else { return };
        let _ = child.kill();
        let _ = std::thread::Builder::new().spawn(move || child.wait());
    }
}

/// What such a process does: sees which device it has and how much of it others hold, wipes all that it can get, within a
/// limit, says so in one line, and gives its exit code.
pub(super) fn wipe_for_another<D: DeviceMemory>(
    device: impl FnOnce() -> Result<String, String> + Send + 'static,
    held: impl FnMut() -> Result<u64, String> + Send + 'static,
    open: impl FnOnce() -> Result<D, String> + Send + 'static,
    within: Duration,
    mut out: impl Write,
) -> i32 {
    let (done, report) = mpsc::channel();
    let work = move || {
        let wiped = catch_unwind(AssertUnwindSafe(|| wipe(device, held, open)));
        let _ = done.send(wiped.unwrap_or_else(|_| Err("it panicked".to_owned())));
    };
    let report = match std::thread::Builder::new().spawn(work) {
        Ok(_) => report.recv_timeout(within).unwrap_or_else(|_| Err(format!("it did not answer within {within:?}"))),
        Err(error) => Err(error.to_string()),
    };
    let (report, code) = report.map_or_else(|why| (Report::Failed(why), 1), |report| (report, 0));
    // Nobody who could be told would believe it.
    if out.write_all(&report.to_line()).and_then(|()| out.flush()).is_err() { 1 } else { code }
}

/// The device is opened after it was asked what others hold there: from then on this process has a context of its own.
fn wipe<D: DeviceMemory>(
    device: impl FnOnce() -> Result<String, String>,
    mut held: impl FnMut() -> Result<u64, String>,
    open: impl FnOnce() -> Result<D, String>,
) -> Result<Report, String> {
    let (device, began, mut now) = (device()?, Instant::now(), held()?);
    while now > HELD_AT_MOST && began.elapsed() < SETTLING {
        std::thread::sleep(PAUSE);
        now = held()?;
    }
    let swept = sweep(&mut open()?).map_err(|error| error.to_string())?;
    Ok(Report::of(device, now, &swept))
}
