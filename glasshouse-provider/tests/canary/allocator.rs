//! The program's allocator: zero-on-free, over one that looks for the canary in every block that is freed.
#![allow(unsafe_code)] // an allocator is unsafe to implement and to call

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use glasshouse_core::host_memory::ZeroOnFree;

use crate::scan::{Hidden, count};

/// Wipes blocks before they are freed, unless a test has turned that off to see what then is found.
struct Switched;

static INSPECT: Inspect = Inspect;
static WIPING: ZeroOnFree<&Inspect> = ZeroOnFree::over(&INSPECT);
static OFF: AtomicBool = AtomicBool::new(false);
/// Small blocks, and large ones.
static FREED_WITH_CANARY: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
/// From this size on a block has pages of its own.
const LARGE: usize = 64 << 10;
static CANARY: OnceLock<Hidden> = OnceLock::new();

#[global_allocator]
static ALLOCATOR: Switched = Switched;

/// From now on blocks are looked at. Those in pages of our own never come to the allocator below: they go back from within
/// [`ZeroOnFree`], which lets them be looked at before that.
pub(crate) fn look_for(canary: Hidden) {
    let _ = CANARY.set(canary);
    ZeroOnFree::look_after_wipe(|block, size| {
        // SAFETY: its last user gave it up, and nobody has it yet.
        unsafe { look(block, size) };
    });
}

pub(crate) fn stop_wiping() {
    OFF.store(true, Relaxed);
}

/// Blocks that were freed with the canary in them: small ones, and large ones.
pub(crate) fn freed_with_canary() -> [u64; 2] {
    FREED_WITH_CANARY.each_ref().map(|count| count.load(Relaxed))
}

struct Inspect;

// SAFETY: `System`, with a look at each block before it is freed.
unsafe impl GlobalAlloc for &Inspect {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe {
            look(block, layout.size());
            System.dealloc(block, layout);
        }
    }
}

/// # Safety
/// The block is the caller's; where it was never written its bytes mean nothing, and are only compared.
unsafe fn look(block: *const u8, size: usize) -> bool {
    let Some(canary) = CANARY.get() else { return false };
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts(block, size) };
    let found = count(bytes, canary, bytes.len()).iter().any(|found| *found > 0);
    FREED_WITH_CANARY[usize::from(size >= LARGE)].fetch_add(u64::from(found), Relaxed);
    found
}

// SAFETY: one or the other of two allocators that both end in `System`, which frees what either of them allocated; but
// guarded blocks lie in pages of the first one's own, and go back there.
unsafe impl GlobalAlloc for Switched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { WIPING.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe {
            match (OFF.load(Relaxed), ZeroOnFree::guards(block)) {
                (true, false) => (&INSPECT).dealloc(block, layout),
                // To free it is to wipe it. One with the canary in it stays as it is, and nobody else gets it.
                (true, true) => {
                    if !look(block, layout.size()) {
                        WIPING.dealloc(block, layout);
                    }
                }
                (false, _) => WIPING.dealloc(block, layout),
            }
        }
    }
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { WIPING.realloc(block, layout, new_size) }
    }
}
