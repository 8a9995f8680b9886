//! Addresses kept for large blocks, and what the kernel is asked to do with the pages there. The one file of this folder
//! that maps memory.
#![allow(unsafe_code)] // mapping, locking and advising memory take raw pointers

use std::ptr::NonNull;

#[cfg(target_os = "linux")]
use rustix::mm::{
    Advice, MapFlags, MlockFlags, MprotectFlags, ProtFlags, madvise, mlock_with, mmap_anonymous, mprotect, munlock,
    munmap,
};

/// A stretch of addresses that is never given back, and that core dumps leave out with all that is opened in it.
pub(super) struct Reserved {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address range that lives as long as the process. What is in it belongs to whoever was given a part of it.
unsafe impl Send for Reserved {}
// SAFETY: as above; it never changes.
unsafe impl Sync for Reserved {}

impl Reserved {
    /// Where a part of it begins; nothing for what lies outside.
    pub(super) fn at(&self, offset: usize, bytes: usize) -> Option<NonNull<u8>> {
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        // SAFETY: inside the mapping, whose size is no more than `isize::MAX`.
        inside.then(|| unsafe { self.base.add(offset) })
    }

    /// How far into it an address lies; nothing for what lies outside.
    pub(super) fn offset(&self, address: *const u8) -> Option<usize> {
        address.addr().checked_sub(self.base.addr().get()).filter(|offset| *offset < self.bytes)
    }
}

#[cfg(target_os = "linux")]
impl Reserved {
    /// Reserves addresses without memory. Nothing where there are not as many to be had.
    pub(super) fn new(bytes: usize, align: usize) -> Option<Self> {
        let total = bytes.checked_add(align)?;
        // SAFETY: a null hint lets the kernel choose addresses that nothing else uses.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE) }.ok()?;
        let start = NonNull::new(start.cast::<u8>())?;
        if !keep_out_of_dumps(start, total) {
            // SAFETY: the mapping was made above and nothing refers to it.
            let _ = unsafe { munmap(start.as_ptr().cast(), total) };
            return None;
        }
        // SAFETY: less than `align` further, so that `bytes` still lie inside the mapping.
        Some(Self { base: unsafe { start.add(start.align_offset(align)) }, bytes })
    }

    /// Lets pages be read and written: zeros until somebody writes. Counted by the kernel as any allocation is, so that too
    /// much is refused and not found out when it is touched.
    pub(super) fn open(&self, offset: usize, bytes: usize) -> bool {
        let rights = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: pages of our own mapping; a right more takes nothing from anybody.
        self.at(offset, bytes).is_some_and(|at| unsafe { mprotect(at.as_ptr().cast(), bytes, rights) }.is_ok())
    }

    /// Gives the memory back and keeps the addresses, in one step, so that nobody else is given them in between.
    ///
    /// # Safety
    /// Nobody refers to anything in these pages.
    pub(super) unsafe fn close(&self, offset: usize, bytes: usize) -> bool {
        let Some(at) = self.at(offset, bytes) else { return false };
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: pages of our own mapping, and by the caller's promise nobody uses them.
        let closed = unsafe { mmap_anonymous(at.as_ptr().cast(), bytes, ProtFlags::empty(), flags) };
        closed.is_ok() && keep_out_of_dumps(at, bytes)
    }

    /// Locks pages as they are first touched: a block of gigabytes that nobody writes takes no memory.
    pub(super) fn lock(&self, offset: usize, bytes: usize) -> bool {
        // SAFETY: pages of our own mapping; locking does not change what is in them.
        let lock = |at: NonNull<u8>| unsafe { mlock_with(at.as_ptr().cast(), bytes, MlockFlags::ONFAULT) };
        self.at(offset, bytes).is_some_and(|at| lock(at).is_ok())
    }

    pub(super) fn unlock(&self, offset: usize, bytes: usize) {
        if let Some(at) = self.at(offset, bytes) {
            // SAFETY: as in `lock`.
            let _ = unsafe { munlock(at.as_ptr().cast(), bytes) };
        }
    }

    pub(super) fn machine_memory() -> usize {
        let info = rustix::system::sysinfo();
        let unit = usize::try_from(info.mem_unit).unwrap_or(1);
        usize::try_from(info.totalram).unwrap_or(usize::MAX).saturating_mul(unit)
    }

    /// How many bytes may be locked; nothing where there is no limit. That is tried out, before anything is there: the
    /// right to lock without limit counts only where the kernel accepts it (not in a user namespace).
    pub(super) fn lock_limit(&self) -> Option<usize> {
        if self.lock(0, self.bytes) {
            self.unlock(0, self.bytes);
            return None;
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current.unwrap_or(0);
        Some(usize::try_from(limit).unwrap_or(usize::MAX))
    }
}

#[cfg(target_os = "linux")]
fn keep_out_of_dumps(at: NonNull<u8>, bytes: usize) -> bool {
    // SAFETY: whole pages of our own mapping; the advice does not change what is in them.
    unsafe { madvise(at.as_ptr().cast(), bytes, Advice::LinuxDontDump) }.is_ok()
}

/// Elsewhere nothing is zeroized for somebody else: there are no such addresses, and every block is an ordinary one.
#[cfg(not(target_os = "linux"))]
impl Reserved {
    pub(super) fn new(_bytes: usize, _align: usize) -> Option<Self> {
        None
    }
    pub(super) fn open(&self, _offset: usize, _bytes: usize) -> bool {
        false
    }
    /// # Safety
    /// None is needed: it does nothing.
    pub(super) unsafe fn close(&self, _offset: usize, _bytes: usize) -> bool {
        false
    }
    pub(super) fn lock(&self, _offset: usize, _bytes: usize) -> bool {
        false
    }
    pub(super) fn unlock(&self, _offset: usize, _bytes: usize) {}
    pub(super) fn machine_memory() -> usize {
        0
    }
    pub(super) fn lock_limit(&self) -> Option<usize> {
        None
    }
}
