//! Large blocks of the zero-on-free allocator: their contents, their pages, and what cannot be locked. The kernel is the
//! witness: `VmFlags` of /proc/self/smaps and `VmLck` of /proc/self/status.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of a test
#![allow(unsafe_code)] // an allocator is unsafe to call, and what lies in freed pages is read where it is

mod blocks;

use std::alloc::{GlobalAlloc as _, Layout, alloc, alloc_zeroed, realloc};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use blocks::{
    Block, LARGE, carry_out, flags, guard_with_a_lock_limit, guarded, kib, locked_kib, resident_kib, set_limit, steps,
    under_each,
};
use glasshouse_core::host_memory::{HostZeroizer, ZeroOnFree};
use glasshouse_core::secret::{Ledger, SecretBuffer};
use glasshouse_core::traits::{LargeBlocks, Zeroizer as _};
use proptest::prelude::*;
use rustix::process::Resource;

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

fn sizes() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![4 => LARGE / 2..LARGE * 2, 3 => LARGE..20 * LARGE, 2 => LARGE - 2..LARGE + 2, 1 => 1..40 * LARGE]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn blocks_keep_their_contents_whatever_is_done(steps in steps(sizes())) {
        let _one = guarded();
        carry_out(steps);
    }
}

#[test]
fn threads_never_share_a_block() {
    let _one = guarded();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..20_usize {
                    let sizes = [LARGE, LARGE + round, 3 * LARGE, LARGE];
                    let _blocks = sizes.map(|size| Block::new(size, 8, (thread * 31 + round) as u8, false));
                }
            });
        }
    });
}

#[test]
fn a_tensor_is_out_of_dumps_and_locked_and_its_pages_go_back() {
    let _one = guarded();
    let (before, size) = (locked_kib(), 48 << 20);
    let tensor = vec![1.5_f32; size / 4];
    let at = tensor.as_ptr().addr();
    assert!(ZeroOnFree::guards(tensor.as_ptr().cast()));
    let flags = flags(at);
    assert!(flags.contains("rd wr") && flags.contains(" dd"), "{flags}");
    // Asked of another part of this crate, which locks on its own account.
    let unlocked = || Ledger::process().tally().unlocked;
    let may_lock = {
        let _package = SecretBuffer::zeroed(size);
        unlocked() == 0
    };
    assert_eq!(flags.contains(" lo"), may_lock, "{flags}");
    assert!(!may_lock || locked_kib() + 1024 >= before + size / 1024, "{} kB locked", locked_kib()); // and text of another test
    drop(tensor);
    assert!(locked_kib() < before + 1024, "{} kB locked, {before} before", locked_kib()); // a test's own text is a block, too
    let after = self::flags(at);
    assert!(!after.contains("rd") && after.contains(" dd") && !after.contains(" lo"), "{after}");
}

#[test]
fn blocks_own_their_pages() {
    let _one = guarded();
    let blocks: Vec<_> = (1..40).map(|n| vec![1_u8; LARGE + n]).collect();
    let mut pages: Vec<_> =
        blocks.iter().flat_map(|b| [b.as_ptr().addr() >> 12, (b.as_ptr().addr() + b.len() - 1) >> 12]).collect();
    pages.sort_unstable();
    pages.dedup();
    assert_eq!(pages.len(), 2 * blocks.len());
    let huge = vec![1_u8; 3 << 20];
    assert!(huge.as_ptr().addr().is_multiple_of(2 << 20), "where a huge page may begin");
}

/// A slot is as aligned as it is long, which is not enough for a block that asks for more than its length.
#[test]
fn blocks_are_aligned_as_they_ask() {
    let _one = guarded();
    for (align, own) in [(LARGE, true), (2 * LARGE, false), (32 * LARGE, false)] {
        let blocks: Vec<_> = (0..6).map(|seed| Block::new(LARGE + 1, align, seed, false)).collect();
        assert!(blocks.iter().all(|block| ZeroOnFree::guards(block.at) == own), "{align}");
        let blocks: Vec<_> = (0..6).map(|seed| Block::new(LARGE, align, seed, true)).collect();
        assert!(blocks.iter().all(|block| ZeroOnFree::guards(block.at) == own), "{align}");
    }
}

#[test]
fn pages_that_are_kept_are_wiped_and_stay_out_of_dumps() {
    let _one = guarded();
    for shrink in [false, true] {
        let mut block = vec![0xa5_u8; 5 * LARGE];
        let (at, size) = (block.as_ptr(), block.len());
        if shrink {
            block.truncate(2 * LARGE);
            block.shrink_to_fit();
            assert_eq!(block.as_ptr(), at, "it shrinks where it lies");
            // SAFETY: pages of the block's slot, still open; nobody writes there.
            let lost = unsafe { std::slice::from_raw_parts(at.add(2 * LARGE), 3 * LARGE) };
            assert!(lost.iter().all(|byte| *byte == 0), "what a block lost");
        }
        drop(block);
        assert!(flags(at.addr()).contains("rd wr") && flags(at.addr()).contains(" dd"));
        // SAFETY: kept pages stay open, and no other test takes a block meanwhile.
        assert!(unsafe { std::slice::from_raw_parts(at, size) }.iter().all(|byte| *byte == 0), "a freed block");
    }
}

/// Those that are kept and those that go back to the kernel, where nobody can look any more.
#[test]
fn large_blocks_are_wiped_before_their_pages_go_back() {
    static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let _one = guarded();
    ZeroOnFree::look_after_wipe(|block, size| {
        // SAFETY: its last user gave it up, and nobody has it yet.
        let bytes = unsafe { std::slice::from_raw_parts(block, size) };
        static ZEROS: [u8; 4096] = [0; 4096];
        let dirty = bytes.chunks(4096).any(|page| *page != ZEROS[..page.len()]);
        SEEN[usize::from(dirty)].fetch_add(size as u64, Relaxed);
    });
    let before = SEEN[0].load(Relaxed);
    for size in [LARGE, 100 << 10, 3 << 20, 40 << 20] {
        drop(std::hint::black_box(vec![0xa5_u8; size]));
    }
    assert_eq!(SEEN[1].load(Relaxed), 0, "bytes that were not wiped");
    assert!(SEEN[0].load(Relaxed) - before >= 43 << 20, "a block that nobody looked at");
}

#[test]
fn blocks_that_are_never_written_take_no_memory() {
    let _one = guarded();
    let before = resident_kib();
    let block = Layout::from_size_align(4 << 30, 8).unwrap();
    // SAFETY: not empty. Given back without a wipe of what was never touched: the mapping stays with the process.
    let at = unsafe { alloc_zeroed(block) };
    assert!(!at.is_null() && ZeroOnFree::guards(at));
    assert!(resident_kib() < before + 64 * 1024, "locked when it is touched, not before");
}

#[test]
fn too_much_is_refused_and_not_found_out_later() {
    let _one = guarded();
    let physical = std::fs::read_to_string("/proc/meminfo").unwrap();
    let physical = kib(&physical, "MemTotal:") * 1024 + kib(&physical, "SwapTotal:") * 1024;
    let ordinary = || ZeroOnFree::large_blocks().unwrap().ordinary_bytes;
    let before = ordinary();
    for bytes in [physical + (1 << 30), 100 << 30, isize::MAX as usize] {
        if bytes == isize::MAX as usize || bytes > physical && !overcommits() {
            assert!(Vec::<u8>::new().try_reserve_exact(bytes).is_err(), "{bytes}");
        }
    }
    // SAFETY: not empty; null, so nothing to give back.
    assert!(unsafe { alloc_zeroed(Layout::from_size_align(1 << 62, 8).unwrap()) }.is_null());
    assert_eq!(ordinary(), before, "what was refused is no block");
}

#[test]
fn errno_is_left_alone() {
    let _one = guarded();
    // SAFETY: the thread's own.
    let errno = || unsafe { *libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = 77 };
    drop(std::hint::black_box(vec![1_u8; 3 * LARGE]));
    drop(std::hint::black_box(vec![1_u8; 40 << 20]));
    assert_eq!(errno(), 77);
}

#[test]
fn a_forked_child_has_what_its_parent_had() {
    let _one = guarded();
    let block = Block::new(3 * LARGE, 8, 9, false);
    // SAFETY: the child only takes and gives back large blocks, for which it needs no lock, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // A panic would take small blocks, of a heap that another thread may have been inside of.
        let kept = block.is_as_written(3 * LARGE);
        drop(Block::new(5 * LARGE, 8, 1, false));
        drop(block);
        // SAFETY: ends the child without the test's exit handlers.
        unsafe { libc::_exit(i32::from(!kept)) };
    }
    let mut status = 1;
    // SAFETY: the child just made.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
}

/// In a process of its own under each limit; without one it has nothing to do.
#[test]
fn under_limits() {
    let limits = ["locked 0", "locked 1024", "growing 7680", "addresses 8", "addresses 46"];
    let Some((what, limit)) = under_each("under_limits", &limits) else { return };
    match what.as_str() {
        "locked" => under_a_lock_limit(limit << 10),
        "growing" => growing_under_a_lock_limit(limit << 10),
        _ => {
            set_limit(Resource::As, (limit as u64) << 30);
            ZeroOnFree::guard();
            // There are addresses left for the rest of the program: threads, maps of files.
            let left = Layout::from_size_align((limit << 29) - (2 << 30), 8).unwrap();
            // SAFETY: not empty, and given back as it is.
            unsafe {
                let probe = std::alloc::System.alloc(left);
                assert!(!probe.is_null() || !overcommits() && limit > 8, "too few addresses are left of {limit} GiB");
                std::alloc::System.dealloc(probe, left);
            }
            let tally = with(&[LARGE, 9 * LARGE], || assert!(!ZeroOnFree::guards(vec![1_u8; LARGE].as_ptr())));
            assert!(tally.ordinary_bytes >= 11 * LARGE as u64, "{tally:?}");
            assert_eq!(tally.peak_bytes, 0);
            let lines = HostZeroizer::new().zeroize().unwrap().not_covered;
            assert!(lines.iter().any(|line| line.contains("had no pages of our own")), "{lines:?}");
        }
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(8));
    let carry_out = |steps| {
        carry_out(steps);
        Ok(())
    };
    runner.run(&steps(sizes()), carry_out).unwrap();
}

/// A block that grows where it lies keeps its lock, and what it gains is locked beside it; where there is too little for all of
/// it, all of it counts.
fn growing_under_a_lock_limit(limit: usize) {
    guard_with_a_lock_limit(limit);
    let (most, unlocked) = (limit / 2, || ZeroOnFree::large_blocks().unwrap().unlocked_peak_bytes);
    let old = Layout::from_size_align(most / 20 * 11, 8).unwrap();
    // SAFETY: a layout that is not empty; the block is grown and never freed, and its last page is not touched again.
    let (at, grown) = unsafe {
        let at = alloc(old);
        assert!(flags(at.addr()).contains(" lo"));
        // Where a page is missing, a lock over all of the block fails, and only one of what it gained does not.
        assert_eq!(libc::munmap(at.add(old.size() / 2).map_addr(|at| at & !(LARGE - 1)).cast(), LARGE), 0);
        (at, realloc(at, old, most - LARGE))
    };
    assert_eq!(at, grown, "it grows where it lies");
    assert!(flags(at.addr()).contains(" lo") && flags(at.addr() + most - 2 * LARGE).contains(" lo"));
    assert_eq!((locked_kib(), unlocked()), ((most - 2 * LARGE) / 1024, 0));
    // SAFETY: as above.
    let grown = unsafe { realloc(at, Layout::from_size_align(most - LARGE, 8).unwrap(), most + 1) };
    assert_eq!((at, unlocked()), (grown, most as u64 + 1), "all of it counts");
}

fn under_a_lock_limit(limit: usize) {
    guard_with_a_lock_limit(limit);
    let half = limit / 2 / 1024;
    let tally = with(&[4 * LARGE, 4 * LARGE, 4 * LARGE, 16 * LARGE], || {
        assert_eq!(locked_kib(), half, "two of the first three, where there is a limit at all");
    });
    let unlocked = if limit == 0 { 28 } else { 20 } * LARGE as u64;
    assert_eq!((tally.unlocked_peak_bytes, tally.ordinary_bytes), (unlocked, 0));
    assert_eq!(locked_kib(), half, "pages that are kept stay locked: to lock them anew costs more than to wipe them");
    // They are used again as they are, and a package's plaintext has the other half.
    let again = [vec![1_u8; 4 * LARGE], vec![1; 4 * LARGE]];
    assert!(limit == 0 || again.iter().all(|block| flags(block.as_ptr().addr()).contains(" lo")));
    let package = SecretBuffer::zeroed(LARGE);
    assert_eq!(locked_kib(), if limit == 0 { 0 } else { half + 64 + 4 }, "and a page of keys");
    drop((again, package));
    // A block in use needs it more than free ones; and where it lies in the way of another, in turn.
    for size in [8 * LARGE, 4 * LARGE, 7 * LARGE] {
        let other = vec![1_u8; size];
        let flags = flags(other.as_ptr().addr());
        assert!(
            limit == 0 || flags.contains(" lo") && locked_kib() <= half + 4,
            "{size}: {flags}, {} kB",
            locked_kib()
        );
    }
    let receipt = HostZeroizer::new().zeroize().unwrap();
    assert_eq!(receipt.large_blocks.unwrap().unlocked_peak_bytes, unlocked);
    let line = format!("swap: at most {unlocked} bytes of blocks from 65536 bytes on");
    assert!(receipt.not_covered.iter().any(|said| said.starts_with(&line)), "{:?}", receipt.not_covered);
}

/// The count after blocks of these sizes were alive together.
fn with(sizes: &[usize], look: impl Fn()) -> LargeBlocks {
    let blocks: Vec<_> = sizes.iter().map(|size| vec![1_u8; *size]).collect();
    look();
    drop(blocks);
    ZeroOnFree::large_blocks().unwrap()
}

fn overcommits() -> bool {
    std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|text| text.trim() == "1")
}
