//! Pages for secrets between guard pages: anonymous ones, and ones that the kernel itself does not map.
#![allow(unsafe_code)] // mapping, locking and advising memory take raw pointers

use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

/// A multiple of the page size of every Linux and macOS machine (4, 16 or 64 KiB): sizes are rounded up to it, and one
/// such stretch of unmapped addresses stands on either side. Only pages that are touched take memory.
const GRANULE: usize = 64 * 1024;

/// From this size on the kernel is asked for huge pages.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

/// Zeroed private pages between guard pages, unmapped on drop. Whoever put secrets into them has wiped them by then.
pub(super) struct Pages {
    data: NonNull<u8>,
    len: usize,
    locked: bool,
}

impl Pages {
    /// Maps `len` bytes, or nothing when there is no memory. What cannot be locked is mapped all the same.
    pub(super) fn map(len: usize) -> Option<Self> {
        let total = total(len)?;
        // SAFETY: a null hint lets the kernel choose addresses that nothing else uses.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE) }.ok()?;
        // SAFETY: `start` begins a mapping of `total >= 2 * GRANULE` bytes.
        let data = unsafe { start.cast::<u8>().add(GRANULE) };
        let usable = total - 2 * GRANULE;
        // SAFETY: the range lies inside the mapping just made, to which there are no references yet.
        let opened = unsafe { mprotect(data.cast(), usable, MprotectFlags::READ | MprotectFlags::WRITE) };
        let Some(data) = NonNull::new(data).filter(|_| opened.is_ok()) else {
            // SAFETY: the mapping was made above and nothing refers to it.
            let _ = unsafe { munmap(start, total) };
            return None;
        };
        hide(data, usable);
        Some(Self { data, len, locked: lock(data, len) })
    }

    /// Maps `len` bytes that not even the kernel maps, or nothing where it has none to give.
    #[cfg(target_os = "linux")]
    pub(super) fn map_hidden(len: usize) -> Option<Self> {
        let total = total(len)?;
        // SAFETY: a null hint lets the kernel choose addresses that nothing else uses.
        let start =
            unsafe { mmap_anonymous(std::ptr::null_mut(), total, ProtFlags::empty(), MapFlags::PRIVATE) }.ok()?;
        // SAFETY: `start` begins a mapping of `total >= 2 * GRANULE` bytes.
        let data = NonNull::new(unsafe { start.cast::<u8>().add(GRANULE) });
        // SAFETY: the range lies inside the mapping just made, to which there are no references yet.
        let replaced = data.filter(|data| unsafe { super::memfd::replace(*data, len) });
        let Some(data) = replaced else {
            // SAFETY: the mapping was made above and nothing refers to it.
            let _ = unsafe { munmap(start, total) };
            return None;
        };
        Some(Self { data, len, locked: true })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn map_hidden(_len: usize) -> Option<Self> {
        None
    }

    /// Whether the kernel keeps these pages out of swap.
    pub(super) fn locked(&self) -> bool {
        self.locked
    }

    /// Gives the pages up to whoever takes the slice, for the rest of the process.
    pub(super) fn leak(self) -> &'static mut [u8] {
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: mapped, zeroed by the kernel, aligned for bytes, and never unmapped because nothing drops `this`.
        unsafe { std::slice::from_raw_parts_mut(this.data.as_ptr(), this.len) }
    }
}

impl std::ops::Deref for Pages {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped readable and zeroed by the kernel; `&self` keeps writers out.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr(), self.len) }
    }
}

impl std::ops::DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, mapped writable too, and `&mut self` is the only way here.
        unsafe { std::slice::from_raw_parts_mut(self.data.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        #[cfg(test)]
        assert!(self.iter().all(|b| *b == 0), "pages are given back unwiped");
        if let Some(total) = total(self.len) {
            // SAFETY: exactly the range that `map` mapped; slices borrowed from `self` have ended. Unmapping unlocks.
            let _ = unsafe { munmap(self.data.as_ptr().sub(GRANULE).cast(), total) };
        }
    }
}

// SAFETY: `Pages` owns its mapping alone, like a `Box<[u8]>`.
unsafe impl Send for Pages {}
// SAFETY: shared access only reads.
unsafe impl Sync for Pages {}

/// The data rounded up and a guard on either side; nothing when that is more than an allocation may have.
fn total(len: usize) -> Option<usize> {
    let total = len.max(1).checked_next_multiple_of(GRANULE)?.checked_add(2 * GRANULE)?;
    isize::try_from(total).is_ok().then_some(total)
}

/// Left out of core dumps, zero in a forked child. Each is a hint on top of the anti-debug profile, so a kernel that
/// lacks one does not stop anything.
#[cfg(target_os = "linux")]
fn hide(data: NonNull<u8>, usable: usize) {
    keep_out_of_dumps(data, usable);
    wipe_in_forks(data, usable);
    // A payload of gigabytes is opened into fresh pages: faulting them in 4 KiB at a time costs more than the cipher.
    if usable >= HUGE_PAGE {
        advise(data, usable, rustix::mm::Advice::LinuxHugepage);
    }
}

#[cfg(target_os = "linux")]
fn keep_out_of_dumps(data: NonNull<u8>, usable: usize) {
    advise(data, usable, rustix::mm::Advice::LinuxDontDump);
}

#[cfg(target_os = "linux")]
fn wipe_in_forks(data: NonNull<u8>, usable: usize) {
    advise(data, usable, rustix::mm::Advice::LinuxWipeOnFork);
}

#[cfg(target_os = "linux")]
fn advise(data: NonNull<u8>, usable: usize, advice: rustix::mm::Advice) {
    // SAFETY: a range of whole pages of our own private anonymous mapping; no advice used here changes its contents.
    let _ = unsafe { rustix::mm::madvise(data.as_ptr().cast(), usable, advice) };
}

/// Elsewhere there is no such advice: owners' machines, where nothing is zeroized for somebody else.
#[cfg(not(target_os = "linux"))]
fn hide(_data: NonNull<u8>, _usable: usize) {}

/// Locks pages as they are first touched, so that a large buffer is not faulted in by one thread.
#[cfg(target_os = "linux")]
fn lock(data: NonNull<u8>, len: usize) -> bool {
    // SAFETY: the range lies in our own mapping; locking does not change its contents.
    unsafe { rustix::mm::mlock_with(data.as_ptr().cast(), len, rustix::mm::MlockFlags::ONFAULT) }.is_ok()
}

#[cfg(not(target_os = "linux"))]
fn lock(data: NonNull<u8>, len: usize) -> bool {
    // SAFETY: the range lies in our own mapping; locking does not change its contents.
    unsafe { rustix::mm::mlock(data.as_ptr().cast(), len) }.is_ok()
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use super::*;

    /// The `VmFlags` and `Locked` lines of the mapping that holds an address, from `/proc/self/smaps`.
    fn smaps(address: usize) -> (Vec<String>, String) {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut inside, mut locked) = (false, String::new());
        for line in text.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            } else if inside && let Some(value) = line.strip_prefix("Locked:") {
                locked = value.trim().to_owned();
            } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return (flags.split_whitespace().map(str::to_owned).collect(), locked);
            }
        }
        panic!("no mapping holds {address:#x}");
    }

    #[test]
    fn the_kernel_confirms_locked_undumped_wiped_on_fork() {
        let mut pages = Pages::map(100).unwrap();
        pages[99] = 7;
        let (flags, locked) = smaps(pages.as_ptr() as usize);
        for flag in ["dd", "wf"] {
            assert!(flags.iter().any(|f| f == flag), "{flag} not in {flags:?}");
        }
        assert_eq!(pages.locked(), flags.iter().any(|f| f == "lo"), "{flags:?}");
        assert_eq!(pages.locked(), locked != "0 kB", "{locked}");
        pages[99] = 0;
    }

    /// Where the kernel has no such memory there is nothing to check, and the receipt says so.
    #[test]
    fn the_kernel_confirms_hidden_locked_and_absent_in_forks() {
        let Some(mut pages) = Pages::map_hidden(100) else { return eprintln!("skipped: no memfd_secret here") };
        pages[99] = 7;
        let at = pages.as_ptr() as usize;
        let (flags, _) = smaps(at);
        for flag in ["dd", "dc", "lo", "sh"] {
            assert!(flags.iter().any(|f| f == flag), "{flag} not in {flags:?}");
        }
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let read = std::os::unix::fs::FileExt::read_exact_at(&memory, &mut [0; 1], at as u64 + 99);
        assert!(read.is_err(), "the kernel can read it");
        for guard in [at - 1, at + 4096 * 16] {
            let (flags, _) = smaps(guard);
            assert!(!flags.iter().any(|f| f == "rd" || f == "wr"), "{flags:?}");
        }
        pages[99] = 0;
    }

    #[test]
    fn guards_on_both_sides() {
        let pages = Pages::map(GRANULE).unwrap();
        let at = pages.as_ptr() as usize;
        for guard in [at - 1, at + GRANULE] {
            let (flags, _) = smaps(guard);
            assert!(!flags.iter().any(|f| f == "rd" || f == "wr"), "{flags:?}");
        }
    }

    #[test]
    fn too_much_is_refused() {
        assert!(Pages::map(usize::MAX).is_none());
        assert!(Pages::map(isize::MAX as usize).is_none());
    }
}
