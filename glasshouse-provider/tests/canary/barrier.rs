//! Where a segment stops to be looked at: while it trains, and after zeroization.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::traits::{Receipt, SecretRegion, ZeroizeError, Zeroizer};

use crate::allocator;
use crate::scan::{Found, Hidden, in_process};

/// Where owner and segment meet.
pub(crate) const FOLDER: &str = "GLASSHOUSE_TEST_FOLDER";
/// Units until the barrier.
pub(crate) const BARRIER_AT: u64 = 5;
/// A barrier that nobody opens opens itself.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn folder() -> PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

pub(crate) fn hidden(folder: &Path) -> Hidden {
    Hidden(std::fs::read(folder.join("complement")).unwrap().try_into().unwrap())
}

/// Says what this process finds in itself, and waits.
pub(crate) fn barrier(name: &str) {
    let folder = folder();
    let [raw, f32s, tokens, large]: Found = in_process(&hidden(&folder));
    let [freed, freed_large] = allocator::freed_with_canary();
    let line = format!("{} {raw} {f32s} {tokens} {large} {freed} {freed_large}", std::process::id());
    std::fs::write(folder.join("new"), line).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    let (began, open) = (Instant::now(), folder.join(format!("{name}-on")));
    while !open.exists() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The host's zeroizer, and a barrier after it.
pub(crate) struct Halting(HostZeroizer);

impl Halting {
    pub(crate) fn new() -> Self {
        Self(HostZeroizer::new())
    }
}

impl Zeroizer for Halting {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn track(&mut self, region: SecretRegion) {
        self.0.track(region);
    }
    fn zeroize(&mut self) -> Result<Receipt, ZeroizeError> {
        let receipt = self.0.zeroize();
        barrier("wiped");
        receipt
    }
}
