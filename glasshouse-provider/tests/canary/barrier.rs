//! Where a segment stops to be looked at: while it trains, and after zeroization.
#![allow(unsafe_code)] // advice for pages takes raw pointers

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::traits::{Receipt, SecretRegion, ZeroizeError, Zeroizer};
use rustix::mm::{Advice, madvise};
use rustix::process::{PTracer, set_ptracer};

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
    into_dumps(name);
    // gcore is no ancestor of this process, which is what Yama asks for. Not everywhere is Yama.
    let _ = set_ptracer(PTracer::Any);
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

/// Core dumps leave all our pages out, blocks of the allocator among them, and would show nothing. So that a core is a view of its
/// own they are let in for this test. Keys in hidden memory stay where nobody sees them.
fn into_dumps(name: &str) {
    let blocks = [vec![0_u8; 100], vec![0; 100 << 10]];
    let mut left_out = Vec::new();
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut at = None;
    for line in text.lines() {
        if let Some((range, rest)) = line.split_once(' ').filter(|(range, _)| range.contains('-')) {
            let (from, to) = range.split_once('-').unwrap();
            let [from, to] = [from, to].map(|address| usize::from_str_radix(address, 16).unwrap());
            at = (rest.starts_with("rw-p") && !rest.contains("secretmem")).then_some(from..to);
        } else if line.starts_with("VmFlags:") && line.contains(" dd") {
            left_out.extend(at.take());
        }
    }
    for block in &blocks {
        let address = block.as_ptr().addr();
        assert!(name != "training" || left_out.iter().any(|range| range.contains(&address)), "a block that dumps have");
    }
    for range in left_out {
        // SAFETY: pages of this process, of which nothing changes but whether dumps have them. Those that are gone by now are
        // refused.
        let _ = unsafe { madvise(std::ptr::without_provenance_mut(range.start), range.len(), Advice::LinuxDoDump) };
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
        if let Ok(receipt) = &receipt {
            std::fs::write(folder().join("receipt"), serde_json::to_vec(receipt).unwrap()).unwrap();
        }
        barrier("wiped");
        receipt
    }
}
