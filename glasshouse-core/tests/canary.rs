//! A canary in each kind of secret: found in this process's memory while the secret lives, not once afterwards.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // helpers of a test
#![allow(unsafe_code)] // memory that the kernel cannot read can only be looked at directly

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::secret::{Secret, SecretBuffer};
use glasshouse_core::traits::{SecretRegion, Zeroizer as _};

/// The C library's, but for large blocks, which it never gets back: what was left in one would be lost to the scan whenever
/// that library gives pages back, or uses them again.
struct Keeps;

#[global_allocator]
static ALLOCATOR: Keeps = Keeps;

// SAFETY: `System`, whose blocks may be kept for good.
unsafe impl GlobalAlloc for Keeps {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if layout.size() < 50_000 {
            // SAFETY: the caller's promise.
            unsafe { System.dealloc(block, layout) }
        }
    }
}

/// One test: a scan sees the whole process, so nothing else may hold a canary.
#[test]
fn no_canary_outlives_its_secret() {
    // Kept complemented, so that this copy is not what a scan finds.
    let canary = Secret::<64>::random().unwrap();
    let mut hidden = [0; 64];
    hidden.iter_mut().zip(canary.expose()).for_each(|(to, from)| *to = !from);
    let show = |into: &mut [u8]| into.iter_mut().zip(hidden).for_each(|(to, from)| *to = !from);

    assert_eq!(times_found(&hidden), 1, "the key itself, and no copy");
    drop(canary);
    assert_eq!(times_found(&hidden), 0, "after a key was dropped");

    let mut bytes = [0; 64];
    show(&mut bytes);
    let taken = Secret::take(&mut bytes);
    assert_eq!(times_found(&hidden), 1, "the source is wiped");
    drop(taken);
    assert_eq!(times_found(&hidden), 0, "after a taken key was dropped");

    let failed = Secret::<64>::fill_with(|bytes| {
        show(bytes);
        assert_eq!(times_found(&hidden), 1, "while being filled");
        Err(())
    });
    assert!(failed.is_err());
    assert_eq!(times_found(&hidden), 0, "after a key failed to be filled");

    let mut buffer = SecretBuffer::zeroed(300_000);
    show(&mut buffer.as_mut_slice()[200_000..200_064]);
    assert_eq!(times_found(&hidden), 1, "in a buffer");
    drop(buffer);
    assert_eq!(times_found(&hidden), 0, "after a buffer was dropped");

    let mut plaintext = vec![0; 100_000];
    show(&mut plaintext[60_000..60_064]);
    show(&mut plaintext[90_000..90_064]);
    plaintext.truncate(80_000); // the second one lies in spare capacity
    let buffer = SecretBuffer::new(plaintext);
    assert_eq!(times_found(&hidden), 1, "a vector taken over is wiped, its spare capacity too");

    let mut tensor = vec![0; 70_000].into_boxed_slice();
    show(&mut tensor[1000..1064]);
    let mut zeroizer = HostZeroizer::new();
    zeroizer.track_buffer("data", buffer);
    zeroizer.track(SecretRegion { label: "tensor".into(), target: Box::new(tensor) });
    assert_eq!(times_found(&hidden), 2, "handed over, not yet wiped");
    zeroizer.zeroize().unwrap();
    assert_eq!(times_found(&hidden), 0, "after zeroization");

    let before = mappings();
    (0..50).for_each(|length| drop(SecretBuffer::zeroed(length)));
    assert!(mappings() <= before + 3, "dropped buffers give their addresses back");
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// How often the bytes are in the readable memory of this process, the scan's own window aside.
fn times_found(hidden: &[u8; 64]) -> usize {
    let memory = File::open("/proc/self/mem").unwrap();
    // Pages of its own: from the heap, it would lie over freed blocks and hide what is still in them.
    let mut pages = SecretBuffer::zeroed(1 << 20);
    let window = pages.as_mut_slice();
    let own = window.as_ptr().addr()..window.as_ptr().addr() + window.len();
    let mut found = 0;
    for mapping in std::fs::read_to_string("/proc/self/maps").unwrap().lines() {
        let (range, rest) = mapping.split_once(' ').unwrap();
        let (from, to) = range.split_once('-').unwrap();
        let (mut at, to) = (usize::from_str_radix(from, 16).unwrap(), usize::from_str_radix(to, 16).unwrap());
        while rest.starts_with("rw") && at < to {
            let length = window.len().min(to - at);
            let hidden_from_kernel = rest.contains("secretmem");
            let read = memory.read_exact_at(&mut window[..length], at as u64);
            assert!(read.is_err() || !hidden_from_kernel, "the kernel reads memory that is hidden from it");
            if hidden_from_kernel {
                // SAFETY: a readable mapping of this process, which is never unmapped; no other thread writes to it now.
                let bytes = unsafe { std::slice::from_raw_parts(std::ptr::with_exposed_provenance(at), length) };
                window[..length].copy_from_slice(bytes);
            } else if read.is_err() {
                break; // a special mapping such as [vvar]
            }
            found += matches(&window[..length], hidden).filter(|offset| !own.contains(&(at + offset))).count();
            // Windows overlap, so that a canary on the edge is seen, and seen once.
            at += if length == to - at { length } else { length - 63 };
        }
    }
    found
}

fn matches<'a>(bytes: &'a [u8], hidden: &'a [u8; 64]) -> impl Iterator<Item = usize> + 'a {
    let is_here = move |at: &usize| bytes[*at..].iter().zip(hidden).all(|(b, h)| *b == !h);
    (0..bytes.len().saturating_sub(63)).filter(move |at| bytes[*at] == !hidden[0]).filter(is_here)
}
