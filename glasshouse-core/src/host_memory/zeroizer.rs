use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use super::ZeroOnFree;
use crate::secret::{KeyMemory, Ledger, Secret, SecretBuffer, Tally};
use crate::traits::{LargeBlocks, Receipt, SecretRegion, SmallBlocks, WipedRegion, ZeroizeError, Zeroizer};

/// The line by which a receipt of the host alone says so; a zeroizer that wipes a device too takes it out.
pub const DEVICE_MEMORY_NOT_COVERED: &str = "memory of GPUs and other devices: only the host's memory was wiped";

const STACKS_AND_KERNEL: &str = "processor registers, thread stacks, memory that C libraries take for themselves, buffers that libraries keep for each of their threads, and the kernel's own buffers of sockets, pipes and files: not reachable from here";

/// Wipes host memory: regions it was handed, then a check that no other secret is still alive in this process.
///
/// Who owns what: a workload takes its `Inputs` by value and drops them in `release`, which wipes them; the session
/// hands over the data key and whatever it still holds ([`track_key`](Self::track_key),
/// [`track_buffer`](Self::track_buffer)) and drops the rest. Keys that sign and send the receipt are marked with
/// [`Secret::into_session_key`]; they alone may be alive afterwards, and the receipt says so.
///
/// Dropped without `zeroize`, it wipes what it holds all the same, unchecked.
pub struct HostZeroizer {
    regions: Vec<SecretRegion>,
    ledger: &'static Ledger,
}

impl HostZeroizer {
    /// Checks the secrets of this process.
    pub fn new() -> Self {
        Self::with_ledger(Ledger::process())
    }

    /// Checks another ledger: for tests, where other tests of the process hold secrets of their own.
    pub fn with_ledger(ledger: &'static Ledger) -> Self {
        Self { regions: Vec::new(), ledger }
    }

    /// Takes a key over, to be wiped, checked and dropped.
    pub fn track_key<const N: usize>(&mut self, label: impl Into<String>, key: Secret<N>) {
        self.track(SecretRegion { label: label.into(), target: Box::new(key) });
    }

    /// Takes a buffer over, to be wiped, checked and dropped.
    pub fn track_buffer(&mut self, label: impl Into<String>, buffer: SecretBuffer) {
        self.track(SecretRegion { label: label.into(), target: Box::new(buffer) });
    }
}

impl Default for HostZeroizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Zeroizer for HostZeroizer {
    fn name(&self) -> &'static str {
        "host"
    }

    fn track(&mut self, region: SecretRegion) {
        self.regions.push(region);
    }

    fn zeroize(&mut self) -> Result<Receipt, ZeroizeError> {
        let start = Instant::now();
        let (regions, mut failures) = wipe_and_check(&mut self.regions);
        // Wiped regions are dropped by now, failed ones are still held: what the ledger knows beyond those is a leak.
        let tally = self.ledger.tally();
        if tally.held() > 0 {
            failures.push(ZeroizeError::StillHeld { bytes: tally.held(), what: holders(&tally) });
        }
        if let Some(error) = ZeroizeError::of(failures) {
            return Err(error);
        }
        let swapped_bytes = swapped_bytes();
        let installed = ZeroOnFree::is_installed();
        let large_blocks = ZeroOnFree::large_blocks().filter(|_| installed);
        let small_blocks = ZeroOnFree::small_blocks().filter(|_| installed);
        Ok(Receipt {
            zeroizer: self.name().to_owned(),
            regions,
            allocator_bytes: installed.then(ZeroOnFree::wiped_bytes),
            large_blocks,
            small_blocks,
            unlocked_bytes: tally.unlocked_peak,
            key_memory: tally.key_memory,
            swapped_bytes,
            not_covered: not_covered(&tally, installed, large_blocks.zip(small_blocks), swapped_bytes),
            millis: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Drop for HostZeroizer {
    fn drop(&mut self) {
        for region in &mut self.regions {
            let _ = catch_unwind(AssertUnwindSafe(|| region.target.wipe()));
        }
    }
}

/// Wipes every region, then reads every region back. Regions that failed stay in `regions`; the others are dropped.
fn wipe_and_check(regions: &mut Vec<SecretRegion>) -> (Vec<WipedRegion>, Vec<ZeroizeError>) {
    let mut tracked = std::mem::take(regions);
    let wiped: Vec<_> = tracked.iter_mut().map(wipe).collect();
    let (mut done, mut failures) = (Vec::new(), Vec::new());
    for (region, wiped) in tracked.into_iter().zip(wiped) {
        match wiped.and_then(|()| check(&region)) {
            Ok(line) => done.push(line),
            Err(error) => {
                failures.push(error);
                regions.push(region);
            }
        }
    }
    (done, failures)
}

fn wipe(region: &mut SecretRegion) -> Result<(), ZeroizeError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| region.target.wipe()));
    outcome.unwrap_or_else(|_| Err(panicked(region, "wiping"))).map_err(|error| error.of_region(&region.label))
}

fn check(region: &SecretRegion) -> Result<WipedRegion, ZeroizeError> {
    let outcome = catch_unwind(AssertUnwindSafe(|| region.target.is_wiped()));
    match outcome.unwrap_or_else(|_| Err(panicked(region, "reading it back"))) {
        Ok(true) => Ok(WipedRegion {
            label: region.label.clone(),
            bytes: region.target.bytes(),
            method: "overwritten in place".to_owned(),
            verification: "every byte read back".to_owned(),
        }),
        Ok(false) => Err(ZeroizeError::StillThere { region: region.label.clone() }),
        Err(error) => Err(error.of_region(&region.label)),
    }
}

fn panicked(region: &SecretRegion, what: &str) -> ZeroizeError {
    ZeroizeError::NotWiped { region: region.label.clone(), why: format!("{what} panicked") }
}

fn holders(tally: &Tally) -> String {
    let parts = [(tally.keys, "of keys"), (tally.bulk, "of plaintext")];
    let held: Vec<_> = parts.iter().filter(|(bytes, _)| *bytes > 0).map(|(b, what)| format!("{b} {what}")).collect();
    format!("{}; release the workload and drop or hand over every secret first", held.join(", "))
}

/// What this receipt cannot speak for, a sentence each.
fn not_covered(
    tally: &Tally,
    allocator_installed: bool,
    blocks: Option<(LargeBlocks, SmallBlocks)>,
    swapped: Option<u64>,
) -> Vec<String> {
    let mut lines = Vec::new();
    if !allocator_installed {
        lines.push(
            "ordinary memory that the program freed during the run: the zero-on-free allocator is not installed \
             (#[global_allocator] static ALLOCATOR: ZeroOnFree)"
                .to_owned(),
        );
    }
    if allocator_installed {
        lines.extend(ordinary_memory(blocks));
    }
    if tally.session_keys > 0 {
        lines.push(format!(
            "{} bytes of session keys that sign and send this receipt: wiped after delivery or linger",
            tally.session_keys
        ));
    }
    if tally.unlocked_peak > 0 {
        lines.push(format!(
            "swap: at most {} secret bytes at a time could not be locked in memory; raise the limit (ulimit -l)",
            tally.unlocked_peak
        ));
    }
    if tally.key_memory > KeyMemory::MemfdSecret {
        lines.push(
            "keys while they were in use: they were not in memory that the kernel itself cannot read (memfd_secret); \
             run on Linux 5.14 or later, with a larger limit (ulimit -l)"
                .to_owned(),
        );
    }
    match swapped {
        Some(0) => {}
        Some(bytes) => lines.push(format!("{bytes} bytes of this process in swap: swap is not wiped")),
        None => lines.push("swap: VmSwap in /proc/self/status could not be read".to_owned()),
    }
    lines.push(DEVICE_MEMORY_NOT_COVERED.to_owned());
    lines.push(STACKS_AND_KERNEL.to_owned());
    lines
}

/// What the allocator wiped when it was freed, and no more than that.
fn ordinary_memory(blocks: Option<(LargeBlocks, SmallBlocks)>) -> Vec<String> {
    let unguarded = "wiped when freed, but neither locked in memory nor left out of core dumps";
    let Some((large, small)) = blocks else {
        return vec![format!("the program's own memory while in use: {unguarded} (ZeroOnFree::guard)")];
    };
    let from = large.from_bytes;
    let ordinary = |bytes: u64, what: &str| {
        let line = || format!("{bytes} bytes of {what}, all together, had no pages of our own: {unguarded}");
        (bytes > 0).then(line)
    };
    let unlocked = |bytes: u64, what: &str| {
        let advice = "could not be locked in memory at a time; raise the limit (ulimit -l)";
        (bytes > 0).then(|| format!("swap: at most {bytes} bytes of {what} {advice}"))
    };
    let before = format!("what was allocated before the segment hardened itself: {unguarded}");
    [
        Some(before),
        ordinary(large.ordinary_bytes, &format!("blocks from {from} bytes on")),
        ordinary(small.ordinary_bytes, "smaller blocks"),
        unlocked(large.unlocked_peak_bytes, &format!("blocks from {from} bytes on")),
        unlocked(small.unlocked_page_bytes, "pages of smaller blocks"),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `VmSwap` of `/proc/self/status` (proc_pid_status(5)), in bytes.
fn swapped_bytes() -> Option<u64> {
    vm_swap(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn vm_swap(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmSwap:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traits::WipeTarget;

    struct Panics;
    impl WipeTarget for Panics {
        fn bytes(&self) -> u64 {
            1
        }
        fn wipe(&mut self) -> Result<(), ZeroizeError> {
            panic!("a target may do this")
        }
        fn is_wiped(&self) -> Result<bool, ZeroizeError> {
            Ok(true)
        }
    }

    #[test]
    fn wipes_checks_and_drops_what_it_was_given() {
        static LEDGER: Ledger = Ledger::new();
        let mut zeroizer = HostZeroizer::with_ledger(&LEDGER);
        zeroizer.track_key("data key", Secret::<32>::zeroed_in(&LEDGER));
        zeroizer.track_buffer("weights", SecretBuffer::try_zeroed_in(10_000, &LEDGER).unwrap());
        assert_eq!(LEDGER.tally().held(), 10_032);

        let receipt = zeroizer.zeroize().unwrap();
        let regions: Vec<_> = receipt.regions.iter().map(|r| (r.label.as_str(), r.bytes)).collect();
        assert_eq!(regions, [("data key", 32), ("weights", 10_000)]);
        assert_eq!((LEDGER.tally().held(), LEDGER.tally().wiped), (0, 10_032));
        assert_eq!(receipt.unlocked_bytes, LEDGER.tally().unlocked_peak);
        assert_eq!(receipt.key_memory, LEDGER.tally().key_memory);
        let told = receipt.not_covered.iter().any(|line| line.contains("memfd_secret"));
        assert_eq!(told, receipt.key_memory > KeyMemory::MemfdSecret);
        assert_eq!(receipt.zeroizer, "host");
        // This process swaps nothing in or out within a moment, or there is no swap at all.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        assert_eq!(receipt.swapped_bytes, vm_swap(&status));
        assert!(zeroizer.zeroize().unwrap().regions.is_empty());
    }

    #[test]
    fn a_secret_that_nobody_handed_over_is_an_error() {
        static LEDGER: Ledger = Ledger::new();
        let forgotten = SecretBuffer::try_zeroed_in(77, &LEDGER).unwrap();
        let error = HostZeroizer::with_ledger(&LEDGER).zeroize().unwrap_err();
        assert!(matches!(error, ZeroizeError::StillHeld { bytes: 77, .. }), "{error}");
        assert!(error.to_string().contains("held: 77 of plaintext; release"), "{error}");
        drop(forgotten);
        assert!(HostZeroizer::with_ledger(&LEDGER).zeroize().is_ok());
    }

    #[test]
    fn session_keys_may_stay_and_are_named() {
        static LEDGER: Ledger = Ledger::new();
        let signing = Secret::<32>::zeroed_in(&LEDGER).into_session_key();
        let receipt = HostZeroizer::with_ledger(&LEDGER).zeroize().unwrap();
        assert!(receipt.not_covered.iter().any(|l| l.starts_with("32 bytes of session keys")), "{receipt:?}");
        drop(signing);
        let receipt = HostZeroizer::with_ledger(&LEDGER).zeroize().unwrap();
        assert!(!receipt.not_covered.iter().any(|l| l.contains("session keys")), "{receipt:?}");
    }

    #[test]
    fn a_panic_while_wiping_leaves_no_other_region_unwiped() {
        static LEDGER: Ledger = Ledger::new();
        let mut zeroizer = HostZeroizer::with_ledger(&LEDGER);
        zeroizer.track(SecretRegion { label: "broken".into(), target: Box::new(Panics) });
        zeroizer.track_key("data key", Secret::<32>::zeroed_in(&LEDGER));
        let error = zeroizer.zeroize().unwrap_err();
        assert!(matches!(&error, ZeroizeError::NotWiped { region, .. } if region == "broken"), "{error}");
        assert_eq!(LEDGER.tally().held(), 0);
    }

    #[test]
    fn an_absent_allocator_is_said() {
        static LEDGER: Ledger = Ledger::new();
        let receipt = HostZeroizer::with_ledger(&LEDGER).zeroize().unwrap();
        assert_eq!(receipt.allocator_bytes, None);
        assert!(receipt.not_covered.iter().any(|l| l.contains("zero-on-free allocator is not installed")));
    }

    #[test]
    fn each_limit_has_its_line() {
        let large = LargeBlocks { from_bytes: 65_536, peak_bytes: 9, ..LargeBlocks::default() };
        let small = SmallBlocks { below_bytes: 65_536, page_bytes: 9, ..SmallBlocks::default() };
        let before = "what was allocated before the segment hardened itself: wiped when freed, but neither locked in memory \
                      nor left out of core dumps";
        let always = [before, DEVICE_MEMORY_NOT_COVERED, STACKS_AND_KERNEL];
        assert_eq!(not_covered(&Tally::default(), true, Some((large, small)), Some(0)), always);
        let lines = |blocks| not_covered(&Tally::default(), true, blocks, Some(0));
        assert!(lines(None)[0].starts_with("the program's own memory while in use"));
        let with = |large, small| lines(Some((large, small))).swap_remove(1);
        let ordinary = with(LargeBlocks { ordinary_bytes: 5, ..large }, small);
        assert!(ordinary.starts_with("5 bytes of blocks from 65536 bytes on, all together"), "{ordinary}");
        let unlocked = with(LargeBlocks { unlocked_peak_bytes: 7, ..large }, small);
        assert!(unlocked.starts_with("swap: at most 7 bytes of blocks from 65536"), "{unlocked}");
        let ordinary = with(large, SmallBlocks { ordinary_bytes: 6, ..small });
        assert!(ordinary.starts_with("6 bytes of smaller blocks, all together"), "{ordinary}");
        let unlocked = with(large, SmallBlocks { unlocked_page_bytes: 8, ..small });
        assert!(unlocked.starts_with("swap: at most 8 bytes of pages of smaller blocks"), "{unlocked}");
        let line = |tally: Tally, swapped| not_covered(&tally, true, Some((large, small)), swapped).swap_remove(1);
        let unlocked = Tally { unlocked_peak: 5, ..Tally::default() };
        assert!(line(unlocked, Some(0)).contains("at most 5 secret bytes"));
        assert!(line(Tally::default(), Some(4096)).starts_with("4096 bytes of this process in swap"));
        assert!(line(Tally::default(), None).contains("could not be read"));
    }

    #[test]
    fn vm_swap_is_read_in_bytes() {
        assert_eq!(vm_swap("Name:\tx\nVmSwap:\t      12 kB\nThreads:\t1\n"), Some(12_288));
        for bad in ["", "VmSwap:", "VmSwap: 12", "VmSwap: x kB", "VmSwap: 18446744073709551615 kB"] {
            assert_eq!(vm_swap(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn dropping_wipes_boxed_slices_too() {
        use std::sync::{Arc, Mutex};
        struct Watched(Arc<Mutex<u32>>);
        impl WipeTarget for Watched {
            fn bytes(&self) -> u64 {
                4
            }
            fn wipe(&mut self) -> Result<(), ZeroizeError> {
                *self.0.lock().unwrap() = 0;
                Ok(())
            }
            fn is_wiped(&self) -> Result<bool, ZeroizeError> {
                Ok(*self.0.lock().unwrap() == 0)
            }
        }
        let value = Arc::new(Mutex::new(7));
        let mut zeroizer = HostZeroizer::new();
        zeroizer.track(SecretRegion { label: "x".into(), target: Box::new(Watched(Arc::clone(&value))) });
        drop(zeroizer);
        assert_eq!(*value.lock().unwrap(), 0);
    }
}
