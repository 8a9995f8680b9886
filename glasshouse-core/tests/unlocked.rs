//! Secrets where the kernel locks nothing, or nearly nothing: they work and are counted.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))] // the figures are for pages of 4 KiB
#![allow(clippy::unwrap_used)] // helpers of a test

use glasshouse_core::secret::{KeyMemory, Ledger, Secret, SecretBuffer};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// One test: the limit and the ledger are the process's.
#[test]
fn what_cannot_be_locked_works_and_is_counted() {
    let kib_that_may_be_locked = |kib: u64| {
        let limit =
            Rlimit { current: Some(kib * 1024), maximum: rustix::process::getrlimit(Resource::Memlock).maximum };
        setrlimit(Resource::Memlock, limit).unwrap();
    };
    give_up_locking_without_limit();
    let unlocked = || Ledger::process().tally().unlocked;

    // Enough for a page of keys and one more: a key is locked although plaintext came first and took the rest.
    kib_that_may_be_locked(8);
    let plaintext: Vec<_> = (0..4).map(|_| SecretBuffer::zeroed(4096)).collect();
    assert_eq!(unlocked(), 3 * 4096);
    let key = Secret::<32>::random().unwrap();
    assert_eq!(unlocked(), 3 * 4096);
    drop(plaintext);
    assert_eq!((unlocked(), Ledger::process().tally().unlocked_peak), (0, 3 * 4096));

    // Nothing at all. More keys than the locked page holds.
    kib_that_may_be_locked(0);
    assert_ne!(Ledger::process().tally().key_memory, KeyMemory::Unlocked);
    drop(Secret::<100>::random().unwrap());
    assert_eq!(Ledger::process().tally().key_memory, KeyMemory::Unlocked, "a key in pages of its own");
    let mut buffer = SecretBuffer::new(vec![7; 1 << 20]);
    buffer.as_mut_slice()[1 << 19] = 8;
    assert_eq!((buffer[0], buffer[1 << 19]), (7, 8));
    let keys: Vec<_> = (0..100).map(|_| Secret::<64>::random().unwrap()).collect();
    assert_eq!(unlocked(), (1 << 20) + (100 - 63) * 64, "63 of 64 slots of the locked page were free");
    drop((key, keys, buffer));
    let tally = Ledger::process().tally();
    assert_eq!((tally.held(), tally.unlocked, tally.unlocked_peak), (0, 0, (1 << 20) + 37 * 64));
}

/// Root may lock without limit (`CAP_IPC_LOCK`).
fn give_up_locking_without_limit() {
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).unwrap();
}
