//! Small blocks of the global allocator in pages of their own: out of core dumps, and locked as far as the limit allows.
//!
//! A second stretch of addresses in shards, each of them a heap of `dlmalloc`'s. A shard's pages are opened and locked in
//! steps, from its beginning, and stay: what is in them is wiped when it is freed.
//! Nothing here allocates or changes `errno`; a thread waits only for another that is inside the same heap. A child that was
//! forked and has not run another program yet must not allocate, as POSIX says of any program with threads.
#![allow(unsafe_code)] // blocks come and go as raw pointers
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::alloc::Layout;
use std::cell::Cell;
use std::num::NonZero;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use dlmalloc::{Allocator, Dlmalloc};

use super::reserved::Reserved;
use super::slots::LARGE;
use crate::traits::SmallBlocks;

/// Heaps. A power of two.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 6;
/// Addresses of all shards, as a power of two: 512 GiB, and less where so many are not to be had.
const REGION_BITS: [u32; 5] = [39, 36, 33, 30, 28];
/// Pages are opened so many bytes at a time. A multiple of the page size of every Linux machine.
const STEP: usize = 256 << 10;
/// The strictest alignment that is served: a page. Nothing small asks for more.
const MOST_ALIGNED: usize = 4096;

static REGION: OnceLock<Option<Region>> = OnceLock::new();
static HEAPS: [Heap; SHARDS] = [const { Heap(Mutex::new(Shard::heap())) }; SHARDS];
static ORDINARY: AtomicU64 = AtomicU64::new(0);

/// From now on, and for good. Once for a process.
pub(super) fn begin() {
    REGION.get_or_init(Region::reserve);
}

/// What became of small blocks; nothing when it never began.
pub(super) fn tally() -> Option<SmallBlocks> {
    let region = REGION.get()?.as_ref();
    let count = |count: fn(&Region) -> &AtomicU64| region.map_or(0, |region| count(region).load(Relaxed));
    Some(SmallBlocks {
        below_bytes: LARGE as u64,
        page_bytes: count(|region| &region.opened),
        unlocked_page_bytes: count(|region| &region.unlocked),
        ordinary_bytes: ORDINARY.load(Relaxed),
    })
}

/// A block in pages of a heap. Nothing when it has not begun, or there is none to be had: then the block is an ordinary one,
/// see [`ordinary`].
pub(super) fn take(layout: Layout) -> Option<NonNull<u8>> {
    let region = REGION.get()?.as_ref()?;
    if layout.align() > MOST_ALIGNED {
        return None;
    }
    // SAFETY: a layout that is not empty, by the caller's promise to its allocator.
    let block = |shard: usize| NonNull::new(unsafe { heap(shard)?.malloc(layout.size(), layout.align()) });
    // A heap that is full is a rare thing: then any other will do.
    block(own_shard(region)).or_else(|| (0..SHARDS).find_map(block))
}

/// Counts a block that was to be had in ordinary memory only.
pub(super) fn ordinary(size: usize) {
    if REGION.get().is_some() {
        ORDINARY.fetch_add(size as u64, Relaxed);
    }
}

/// Whether [`take`] gave this block.
pub(super) fn holds(block: *const u8) -> bool {
    REGION.get().and_then(Option::as_ref).is_some_and(|region| region.reserved.offset(block).is_some())
}

/// Takes a block back.
///
/// # Safety
/// The caller gives up a block that [`take`] gave for this layout, and has wiped it.
pub(super) unsafe fn give_back(block: *mut u8, layout: Layout) {
    let Some(region) = REGION.get().and_then(Option::as_ref) else { return };
    let shard = region.reserved.offset(block).map(|offset| offset.wrapping_shr(region.shard_bits));
    if let Some(mut heap) = shard.and_then(heap) {
        // SAFETY: the caller's promise; the shard that an address lies in is the one that gave it.
        unsafe { heap.free(block, layout.size(), layout.align()) };
    }
}

/// A heap as it is, whatever became of a thread that was inside: `dlmalloc` does not panic.
fn heap(shard: usize) -> Option<MutexGuard<'static, Dlmalloc<Shard>>> {
    let mut heap = HEAPS.get(shard)?.0.lock().unwrap_or_else(PoisonError::into_inner);
    heap.allocator_mut().index = shard;
    Some(heap)
}

/// A thread stays with one heap: two that took from the same would wait for each other at every block. Those that come later
/// share with others, so that threads that come and go do not leave a heap each.
fn own_shard(region: &Region) -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    // Neither allocated nor dropped: it works before and after everything else of a thread.
    thread_local! { static OWN: Cell<Option<usize>> = const { Cell::new(None) } }
    OWN.with(|own| {
        let shard = own.get().or_else(|| THREADS.fetch_add(1, Relaxed).checked_rem(region.used));
        own.set(shard);
        shard.unwrap_or(0)
    })
}

/// On cache lines of its own, so that threads with different heaps do not wait for each other.
#[repr(align(128))]
struct Heap(Mutex<Dlmalloc<Shard>>);

/// The addresses of all shards.
struct Region {
    reserved: Reserved,
    shard_bits: u32,
    /// Heaps that threads are given: eight times as many as processors, as in the C library. Most threads wait.
    used: usize,
    /// Bytes that may still be locked; nothing when there is no limit.
    lockable: Option<AtomicUsize>,
    opened: AtomicU64,
    unlocked: AtomicU64,
}

impl Region {
    fn reserve() -> Option<Self> {
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        let used = processors.saturating_mul(8).min(SHARDS);
        REGION_BITS.iter().find_map(|bits| {
            let reserved = Reserved::new(1_usize.checked_shl(*bits)?, STEP, 8)?;
            // Under a limit a quarter of it: large blocks have half of it, and a package's own plaintext and keys what is left.
            let lockable = reserved.lock_limit().map(|limit| AtomicUsize::new(limit / 4));
            let shard_bits = bits.saturating_sub(SHARD_BITS);
            let [opened, unlocked] = [const { AtomicU64::new(0) }; 2];
            Some(Self { reserved, shard_bits, used, lockable, opened, unlocked })
        })
    }

    fn open(&self, offset: usize, bytes: usize) -> Option<NonNull<u8>> {
        let at = self.reserved.at(offset, bytes)?;
        if !self.reserved.open(offset, bytes) {
            return None;
        }
        self.opened.fetch_add(bytes as u64, Relaxed);
        if !self.lock(offset, bytes) {
            self.unlocked.fetch_add(bytes as u64, Relaxed);
        }
        Some(at)
    }

    fn lock(&self, offset: usize, bytes: usize) -> bool {
        let allotted = |left: &AtomicUsize| left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok();
        self.lockable.as_ref().is_none_or(allotted) && self.reserved.lock(offset, bytes)
    }
}

/// Where a heap has its pages from.
struct Shard {
    /// Which it is: all are made alike, and are told when they are used.
    index: usize,
    /// Bytes that are open, from its beginning.
    open: Cell<usize>,
}

impl Shard {
    const fn heap() -> Dlmalloc<Self> {
        let mut heap = Dlmalloc::new_with_allocator(Self { index: 0, open: Cell::new(0) });
        heap.set_max_release_check_rate(0); // nothing is ever given back
        heap
    }

    fn grow(&self, bytes: usize) -> Option<(NonNull<u8>, usize)> {
        let region = REGION.get()?.as_ref()?;
        let bytes = bytes.checked_next_multiple_of(STEP)?;
        let (open, room) = (self.open.get(), 1_usize.checked_shl(region.shard_bits)?);
        let after = open.checked_add(bytes).filter(|after| *after <= room)?;
        let at = region.open(self.index.checked_shl(region.shard_bits)?.checked_add(open)?, bytes)?;
        self.open.set(after);
        Some((at, bytes))
    }
}

// SAFETY: each piece lies behind the one before it, in the shard's own addresses, and none is ever taken away.
unsafe impl Allocator for Shard {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        self.grow(size).map_or((null_mut(), 0, 0), |(at, bytes)| (at.as_ptr(), bytes, 0))
    }
    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        null_mut()
    }
    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }
    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }
    fn can_release_part(&self, _: u32) -> bool {
        false
    }
    fn allocates_zeros(&self) -> bool {
        false // what is used again has been wiped, but for a heap's own notes
    }
    fn page_size(&self) -> usize {
        STEP
    }
}
