//! The zero-on-free allocator over one that looks into every block at the moment it is freed.
#![allow(unsafe_code)] // an allocator is unsafe to implement and to call

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use glasshouse_core::host_memory::{HostZeroizer, ZeroOnFree};
use glasshouse_core::secret::{Ledger, SecretBuffer};
use glasshouse_core::traits::{SecretRegion, Zeroizer as _};

/// Counts blocks that come to be freed, and those among them that are not all zero.
struct Inspect {
    freed: AtomicU64,
    dirty: AtomicU64,
}

impl Inspect {
    const fn new() -> Self {
        Self { freed: AtomicU64::new(0), dirty: AtomicU64::new(0) }
    }
}

// SAFETY: `System` with a look at each block first.
unsafe impl GlobalAlloc for &Inspect {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: in the tests every freed block was written in full, by its user or by the wipe.
        let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
        self.freed.fetch_add(1, Relaxed);
        if bytes.iter().any(|b| *b != 0) {
            self.dirty.fetch_add(1, Relaxed);
        }
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

static INSPECT: Inspect = Inspect::new();

#[global_allocator]
static ALLOCATOR: ZeroOnFree<&Inspect> = ZeroOnFree::over(&INSPECT);

#[test]
fn no_block_of_this_process_is_freed_with_anything_in_it() {
    let before = (INSPECT.freed.load(Relaxed), ZeroOnFree::wiped_bytes());
    let mut grown: Vec<u8> = Vec::new();
    for i in 0..1_000_000u32 {
        grown.extend_from_slice(&i.to_be_bytes()); // reallocates some twenty times
    }
    let shrunk = grown.into_boxed_slice();
    drop(shrunk);
    for size in [1, 7, 63, 64, 4096, 200_000, 40 << 20] {
        drop(vec![0xa5u8; size]);
    }
    drop((0..1000).map(|i| format!("canary {i}")).collect::<Vec<_>>());

    assert!(INSPECT.freed.load(Relaxed) > before.0 + 1000);
    assert!(ZeroOnFree::wiped_bytes() - before.1 > 44 << 20);
    assert_eq!(INSPECT.dirty.load(Relaxed), 0);
}

#[test]
fn the_inspector_sees_a_block_that_was_not_wiped() {
    let inspect = Inspect::new();
    let layout = Layout::array::<u8>(64).unwrap();
    // SAFETY: a plain allocation, written in full, freed with its own layout.
    unsafe {
        let block = (&inspect).alloc(layout);
        block.write_bytes(0xa5, 64);
        (&inspect).dealloc(block, layout);
    }
    assert_eq!((inspect.freed.load(Relaxed), inspect.dirty.load(Relaxed)), (1, 1));
}

#[test]
fn realloc_keeps_the_contents() {
    let inspect = Inspect::new();
    let allocator = ZeroOnFree::over(&inspect);
    for (old, new) in [(16, 4096), (4096, 16), (100, 100)] {
        let layout = Layout::array::<u8>(old).unwrap();
        // SAFETY: written in full before it is grown or shrunk, read only within both sizes, freed with its layout.
        unsafe {
            let block = allocator.alloc(layout);
            block.write_bytes(0xa5, old);
            let block = allocator.realloc(block, layout, new);
            assert!(std::slice::from_raw_parts(block, old.min(new)).iter().all(|b| *b == 0xa5));
            allocator.dealloc(block, Layout::array::<u8>(new).unwrap());
        }
    }
    assert_eq!((inspect.freed.load(Relaxed), inspect.dirty.load(Relaxed)), (6, 0));
}

/// The only test here that holds secrets, so that the ledger of the process is its own.
#[test]
fn a_receipt_with_the_allocator_installed() {
    assert!(ZeroOnFree::is_installed());
    let mut zeroizer = HostZeroizer::new();
    zeroizer.track(SecretRegion { label: "tokens".into(), target: Box::new(vec![1u32; 1000].into_boxed_slice()) });
    zeroizer.track_buffer("data", SecretBuffer::new(vec![1; 100_000]));
    assert_eq!(Ledger::process().tally().bulk, 100_000);
    let receipt = zeroizer.zeroize().unwrap();
    assert!(receipt.allocator_bytes.is_some_and(|bytes| bytes >= 104_000));
    assert!(!receipt.not_covered.iter().any(|line| line.contains("not installed")), "{:?}", receipt.not_covered);
    assert_eq!(Ledger::process().tally().held(), 0);
}
