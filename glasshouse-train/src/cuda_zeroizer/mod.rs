//! The zeroizer of a GPU run: the host's memory, then every byte of device memory that the driver will give.
//!
//! A workload's own tensors are gone when this runs, and what they left lies somewhere in free device memory, or in
//! candle's pool. So the pool is trimmed, all free memory is taken, in large blocks and then in ever smaller ones,
//! overwritten, read back by a kernel on the device, and returned. [`sweep`] is that procedure over any [`DeviceMemory`];
//! on a machine without a GPU it runs over a memory map in its tests.
//!
//! Nearly every call of the driver waits for work that a broken kernel never ends, and none of them takes a deadline. So
//! a device is only touched on a thread of its own, which is left behind when it does not come back in time.
//!
//! After some errors (an illegal access, a trap) every call fails in the process that had it, until its end, and a kernel
//! that never ends keeps them all. Then this process lets go of the device (`descriptors`), and a second one, of the same
//! executable, takes all of its memory, wipes it and says so in a line (`report`), which is believed as far as it is possible.

#[cfg(feature = "break-device")]
mod broken;
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "what no device is let go of"))]
mod descriptors;
#[cfg(feature = "cuda")]
mod device;
#[cfg(test)]
mod fake;
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "what no device is let go of"))]
mod held;
#[cfg(feature = "cuda")]
mod lost;
mod memory;
#[cfg(feature = "cuda")]
mod pinned;
mod report;
#[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "its other half runs in a process with a device"))]
mod second;
mod sweep;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use glasshouse_core::host_memory::{DEVICE_MEMORY_NOT_COVERED, HostZeroizer};
use glasshouse_core::traits::{Receipt, SecretRegion, WipedRegion, ZeroizeError, Zeroizer};

#[cfg(feature = "break-device")]
pub use broken::{break_context, hang_context};
#[cfg(feature = "cuda")]
pub use device::{CudaMemory, scan};
#[cfg(feature = "cuda")]
pub use lost::wipe_for_another;
pub use memory::{Block, DeviceMemory};
#[cfg(feature = "cuda")]
pub(crate) use pinned::STAGING;
#[cfg(feature = "cuda")]
pub use pinned::{Crossing, PinnedBuffer};
pub use sweep::{MARGIN, SMALLEST_BLOCK, Swept, sweep};

/// A device that has not been wiped by then does not answer any more: an H200's 141 GB take a third of a second. A second
/// process has as long again.
pub const LONGEST: Duration = Duration::from_secs(30);
/// What a second process gives the device: it says that it does not answer before it is ended as one that says nothing.
#[cfg(feature = "cuda")]
const FOR_ANOTHER: Duration = Duration::from_secs(25);
#[cfg(feature = "cuda")]
const _: () = assert!(FOR_ANOTHER.as_millis() + 2000 < LONGEST.as_millis());
/// Letting go of a device: 0.2 s on an H200.
const LETTING_GO: Duration = Duration::from_secs(10);
/// Label of device memory in receipts and errors.
const REGION: &str = "device memory";

/// Zeroizes the first CUDA device and the host.
#[cfg(feature = "cuda")]
pub type CudaZeroizer = DeviceZeroizer<CudaMemory>;

/// Zeroizes a device and the host. The device is opened when it is needed: a run that fails before has nothing there.
pub struct DeviceZeroizer<D> {
    host: HostZeroizer,
    /// Or why the device is not opened any more: it did not come back, or was let go of.
    open: Result<Open<D>, String>,
    last_resort: Option<LastResort>,
    limit: Duration,
}

type Open<D> = Box<dyn FnMut() -> Result<D, String> + Send>;

/// What is left when this process cannot use its device any more.
struct LastResort {
    /// The device's UUID, or why it is not known.
    device: Result<String, String>,
    let_go: LetGo,
    command: Box<dyn FnMut() -> Command + Send>,
}

/// Lets go of the device if it is lost to this process, and says whether it was; told whether the device answers at all.
type LetGo = Box<dyn FnMut(bool) -> Result<bool, String> + Send>;

/// What a receipt says of a device.
struct Lines {
    region: WipedRegion,
    not_covered: Vec<String>,
}

#[cfg(feature = "cuda")]
impl DeviceZeroizer<CudaMemory> {
    /// For CUDA's first device and the secrets of this process.
    pub fn new() -> Self {
        Self::over(HostZeroizer::new(), CudaMemory::open)
    }
}

#[cfg(feature = "cuda")]
impl Default for DeviceZeroizer<CudaMemory> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: DeviceMemory + 'static> DeviceZeroizer<D> {
    /// Over a host zeroizer and any device, for at most [`LONGEST`].
    pub fn over(host: HostZeroizer, open: impl FnMut() -> Result<D, String> + Send + 'static) -> Self {
        Self { host, open: Ok(Box::new(open)), last_resort: None, limit: LONGEST }
    }

    /// The same with another limit on what the device may take, and as long again for a second process.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// For a device that answers with errors, or not in time (`let_go` is told false then): `let_go` says whether it is lost
    /// to this process, and lets go of it if it is; then `command` is run to wipe it. `device` is its UUID, asked for while it
    /// was healthy: what the command wipes must have it, too, and without one (or why there is none) nothing is believed.
    #[must_use]
    pub fn last_resort(
        mut self,
        device: Result<String, String>,
        let_go: impl FnMut(bool) -> Result<bool, String> + Send + 'static,
        command: impl FnMut() -> Command + Send + 'static,
    ) -> Self {
        self.last_resort = Some(LastResort { device, let_go: Box::new(let_go), command: Box::new(command) });
        self
    }

    /// Sweeps the device on a thread of its own, and waits for that no longer than the limit.
    fn sweep_device(&mut self) -> Result<Lines, ZeroizeError> {
        let unanswered = format!("the device did not answer within {:?}", self.limit);
        let mut open = std::mem::replace(&mut self.open, Err(unanswered.clone())).map_err(|why| {
            self.open = Err(why.clone());
            not_wiped(why)
        })?;
        let work = move || {
            let swept = catch_unwind(AssertUnwindSafe(|| sweep(&mut open().map_err(not_wiped)?)));
            let panicked = |_| Err(not_wiped("the thread that wipes it panicked".to_owned()));
            (open, swept.unwrap_or_else(panicked))
        };
        let (open, swept) = match apart(thread::Builder::new(), work, self.limit) {
            Ok(done) => done,
            Err(Undone::TooLong) => return self.by_second_process(not_wiped(unanswered), false),
            Err(Undone::NoThread(why)) => {
                // Nothing is known of the device, which nobody has asked.
                let why = format!("a thread to wipe it cannot be started: {why}");
                self.open = Err(why.clone());
                return Err(not_wiped(why));
            }
        };
        self.open = Ok(open);
        match swept {
            Ok(swept) => Ok(Lines { region: swept.region(), not_covered: swept.not_covered() }),
            Err(first) => self.by_second_process(first, true),
        }
    }

    /// Once: a process that has let go of its device does not get it back.
    fn by_second_process(&mut self, first: ZeroizeError, answers: bool) -> Result<Lines, ZeroizeError> {
        let Some(LastResort { device, mut let_go, mut command }) = self.last_resort.take() else { return Err(first) };
        let and = |first, then| Err(ZeroizeError::Several(vec![first, then]));
        let work = move || {
            let gone = catch_unwind(AssertUnwindSafe(|| let_go(answers)));
            (let_go, gone.unwrap_or_else(|_| Err("letting go of it panicked".to_owned())))
        };
        let (let_go, gone) = match apart(thread::Builder::new(), work, LETTING_GO.min(self.limit)) {
            Ok(done) => done,
            Err(undone) => {
                let why = match undone {
                    Undone::TooLong => "letting go of it did not end".to_owned(),
                    Undone::NoThread(why) => format!("a thread to let go of it cannot be started: {why}"),
                };
                self.open = Err(why.clone());
                return and(first, not_wiped(why));
            }
        };
        match gone {
            Ok(false) => {
                self.last_resort = Some(LastResort { device, let_go, command });
                return Err(first);
            }
            Ok(true) => {}
            Err(why) => return and(first, not_wiped(why)),
        }
        self.open = Err("this process has let go of it after an error".to_owned());
        let device = match device {
            Ok(device) => device,
            Err(why) => {
                return and(first, not_wiped(format!("no second process can be told which device to wipe: {why}")));
            }
        };
        match second::by_second_process(command(), &device, self.limit) {
            Ok(wiped) => Ok(Lines { region: wiped.region(&reason(&first)), not_covered: wiped.not_covered() }),
            Err(then) => and(first, then),
        }
    }
}

/// Why something was not done apart.
enum Undone {
    /// Its thread was left behind.
    TooLong,
    /// It was never begun.
    NoThread(io::Error),
}

/// Does something on a thread of its own, which is left behind when that takes longer than the limit.
fn apart<T: Send + 'static>(
    thread: thread::Builder,
    work: impl FnOnce() -> T + Send + 'static,
    limit: Duration,
) -> Result<T, Undone> {
    let (done, result) = mpsc::channel();
    // Nobody listens any more when it took too long.
    let work = move || drop(done.send(work()));
    thread.spawn(work).map_err(Undone::NoThread)?;
    result.recv_timeout(limit).map_err(|_| Undone::TooLong)
}

/// What the driver said, without what to do about it.
fn reason(error: &ZeroizeError) -> String {
    match error {
        ZeroizeError::NotWiped { why, .. } => why.clone(),
        ZeroizeError::Several(all) => all.first().map_or_else(String::new, reason),
        other => other.to_string(),
    }
}

impl<D: DeviceMemory + 'static> Zeroizer for DeviceZeroizer<D> {
    fn name(&self) -> &'static str {
        "host-and-device"
    }

    fn track(&mut self, region: SecretRegion) {
        self.host.track(region);
    }

    fn zeroize(&mut self) -> Result<Receipt, ZeroizeError> {
        let start = Instant::now();
        // Both are tried whatever becomes of the other.
        let (host, device) = (self.host.zeroize(), self.sweep_device());
        let (mut receipt, lines) = match (host, device) {
            (Ok(receipt), Ok(lines)) => (receipt, lines),
            (host, device) => {
                let failures = [host.err(), device.err()].into_iter().flatten().collect();
                return Err(ZeroizeError::of(failures).unwrap_or_else(|| not_wiped("it is not known why".to_owned())));
            }
        };
        receipt.zeroizer = self.name().to_owned();
        receipt.regions.push(lines.region);
        receipt.not_covered.retain(|line| line != DEVICE_MEMORY_NOT_COVERED);
        receipt.not_covered.extend(lines.not_covered);
        receipt.millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(receipt)
    }
}

fn not_wiped(why: String) -> ZeroizeError {
    ZeroizeError::NotWiped { region: REGION.to_owned(), why }
}

#[cfg(test)]
mod tests;
