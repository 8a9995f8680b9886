//! The zeroizer of a GPU run: the host's memory, then every byte of device memory that the driver will give.
//!
//! A workload's own tensors are gone when this runs, and what they left lies somewhere in free device memory, or in
//! candle's pool. So the pool is trimmed, all free memory is taken, in large blocks and then in ever smaller ones,
//! overwritten, read back by a kernel on the device, and returned. [`sweep`] is that procedure over any [`DeviceMemory`];
//! on a machine without a GPU it runs over a memory map in its tests.
//!
//! Nearly every call of the driver waits for work that a broken kernel never ends, and none of them takes a deadline. So
//! a device is only touched on a thread of its own, which is left behind when it does not come back in time.

#[cfg(feature = "cuda")]
mod device;
#[cfg(test)]
mod fake;
mod memory;
#[cfg(feature = "cuda")]
mod pinned;
mod sweep;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use glasshouse_core::host_memory::{DEVICE_MEMORY_NOT_COVERED, HostZeroizer};
use glasshouse_core::traits::{Receipt, SecretRegion, ZeroizeError, Zeroizer};

#[cfg(feature = "cuda")]
pub use device::{CudaMemory, scan};
pub use memory::{Block, DeviceMemory};
#[cfg(feature = "cuda")]
pub use pinned::{Crossing, PinnedBuffer};
pub use sweep::{MARGIN, SMALLEST_BLOCK, Swept, sweep};

/// A device that has not been wiped by then does not answer any more: an H200's 141 GB take a third of a second.
pub const LONGEST: Duration = Duration::from_secs(30);
/// Label of device memory in receipts and errors.
const REGION: &str = "device memory";

/// Zeroizes the first CUDA device and the host.
#[cfg(feature = "cuda")]
pub type CudaZeroizer = DeviceZeroizer<CudaMemory>;

/// Zeroizes a device and the host. The device is opened when it is needed: a run that fails before has nothing there.
pub struct DeviceZeroizer<D> {
    host: HostZeroizer,
    /// With the thread that uses it; gone with one that did not come back.
    open: Option<Open<D>>,
    limit: Duration,
}

type Open<D> = Box<dyn FnMut() -> Result<D, String> + Send>;

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
        Self { host, open: Some(Box::new(open)), limit: LONGEST }
    }

    /// The same with another limit on what the device may take.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sweeps the device on a thread of its own, and waits for that no longer than the limit.
    fn sweep_device(&mut self) -> Result<Swept, ZeroizeError> {
        let unanswered = || not_wiped(format!("the device did not answer within {:?}", self.limit));
        let mut open = self.open.take().ok_or_else(unanswered)?;
        let (done, swept) = mpsc::channel();
        let work = move || {
            let swept = catch_unwind(AssertUnwindSafe(|| sweep(&mut open().map_err(not_wiped)?)));
            let panicked = |_| Err(not_wiped("the thread that wipes it panicked".to_owned()));
            // Nobody listens any more when it took too long.
            let _ = done.send((open, swept.unwrap_or_else(panicked)));
        };
        std::thread::Builder::new().spawn(work).map_err(|error| not_wiped(error.to_string()))?;
        let (open, swept) = swept.recv_timeout(self.limit).map_err(|_| unanswered())?;
        self.open = Some(open);
        swept
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
        let (mut receipt, swept) = match (host, device) {
            (Ok(receipt), Ok(swept)) => (receipt, swept),
            (host, device) => {
                let failures = [host.err(), device.err()].into_iter().flatten().collect();
                return Err(ZeroizeError::of(failures).unwrap_or_else(|| not_wiped("it is not known why".to_owned())));
            }
        };
        receipt.zeroizer = self.name().to_owned();
        receipt.regions.push(swept.region());
        receipt.not_covered.retain(|line| line != DEVICE_MEMORY_NOT_COVERED);
        receipt.not_covered.extend(swept.not_covered());
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
}
