//! Taking all free memory of a device, overwriting it, reading it back, returning it.

use std::time::{Duration, Instant};

use glasshouse_core::traits::{WipedRegion, ZeroizeError};

use super::memory::{Block, DeviceMemory};
use super::{REGION, not_wiped};

/// Free memory that is left alone: the driver itself allocates while it is asked for the rest.
pub const MARGIN: u64 = 32 << 20;
/// Blocks are halved down to this: the granularity of CUDA's allocations.
pub const SMALLEST_BLOCK: u64 = 2 << 20;

pub(super) const NOT_REACHABLE: &str =
    "registers, shared memory and caches of the device, and the driver's own staging buffers: not reachable from here";

/// Of the host's pages that a `PinnedBuffer` copies through.
pub(super) const PAGE_LOCKED: &str = "page-locked host buffers of copies to and from the device: wiped after each copy and before they go back to the driver, \
     and not read back";

/// What a sweep did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// Blocks taken.
    pub blocks: u64,
    /// Bytes overwritten and read back.
    pub bytes: u64,
    /// Bytes of the device in all.
    pub total: u64,
    /// Bytes that were free and could not be taken: at most [`MARGIN`].
    pub left: u64,
    /// Time to take the blocks.
    pub taking: Duration,
    /// Time to overwrite them.
    pub overwriting: Duration,
    /// Time to read them back.
    pub reading: Duration,
}

/// Sweeps a device. Whatever fails, what can be taken is wiped and read back all the same, and the blocks are returned.
///
/// # Errors
/// [`ZeroizeError::NotWiped`] when the driver fails, or keeps more than [`MARGIN`] of what it calls free to itself;
/// [`ZeroizeError::StillThere`] when something other than zeros is read back; [`ZeroizeError::StillHeld`] when a pool
/// keeps memory; [`ZeroizeError::Several`] of them. Each after everything that can be taken was wiped.
pub fn sweep(device: &mut impl DeviceMemory) -> Result<Swept, ZeroizeError> {
    let mut failures = Vec::new();
    match device.trim() {
        Ok(0) => {}
        Ok(bytes) => failures.push(pool_keeps(bytes)),
        Err(why) => failures.push(not_wiped(why)),
    }
    let mut blocks = Vec::new();
    let swept = take_and_wipe(device, &mut blocks, &mut failures);
    for block in blocks {
        note(&mut failures, device.give_back(block).map_err(not_wiped));
    }
    match ZeroizeError::of(failures) {
        None => Ok(swept),
        Some(error) => Err(error),
    }
}

/// One tensor that is still alive keeps a whole stretch of the pool, with whatever was freed in it, out of reach.
fn pool_keeps(bytes: u64) -> ZeroizeError {
    let what =
        "device memory that the pool keeps because something in it is in use; drop every tensor first".to_owned();
    ZeroizeError::StillHeld { bytes, what }
}

/// What it gives means something when there are no failures.
fn take_and_wipe(device: &mut impl DeviceMemory, blocks: &mut Vec<Block>, failures: &mut Vec<ZeroizeError>) -> Swept {
    let start = Instant::now();
    let left = take_all(device, blocks).map_err(not_wiped).and_then(given);
    let left = left.unwrap_or_else(|error| {
        failures.push(error);
        0
    });
    let total = device.free_and_total().map(|(_, total)| total).map_err(not_wiped);
    let total = total.unwrap_or_else(|error| {
        failures.push(error);
        0
    });
    let taking = start.elapsed();
    let start = Instant::now();
    overwrite_all(device, blocks, failures);
    let overwriting = start.elapsed();
    let start = Instant::now();
    read_all_back(device, blocks, failures);
    let bytes = blocks.iter().fold(0, |sum: u64, block| sum.saturating_add(block.bytes));
    let count = u64::try_from(blocks.len()).unwrap_or(u64::MAX);
    Swept { blocks: count, bytes, total, left, taking, overwriting, reading: start.elapsed() }
}

/// Takes what there is, and gives how much is left. What was taken is in `blocks` however it ends.
pub(super) fn take_all(device: &mut impl DeviceMemory, blocks: &mut Vec<Block>) -> Result<u64, String> {
    let (mut free, _) = device.free_and_total()?;
    let mut size = free.saturating_sub(MARGIN) / SMALLEST_BLOCK * SMALLEST_BLOCK;
    while size >= SMALLEST_BLOCK {
        let room = free.saturating_sub(MARGIN) / SMALLEST_BLOCK * SMALLEST_BLOCK;
        match (room >= size).then(|| device.take(size)).flatten() {
            Some(block) => {
                blocks.push(block);
                (free, _) = device.free_and_total()?;
                size = size.min(free.saturating_sub(MARGIN) / SMALLEST_BLOCK * SMALLEST_BLOCK);
            }
            // In pieces: free memory need not lie together.
            None => size = size / 2 / SMALLEST_BLOCK * SMALLEST_BLOCK,
        }
    }
    Ok(device.free_and_total()?.0)
}

/// What is left must not be more than the margin.
fn given(left: u64) -> Result<u64, ZeroizeError> {
    match left > MARGIN.saturating_add(SMALLEST_BLOCK) {
        true => Err(not_wiped(format!("the driver calls {left} bytes free and does not give them"))),
        false => Ok(left),
    }
}

fn overwrite_all(device: &mut impl DeviceMemory, blocks: &[Block], failures: &mut Vec<ZeroizeError>) {
    for block in blocks {
        note(failures, device.overwrite(block).map_err(not_wiped));
    }
    note(failures, device.wait().map_err(not_wiped));
}

fn read_all_back(device: &mut impl DeviceMemory, blocks: &[Block], failures: &mut Vec<ZeroizeError>) {
    for block in blocks {
        let read = device.words_not_zero(block).map_err(not_wiped);
        let there = ZeroizeError::StillThere { region: REGION.to_owned() };
        note(failures, read.and_then(|words| if words > 0 { Err(there) } else { Ok(()) }));
    }
}

/// Each kind of failure is said once, however many blocks it happens to.
fn note(failures: &mut Vec<ZeroizeError>, outcome: Result<(), ZeroizeError>) {
    let Err(error) = outcome else { return };
    let said = error.to_string();
    if failures.iter().all(|before| before.to_string() != said) {
        failures.push(error);
    }
}

impl Swept {
    /// Its line in a receipt.
    pub fn region(&self) -> WipedRegion {
        WipedRegion {
            label: REGION.to_owned(),
            bytes: self.bytes,
            method: format!("all that the driver gave, in {} blocks, overwritten with zeros", self.blocks),
            verification: "every 4-byte word read back by a kernel on the device".to_owned(),
        }
    }

    /// What it does not speak for, and why, a sentence each.
    pub fn not_covered(&self) -> Vec<String> {
        let kept = self.total.saturating_sub(self.bytes).saturating_sub(self.left);
        vec![
            format!("{} bytes of device memory left free as a margin: the driver allocates while it works", self.left),
            format!(
                "{kept} bytes of device memory in use and so out of reach: the driver and its context, loaded kernels, \
                 cuBLAS workspaces and CUDA graph memory still alive, and other processes on the device; the context's \
                 end returns them"
            ),
            NOT_REACHABLE.to_owned(),
            PAGE_LOCKED.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, Flaw};
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn everything_free_is_wiped_but_the_margin_and_nothing_in_use() {
        let mut device = Fake::new(100 * MIB).used(7 * MIB, 3 * MIB).used(40 * MIB, MIB).filled(0xa5);
        let swept = sweep(&mut device).unwrap();
        assert_eq!((swept.total, swept.left), (100 * MIB, MARGIN));
        assert_eq!(swept.bytes, 64 * MIB);
        assert_eq!(device.taken(), 0, "blocks are returned");
        assert_eq!(device.bytes_like(0xa5), 36 * MIB, "what was in use, and the margin");
    }

    #[test]
    fn a_pool_is_trimmed_first() {
        let mut device = Fake::new(100 * MIB).pooled(10 * MIB, 60 * MIB).filled(0xa5);
        sweep(&mut device).unwrap();
        assert_eq!(device.bytes_like(0xa5), MARGIN);
    }

    #[test]
    fn fragments_are_taken_in_small_blocks() {
        let mut device = Fake::new(200 * MIB).filled(0xa5);
        for at in (0..200).step_by(10) {
            device = device.used(at * MIB, MIB);
        }
        let swept = sweep(&mut device).unwrap();
        assert!(swept.blocks > 10, "{swept:?}");
        assert!(device.bytes_like(0xa5) <= 20 * MIB + MARGIN + SMALLEST_BLOCK, "{swept:?}");
    }

    #[test]
    fn whoever_lies_is_found_out_and_blocks_are_returned_all_the_same() {
        // What is left of 80 MiB of 0xa5: the margin, and what cannot be taken or is not wiped.
        for (flaw, says, left) in [
            (Flaw::OverwritesNothing, "still holds data", 80 * MIB),
            (Flaw::OverwritesAllButTheLastByte, "still holds data", MARGIN + 1),
            (Flaw::Hoards, "does not give them", 68 * MIB),
            (Flaw::OverwriteFails, "told to fail", 80 * MIB),
            (Flaw::ReadFails, "told to fail", MARGIN),
            (Flaw::WaitFails, "told to fail", MARGIN),
            (Flaw::TrimFails, "told to fail", MARGIN + 20 * MIB),
            (Flaw::PoolKeeps, "drop every tensor first", MARGIN + 20 * MIB),
            (Flaw::ReturnFails, "told to fail", MARGIN),
        ] {
            let mut device = Fake::new(80 * MIB).pooled(0, 20 * MIB).with(flaw);
            let error = sweep(&mut device).unwrap_err().to_string();
            assert!(error.contains(says), "{flaw:?}: {error}");
            assert!(device.taken() == 0 || flaw == Flaw::ReturnFails, "{flaw:?}");
            assert_eq!(device.bytes_like(0xa5), left, "{flaw:?}: what can be taken is wiped all the same");
        }
    }

    #[test]
    fn one_block_that_fails_leaves_no_other_unwiped() {
        let mut device = Fake::new(200 * MIB);
        for at in (0..200).step_by(10) {
            device = device.used(at * MIB, MIB);
        }
        let mut device = device.with(Flaw::FirstOverwriteFails);
        let error = sweep(&mut device).unwrap_err();
        let ZeroizeError::Several(failures) = &error else { panic!("{error}") };
        assert_eq!(failures.len(), 2, "not overwritten, and read back as such: {error}");
        assert_eq!(device.taken(), 0);
        let one_block = 16 * MIB;
        let unwiped = device.bytes_like(0xa5);
        assert!(unwiped <= 20 * MIB + MARGIN + SMALLEST_BLOCK + one_block, "{unwiped}");
    }

    #[test]
    fn a_full_device_has_nothing_to_wipe() {
        let swept = sweep(&mut Fake::new(64 * MIB).used(0, 64 * MIB)).unwrap();
        assert_eq!((swept.blocks, swept.bytes, swept.left), (0, 0, 0));
    }
}
