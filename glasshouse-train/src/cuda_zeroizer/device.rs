//! The first CUDA device's memory through the driver.
#![allow(unsafe_code)] // raw device memory and kernel launches; every block is owned by a sweep

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::{
    CUmemPool_attribute, CUresult, cuDeviceGetDefaultMemPool, cuDeviceGraphMemTrim, cuMemAlloc_v2, cuMemFree_v2,
    cuMemGetInfo_v2, cuMemPoolGetAttribute, cuMemPoolTrimTo, cuMemcpyDtoH_v2, cuMemsetD32Async, cuStreamQuery,
};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, LaunchConfig, PushKernelArg as _};
use cudarc::nvrtc::Ptx;

use super::held::{WhileHeld, is_held};
use super::memory::{Block, DeviceMemory};
use super::sweep::take_all;

const KERNELS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/zeroizer.fatbin"));
/// Overwriting 141 GB takes a tenth of a second; a device that has not finished by then does not answer any more.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
const THREADS: u32 = 512;
/// Four blocks of threads for each multiprocessor of the largest devices.
const BLOCKS: u32 = 4 * 160;

/// The first CUDA device, with everything made that a sweep needs before it takes the memory for it.
pub struct CudaMemory {
    context: WhileHeld<Arc<CudaContext>>,
    stream: WhileHeld<Arc<CudaStream>>,
    words_not_zero: WhileHeld<CudaFunction>,
    find_pattern: WhileHeld<CudaFunction>,
    /// One u64. Not from the pool, of which it would keep a whole stretch from being trimmed.
    sum: Block,
}

impl Drop for CudaMemory {
    fn drop(&mut self) {
        let _ = self.give_back(self.sum);
    }
}

impl CudaMemory {
    /// Opens it.
    ///
    /// # Errors
    /// In a sentence, when the driver does not answer.
    pub fn open() -> Result<Self, String> {
        is_held()?;
        let context = WhileHeld::new(told("opening CUDA device 0", CudaContext::new(0))?);
        let stream = WhileHeld::new(told("making a stream", context.new_stream())?);
        let module = told("loading the kernels", context.load_module(Ptx::from_binary(KERNELS.to_vec())));
        let module = WhileHeld::new(module?);
        let function = |name| told("loading a kernel", module.load_function(name)).map(WhileHeld::new);
        let (words_not_zero, find_pattern) = (function("words_not_zero")?, function("find_pattern")?);
        let sum = take(&context, 16).ok_or_else(|| "allocating a counter failed".to_owned())?;
        let mut device = Self { context, stream, words_not_zero, find_pattern, sum };
        // Drivers load kernels when they are first launched, and then there may be no memory left for it.
        let itself = device.sum;
        device.words_not_zero(&itself)?;
        device.count_pattern(&itself, [1; 16])?;
        Ok(device)
    }

    /// How often 16 bytes stand in a block, at addresses that are multiples of 4.
    ///
    /// # Errors
    /// In a sentence, when the driver does not answer.
    pub fn count_pattern(&mut self, block: &Block, pattern: [u8; 16]) -> Result<u64, String> {
        let word = |at: usize| pattern.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes);
        let (words, pattern) = (block.bytes / 4, [word(0), word(4), word(8), word(12)]);
        self.clear_sum()?;
        let mut launch = self.stream.launch_builder(&self.find_pattern);
        launch.arg(&block.address).arg(&words);
        pattern.iter().for_each(|word| {
            launch.arg(word);
        });
        launch.arg(&self.sum.address);
        // SAFETY: arguments as `find_pattern` in kernels.cu takes them; the block is allocated and read only within.
        told("find_pattern", unsafe { launch.launch(grid()) })?;
        self.read_sum()
    }

    fn clear_sum(&mut self) -> Result<(), String> {
        let sum = self.sum;
        self.overwrite(&sum)
    }

    fn read_sum(&mut self) -> Result<u64, String> {
        self.wait()?;
        let mut sum = 0_u64;
        let to = (&raw mut sum).cast();
        // SAFETY: both ends hold 8 bytes and live; the stream that writes there has finished.
        told("reading a counter", unsafe { cuMemcpyDtoH_v2(to, self.sum.address, size_of::<u64>()).result() })?;
        Ok(sum)
    }
}

/// Straight from the driver.
fn take(context: &Arc<CudaContext>, bytes: u64) -> Option<Block> {
    context.bind_to_thread().ok()?;
    let mut address = 0;
    // SAFETY: the out-parameter lives; the context is current. `give_back` frees it.
    unsafe { cuMemAlloc_v2(&mut address, usize::try_from(bytes).ok()?).result() }.ok()?;
    Some(Block { address, bytes })
}

/// Takes all memory that the device gives, without changing it, and counts 16 bytes in it: bytes looked at, and finds.
///
/// # Errors
/// In a sentence, when the driver does not answer.
pub fn scan(pattern: [u8; 16]) -> Result<(u64, u64), String> {
    let mut device = CudaMemory::open()?;
    device.trim()?;
    let mut blocks = Vec::new();
    // What it does not give is not looked at: a scan claims nothing about it.
    let taken = take_all(&mut device, &mut blocks);
    let looked = taken.and_then(|_| {
        blocks.iter().try_fold((0, 0), |(bytes, found): (u64, u64), block| {
            Ok((bytes.saturating_add(block.bytes), found.saturating_add(device.count_pattern(block, pattern)?)))
        })
    });
    let returned: Vec<_> = blocks.into_iter().map(|block| device.give_back(block)).collect();
    let looked = looked?;
    returned.into_iter().collect::<Result<(), _>>()?;
    Ok(looked)
}

impl DeviceMemory for CudaMemory {
    fn trim(&mut self) -> Result<u64, String> {
        is_held()?;
        // Every stream of the context, candle's too: what they still use cannot be trimmed.
        told("waiting for the device", self.context.synchronize())?;
        is_held()?;
        let (mut pool, mut reserved) = (std::ptr::null_mut(), 0_u64);
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
        // SAFETY: the out-parameters live and have the types that the driver names for them (u64 for this attribute),
        // and the context is current on this thread: it was synchronized here.
        unsafe {
            told("finding the memory pool", cuDeviceGetDefaultMemPool(&mut pool, 0).result())?;
            told("trimming the memory pool", cuMemPoolTrimTo(pool, 0).result())?;
            told("trimming graph memory", cuDeviceGraphMemTrim(0).result())?;
            let value = (&raw mut reserved).cast();
            told("asking the memory pool", cuMemPoolGetAttribute(pool, attribute, value).result())?;
        }
        Ok(reserved)
    }

    fn free_and_total(&mut self) -> Result<(u64, u64), String> {
        is_held()?;
        told("using the device", self.context.bind_to_thread())?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both out-parameters live; the context is current.
        told("asking for free memory", unsafe { cuMemGetInfo_v2(&mut free, &mut total).result() })?;
        Ok((free as u64, total as u64))
    }

    fn take(&mut self, bytes: u64) -> Option<Block> {
        is_held().ok()?;
        take(&self.context, bytes)
    }

    fn overwrite(&mut self, block: &Block) -> Result<(), String> {
        is_held()?;
        let words = told("a size", usize::try_from(block.bytes / 4))?;
        // SAFETY: a block that `take` gave and nothing else uses.
        told("overwriting", unsafe { cuMemsetD32Async(block.address, 0, words, self.stream.cu_stream()).result() })
    }

    fn words_not_zero(&mut self, block: &Block) -> Result<u64, String> {
        is_held()?;
        self.clear_sum()?;
        let vectors = block.bytes / 16;
        let mut launch = self.stream.launch_builder(&self.words_not_zero);
        launch.arg(&block.address).arg(&vectors).arg(&self.sum.address);
        // SAFETY: arguments as `words_not_zero` in kernels.cu takes them; the block is read only within.
        told("words_not_zero", unsafe { launch.launch(grid()) })?;
        self.read_sum()
    }

    fn wait(&mut self) -> Result<(), String> {
        let start = Instant::now();
        loop {
            is_held()?;
            // SAFETY: the stream lives as long as `self`.
            match unsafe { cuStreamQuery(self.stream.cu_stream()) } {
                CUresult::CUDA_SUCCESS => return Ok(()),
                CUresult::CUDA_ERROR_NOT_READY if start.elapsed() < LONGEST_WAIT => std::thread::yield_now(),
                CUresult::CUDA_ERROR_NOT_READY => return Err(format!("the device did not finish in {LONGEST_WAIT:?}")),
                error => return told("waiting for the device", error.result()),
            }
        }
    }

    fn give_back(&mut self, block: Block) -> Result<(), String> {
        is_held()?;
        told("using the device", self.context.bind_to_thread())?;
        // SAFETY: a block that `take` gave, given up by whoever held it.
        told("freeing", unsafe { cuMemFree_v2(block.address).result() })
    }
}

fn grid() -> LaunchConfig {
    LaunchConfig { grid_dim: (BLOCKS, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 }
}

pub(super) fn told<T, E: Display>(what: &str, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|error| format!("{what} failed: {error}"))
}
