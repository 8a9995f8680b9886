//! Addresses kept for blocks of the program's allocator, and what the kernel is asked to do with the pages there. The one file of this folder
//! that maps memory.
#![allow(unsafe_code)] // mapping, locking and advising memory take raw pointers

use std::ptr::NonNull;

#[cfg(target_os = "linux")]
use rustix::mm::{
    Advice, MapFlags, MlockFlags, MprotectFlags, ProtFlags, madvise, mlock_with, mmap_anonymous, mprotect, munlock,
    munmap,
};
#[cfg(target_os = "linux")]
use rustix::process::{Resource, getrlimit};

/// The largest page of a Linux machine.
const MOST_PAGE: usize = 64 << 10;

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
    /// Reserves addresses without memory. Nothing where there are not as many to be had, or it were more than a `part`th of
    /// those that the process may have: the rest of the program needs some, too.
    pub(super) fn new(bytes: usize, align: usize, part: usize) -> Option<Self> {
        let total = bytes.checked_add(align)?;
        let limit = getrlimit(Resource::As).current.and_then(|limit| usize::try_from(limit).ok());
        if limit.is_some_and(|limit| limit.checked_div(part).is_none_or(|most| total > most)) {
            return None;
        }
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
        // SAFETY: the caller's promise.
        closed.is_ok() && keep_out_of_dumps(at, bytes) || unsafe { self.empty(offset, bytes) }
    }

    /// What is left to do where the kernel has no mapping more to give: the memory goes back, and nobody may touch the pages.
    ///
    /// # Safety
    /// As [`close`](Self::close).
    unsafe fn empty(&self, offset: usize, bytes: usize) -> bool {
        self.unlock(offset, bytes); // the kernel does not take locked pages away
        let Some(at) = self.at(offset, bytes).map(|at| at.as_ptr().cast()) else { return false };
        // SAFETY: as in `close`.
        unsafe {
            madvise(at, bytes, Advice::LinuxDontNeed).is_ok() && mprotect(at, bytes, MprotectFlags::empty()).is_ok()
        }
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
        let limit = usize::try_from(getrlimit(Resource::Memlock).current?).unwrap_or(usize::MAX);
        let beyond = limit.saturating_add(MOST_PAGE).min(self.bytes);
        if self.lock(0, beyond) {
            self.unlock(0, beyond);
            return None;
        }
        Some(limit)
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
    pub(super) fn new(_bytes: usize, _align: usize, _part: usize) -> Option<Self> {
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

#[cfg(all(test, target_os = "linux"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_cannot_be_mapped_anew_are_emptied() {
        let reserved = Reserved::new(1 << 20, 2 << 20, 2).unwrap();
        assert!(reserved.open(0, 1 << 17));
        let locked = reserved.lock(0, 1 << 17);
        let at = reserved.at(1 << 16, 1 << 16).unwrap();
        // SAFETY: pages of the test's own, opened above.
        unsafe {
            at.write_bytes(0xa5, 1 << 16);
            assert!(reserved.empty(0, 1 << 17), "locked: {locked}");
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            let start = format!("{:x}-", reserved.base.addr().get());
            let line = maps.lines().find(|line| line.starts_with(&start));
            assert!(line.is_none_or(|line| line.contains(" ---p ")), "{line:?}");
            assert!(reserved.open(0, 1 << 17));
            assert!(std::slice::from_raw_parts(at.as_ptr(), 1 << 16).iter().all(|byte| *byte == 0));
        }
    }
}
