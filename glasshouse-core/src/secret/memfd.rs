//! Pages that not even the kernel maps (`memfd_secret(2)`, Linux 5.14): another process, a core dump and
//! `/proc/PID/mem` cannot read them whatever their rights. The only file of this folder with a raw system call.
#![allow(unsafe_code)] // rustix does not have the call, and mapping takes raw pointers

use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap};

/// Puts `len` bytes of secret memory in the place of what is mapped at `at`. The kernel keeps them locked, counts them
/// against `ulimit -l` and leaves them out of dumps by itself. False where it has none to give; then nothing can be
/// said of what is mapped there, and the caller unmaps it.
///
/// # Safety
/// `at` begins a mapping of the caller's own, of at least `len` bytes rounded up to pages, without references into it.
pub(super) unsafe fn replace(at: NonNull<u8>, len: usize) -> bool {
    let Some(file) = open(len) else { return false };
    // Shared, because the kernel maps such memory in no other way; the file is closed, so nobody else can map it.
    // SAFETY: the caller's promise: nothing else is mapped in the range, and nothing refers to it.
    let mapped = unsafe {
        mmap(
            at.as_ptr().cast(),
            len,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::SHARED | MapFlags::FIXED,
            file.as_fd(),
            0,
        )
    };
    mapped.is_ok() && keep_out_of_forks(at, len)
}

fn open(len: usize) -> Option<OwnedFd> {
    // SAFETY: takes flags and gives a file descriptor or -1.
    let file = unsafe { libc::syscall(libc::SYS_memfd_secret, libc::O_CLOEXEC) };
    let file = i32::try_from(file).ok().filter(|file| *file >= 0)?;
    // SAFETY: just opened, and owned by nobody else.
    let file = unsafe { OwnedFd::from_raw_fd(file) };
    rustix::fs::ftruncate(&file, u64::try_from(len).ok()?).ok()?;
    Some(file)
}

/// A forked child has no such mapping at all: shared memory cannot be wiped for it.
fn keep_out_of_forks(at: NonNull<u8>, len: usize) -> bool {
    // SAFETY: the range was just mapped by `replace`; the advice does not change its contents here.
    unsafe { madvise(at.as_ptr().cast(), len, Advice::LinuxDontFork) }.is_ok()
}
