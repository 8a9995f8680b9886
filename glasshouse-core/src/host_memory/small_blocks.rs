//! Small blocks of the global allocator in pages of their own: out of core dumps, and locked as far as the limit allows.
//!
//! A second stretch of addresses in shards, each of them a heap of `dlmalloc`'s. A shard's pages are opened and locked in
//! steps, from its beginning, and stay: what is in them is wiped when it is freed.
//! Nothing here allocates, panics or changes `errno`; a thread waits only for another that is inside the same heap. A child
//! that was forked and has not run another program yet must not allocate, as POSIX says of any program with threads.
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
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use dlmalloc::{Allocator, Dlmalloc};

use super::lock_budget::LockBudget;
use super::reserved::Reserved;
use super::slots::LARGE;
use crate::traits::SmallBlocks;

/// Heaps, of which as many are used as there are processors. A power of two.
const SHARDS: usize = 1 << SHARD_BITS;
const SHARD_BITS: u32 = 8;
/// Addresses of all shards, as a power of two: 2 TiB, and less where so many are not to be had.
const REGION_BITS: [u32; 6] = [41, 38, 35, 32, 30, 28];
/// Pages are opened so many bytes at a time. A multiple of the page size of every Linux machine.
const STEP: usize = 256 << 10;
/// The strictest alignment that is served: a page. Nothing small asks for more.
const MOST_ALIGNED: usize = 4096;

static REGION: OnceLock<Option<Region>> = OnceLock::new();
static HEAPS: [Heap; SHARDS] = [const { Heap(Mutex::new(Shard::heap())) }; SHARDS];
/// No heap had room for the last block that found none in its own.
static FULL: AtomicBool = AtomicBool::new(false);
static ORDINARY: AtomicU64 = AtomicU64::new(0);

/// From now on, and for good. Once for a process.
pub(super) fn begin() {
    REGION.get_or_init(Region::reserve);
}

/// What became of small blocks; nothing when it never began.
pub(super) fn tally() -> Option<SmallBlocks> {
    let region = REGION.get()?.as_ref();
    let count = |count: fn(&Region) -> &AtomicU64| region.map_or(0, |region| count(region).load(Relaxed));
    let page_bytes = count(|region| &region.opened);
    Some(SmallBlocks {
        below_bytes: LARGE as u64,
        page_bytes,
        // Of two numbers that others change meanwhile.
        unlocked_page_bytes: count(|region| &region.unlocked).min(page_bytes),
        ordinary_bytes: ORDINARY.load(Relaxed),
    })
}

/// A block in pages of a heap. Nothing when it has not begun, or there is none to be had: then the block is an ordinary one,
/// see [`ordinary`].
pub(super) fn take(layout: Layout) -> Option<NonNull<u8>> {
    region()?;
    if layout.align() > MOST_ALIGNED {
        return None;
    }
    // SAFETY: a layout that is not empty, by the caller's promise to its allocator.
    let block = |shard: usize| NonNull::new(unsafe { heap(shard)?.malloc(layout.size(), layout.align()) });
    let own = near();
    block(own).or_else(|| {
        // A heap that is full is a rare thing: then any other will do, until all are.
        let further = |further: usize| block(own.wrapping_add(further) & SHARDS.wrapping_sub(1));
        let found = if FULL.load(Relaxed) { None } else { (1..SHARDS).find_map(further) };
        FULL.store(found.is_none(), Relaxed);
        found
    })
}

/// Counts a block that was to be had in ordinary memory only.
pub(super) fn ordinary(size: usize) {
    if REGION.get().is_some() {
        ORDINARY.fetch_add(size as u64, Relaxed);
    }
}

/// Whether [`take`] gave this block.
pub(super) fn holds(block: *const u8) -> bool {
    region().is_some_and(|region| region.reserved.offset(block).is_some())
}

/// Takes a block back.
///
/// # Safety
/// The caller gives up a block that [`take`] gave, and has wiped it.
pub(super) unsafe fn give_back(block: *mut u8) {
    let Some(region) = region() else { return };
    let shard = region.reserved.offset(block).map(|offset| offset.wrapping_shr(region.shard_bits));
    if let Some(mut heap) = shard.and_then(heap) {
        // SAFETY: the caller's promise; the shard that an address lies in is the one that gave it. Without its size, which a
        // heap would compare, and panic in the middle of an allocator.
        unsafe { heap.c_free(block) };
    }
    if FULL.load(Relaxed) {
        FULL.store(false, Relaxed);
    }
}

fn region() -> Option<&'static Region> {
    REGION.get()?.as_ref()
}

/// Nothing that is done under a lock panics; were it otherwise, the next one finds the heap as it was left.
fn heap(shard: usize) -> Option<MutexGuard<'static, Dlmalloc<Shard>>> {
    let heap = &HEAPS.get(shard)?.0;
    let mut heap = match heap.try_lock() {
        Ok(heap) => heap,
        Err(TryLockError::Poisoned(heap)) => heap.into_inner(),
        Err(TryLockError::WouldBlock) => errno_kept(|| heap.lock().unwrap_or_else(PoisonError::into_inner)),
    };
    heap.allocator_mut().index = shard;
    Some(heap)
}

/// To wait for another thread may leave something in `errno`, and a program that frees memory does not expect that.
fn errno_kept<T>(wait: impl FnOnce() -> T) -> T {
    #[cfg(target_os = "linux")]
    // SAFETY: the thread's own, which lives as long as the thread.
    let (place, before) = unsafe {
        let place = libc::__errno_location();
        (place, *place)
    };
    let waited = wait();
    #[cfg(target_os = "linux")]
    // SAFETY: as above.
    unsafe {
        *place = before;
    }
    waited
}

/// The heap of the processor that this thread runs on: threads meet in one only where one was interrupted, and threads that
/// come and go leave no heap each.
fn near() -> usize {
    #[cfg(target_os = "linux")]
    // SAFETY: asks for a number. It is -1 where it is not known.
    let processor = usize::try_from(unsafe { libc::sched_getcpu() }).unwrap_or(0);
    #[cfg(not(target_os = "linux"))]
    let processor = 0;
    processor & SHARDS.wrapping_sub(1)
}

/// On cache lines of its own, so that threads with different heaps do not wait for each other.
#[repr(align(128))]
struct Heap(Mutex<Dlmalloc<Shard>>);

/// The addresses of all shards.
struct Region {
    reserved: Reserved,
    shard_bits: u32,
    budget: LockBudget,
    opened: AtomicU64,
    unlocked: AtomicU64,
}

impl Region {
    fn reserve() -> Option<Self> {
        REGION_BITS.iter().find_map(|bits| {
            let reserved = Reserved::new(1_usize.checked_shl(*bits)?, STEP, 8)?;
            // Under a limit a quarter of it: large blocks have half of it, and a package's own plaintext and keys what is left.
            let budget = LockBudget::part(&reserved, 4);
            let shard_bits = bits.saturating_sub(SHARD_BITS);
            let [opened, unlocked] = [const { AtomicU64::new(0) }; 2];
            Some(Self { reserved, shard_bits, budget, opened, unlocked })
        })
    }

    fn open(&self, offset: usize, bytes: usize) -> Option<NonNull<u8>> {
        let at = self.reserved.at(offset, bytes)?;
        if !self.reserved.open(offset, bytes) {
            return None;
        }
        if !self.budget.lock(&self.reserved, offset, bytes) {
            self.unlocked.fetch_add(bytes as u64, Relaxed);
        }
        self.opened.fetch_add(bytes as u64, Relaxed);
        Some(at)
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
        let region = region()?;
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
