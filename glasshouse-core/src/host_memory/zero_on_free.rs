//! The zero-on-free global allocator.
#![allow(unsafe_code)] // `GlobalAlloc` is an unsafe trait over raw pointers

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::slots::LARGE;
use super::{large_blocks, small_blocks};
use crate::traits::{LargeBlocks, SmallBlocks};

/// A global allocator that wipes every block before it is freed, and never lets a growing block leave its old bytes
/// behind. It covers what secret types cannot: tensors, tokenizers, serializers, the insides of dependencies.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: glasshouse_core::host_memory::ZeroOnFree = glasshouse_core::host_memory::ZeroOnFree::new();
///
/// assert!(glasshouse_core::host_memory::ZeroOnFree::is_installed());
/// ```
///
/// Large blocks are wiped too, although the C library gives them back to the kernel, which zeroes pages before anyone
/// else sees them: from which size on it does so changes at run time, and until then the bytes stay readable in this
/// process (`/proc/PID/mem`, a core dump).
///
/// The cost is a `memset` of each block: some 4 ns for a small one, and below 10 % of what it took to fill and free a
/// block of megabytes. Two things cost more than that: growing copies, where `realloc` could have moved pages (reserve
/// ahead), and a large block that was never written is faulted in by the wipe.
///
/// [`guard`](ZeroOnFree::guard) puts blocks into pages of our own, which core dumps leave out and which are locked as far as
/// the limit allows. A small block then costs some 20 ns more (notes/zeroization.md).
///
/// Not covered: memory that C libraries take with `malloc` themselves, and stacks.
pub struct ZeroOnFree<A = System> {
    inner: A,
}

impl ZeroOnFree {
    /// Over the system's allocator.
    pub const fn new() -> Self {
        Self::over(System)
    }

    /// Whether the global allocator of this program is a `ZeroOnFree`, found out by freeing a block and seeing it
    /// come by.
    pub fn is_installed() -> bool {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        *INSTALLED.get_or_init(|| {
            let probe = Box::new(0u64);
            PROBE.store(std::ptr::from_ref::<u64>(&probe).addr(), Relaxed);
            drop(std::hint::black_box(probe));
            PROBE.store(0, Relaxed);
            PROBE_SEEN.load(Relaxed)
        })
    }

    /// From now on, and for as long as the process lives, blocks lie in pages of our own: left out of core dumps, and locked
    /// (as they are touched) as far as `ulimit -l` allows, of which they take three quarters at most. What could not be had is
    /// counted, see [`large_blocks`](Self::large_blocks) and [`small_blocks`](Self::small_blocks). Blocks from before stay
    /// where they are.
    ///
    /// A protected segment begins with it; owners, agents and raw segments do without, and pay nothing. Linux; elsewhere
    /// every block stays an ordinary one, and is counted as such.
    pub fn guard() {
        large_blocks::begin();
        small_blocks::begin();
    }

    /// What became of blocks of 64 KiB and more since [`guard`](Self::guard); nothing without it.
    pub fn large_blocks() -> Option<LargeBlocks> {
        large_blocks::tally()
    }

    /// What became of smaller blocks since [`guard`](Self::guard); nothing without it.
    pub fn small_blocks() -> Option<SmallBlocks> {
        small_blocks::tally()
    }

    /// Whether a block lies in pages of our own. An allocator that is put before this one has to hand such a block on.
    pub fn guards(block: *const u8) -> bool {
        large_blocks::holds(block) || small_blocks::holds(block)
    }

    /// For tests: from now on this sees each guarded block, or what a large one lost, when it was wiped and before anyone else
    /// can have it. An allocator under this one sees ordinary blocks only. The first one counts.
    #[doc(hidden)]
    pub fn look_after_wipe(look: fn(*const u8, usize)) {
        let _ = LOOK.set(look);
    }

    /// Bytes wiped on free since the program began.
    pub fn wiped_bytes() -> u64 {
        WIPED.iter().fold(0, |sum, shard| sum.wrapping_add(shard.0.load(Relaxed)))
    }
}

impl Default for ZeroOnFree {
    fn default() -> Self {
        Self::new()
    }
}

impl<A> ZeroOnFree<A> {
    /// Over another allocator, which sees each block only after it was wiped.
    pub const fn over(inner: A) -> Self {
        Self { inner }
    }
}

// SAFETY: every block comes from `inner` with the layout asked for and goes back to it with the same layout, or lies in pages of
// our own, as its address tells; in between it is only written within that layout. No method unwinds unless
// `inner` does.
unsafe impl<A: GlobalAlloc> GlobalAlloc for ZeroOnFree<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(block) = guarded(layout) {
            return block.as_ptr();
        }
        // SAFETY: the caller's promise (a layout of non-zero size) is passed on.
        counted(unsafe { self.inner.alloc(layout) }, layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(block) = guarded(layout) {
            if layout.size() < LARGE {
                // SAFETY: a fresh block of this size. A large one is fresh pages, or wiped ones.
                unsafe { block.write_bytes(0, layout.size()) };
            }
            return block.as_ptr();
        }
        // SAFETY: the caller's promise is passed on. The system's fresh pages stay untouched.
        counted(unsafe { self.inner.alloc_zeroed(layout) }, layout)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller gives up a block of this layout that came from `alloc` here, and with that from where its address
        // lies.
        unsafe {
            wipe(block, layout.size());
            if small_blocks::holds(block) {
                looked_at(block, layout.size());
                small_blocks::give_back(block);
            } else if large_blocks::holds(block) {
                looked_at(block, layout.size());
                large_blocks::give_back(block, layout.size());
            } else {
                self.inner.dealloc(block, layout);
            }
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: a large block of the caller's.
        if layout.size() >= LARGE && unsafe { large_blocks::resize(block, layout.size(), new_size) } {
            if let Some(lost) = layout.size().checked_sub(new_size) {
                // SAFETY: what the block lost was the caller's until now, and nobody else's before the block is freed.
                unsafe { wipe(block.add(new_size), lost) };
                looked_at(block.wrapping_add(new_size), lost);
            }
            return block;
        }
        // SAFETY: the caller promises that `new_size`, rounded up to the alignment, does not overflow `isize`.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: `new_size` is not zero, by the caller's promise.
        let new_block = unsafe { self.alloc(new_layout) };
        if !new_block.is_null() {
            // SAFETY: both blocks are live, distinct, and at least the smaller size long; the old one is given up.
            unsafe {
                new_block.copy_from_nonoverlapping(block, layout.size().min(new_size));
                self.dealloc(block, layout);
            }
        }
        new_block
    }
}

static LOOK: OnceLock<fn(*const u8, usize)> = OnceLock::new();

fn looked_at(block: *const u8, size: usize) {
    if let Some(look) = LOOK.get() {
        look(block, size);
    }
}

fn guarded(layout: Layout) -> Option<NonNull<u8>> {
    if layout.size() >= LARGE { large_blocks::take(layout) } else { small_blocks::take(layout) }
}

/// An ordinary block, for want of pages of our own. One that was refused is none.
fn counted(block: *mut u8, layout: Layout) -> *mut u8 {
    match (block.is_null(), layout.size() >= LARGE) {
        (true, _) => {}
        (false, true) => large_blocks::ordinary(layout.size()),
        (false, false) => small_blocks::ordinary(layout.size()),
    }
    block
}

/// Overwrites a block that is about to be freed, in a way that the optimizer has to keep.
///
/// # Safety
/// `block` is valid for writes of `size` bytes and nobody else uses it.
unsafe fn wipe(block: *mut u8, size: usize) {
    // SAFETY: the caller's promise; after the write all bytes are initialized, so they can be borrowed.
    let wiped = unsafe {
        block.write_bytes(0, size);
        std::slice::from_raw_parts(block, size)
    };
    zeroize::optimization_barrier(wiped);
    count(block.addr(), size);
}

/// Counters on cache lines of their own, so that threads that free at the same time seldom share one.
#[repr(align(64))]
struct Shard(AtomicU64);

const SHARDS: usize = 16;
static WIPED: [Shard; SHARDS] = [const { Shard(AtomicU64::new(0)) }; SHARDS];

/// The address whose freeing `is_installed` waits for; 0 for none.
static PROBE: AtomicUsize = AtomicUsize::new(0);
static PROBE_SEEN: AtomicBool = AtomicBool::new(false);

fn count(address: usize, size: usize) {
    // Heaps of different processors lie 8 GiB apart; neighbours in one heap share a counter.
    if let Some(shard) = WIPED.get((address >> 20 ^ address >> 33) % SHARDS) {
        shard.0.fetch_add(u64::try_from(size).unwrap_or(u64::MAX), Relaxed);
    }
    if PROBE.load(Relaxed) == address {
        PROBE_SEEN.store(true, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_when_it_is_not_installed() {
        assert!(!ZeroOnFree::is_installed());
    }
}
