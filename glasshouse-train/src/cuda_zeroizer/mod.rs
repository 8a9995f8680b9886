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
mod tests {
    use super::fake::{Fake, Flaw};
    use super::*;
    use glasshouse_core::secret::Ledger;

    static LEDGER: Ledger = Ledger::new();

    /// Little more than the margin.
    fn small() -> Fake {
        Fake::new(MARGIN + (4 << 20))
    }

    fn over(fake: Fake) -> DeviceZeroizer<Fake> {
        let mut fake = Some(fake);
        let open = move || Ok(fake.take().unwrap_or_else(small));
        DeviceZeroizer::over(HostZeroizer::with_ledger(&LEDGER), open)
    }

    #[test]
    fn it_keeps_the_contract() {
        glasshouse_core::contract::zeroizer(|| Box::new(over(small())));
    }

    #[test]
    fn a_receipt_speaks_for_the_device_too() {
        let receipt = over(small()).zeroize().unwrap();
        let line = receipt.regions.iter().find(|region| region.label == REGION).unwrap();
        assert!(line.bytes > 2 << 20 && line.method.contains("zeros") && line.verification.contains("read back"));
        assert!(!receipt.not_covered.iter().any(|line| line == DEVICE_MEMORY_NOT_COVERED));
        for word in ["margin", "driver", "cuBLAS", "graph"] {
            assert!(receipt.not_covered.iter().any(|line| line.contains(word)), "{word}: {:?}", receipt.not_covered);
        }
    }

    #[test]
    fn a_device_that_fails_does_not_keep_the_host_from_being_wiped() {
        let mut zeroizer = DeviceZeroizer::<Fake>::over(HostZeroizer::with_ledger(&LEDGER), || Err("gone".to_owned()));
        let held = std::sync::Arc::new(std::sync::Mutex::new(vec![7_u8; 9]));
        struct Watched(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl glasshouse_core::traits::WipeTarget for Watched {
            fn bytes(&self) -> u64 {
                9
            }
            fn wipe(&mut self) -> Result<(), ZeroizeError> {
                self.0.lock().unwrap().fill(0);
                Ok(())
            }
            fn is_wiped(&self) -> Result<bool, ZeroizeError> {
                Ok(self.0.lock().unwrap().iter().all(|byte| *byte == 0))
            }
        }
        zeroizer.track(SecretRegion { label: "weights".into(), target: Box::new(Watched(held.clone())) });
        let error = zeroizer.zeroize().unwrap_err();
        assert!(error.to_string().contains("device memory could not be wiped: gone"), "{error}");
        assert_eq!(*held.lock().unwrap(), [0; 9]);
        let error = over(small().with(Flaw::OverwritesNothing)).zeroize().unwrap_err();
        assert!(error.to_string().contains("still holds data"), "{error}");
        let error = over(small().with(Flaw::Panics)).zeroize().unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
    }

    #[test]
    fn a_device_that_does_not_answer_holds_nobody_up() {
        for flaw in [Flaw::HangsInTrim, Flaw::HangsInReturn] {
            let limit = Duration::from_millis(300);
            let mut zeroizer = over(small().with(flaw)).within(limit);
            let began = Instant::now();
            for _ in 0..2 {
                // The second time, too: a device that hung is not asked again.
                let error = zeroizer.zeroize().unwrap_err();
                assert!(error.to_string().contains("did not answer within 300ms"), "{flaw:?}: {error}");
            }
            drop(zeroizer);
            assert!(began.elapsed() >= limit && began.elapsed() < limit * 20, "{flaw:?}: {:?}", began.elapsed());
        }
    }

    /// A device that gives nothing but errors.
    fn lost() -> DeviceZeroizer<Fake> {
        let open = || Err("CUDA_ERROR_ILLEGAL_ADDRESS".to_owned());
        DeviceZeroizer::over(HostZeroizer::with_ledger(&LEDGER), open).within(Duration::from_secs(20))
    }

    fn shell(script: impl AsRef<str>) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(script.as_ref());
        command
    }

    const UUID: &str = "GPU-00112233-4455-6677-8899-aabbccddeeff";

    fn uuid() -> Result<String, String> {
        Ok(UUID.to_owned())
    }

    /// What a second process says that has wiped a fake device.
    fn line(device: Fake, held: impl FnMut() -> Result<u64, String> + Send + 'static) -> (i32, String) {
        let mut said = Vec::new();
        let code = second::wipe_for_another(uuid, held, || Ok(device), LONGEST, &mut said);
        (code, String::from_utf8(said).unwrap())
    }

    fn nothing_held() -> Result<u64, String> {
        Ok(0)
    }

    fn printing(said: &str) -> Command {
        let mut command = shell("printf %s \"$0\"");
        command.arg(said);
        command
    }

    #[test]
    fn a_second_process_wipes_what_this_one_has_lost() {
        let (code, said) = line(Fake::new(100 << 20).used(0, 10 << 20).filled(0xa5), nothing_held);
        assert_eq!(code, 0);
        let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), move || printing(&said));
        let receipt = zeroizer.zeroize().unwrap();
        let region = receipt.regions.iter().find(|region| region.label == REGION).unwrap();
        assert_eq!(region.bytes, 58 << 20);
        for words in ["CUDA_ERROR_ILLEGAL_ADDRESS", "by a second process", UUID, "60817408 bytes of 104857600"] {
            assert!(region.method.contains(words), "{}", region.method);
        }
        assert!(region.verification.contains("second process"));
        assert!(receipt.not_covered.iter().any(|line| line.starts_with("10485760 bytes") && line.contains("context")));
        assert!(!receipt.not_covered.iter().any(|line| line == DEVICE_MEMORY_NOT_COVERED));
        // Nothing is claimed twice.
        let error = zeroizer.zeroize().unwrap_err().to_string();
        assert!(error.contains("has let go of it"), "{error}");
    }

    #[test]
    fn it_keeps_the_contract_with_a_second_process() {
        let (_, said) = line(small(), nothing_held);
        glasshouse_core::contract::zeroizer(move || {
            let said = said.clone();
            Box::new(lost().last_resort(uuid(), |_| Ok(true), move || printing(&said)))
        });
    }

    #[test]
    fn a_second_process_has_the_device_that_was_lost() {
        let (_, said) = line(small(), nothing_held);
        // It says the device that CUDA shows it: this process's, whatever was visible before.
        let shown = said.trim_end().replace(UUID, "'\"$CUDA_VISIBLE_DEVICES\"'");
        let named = move || {
            let mut command = shell(format!("echo '{shown}'"));
            command.env("CUDA_VISIBLE_DEVICES", "1");
            command
        };
        let receipt = lost().last_resort(uuid(), |_| Ok(true), named).zeroize().unwrap();
        assert!(receipt.regions.iter().any(|region| region.method.contains(UUID)));
        let other = said.replace(UUID, "GPU-00112233-4455-6677-8899-aabbccddeefe");
        let error = lost().last_resort(uuid(), |_| Ok(true), move || printing(&other)).zeroize().unwrap_err();
        assert!(error.to_string().contains("had another device"), "{error}");
        let never = || -> Command { panic!("a second process") };
        let unknown = Err("told to fail".to_owned());
        let error = lost().last_resort(unknown, |_| Ok(true), never).zeroize().unwrap_err().to_string();
        assert!(error.contains("which device to wipe: told to fail") && error.contains("ILLEGAL_ADDRESS"), "{error}");
        // Nor does a process say anything that does not know its device.
        let mut said = Vec::new();
        let unknown = || Err("told to fail".to_owned());
        assert_eq!(second::wipe_for_another(unknown, nothing_held, || Ok(small()), LONGEST, &mut said), 1);
        assert!(String::from_utf8(said).unwrap().contains("told to fail"));
    }

    #[test]
    fn what_settles_is_fine_and_what_stays_is_said() {
        const HELD: u64 = 9 << 20;
        let began = Instant::now();
        let (_, said) = line(small(), || Ok(HELD));
        assert!(began.elapsed() >= Duration::from_secs(1), "it is waited for");
        assert!(said.contains("\"held\":9437184"), "{said}");
        let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), move || printing(&said));
        let error = zeroizer.zeroize().unwrap_err().to_string();
        assert!(error.contains("9437184 bytes of secret memory are still held"), "{error}");
        let mut held = vec![0, HELD];
        let (_, said) = line(small(), move || Ok(held.pop().unwrap_or(HELD)));
        assert!(said.contains("\"held\":0"), "{said}");
        assert!(lost().last_resort(uuid(), |_| Ok(true), move || printing(&said)).zeroize().is_ok());
    }

    #[test]
    fn no_thread_to_be_had_is_not_a_device_that_does_not_answer() {
        let endless = thread::Builder::new().stack_size(usize::MAX / 4);
        let undone = apart(endless, || (), LONGEST);
        assert!(matches!(undone, Err(Undone::NoThread(_))));
        let slow = apart(thread::Builder::new(), || thread::sleep(LONGEST), Duration::from_millis(1));
        assert!(matches!(slow, Err(Undone::TooLong)));
        assert_eq!(apart(thread::Builder::new(), || 7, LONGEST).ok(), Some(7));
    }

    #[test]
    fn and_what_does_not_answer() {
        let (_, said) = line(small(), nothing_held);
        let said = move || printing(&said);
        let silent = || over(small().with(Flaw::HangsInTrim)).within(Duration::from_millis(500));
        let mut zeroizer = silent().last_resort(uuid(), |answers| Ok(!answers), said);
        let receipt = zeroizer.zeroize().unwrap();
        let region = receipt.regions.iter().find(|region| region.label == REGION).unwrap();
        assert!(region.method.contains("did not answer within 500ms"), "{}", region.method);
        let mut zeroizer = silent().last_resort(uuid(), |_| Ok(false), || -> Command { panic!("a second process") });
        for _ in 0..2 {
            assert!(zeroizer.zeroize().unwrap_err().to_string().contains("did not answer"));
        }
    }

    #[test]
    fn a_device_that_is_not_lost_is_not_let_go_of() {
        let never = || -> Command { panic!("a second process") };
        let open = || Ok(small().with(Flaw::OverwriteFails));
        let zeroizer = DeviceZeroizer::over(HostZeroizer::with_ledger(&LEDGER), open);
        let mut zeroizer = zeroizer.last_resort(uuid(), |_| Ok(false), never);
        for _ in 0..2 {
            assert!(zeroizer.zeroize().unwrap_err().to_string().contains("told to fail"));
        }
        // Nor one that is wiped.
        assert!(over(small()).last_resort(uuid(), |_| panic!("asked"), never).zeroize().is_ok());
    }

    #[test]
    fn a_device_that_cannot_be_let_go_of_is_no_receipt() {
        let never = || -> Command { panic!("a second process") };
        let mut zeroizer = lost().last_resort(uuid(), |_| Err("told to fail".to_owned()), never);
        let error = zeroizer.zeroize().unwrap_err().to_string();
        assert!(error.contains("ILLEGAL_ADDRESS") && error.contains("told to fail"), "{error}");
        let error = lost().last_resort(uuid(), |_| panic!("told to panic"), never).zeroize().unwrap_err().to_string();
        assert!(error.contains("letting go of it panicked"), "{error}");
        let hangs = |_| loop {
            std::thread::park();
        };
        let mut zeroizer = lost().within(Duration::from_millis(300)).last_resort(uuid(), hangs, never);
        for _ in 0..2 {
            let error = zeroizer.zeroize().unwrap_err().to_string();
            assert!(error.contains("letting go of it did not end"), "{error}");
        }
    }

    #[test]
    fn a_second_process_that_fails_lies_or_hangs_is_no_receipt() {
        let (_, said) = line(small(), nothing_held);
        let (code, dirty) = line(small().with(Flaw::OverwritesNothing), nothing_held);
        assert_eq!(code, 1);
        let (panicked, _) = line(small().with(Flaw::Panics), nothing_held);
        assert_eq!(panicked, 1);
        let said = said.trim_end();
        for (script, says) in [
            ("exit 0".to_owned(), "what it said is no report"),
            ("kill -9 $$".to_owned(), "ended with signal: 9"),
            (format!("echo '{said}'; exit 1"), "ended with exit status: 1"),
            (format!("echo '{said}'; echo '{said}'"), "no report"),
            (format!("echo '{said} '; echo more"), "no report"),
            (format!("echo '{}'", said.replace("\"total\":37748736", "\"total\":1")), "says of 1 bytes"),
            (
                format!("echo '{}'", said.replace("\"held\":0", "\"held\":8589934592")),
                "8589934592 bytes of secret memory are still held",
            ),
            (format!("echo '{}'; exit 1", dirty.trim_end()), "still holds data after wiping"),
            ("exec yes x".to_owned(), "ended with signal: 13"),
        ] {
            let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), move || shell(&script));
            let error = zeroizer.zeroize().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains("ILLEGAL_ADDRESS"), "{says}: {error}");
        }
        let mut zeroizer = lost().last_resort(uuid(), |_| Ok(true), || Command::new("/nowhere/at/all"));
        assert!(zeroizer.zeroize().unwrap_err().to_string().contains("cannot be started"));
    }

    #[test]
    fn a_second_process_that_does_not_end_holds_nobody_up() {
        let (_, said) = line(small(), nothing_held);
        let said = said.trim_end().to_owned();
        let folder = tempfile::tempdir().unwrap();
        let noted = folder.path().join("pid");
        let note = format!("echo $$ > {}", noted.display());
        for script in [format!("{note}; exec sleep 1000"), format!("{note}; echo '{said}'; exec >&-; exec sleep 1000")]
        {
            let limit = Duration::from_millis(300);
            let mut zeroizer = lost().within(limit).last_resort(uuid(), |_| Ok(true), move || shell(&script));
            let began = Instant::now();
            let error = zeroizer.zeroize().unwrap_err().to_string();
            assert!(error.contains("did not end within 300ms"), "{error}");
            assert!(began.elapsed() >= limit && began.elapsed() < limit * 20, "{:?}", began.elapsed());
            // And it is ended, and reaped.
            let process = format!("/proc/{}", std::fs::read_to_string(&noted).unwrap().trim());
            while std::path::Path::new(&process).exists() {
                assert!(began.elapsed() < Duration::from_secs(20), "{process} is still there");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        // Its own limit, for the device that it finds.
        let mut said = Vec::new();
        let (hangs, limit) = (|| Ok(small().with(Flaw::HangsInTrim)), Duration::from_millis(300));
        assert_eq!(second::wipe_for_another(uuid, nothing_held, hangs, limit, &mut said), 1);
        assert!(String::from_utf8(said).unwrap().contains("did not answer within 300ms"));
    }
}
