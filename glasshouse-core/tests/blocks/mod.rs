//! What tests of the allocator's guarded blocks share: blocks that know what is in them, and the kernel as the witness.
#![allow(dead_code)] // each test uses some of it

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use glasshouse_core::host_memory::ZeroOnFree;
use proptest::prelude::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, remove_capability_from_bounding_set};

pub(crate) const LARGE: usize = 64 << 10;

/// Counts and locks are the process's: one test at a time.
pub(crate) fn guarded() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    ZeroOnFree::guard();
    one
}

/// Runs a test of this executable again under each of these limits (a word and a number), in a process of its own: there it
/// gives the limit, and here nothing.
pub(crate) fn under_each(test: &str, limits: &[&str]) -> Option<(String, usize)> {
    const CHILD: &str = "GLASSHOUSE_TEST_LIMITS";
    if let Ok(limits) = std::env::var(CHILD) {
        let (what, limit) = limits.split_once(' ').unwrap();
        return Some((what.to_owned(), limit.parse().unwrap()));
    }
    for limits in limits {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env(CHILD, limits);
        // Root may lock without limit, in each of its threads, and has this back with every program that it starts.
        // SAFETY: one system call, which allocates nothing.
        unsafe {
            child.pre_exec(|| {
                let _ = remove_capability_from_bounding_set(CapabilitySet::IPC_LOCK);
                Ok(())
            });
        }
        let output = child.output().unwrap();
        assert!(output.status.success(), "{limits}: {}", String::from_utf8_lossy(&output.stderr));
    }
    None
}

/// Sets a limit of this process, which has to be one of its own.
pub(crate) fn set_limit(resource: Resource, bytes: u64) {
    setrlimit(resource, Rlimit { current: Some(bytes), maximum: getrlimit(resource).maximum }).unwrap();
}

/// Guards with so many bytes to lock, for all blocks together. In a process of [`under_each`]'s.
pub(crate) fn guard_with_a_lock_limit(limit: usize) {
    assert!(!capabilities(None).unwrap().effective.contains(CapabilitySet::IPC_LOCK), "locks without limit");
    set_limit(Resource::Memlock, limit as u64);
    ZeroOnFree::guard();
}

/// A block with its own pattern, which it must still have whenever it is looked at.
pub(crate) struct Block {
    pub(crate) at: *mut u8,
    layout: Layout,
    seed: u8,
}

impl Block {
    pub(crate) fn new(size: usize, align: usize, seed: u8, zeroed: bool) -> Self {
        let layout = Layout::from_size_align(size.max(1), align).unwrap();
        // SAFETY: a layout that is not empty.
        let at = unsafe { if zeroed { alloc_zeroed(layout) } else { alloc(layout) } };
        assert!(!at.is_null() && at.addr().is_multiple_of(align));
        if zeroed || size >= LARGE && ZeroOnFree::guards(at) {
            // SAFETY: zeros by `alloc_zeroed`, or pages of its own, which are zeros until they are written (small blocks share theirs).
            assert!(unsafe { std::slice::from_raw_parts(at, layout.size()) }.iter().all(|byte| *byte == 0));
        }
        let mut block = Self { at, layout, seed };
        block.write(0);
        block
    }

    /// Bytes that repeat after 251, which divides no size here: what is moved by a page is seen.
    fn write(&mut self, from: usize) {
        // SAFETY: inside the block, which was written up to there.
        unsafe { self.at.add(from).write_bytes(0, self.layout.size() - from) };
        // SAFETY: the block is the caller's, and all of it is initialized.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.at, self.layout.size()) };
        let period = period(self.seed);
        bytes.chunks_mut(251).for_each(|chunk| chunk.copy_from_slice(&period[..chunk.len()]));
    }

    pub(crate) fn check(&self, size: usize) {
        assert!(self.is_as_written(size));
    }

    pub(crate) fn is_as_written(&self, size: usize) -> bool {
        let period = period(self.seed);
        // SAFETY: written in full when it was made or grown.
        let bytes = unsafe { std::slice::from_raw_parts(self.at, size) };
        bytes.chunks(251).all(|chunk| *chunk == period[..chunk.len()])
    }

    fn resize(&mut self, size: usize) {
        let old = self.layout.size();
        // SAFETY: the block's own layout; the new size is not zero.
        self.at = unsafe { realloc(self.at, self.layout, size.max(1)) };
        assert!(!self.at.is_null());
        self.layout = Layout::from_size_align(size.max(1), self.layout.align()).unwrap();
        self.check(old.min(size));
        self.write(old.min(size));
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.check(self.layout.size());
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.at, self.layout) };
    }
}

fn period(seed: u8) -> [u8; 251] {
    std::array::from_fn(|index| (index as u8).wrapping_mul(7).wrapping_add(seed) | 1)
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    New { size: usize, align: u32, zeroed: bool },
    Resize { which: usize, size: usize },
    Free { which: usize },
}

pub(crate) fn steps(size: impl Strategy<Value = usize> + Clone) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (size.clone(), 0..18_u32, any::<bool>()).prop_map(|(size, align, zeroed)| Step::New { size, align, zeroed }),
        3 => (any::<usize>(), size).prop_map(|(which, size)| Step::Resize { which, size }),
        2 => any::<usize>().prop_map(|which| Step::Free { which }),
    ];
    proptest::collection::vec(step, 1..24)
}

pub(crate) fn carry_out(steps: Vec<Step>) {
    let mut blocks: Vec<Block> = Vec::new();
    for (seed, step) in steps.into_iter().enumerate() {
        match step {
            Step::New { size, align, zeroed } => blocks.push(Block::new(size, 1 << align, seed as u8, zeroed)),
            Step::Resize { which, size } if !blocks.is_empty() => {
                let which = which % blocks.len();
                blocks[which].resize(size);
            }
            Step::Free { which } if !blocks.is_empty() => drop(blocks.swap_remove(which % blocks.len())),
            Step::Resize { .. } | Step::Free { .. } => {}
        }
        blocks.iter().for_each(|block| block.check(block.layout.size()));
    }
}

/// What is locked, but for pages of small blocks: a test has those, too.
pub(crate) fn locked_kib() -> usize {
    let small = || ZeroOnFree::small_blocks().unwrap_or_default();
    loop {
        // Other tests' threads begin, and open pages, whenever they like.
        let (before, all) = (small(), kib(&std::fs::read_to_string("/proc/self/status").unwrap(), "VmLck:"));
        if before == small() {
            return all - usize::try_from(before.page_bytes - before.unlocked_page_bytes).unwrap() / 1024;
        }
    }
}

pub(crate) fn resident_kib() -> usize {
    kib(&std::fs::read_to_string("/proc/self/status").unwrap(), "VmRSS:")
}

pub(crate) fn kib(text: &str, name: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches("kB").trim().parse().unwrap()
}

/// What the kernel says of the mapping that holds an address.
pub(crate) fn flags(address: usize) -> String {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in text.lines() {
        if let Some((from, to)) = line.split_once(' ').and_then(|(range, _)| range.split_once('-'))
            && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
        {
            inside = (from..to).contains(&address);
        } else if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            return flags.to_owned();
        }
    }
    panic!("no mapping holds {address:#x}");
}
