use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// What a secret is for, and with that, when it must be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretClass {
    /// A key or launch secret. Gone before zeroization ends.
    Key,
    /// A key that signs or seals the receipt itself: it outlives zeroization and is wiped after delivery or linger.
    SessionKey,
    /// Plaintext of a package. Gone before zeroization ends.
    Bulk,
}

/// Where keys were: the least protected place that any of them ever had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyMemory {
    /// There were no keys.
    #[default]
    None,
    /// Memory that not even the kernel maps (`memfd_secret(2)`).
    MemfdSecret,
    /// Locked pages, out of dumps and forks. The kernel, and whoever may read its memory or trace the process, can
    /// read them.
    Locked,
    /// Memory that could not be locked: it may have been swapped.
    Unlocked,
}

impl KeyMemory {
    const ALL: [Self; 4] = [Self::None, Self::MemfdSecret, Self::Locked, Self::Unlocked];

    /// Whether there were no keys.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// Counts secret bytes. A process has one, [`Ledger::process`]; others exist for tests.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: AtomicU64,
    session_keys: AtomicU64,
    bulk: AtomicU64,
    wiped: AtomicU64,
    unlocked: AtomicU64,
    unlocked_peak: AtomicU64,
    key_memory: AtomicU8,
}

/// A reading of a [`Ledger`], in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Alive, [`SecretClass::Key`].
    pub keys: u64,
    /// Alive, [`SecretClass::SessionKey`].
    pub session_keys: u64,
    /// Alive, [`SecretClass::Bulk`].
    pub bulk: u64,
    /// Wiped when dropped, since the start.
    pub wiped: u64,
    /// Alive and not locked in memory.
    pub unlocked: u64,
    /// The most that was ever alive and not locked at one time.
    pub unlocked_peak: u64,
    /// Where keys of any class were.
    pub key_memory: KeyMemory,
}

impl Tally {
    /// Alive and due to be gone before zeroization ends: everything but session keys.
    pub fn held(&self) -> u64 {
        self.keys.saturating_add(self.bulk)
    }
}

static PROCESS: Ledger = Ledger::new();

impl Ledger {
    /// An empty ledger.
    pub const fn new() -> Self {
        Self {
            keys: AtomicU64::new(0),
            session_keys: AtomicU64::new(0),
            bulk: AtomicU64::new(0),
            wiped: AtomicU64::new(0),
            unlocked: AtomicU64::new(0),
            unlocked_peak: AtomicU64::new(0),
            key_memory: AtomicU8::new(0),
        }
    }

    /// The ledger of this process, in which every secret made through the public API is counted.
    pub fn process() -> &'static Self {
        &PROCESS
    }

    /// Reads it. Each figure is exact; between them, other threads may have moved on.
    pub fn tally(&self) -> Tally {
        Tally {
            keys: self.keys.load(Relaxed),
            session_keys: self.session_keys.load(Relaxed),
            bulk: self.bulk.load(Relaxed),
            wiped: self.wiped.load(Relaxed),
            unlocked: self.unlocked.load(Relaxed),
            unlocked_peak: self.unlocked_peak.load(Relaxed),
            key_memory: KeyMemory::ALL.get(usize::from(self.key_memory.load(Relaxed))).copied().unwrap_or_default(),
        }
    }

    pub(super) fn born(&self, class: SecretClass, bytes: u64, locked: bool) {
        self.live(class).fetch_add(bytes, Relaxed);
        if !locked {
            let now = self.unlocked.fetch_add(bytes, Relaxed).saturating_add(bytes);
            self.unlocked_peak.fetch_max(now, Relaxed);
        }
    }

    /// Notes where a key is; of all places the least protected one stays.
    pub(super) fn key_in(&self, memory: KeyMemory) {
        self.key_memory.fetch_max(memory as u8, Relaxed);
    }

    pub(super) fn wiped_and_gone(&self, class: SecretClass, bytes: u64, locked: bool) {
        self.live(class).fetch_sub(bytes, Relaxed);
        self.wiped.fetch_add(bytes, Relaxed);
        if !locked {
            self.unlocked.fetch_sub(bytes, Relaxed);
        }
    }

    pub(super) fn moved(&self, from: SecretClass, to: SecretClass, bytes: u64) {
        // Added first, so that a reading in between sees too much rather than too little.
        self.live(to).fetch_add(bytes, Relaxed);
        self.live(from).fetch_sub(bytes, Relaxed);
    }

    fn live(&self, class: SecretClass) -> &AtomicU64 {
        match class {
            SecretClass::Key => &self.keys,
            SecretClass::SessionKey => &self.session_keys,
            SecretClass::Bulk => &self.bulk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_protected_place_of_a_key_stays() {
        let ledger = Ledger::new();
        assert_eq!(ledger.tally().key_memory, KeyMemory::None);
        for (memory, worst) in [
            (KeyMemory::MemfdSecret, KeyMemory::MemfdSecret),
            (KeyMemory::Unlocked, KeyMemory::Unlocked),
            (KeyMemory::Locked, KeyMemory::Unlocked),
        ] {
            ledger.key_in(memory);
            assert_eq!(ledger.tally().key_memory, worst);
        }
        assert!(KeyMemory::ALL.iter().enumerate().all(|(index, memory)| *memory as usize == index));
    }

    #[test]
    fn a_receipt_leaves_out_only_the_place_of_no_keys() {
        assert!(KeyMemory::ALL.iter().all(|memory| memory.is_none() == (*memory == KeyMemory::None)));
        assert!(KeyMemory::default().is_none());
    }

    #[test]
    fn counts_by_class_and_keeps_the_peak() {
        let ledger = Ledger::new();
        ledger.born(SecretClass::Key, 32, true);
        ledger.born(SecretClass::Bulk, 100, false);
        ledger.moved(SecretClass::Key, SecretClass::SessionKey, 32);
        let tally = ledger.tally();
        assert_eq!((tally.keys, tally.session_keys, tally.bulk), (0, 32, 100));
        assert_eq!((tally.held(), tally.unlocked, tally.unlocked_peak, tally.wiped), (100, 100, 100, 0));

        ledger.wiped_and_gone(SecretClass::Bulk, 100, false);
        let tally = ledger.tally();
        assert_eq!((tally.held(), tally.unlocked, tally.unlocked_peak, tally.wiped), (0, 0, 100, 100));
    }
}
