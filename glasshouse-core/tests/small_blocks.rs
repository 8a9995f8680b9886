//! Small blocks of the zero-on-free allocator: their contents, their pages, and what cannot be locked. The kernel is the
//! witness, as for large ones.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of a test
#![allow(unsafe_code)] // an allocator is unsafe to call

mod blocks;

use std::alloc::{GlobalAlloc as _, Layout, System};
use std::io::BufRead as _;
use std::process::{Command, Stdio};
use std::ptr::null_mut;
use std::sync::atomic::{
    AtomicPtr, AtomicU64,
    Ordering::{AcqRel, Relaxed},
};
use std::sync::mpsc;

use blocks::{Block, LARGE, carry_out, flags, guard_with_a_lock_limit, guarded, set_limit, steps, under_each};
use glasshouse_core::host_memory::{HostZeroizer, ZeroOnFree};
use glasshouse_core::secret::{Secret, SecretBuffer};
use glasshouse_core::traits::{SmallBlocks, Zeroizer as _};
use proptest::prelude::*;
use rustix::process::Resource;

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

/// What a heap has opened at a time.
const STEP: u64 = 256 << 10;

fn sizes() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![4 => 1_usize..600, 3 => 1..LARGE, 2 => LARGE - 2..LARGE + 2, 1 => Just(1)]
}

fn tally() -> SmallBlocks {
    ZeroOnFree::small_blocks().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn blocks_keep_their_contents_whatever_is_done(steps in steps(sizes())) {
        let _one = guarded();
        carry_out(steps);
    }
}

#[test]
fn a_block_may_be_freed_by_another_thread() {
    let _one = guarded();
    std::thread::scope(|scope| {
        let (hand_on, handed_on) = mpsc::channel::<Moved>();
        scope.spawn(move || handed_on.into_iter().for_each(drop));
        for thread in 0..6_u8 {
            let hand_on = hand_on.clone();
            scope.spawn(move || {
                for round in 0..300_usize {
                    let kept = Block::new(round + 1, 8, thread.wrapping_add(round as u8), round % 2 == 0);
                    hand_on.send(Moved(Block::new(3 * round + 1, 16, thread, false))).unwrap();
                    drop(kept);
                }
            });
        }
    });
}

/// Its last owner is another thread's.
struct Moved(#[allow(dead_code)] Block);
// SAFETY: a block is its owner's alone, and only memory.
unsafe impl Send for Moved {}

#[test]
fn texts_are_out_of_dumps_and_locked() {
    let _one = guarded();
    let text = "a row of the owner's".repeat(20);
    assert!(ZeroOnFree::guards(text.as_ptr()));
    let flags = flags(text.as_ptr().addr());
    assert!(flags.contains("rd wr") && flags.contains(" dd"), "{flags}");
    let tally = tally();
    assert_eq!(tally.below_bytes, LARGE as u64);
    assert!(tally.page_bytes >= STEP && tally.page_bytes.is_multiple_of(STEP), "{tally:?}");
    // Under a limit other tests' threads may have had what there was to lock.
    assert!(flags.contains(" lo") || tally.unlocked_page_bytes > 0, "{flags}, {tally:?}");
}

#[test]
fn blocks_are_wiped_before_anyone_else_has_them() {
    static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let _one = guarded();
    ZeroOnFree::look_after_wipe(|block, size| {
        // SAFETY: its last user gave it up, and nobody has it yet.
        let dirty = unsafe { std::slice::from_raw_parts(block, size) }.iter().any(|byte| *byte != 0);
        SEEN[usize::from(dirty)].fetch_add(size as u64, Relaxed);
    });
    let before = SEEN[0].load(Relaxed);
    for size in [1, 24, 1000, LARGE - 1] {
        let mut grows = std::hint::black_box(vec![0xa5_u8; size]);
        grows.reserve_exact(size + 1);
    }
    assert_eq!(SEEN[1].load(Relaxed), 0, "bytes that were not wiped");
    assert!(SEEN[0].load(Relaxed) - before >= 66_000 * 2, "a block that nobody looked at");
}

#[test]
fn what_asks_for_more_than_a_page_is_an_ordinary_block_and_counts() {
    let _one = guarded();
    let before = tally().ordinary_bytes;
    for (align, guarded) in [(4096, true), (8192, false)] {
        let block = Block::new(100, align, 1, true);
        assert_eq!(ZeroOnFree::guards(block.at), guarded, "{align}");
    }
    assert_eq!(tally().ordinary_bytes - before, 100);
}

#[test]
fn errno_is_left_alone() {
    let _one = guarded();
    // SAFETY: the thread's own.
    let errno = || unsafe { *libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = 77 };
    // More than one step of a heap.
    let many: Vec<_> = (0..20).map(|_| vec![1_u8; LARGE - 1]).collect();
    assert!(many.iter().all(|block| ZeroOnFree::guards(block.as_ptr())));
    drop(many);
    assert_eq!(errno(), 77);
}

/// To wait for a heap is a system call, which may leave something there.
#[test]
fn errno_is_left_alone_where_threads_meet() {
    let _one = guarded();
    static SLOTS: [AtomicPtr<[u8; 100]>; 16] = [const { AtomicPtr::new(null_mut()) }; 16];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for round in 0..10_000 {
                    // SAFETY: the thread's own.
                    unsafe { *libc::__errno_location() = 77 };
                    let block = if thread % 2 == 0 { Box::into_raw(Box::new([thread; 100])) } else { null_mut() };
                    let before = SLOTS[round % SLOTS.len()].swap(block, AcqRel);
                    if !before.is_null() {
                        // SAFETY: out of a box above, and nobody else has it any more.
                        drop(unsafe { Box::from_raw(before) });
                    }
                    // SAFETY: the thread's own.
                    assert_eq!(unsafe { *libc::__errno_location() }, 77);
                }
            });
        }
    });
    for slot in &SLOTS {
        let left = slot.swap(null_mut(), AcqRel);
        if !left.is_null() {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(left) });
        }
    }
}

/// What gdb writes, which reads `VmFlags` as the kernel's own dumps do.
#[test]
fn a_core_has_none_of_our_blocks() {
    let _one = guarded();
    let canaries: [Secret<64>; 3] = std::array::from_fn(|_| Secret::random().unwrap());
    let (mut small, mut large) = (vec![0_u8; 1000], vec![0_u8; 2 * LARGE]);
    small[500..564].copy_from_slice(canaries[0].expose());
    large[500..564].copy_from_slice(canaries[1].expose());
    assert!(ZeroOnFree::guards(large.as_ptr()) && ZeroOnFree::guards(small.as_ptr()));
    // A block of the C library's is what this view can see.
    let ordinary = Layout::new::<[u8; 64]>();
    // SAFETY: a layout that is not empty; the block is written in full, and stays.
    unsafe { System.alloc(ordinary).copy_from_nonoverlapping(canaries[2].expose().as_ptr(), 64) };
    let folder = tempfile::tempdir().unwrap();
    let mut gcore = Command::new("gcore");
    gcore.arg("-o").arg(folder.path().join("core")).arg(std::process::id().to_string()).stdin(Stdio::null());
    // Where Yama lets only a parent look, and not everywhere is Yama.
    let _ = rustix::process::set_ptracer(rustix::process::PTracer::Any);
    let written = gcore.output().map_err(|error| format!("no gcore here (install gdb; {error})")).and_then(|output| {
        std::fs::read(folder.path().join(format!("core.{}", std::process::id())))
            .map_err(|_| format!("gcore wrote no core: {}", String::from_utf8_lossy(&output.stderr).trim()))
    });
    let core = match written {
        Ok(core) => core,
        Err(why) => {
            let must = std::env::var("GLASSHOUSE_NO_SKIPS").unwrap_or_default();
            assert!(!must.contains("gcore") && must != "all", "{why}, which must not be left out here");
            return eprintln!("SKIPPED: no core is looked at: {why}");
        }
    };
    let found = canaries.map(|canary| count(&core, canary.expose()));
    assert_eq!(found, [0, 0, 1], "a small block, a large one, and one of the C library's");
    drop((small, large));
}

fn count(mut bytes: &[u8], wanted: &[u8; 64]) -> usize {
    let mut found = 0;
    while bytes.skip_until(wanted[0]).is_ok_and(|skipped| skipped > 0) {
        found += usize::from(bytes.starts_with(&wanted[1..]));
    }
    found
}

/// In a process of its own under each limit; without one it has nothing to do.
#[test]
fn under_limits() {
    let limits = ["locked 0", "locked 1024", "package 1024", "addresses 8"];
    let Some((what, limit)) = under_each("under_limits", &limits) else { return };
    match what.as_str() {
        "locked" => under_a_lock_limit(limit << 10),
        "package" => beside_a_package(limit << 10),
        _ => {
            set_limit(Resource::As, (limit as u64) << 30);
            where_addresses_end();
        }
    }
}

/// The first step of the first heap that is used is locked with a quarter of the limit, and nothing after it.
fn under_a_lock_limit(limit: usize) {
    guard_with_a_lock_limit(limit);
    let further: Vec<_> = (0..10).map(|_| vec![1_u8; LARGE - 1]).collect();
    // The one step that is locked has room for three of them and the beginning of a fourth, whichever they are.
    let flags: Vec<_> = further.iter().map(|block| flags(block.as_ptr().addr())).collect();
    assert!(flags.iter().all(|flags| flags.contains(" dd")), "{flags:?}");
    assert!(flags.iter().filter(|flags| flags.contains(" lo")).count() <= 4, "{flags:?}");
    let counts = tally();
    let locked = if limit > 0 { STEP } else { 0 };
    assert!(counts.page_bytes >= 3 * STEP, "{counts:?}");
    assert_eq!(counts.page_bytes - counts.unlocked_page_bytes, locked, "{counts:?}");
    let receipt = HostZeroizer::new().zeroize().unwrap();
    let said = receipt.small_blocks.unwrap().unlocked_page_bytes;
    assert!(said >= counts.unlocked_page_bytes);
    let line = format!("swap: at most {said} bytes of pages of smaller blocks");
    assert!(receipt.not_covered.iter().any(|said| said.starts_with(&line)), "{:?}", receipt.not_covered);
}

/// What the kernel refuses to lock because a package has the limit is locked for later pages, once the package is gone.
fn beside_a_package(limit: usize) {
    let package = SecretBuffer::zeroed(limit / 8 * 7);
    guard_with_a_lock_limit(limit);
    let refused: Vec<_> = (0..2).map(|_| vec![1_u8; LARGE - 1]).collect();
    let counts = tally();
    assert!(counts.page_bytes > 0 && counts.page_bytes == counts.unlocked_page_bytes, "{counts:?}");
    drop(package);
    let locked: Vec<_> = (0..20).map(|_| vec![1_u8; LARGE - 1]).collect();
    let counts = tally();
    assert_eq!(counts.page_bytes - counts.unlocked_page_bytes, STEP, "{counts:?}");
    drop((refused, locked));
}

/// A heap that is full hands on to the others, and when all are, blocks are ordinary ones, and count.
fn where_addresses_end() {
    ZeroOnFree::guard();
    let (each, one_heap, all) = (LARGE - 1, 1 << 20, 256 << 20);
    let mut blocks: Vec<Vec<u8>> = Vec::with_capacity(all / each + 100);
    blocks.extend((0..2 * one_heap / each).map(|_| vec![7_u8; each]));
    assert!(blocks.iter().all(|block| ZeroOnFree::guards(block.as_ptr())), "{:?}", tally());
    assert_eq!(tally().ordinary_bytes, 0);
    while blocks.len() < blocks.capacity() {
        blocks.push(vec![7_u8; each]);
    }
    let ordinary: usize = blocks.iter().filter(|block| !ZeroOnFree::guards(block.as_ptr())).map(Vec::len).sum();
    let counts = tally();
    assert!(ordinary > 0 && counts.ordinary_bytes >= ordinary as u64, "{ordinary} {counts:?}");
    assert!(counts.page_bytes > all as u64 / 10 * 9, "{counts:?}");
    assert!(blocks.iter().all(|block| block.iter().all(|byte| *byte == 7)));
    drop(blocks);
    let again = vec![1_u8; each];
    assert!(ZeroOnFree::guards(again.as_ptr()), "what was freed is used again");
    let lines = HostZeroizer::new().zeroize().unwrap().not_covered;
    assert!(lines.iter().any(|line| line.contains("of smaller blocks, all together")), "{lines:?}");
}
