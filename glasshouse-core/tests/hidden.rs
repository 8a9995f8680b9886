//! Where keys are, in a process of its own: the ledger of the process keeps the worst place of all.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, clippy::unwrap_used)] // asks the kernel itself

use glasshouse_core::secret::{KeyMemory, Ledger, Secret};

/// One test: the ledger is the process's.
#[test]
fn keys_are_in_hidden_memory_where_the_kernel_has_it() {
    // SAFETY: takes flags and gives a file descriptor or -1.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let key = Secret::<32>::random().unwrap();
    let there = if file >= 0 { KeyMemory::MemfdSecret } else { KeyMemory::Locked };
    assert_eq!(Ledger::process().tally().key_memory, there);
    // One that shares its page with nobody is locked, and that is less.
    let large = Secret::<100>::random().unwrap();
    assert_eq!(Ledger::process().tally().key_memory, KeyMemory::Locked);
    assert_eq!((Ledger::process().tally().keys, Ledger::process().tally().unlocked), (132, 0));
    drop((key, large));
    // A page of 64 keys serves any number of them, one after the other.
    let pages = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|l| l.contains("secret")).count();
    let before = pages();
    (0..1000).for_each(|_| drop(Secret::<64>::random().unwrap()));
    assert_eq!(pages(), before, "a key's place is used again");
    assert_eq!(Ledger::process().tally().held(), 0);
}
