//! Where secret bytes live, with their entry in the ledger.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

use zeroize::Zeroize as _;

use super::pages::Pages;
use super::{KeyMemory, Ledger, SecretClass, SecretError};

/// Secret bytes of a fixed length: counted from birth, wiped on drop.
pub(super) struct SecretMemory {
    place: Place,
    class: SecretClass,
    ledger: &'static Ledger,
}

enum Place {
    /// A part of a page that keys share.
    Slot(Slot),
    /// Pages of its own.
    Pages(Pages),
    /// The heap, where nothing else could be had. Never grown.
    Heap(Vec<u8>),
}

impl SecretMemory {
    /// Zeros for a key. Never fails: without a page the key lives on the heap and counts as unlocked.
    pub(super) fn key(len: usize, ledger: &'static Ledger) -> Self {
        let place = Slot::take(len)
            .map(Place::Slot)
            .or_else(|| Pages::map(len).map(Place::Pages))
            .unwrap_or_else(|| Place::Heap(vec![0; len]));
        ledger.key_in(place.key_memory());
        Self::counted(place, SecretClass::Key, ledger)
    }

    /// Zeros for plaintext.
    pub(super) fn bulk(len: usize, ledger: &'static Ledger) -> Result<Self, SecretError> {
        reserve_for_keys();
        let pages = Pages::map(len).ok_or(SecretError::OutOfMemory { bytes: len })?;
        Ok(Self::counted(Place::Pages(pages), SecretClass::Bulk, ledger))
    }

    /// Plaintext that already lies on the heap, kept there.
    pub(super) fn bulk_on_heap(mut bytes: Vec<u8>, ledger: &'static Ledger) -> Self {
        bytes.spare_capacity_mut().zeroize();
        Self::counted(Place::Heap(bytes), SecretClass::Bulk, ledger)
    }

    /// Counts it under another class from now on.
    pub(super) fn set_class(&mut self, class: SecretClass) {
        self.ledger.moved(self.class, class, self.size());
        self.class = class;
    }

    fn counted(place: Place, class: SecretClass, ledger: &'static Ledger) -> Self {
        let memory = Self { place, class, ledger };
        ledger.born(class, memory.size(), memory.locked());
        memory
    }

    fn size(&self) -> u64 {
        u64::try_from(self.len()).unwrap_or(u64::MAX)
    }

    fn locked(&self) -> bool {
        match &self.place {
            Place::Slot(slot) => slot.memory != KeyMemory::Unlocked,
            Place::Pages(pages) => pages.locked(),
            Place::Heap(bytes) => bytes.is_empty(),
        }
    }
}

impl Place {
    fn key_memory(&self) -> KeyMemory {
        match self {
            Self::Slot(slot) => slot.memory,
            Self::Pages(pages) if pages.locked() => KeyMemory::Locked,
            Self::Pages(_) | Self::Heap(_) => KeyMemory::Unlocked,
        }
    }
}

impl Deref for SecretMemory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.place {
            Place::Slot(slot) => slot.bytes.get(..slot.len).unwrap_or_default(),
            Place::Pages(pages) => pages,
            Place::Heap(bytes) => bytes,
        }
    }
}

impl DerefMut for SecretMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &mut self.place {
            Place::Slot(slot) => slot.bytes.get_mut(..slot.len).unwrap_or_default(),
            Place::Pages(pages) => pages,
            Place::Heap(bytes) => bytes,
        }
    }
}

impl Drop for SecretMemory {
    fn drop(&mut self) {
        self.zeroize();
        self.ledger.wiped_and_gone(self.class, self.size(), self.locked());
    }
}

/// Bytes of a slot: the largest key that shares a page.
const SLOT: usize = 64;
/// Bytes mapped at a time: 64 keys. Never unmapped, so as many pages stay as keys ever lived at one time.
const SLAB: usize = 4096;

static FREE: Mutex<Vec<FreeSlot>> = Mutex::new(Vec::new());

struct FreeSlot {
    bytes: &'static mut [u8],
    memory: KeyMemory,
}

/// A slot on loan from the list of free ones. `SecretMemory` wipes it before it goes back.
struct Slot {
    bytes: &'static mut [u8],
    memory: KeyMemory,
    len: usize,
}

impl Slot {
    fn take(len: usize) -> Option<Self> {
        if len > SLOT {
            return None;
        }
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        if free.is_empty() {
            add_slab(&mut free);
        }
        free.pop().map(|slot| Self { bytes: slot.bytes, memory: slot.memory, len })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        #[cfg(test)]
        assert!(self.bytes.iter().all(|b| *b == 0), "a slot goes back unwiped");
        let slot = FreeSlot { bytes: std::mem::take(&mut self.bytes), memory: self.memory };
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
    }
}

/// Locks a page for keys before plaintext can use the limit up.
fn reserve_for_keys() {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if free.is_empty() {
        add_slab(&mut free);
    }
}

fn add_slab(free: &mut Vec<FreeSlot>) {
    let Some((pages, memory)) = map_slab() else { return };
    free.extend(pages.leak().chunks_exact_mut(SLOT).map(|bytes| FreeSlot { bytes, memory }));
}

/// The best memory for keys that there is.
fn map_slab() -> Option<(Pages, KeyMemory)> {
    if let Some(pages) = Pages::map_hidden(SLAB) {
        return Some((pages, KeyMemory::MemfdSecret));
    }
    let pages = Pages::map(SLAB)?;
    let memory = if pages.locked() { KeyMemory::Locked } else { KeyMemory::Unlocked };
    Some((pages, memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_keys_share_few_pages() {
        static LEDGER: Ledger = Ledger::new();
        let keys: Vec<_> = (0..100).map(|_| SecretMemory::key(32, &LEDGER)).collect();
        let mut addresses: Vec<_> = keys.iter().map(|k| k.as_ptr() as usize).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 100);
        addresses.iter_mut().for_each(|a| *a /= SLAB);
        addresses.dedup();
        // Other tests take and return slots at the same time, so a few more pages than two may be touched.
        assert!(addresses.len() <= 10, "{} pages", addresses.len());
        assert_eq!(LEDGER.tally().keys, 3200);
        drop(keys);
        assert_eq!((LEDGER.tally().keys, LEDGER.tally().wiped), (0, 3200));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn spare_capacity_is_wiped_where_the_heap_is_kept() {
        static LEDGER: Ledger = Ledger::new();
        let mut plaintext = vec![0xa5; 100];
        plaintext.truncate(10);
        let mut memory = SecretMemory::bulk_on_heap(plaintext, &LEDGER);
        let Place::Heap(bytes) = &mut memory.place else { panic!("not on the heap") };
        let address = bytes.as_ptr();
        // Grown within its capacity, a vector shows what lies there only when nothing writes there: so look at the page.
        assert_eq!((bytes.len(), bytes.capacity()), (10, 100));
        assert_eq!(read_own_memory(address.wrapping_add(10).addr(), 90), Some(vec![0; 90]));
    }

    /// As a debugger would read it.
    #[cfg(target_os = "linux")]
    fn read_own_memory(address: usize, len: usize) -> Option<Vec<u8>> {
        use std::os::unix::fs::FileExt as _;
        let mut bytes = vec![0xff; len];
        let memory = std::fs::File::open("/proc/self/mem").ok()?;
        memory.read_exact_at(&mut bytes, address as u64).ok().map(|()| bytes)
    }

    #[test]
    fn the_ledger_knows_where_keys_are() {
        static LEDGER: Ledger = Ledger::new();
        let key = SecretMemory::key(32, &LEDGER);
        let hidden = Pages::map_hidden(1).is_some();
        let Place::Slot(slot) = &key.place else { panic!("not in a slot") };
        // Another test of this process may have used the limit up.
        assert!(slot.memory == KeyMemory::MemfdSecret || !hidden || slot.memory == KeyMemory::Unlocked);
        assert_eq!(LEDGER.tally().key_memory, slot.memory);
        drop(SecretMemory::key(SLOT + 1, &LEDGER));
        assert!(LEDGER.tally().key_memory >= KeyMemory::Locked, "large keys are in pages that the kernel maps");
    }

    #[test]
    fn a_slot_goes_back_clean() {
        static LEDGER: Ledger = Ledger::new();
        for _ in 0..200 {
            let mut key = SecretMemory::key(64, &LEDGER);
            assert!(key.iter().all(|b| *b == 0));
            key.fill(0xa5);
        }
        for slot in FREE.lock().unwrap().iter() {
            assert!(slot.bytes.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn the_heap_is_counted_as_unlocked() {
        static LEDGER: Ledger = Ledger::new();
        let mut plaintext = Vec::with_capacity(100);
        plaintext.extend_from_slice(&[1; 10]);
        drop(SecretMemory::bulk_on_heap(plaintext, &LEDGER));
        let tally = LEDGER.tally();
        assert_eq!((tally.bulk, tally.unlocked, tally.unlocked_peak, tally.wiped), (0, 0, 10, 10));
    }

    #[test]
    fn keys_larger_than_a_slot_have_their_own_pages() {
        static LEDGER: Ledger = Ledger::new();
        let mut key = SecretMemory::key(SLOT + 1, &LEDGER);
        assert!(matches!(key.place, Place::Pages(_)));
        key[SLOT] = 1;
        assert_eq!(LEDGER.tally().keys, 65);
    }
}
