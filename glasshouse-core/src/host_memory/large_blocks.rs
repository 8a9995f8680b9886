//! Large blocks of the global allocator in pages of their own: out of core dumps, and locked as far as the limit allows.
//!
//! A stretch of addresses is reserved once, so that a block is told by its address and an ordinary one stays an ordinary
//! one. Pages of a block that was wiped and freed are kept for the next one, as the C library does: without that every
//! tensor would be faulted in anew. Nothing here allocates, panics, takes a lock or changes `errno`.
#![allow(unsafe_code)] // blocks come and go as raw pointers
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use super::lock_budget::LockBudget;
use super::reserved::Reserved;
use super::slots::{LARGE, REGION_BITS, Slot, Slots, State, addresses};
use crate::traits::LargeBlocks;

/// Wiped pages that are kept for the next blocks: a sixteenth of the machine's memory, and no more than this. To give pages
/// back one by one costs more than to wipe them.
const MOST_KEPT: usize = 1 << 30;
/// Blocks larger than this keep none (the C library gives them back as well).
const LARGEST_KEPT: usize = 32 << 20;
/// Where a huge page may begin.
const HUGE: usize = 2 << 20;

static SPACE: OnceLock<Option<Space>> = OnceLock::new();
static SLOTS: Slots = Slots::new();
static COUNTS: Counts = Counts::new();
static KEPT_NOW: AtomicUsize = AtomicUsize::new(0);
/// Of these, locked.
static LOCKED_AT_REST: AtomicUsize = AtomicUsize::new(0);

/// From now on, and for good. Once for a process; it does not ask for memory beyond addresses.
pub(super) fn begin() {
    SPACE.get_or_init(Space::reserve);
}

/// What became of large blocks; nothing when it never began.
pub(super) fn tally() -> Option<LargeBlocks> {
    SPACE.get().map(|_| COUNTS.tally())
}

/// A block of zeros in pages of its own. Nothing when it has not begun, or there are none to be had: then the block is an
/// ordinary one, see [`ordinary`].
pub(super) fn take(layout: Layout) -> Option<NonNull<u8>> {
    let (block, locked) = SPACE.get()?.as_ref()?.take(layout)?;
    COUNTS.changed((0, true), (layout.size(), locked));
    Some(block)
}

/// Counts a block that was to be had in ordinary memory only.
pub(super) fn ordinary(size: usize) {
    if SPACE.get().is_some() {
        COUNTS.ordinary.fetch_add(size as u64, Relaxed);
    }
}

/// Whether [`take`] gave this block.
pub(super) fn holds(block: *const u8) -> bool {
    SPACE.get().and_then(Option::as_ref).is_some_and(|space| space.reserved.offset(block).is_some())
}

/// Makes a block longer or shorter where it lies. What it gains is zeros; what it loses the caller wipes. False when it
/// has to move.
///
/// # Safety
/// The caller owns the block of `old` bytes that [`take`] gave.
pub(super) unsafe fn resize(block: *mut u8, old: usize, new: usize) -> bool {
    let Some((space, slot)) = owner(block) else { return false };
    let before = SLOTS.state(slot);
    // A block that lost most of its bytes moves, and its pages are free for others.
    if new < LARGE || new > slot.size() || new < before.open / 4 {
        return false;
    }
    let Some(after) = space.settle(slot, before, new) else { return false };
    COUNTS.changed((old, before.locked), (new, after.locked));
    true
}

/// Takes a block back.
///
/// # Safety
/// The caller gives up the block of `size` bytes that [`take`] gave, and has wiped it.
pub(super) unsafe fn give_back(block: *mut u8, size: usize) {
    let Some((space, slot)) = owner(block) else { return };
    let state = SLOTS.state(slot);
    COUNTS.changed((size, state.locked), (0, true));
    // SAFETY: the caller's promise.
    let kept = if space.keep(state) { Some(state) } else { unsafe { space.close(slot, state) } };
    // Pages that could not be closed are wiped, and are not used again.
    if let Some(state) = kept {
        SLOTS.set_state(slot, state);
        SLOTS.give_back(slot);
    }
}

fn owner(block: *const u8) -> Option<(&'static Space, Slot)> {
    let space = SPACE.get()?.as_ref()?;
    Some((space, Slots::at(space.reserved.offset(block)?, space.region_bits)?))
}

/// The slots' addresses.
struct Space {
    reserved: Reserved,
    region_bits: u32,
    kept_at_most: usize,
    budget: LockBudget,
}

impl Space {
    fn reserve() -> Option<Self> {
        REGION_BITS.iter().find_map(|bits| {
            let reserved = Reserved::new(addresses(*bits), HUGE, 2)?;
            // Under a limit half of it: small blocks have a quarter, and a package's own plaintext and keys what is left.
            let budget = LockBudget::part(&reserved, 2);
            let kept_at_most = (Reserved::machine_memory() / 16).min(MOST_KEPT);
            Some(Self { reserved, region_bits: *bits, kept_at_most, budget })
        })
    }

    fn take(&self, layout: Layout) -> Option<(NonNull<u8>, bool)> {
        if layout.align() > LARGE {
            return None;
        }
        let slot = SLOTS.take(layout.size(), self.region_bits)?;
        let before = SLOTS.state(slot);
        let taken = self.settle(slot, before, layout.size()).zip(self.reserved.at(slot.offset, slot.size()));
        match &taken {
            Some(_) => {
                KEPT_NOW.fetch_sub(before.open, Relaxed);
                if before.locked {
                    LOCKED_AT_REST.fetch_sub(before.open, Relaxed);
                }
            }
            None => SLOTS.give_back(slot),
        }
        taken.map(|(after, block)| (block, after.locked))
    }

    /// Opens and locks what a block of so many bytes needs.
    fn settle(&self, slot: Slot, before: State, size: usize) -> Option<State> {
        let open = before.open.max(slot.to_open(size));
        let more = open.wrapping_sub(before.open);
        if more > 0 && !self.reserved.open(slot.offset.wrapping_add(before.open), more) {
            return None;
        }
        // What is locked stays locked while it is in use, and what is added is locked beside it.
        let locked = match before.locked {
            true => more == 0 || self.lock(slot.offset.wrapping_add(before.open), more),
            false => self.lock(slot.offset, open),
        };
        if before.locked && !locked {
            self.unlock(slot, before);
        }
        let after = State { open, locked };
        SLOTS.set_state(slot, after);
        Some(after)
    }

    /// Kept pages stay locked: to unlock them and lock them again costs many times what it takes to wipe them.
    fn keep(&self, state: State) -> bool {
        let more = |kept: usize| kept.checked_add(state.open).filter(|kept| *kept <= self.kept_at_most);
        let kept = state.open <= LARGEST_KEPT && KEPT_NOW.fetch_update(Relaxed, Relaxed, more).is_ok();
        if kept && state.locked {
            LOCKED_AT_REST.fetch_add(state.open, Relaxed);
        }
        kept
    }

    /// # Safety
    /// Nobody uses the slot's pages any more.
    unsafe fn close(&self, slot: Slot, state: State) -> Option<State> {
        self.unlock(slot, state);
        // SAFETY: the caller's promise.
        unsafe { self.reserved.close(slot.offset, state.open) }.then(State::default)
    }

    /// Free pages are unlocked for it where there are enough of them: those in use need it more.
    fn lock(&self, offset: usize, bytes: usize) -> bool {
        let lock = || self.budget.lock(&self.reserved, offset, bytes);
        lock() || self.make_room(bytes) && lock()
    }

    fn make_room(&self, bytes: usize) -> bool {
        let left = || self.budget.left();
        // Enough was left, and the kernel refused; or there would not be enough.
        if left() >= bytes || left().saturating_add(LOCKED_AT_REST.load(Relaxed)) < bytes {
            return false;
        }
        for slot in SLOTS.locked(self.region_bits) {
            let state = SLOTS.state(slot);
            if state.locked {
                LOCKED_AT_REST.fetch_sub(state.open, Relaxed);
                self.unlock(slot, state);
                SLOTS.set_state(slot, State { locked: false, ..state });
            }
            SLOTS.give_back(slot);
            if left() >= bytes {
                break;
            }
        }
        true
    }

    fn unlock(&self, slot: Slot, state: State) {
        if state.locked {
            self.budget.unlock(&self.reserved, slot.offset, state.open);
        }
    }
}

/// Bytes as they were asked for.
struct Counts {
    live: AtomicU64,
    peak: AtomicU64,
    unlocked: AtomicU64,
    unlocked_peak: AtomicU64,
    ordinary: AtomicU64,
}

impl Counts {
    const fn new() -> Self {
        let [live, peak, unlocked, unlocked_peak, ordinary] = [const { AtomicU64::new(0) }; 5];
        Self { live, peak, unlocked, unlocked_peak, ordinary }
    }

    /// A block's bytes and whether they are locked, before and after: one step, so that no other thread's peak misses it.
    fn changed(&self, before: (usize, bool), after: (usize, bool)) {
        let unlocked = |(size, locked): (usize, bool)| if locked { 0 } else { size };
        add(&self.live, &self.peak, before.0, after.0);
        add(&self.unlocked, &self.unlocked_peak, unlocked(before), unlocked(after));
    }

    fn tally(&self) -> LargeBlocks {
        LargeBlocks {
            from_bytes: LARGE as u64,
            peak_bytes: self.peak.load(Relaxed),
            unlocked_peak_bytes: self.unlocked_peak.load(Relaxed),
            ordinary_bytes: self.ordinary.load(Relaxed),
        }
    }
}

fn add(count: &AtomicU64, peak: &AtomicU64, before: usize, after: usize) {
    let more = (after as u64).wrapping_sub(before as u64);
    if more != 0 {
        peak.fetch_max(count.fetch_add(more, Relaxed).wrapping_add(more), Relaxed);
    }
}
