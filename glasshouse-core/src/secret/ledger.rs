use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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

/// Counts secret bytes. A process has one, [`Ledger::process`]; others exist for tests.
#[derive(Debug, Default)]
pub struct Ledger {
    keys: AtomicU64,
    session_keys: AtomicU64,
    bulk: AtomicU64,
    wiped: AtomicU64,
    unlocked: AtomicU64,
    unlocked_peak: AtomicU64,
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
        }
    }

    pub(super) fn born(&self, class: SecretClass, bytes: u64, locked: bool) {
        self.live(class).fetch_add(bytes, Relaxed);
        if !locked {
            let now = self.unlocked.fetch_add(bytes, Relaxed).saturating_add(bytes);
            self.unlocked_peak.fetch_max(now, Relaxed);
        }
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
