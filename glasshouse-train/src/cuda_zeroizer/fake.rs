//! A device that is a memory map, with a switch for each way to fail.

use super::memory::{Block, DeviceMemory};

/// Compared at once: a byte at a time, hundreds of megabytes take a minute in a debug build.
const PAGE: usize = 4096;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    OverwritesNothing,
    OverwritesAllButTheLastByte,
    /// Calls memory free and does not give it.
    Hoards,
    OverwriteFails,
    ReadFails,
    WaitFails,
    TrimFails,
    /// Something in the pool is in use.
    PoolKeeps,
    ReturnFails,
    /// As a driver does whose device runs a kernel that never ends.
    HangsInTrim,
    HangsInReturn,
    Panics,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Workload,
    Pool,
    Taken,
}

pub(crate) struct Fake {
    memory: Vec<u8>,
    /// Start, length, whose.
    used: Vec<(u64, u64, Use)>,
    flaw: Flaw,
}

impl Fake {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { memory: vec![0; bytes as usize], used: Vec::new(), flaw: Flaw::None }
    }

    pub(crate) fn used(mut self, start: u64, bytes: u64) -> Self {
        self.used.push((start, bytes, Use::Workload));
        self
    }

    pub(crate) fn pooled(mut self, start: u64, bytes: u64) -> Self {
        self.used.push((start, bytes, Use::Pool));
        self
    }

    pub(crate) fn filled(mut self, with: u8) -> Self {
        self.memory.fill(with);
        self
    }

    pub(crate) fn with(mut self, flaw: Flaw) -> Self {
        self.memory.fill(0xa5);
        self.flaw = flaw;
        self
    }

    pub(crate) fn taken(&self) -> usize {
        self.used.iter().filter(|(_, _, by)| *by == Use::Taken).count()
    }

    pub(crate) fn bytes_like(&self, value: u8) -> u64 {
        let whole = [value; PAGE];
        let in_page = |page: &[u8]| match page == &whole[..page.len()] {
            true => page.len(),
            false => page.iter().filter(|byte| **byte == value).count(),
        };
        self.memory.chunks(PAGE).map(in_page).sum::<usize>() as u64
    }

    fn told(&self, flaw: Flaw) -> Result<(), String> {
        if self.flaw == flaw { Err("told to fail".to_owned()) } else { Ok(()) }
    }

    fn hangs(&self, flaw: Flaw) {
        if self.flaw == flaw {
            loop {
                std::thread::park();
            }
        }
    }

    fn slice(&mut self, block: &Block) -> &mut [u8] {
        let start = block.address as usize;
        &mut self.memory[start..start + block.bytes as usize]
    }
}

impl DeviceMemory for Fake {
    fn trim(&mut self) -> Result<u64, String> {
        assert!(self.flaw != Flaw::Panics, "told to panic");
        self.hangs(Flaw::HangsInTrim);
        self.told(Flaw::TrimFails)?;
        let flaw = self.flaw;
        self.used.retain(|(_, _, by)| *by != Use::Pool || flaw == Flaw::PoolKeeps);
        Ok(self.used.iter().filter(|(_, _, by)| *by == Use::Pool).map(|(_, bytes, _)| bytes).sum())
    }

    fn free_and_total(&mut self) -> Result<(u64, u64), String> {
        let total = self.memory.len() as u64;
        Ok((total - self.used.iter().map(|(_, bytes, _)| bytes).sum::<u64>(), total))
    }

    fn take(&mut self, bytes: u64) -> Option<Block> {
        if self.flaw == Flaw::Hoards && self.taken() > 0 {
            return None;
        }
        let bytes = if self.flaw == Flaw::Hoards { bytes / 4 } else { bytes };
        self.used.sort_by_key(|(start, _, _)| *start);
        let mut at = 0;
        let end = (self.memory.len() as u64, 0, Use::Workload);
        for (start, length, _) in self.used.iter().copied().chain([end]) {
            if start - at >= bytes {
                self.used.push((at, bytes, Use::Taken));
                return Some(Block { address: at, bytes });
            }
            at = start + length;
        }
        None
    }

    fn overwrite(&mut self, block: &Block) -> Result<(), String> {
        self.told(Flaw::OverwriteFails)?;
        let flaw = self.flaw;
        let slice = self.slice(block);
        let end = slice.len();
        match flaw {
            Flaw::OverwritesNothing => {}
            Flaw::OverwritesAllButTheLastByte => slice[..end - 1].fill(0),
            _ => slice.fill(0),
        }
        Ok(())
    }

    fn words_not_zero(&mut self, block: &Block) -> Result<u64, String> {
        self.told(Flaw::ReadFails)?;
        let zeros = [0; PAGE];
        let dirty = self.slice(block).chunks(PAGE).filter(|page| *page != &zeros[..page.len()]);
        Ok(dirty.flat_map(|page| page.chunks(4)).filter(|word| word.iter().any(|byte| *byte != 0)).count() as u64)
    }

    fn wait(&mut self) -> Result<(), String> {
        self.told(Flaw::WaitFails)
    }

    fn give_back(&mut self, block: Block) -> Result<(), String> {
        self.hangs(Flaw::HangsInReturn);
        self.told(Flaw::ReturnFails)?;
        self.used.retain(|(start, _, by)| *start != block.address || *by != Use::Taken);
        Ok(())
    }
}
