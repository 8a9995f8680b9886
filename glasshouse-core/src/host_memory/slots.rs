//! Which address belongs to which large block: slots of each power of two, each of them one block's at a time.
//!
//! Everything is an atomic of a fixed size: no lock that a fork could leave held, no allocation, no panic.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::arithmetic_side_effects))]

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};

/// The smallest block that has a slot, and the size of the smallest slot: a multiple of the page size of every Linux
/// machine (4, 16 or 64 KiB).
pub(super) const LARGE: usize = 1 << LARGE_BITS;
const LARGE_BITS: u32 = 16;
/// Slot sizes: 64 KiB to 64 GiB.
const CLASSES: usize = 21;
/// The most slots of one size. A block that finds none takes a larger one: that costs addresses, not memory.
const SLOTS: usize = 4096;
const WORD: usize = u64::BITS as usize;
/// Addresses of all slots of one size, as a power of two: 128 GiB, and less where so many addresses are not to be had.
pub(super) const REGION_BITS: [u32; 4] = [37, 35, 33, 31];
/// From this size on pages are opened as the block needs them, and not the whole slot.
const OPENED_WHOLE: usize = 2 << 20;

/// Slots over a stretch of addresses that somebody else maps.
pub(super) struct Slots {
    taken: [[AtomicU64; SLOTS / WORD]; CLASSES],
    /// Bytes that are open (multiples of `LARGE`), and in the lowest bit whether they are locked.
    states: [[AtomicUsize; SLOTS]; CLASSES],
}

/// A slot: an offset into the addresses, and a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    class: usize,
    index: usize,
    pub(super) offset: usize,
}

/// What is known of a slot's pages. Only who has taken the slot reads or writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) open: usize,
    pub(super) locked: bool,
}

/// How many addresses slots need.
pub(super) const fn addresses(region_bits: u32) -> usize {
    CLASSES.wrapping_shl(region_bits)
}

impl Slots {
    pub(super) const fn new() -> Self {
        Self {
            taken: [const { [const { AtomicU64::new(0) }; SLOTS / WORD] }; CLASSES],
            states: [const { [const { AtomicUsize::new(0) }; SLOTS] }; CLASSES],
        }
    }

    /// The first free slot for so many bytes. The first, so that the pages of few slots are used again and again.
    pub(super) fn take(&self, size: usize, region_bits: u32) -> Option<Slot> {
        (class_of(size)?..CLASSES).find_map(|class| self.take_of(class, region_bits))
    }

    /// The slot that holds an address.
    pub(super) fn at(offset: usize, region_bits: u32) -> Option<Slot> {
        let class = offset.checked_shr(region_bits)?;
        let within = offset.wrapping_sub(class.wrapping_shl(region_bits));
        let index = within.wrapping_shr(slot_bits(class));
        (class < CLASSES && index < count(class, region_bits)).then(|| Slot::new(class, index, region_bits))
    }

    /// Only for who has taken it.
    pub(super) fn state(&self, slot: Slot) -> State {
        let word = self.states.get(slot.class).and_then(|states| states.get(slot.index));
        let word = word.map_or(0, |word| word.load(Relaxed));
        State { open: word & !1, locked: word & 1 == 1 }
    }

    /// Only for who has taken it.
    pub(super) fn set_state(&self, slot: Slot, state: State) {
        if let Some(word) = self.states.get(slot.class).and_then(|states| states.get(slot.index)) {
            word.store(state.open & !1 | usize::from(state.locked), Relaxed);
        }
    }

    /// Gives a slot back that the caller has taken.
    pub(super) fn give_back(&self, slot: Slot) {
        let words = self.taken.get(slot.class);
        if let Some(word) = words.and_then(|words| words.get(slot.index.wrapping_div(WORD))) {
            word.fetch_and(!bit(slot.index), Release);
        }
    }

    /// Free slots whose pages are locked, each of them taken. Its state may be another one by then.
    pub(super) fn locked(&self, region_bits: u32) -> impl Iterator<Item = Slot> {
        self.states.iter().enumerate().flat_map(move |(class, states)| {
            let states = states.iter().take(count(class, region_bits)).enumerate();
            let taken = self.taken.get(class);
            states.filter(|(_, word)| word.load(Relaxed) & 1 == 1).filter_map(move |(index, _)| {
                let word = taken?.get(index.wrapping_div(WORD))?;
                let free = word.fetch_or(bit(index), Acquire) & bit(index) == 0;
                free.then(|| Slot::new(class, index, region_bits))
            })
        })
    }

    fn take_of(&self, class: usize, region_bits: u32) -> Option<Slot> {
        let slots = count(class, region_bits);
        for (at, word) in self.taken.get(class)?.iter().enumerate() {
            loop {
                let free = word.load(Relaxed).trailing_ones() as usize;
                let index = at.wrapping_mul(WORD).wrapping_add(free);
                if free == WORD || index >= slots {
                    break;
                }
                if word.fetch_or(bit(index), Acquire) & bit(index) == 0 {
                    return Some(Slot::new(class, index, region_bits));
                }
            }
        }
        None
    }
}

impl Slot {
    fn new(class: usize, index: usize, region_bits: u32) -> Self {
        let offset = class.wrapping_shl(region_bits).wrapping_add(index.wrapping_shl(slot_bits(class)));
        Self { class, index, offset }
    }

    pub(super) fn size(self) -> usize {
        1_usize.wrapping_shl(slot_bits(self.class))
    }

    /// How many bytes of it are opened for a block of so many. Neighbours that are opened whole are one mapping to the
    /// kernel, of which a process may have some 65,000.
    pub(super) fn to_open(self, size: usize) -> usize {
        if self.size() < OPENED_WHOLE {
            return self.size();
        }
        size.checked_next_multiple_of(LARGE).map_or(self.size(), |size| size.min(self.size()))
    }
}

fn class_of(size: usize) -> Option<usize> {
    let bits = size.checked_next_power_of_two()?.trailing_zeros();
    usize::try_from(bits.saturating_sub(LARGE_BITS)).ok().filter(|class| *class < CLASSES)
}

fn slot_bits(class: usize) -> u32 {
    u32::try_from(class).unwrap_or(u32::MAX).saturating_add(LARGE_BITS)
}

fn count(class: usize, region_bits: u32) -> usize {
    1_usize.wrapping_shl(region_bits).checked_shr(slot_bits(class)).unwrap_or(0).min(SLOTS)
}

fn bit(index: usize) -> u64 {
    1_u64.wrapping_shl((index % WORD) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_free_slot_is_taken_and_a_full_size_leads_to_the_next() {
        static ALL: Slots = Slots::new();
        let slots: Vec<_> = (0..SLOTS).map(|_| ALL.take(LARGE, 37).unwrap()).collect();
        assert!(slots.iter().enumerate().all(|(at, slot)| (slot.class, slot.index) == (0, at)));
        assert_eq!(ALL.take(LARGE, 37).unwrap().class, 1);
        ALL.give_back(slots[7]);
        ALL.give_back(slots[3000]);
        assert_eq!((ALL.take(1, 37), ALL.take(1, 37)), (Some(slots[7]), Some(slots[3000])));
    }

    #[test]
    fn free_slots_with_locked_pages_are_found_and_others_are_left_alone() {
        static ALL: Slots = Slots::new();
        let slots = [LARGE, LARGE, LARGE, 9 * LARGE, 9 * LARGE].map(|size| ALL.take(size, 31).unwrap());
        for (at, slot) in slots.iter().enumerate() {
            ALL.set_state(*slot, State { open: slot.size(), locked: at != 1 });
        }
        slots[1..4].iter().for_each(|slot| ALL.give_back(*slot));
        assert_eq!(ALL.locked(31).collect::<Vec<_>>(), slots[2..4]);
        assert_eq!(ALL.locked(31).next(), None, "they are taken by now");
    }

    #[test]
    fn a_block_larger_than_any_slot_has_none() {
        static ALL: Slots = Slots::new();
        for (size, bits) in [(usize::MAX, 37), ((64 << 30) + 1, 37), ((2 << 30) + 1, 31)] {
            assert_eq!(ALL.take(size, bits), None, "{size}");
        }
        assert_eq!(ALL.take(64 << 30, 37).unwrap().size(), 64 << 30);
        assert_eq!(ALL.take(2 << 30, 31).unwrap().offset, 15 << 31);
    }

    proptest! {
        #[test]
        fn slots_hold_their_blocks_and_never_overlap(
            sizes in proptest::collection::vec((LARGE_BITS - 2..31_u32, any::<u32>()), 1..200),
            bits in proptest::sample::select(REGION_BITS.to_vec()),
        ) {
            let all = Box::leak(Box::new(Slots::new()));
            let mut taken = Vec::new();
            for (log, more) in sizes {
                let size = (1 << log) + (more as usize % (1 << log));
                let Some(slot) = all.take(size, bits) else { continue };
                prop_assert!(slot.size() >= size && slot.to_open(size) >= size && slot.to_open(size) <= slot.size());
                prop_assert!(slot.offset.is_multiple_of(LARGE) && slot.to_open(size).is_multiple_of(LARGE));
                for offset in [slot.offset, slot.offset + size - 1, slot.offset + slot.size() - 1] {
                    prop_assert_eq!(Slots::at(offset, bits), Some(slot));
                }
                taken.push(slot);
            }
            taken.sort_by_key(|slot| slot.offset);
            prop_assert!(taken.windows(2).all(|two| two[0].offset + two[0].size() <= two[1].offset));
            prop_assert!(taken.iter().all(|slot| slot.offset + slot.size() <= addresses(bits)));
        }
    }
}
