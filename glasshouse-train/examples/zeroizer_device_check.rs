//! One trip to a CUDA device for its zeroizer: how fast it is, whether a scan of device memory finds a canary without it
//! and does not with it, what a second process sees, and whether each defect put in is found out.
//!
//! ```text
//! cargo run --release -p glasshouse-train --features cuda --example zeroizer_device_check
//! ```
//!
//! Exits with 1 when a check fails. Takes well under a minute.
#![allow(clippy::print_stdout)]

use std::process::{Command, ExitCode};

use candle_core::{Device, Tensor};
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::traits::{WipeTarget as _, Zeroizer as _};
use glasshouse_train::cuda_zeroizer::{Block, CudaMemory, CudaZeroizer, DeviceMemory, PinnedBuffer, scan, sweep};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Values planted: 256 MiB of the canary, again and again.
const COPIES: usize = 1 << 20;
const CANARY: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("--plant") => plant(&canary(seed(&arguments))).map(|()| true),
        Some("--scan") => scanned(seed(&arguments)).map(|_| true),
        _ => checks(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAIL {error}");
            ExitCode::FAILURE
        }
    }
}

fn seed(arguments: &[String]) -> u64 {
    arguments.get(1).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Values that nothing else has, out of a seed that two processes share.
fn canary(seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Between 1 and 2: no NaN, no zero.
        f32::from_bits(0x3f80_0000 | (state >> 41) as u32)
    };
    (0..CANARY).map(|_| next()).collect()
}

fn pattern(canary: &[f32]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.chunks_mut(4).zip(canary) {
        to.copy_from_slice(&from.to_le_bytes());
    }
    bytes
}

/// Tensors with the canary, used once and dropped, as a workload leaves them.
fn plant(canary: &[f32]) -> Outcome<()> {
    let device = Device::new_cuda(0)?;
    keep_pool()?;
    let tensor = Tensor::from_vec(canary.repeat(COPIES), (COPIES, CANARY), &device)?;
    let sum = tensor.affine(1.0, 0.0)?.sum_all()?.to_scalar::<f32>()?;
    device.synchronize()?;
    println!("planted {} MiB twice (sum {sum})", (COPIES * CANARY * 4) >> 20);
    Ok(())
}

/// As training does: freed memory stays in the pool.
#[allow(unsafe_code)] // pool attributes
fn keep_pool() -> Outcome<()> {
    use cudarc::driver::sys::{CUmemPool_attribute, cuDeviceGetDefaultMemPool, cuMemPoolSetAttribute};
    let (mut pool, mut threshold) = (std::ptr::null_mut(), u64::MAX);
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: both out-parameters live and have the types that the driver names for them.
    unsafe {
        cuDeviceGetDefaultMemPool(&mut pool, 0).result()?;
        cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()).result()?;
    }
    Ok(())
}

fn scanned(seed: u64) -> Outcome<(u64, u64)> {
    let (bytes, found) = scan(pattern(&canary(seed)))?;
    println!("scanned {:.1} GiB of device memory: {found} copies of the canary", bytes as f64 / (1_u64 << 30) as f64);
    Ok((bytes, found))
}

fn checks() -> Outcome<bool> {
    let mut good = true;
    let mut check = |name: &str, holds: bool| {
        println!("{} {name}", if holds { "pass" } else { "FAIL" });
        good &= holds;
    };

    println!("## speed");
    for _ in 0..3 {
        let swept = sweep(&mut CudaMemory::open()?)?;
        let rate = |time: std::time::Duration| swept.bytes as f64 / time.as_secs_f64() / 1e12;
        println!(
            "{} of {} bytes in {} blocks: taking {:?}, overwriting {:?} ({:.2} TB/s), reading back {:?} ({:.2} TB/s)",
            swept.bytes,
            swept.total,
            swept.blocks,
            swept.taking,
            swept.overwriting,
            rate(swept.overwriting),
            swept.reading,
            rate(swept.reading)
        );
        check(
            "overwrites and reads back at 2 TB/s or more",
            rate(swept.overwriting) >= 2.0 && rate(swept.reading) >= 2.0,
        );
    }
    plant(&canary(2))?;
    let receipt = CudaZeroizer::over(HostZeroizer::new(), CudaMemory::open).zeroize()?;
    println!("{}", serde_json::to_string_pretty(&receipt)?);
    check("adds less than 2 s to a run", receipt.millis < 2000);

    println!("## a canary, looked for in this process");
    plant(&canary(3))?;
    let in_pool = in_pool(3)?;
    println!("in memory that the pool gives out again: {in_pool} copies");
    let (_, unwiped) = scanned(3)?;
    check("found with wiping off", unwiped + in_pool > 0);
    if unwiped == 0 {
        println!("the driver scrubs what it gives out even to the same process: only the pool shows the canary");
    }
    plant(&canary(4))?;
    CudaZeroizer::over(HostZeroizer::new(), CudaMemory::open).zeroize()?;
    check("not found with wiping on", scanned(4)?.1 == 0 && self::in_pool(4)? == 0);

    println!("## a tensor that is still alive");
    let alive = {
        let device = Device::new_cuda(0)?;
        let alive = Tensor::zeros(4, candle_core::DType::F32, &device)?;
        plant(&canary(7))?;
        alive
    };
    let refused = CudaZeroizer::over(HostZeroizer::new(), CudaMemory::open).zeroize();
    println!("{}", refused.as_ref().map_or_else(ToString::to_string, |_| "a receipt".to_owned()));
    check("no receipt while the pool keeps memory", refused.is_err());
    drop(alive);
    check("a receipt once it is gone", CudaZeroizer::over(HostZeroizer::new(), CudaMemory::open).zeroize().is_ok());

    println!("## a canary, looked for by a second process");
    let program = std::env::current_exe()?;
    let other = |arguments: [&str; 2]| -> Outcome<String> {
        let output = Command::new(&program).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    println!("first: {}", other(["--plant", "5"])?);
    let said = other(["--scan", "5"])?;
    println!("second: {said}");
    match said.contains(" 0 copies") {
        true => {
            println!("with wiping off, too: the driver scrubs memory between processes, and this scan has no power")
        }
        false => println!("with wiping off a second process finds it: the driver does not scrub"),
    }

    println!("## defects put in");
    for flaw in [Flaw::OverwritesNothing, Flaw::SkipsOneBlock, Flaw::SkipsTail, Flaw::TakesLess] {
        let outcome = sweep(&mut Flawed { device: CudaMemory::open()?, flaw, overwritten: 0 });
        println!("{flaw:?}: {}", outcome.as_ref().map_or_else(ToString::to_string, |swept| format!("{swept:?}")));
        check("found out", outcome.is_err());
    }

    println!("## page-locked buffers");
    let context = cudarc::driver::CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let mut buffer = PinnedBuffer::new(&context, 1 << 20)?;
    let (sent, mut back) = (canary(6).repeat(50_000), vec![0.0; CANARY * 50_000]);
    let mut place = stream.alloc_zeros::<f32>(sent.len())?;
    buffer.upload(&stream, &sent, &mut place.as_view_mut())?;
    check("wiped after an upload", buffer.is_wiped()?);
    buffer.download(&stream, &place, 0, &mut back)?;
    check("wiped after a download, and everything came back", buffer.is_wiped()? && sent == back);
    Ok(good)
}

#[allow(unsafe_code)] // raw device memory
fn fill(block: &Block) -> Result<(), String> {
    use cudarc::driver::sys::{cuCtxSynchronize, cuMemsetD32_v2};
    // SAFETY: a block just taken, which nothing else uses; finished before this returns.
    let filled = unsafe {
        cuMemsetD32_v2(block.address, 0xa5a5_a5a5, (block.bytes / 4) as usize)
            .result()
            .and_then(|()| cuCtxSynchronize().result())
    };
    filled.map_err(|error| error.to_string())
}

/// Copies of the canary in what the memory pool gives out again.
#[allow(unsafe_code)] // memory that is not initialized, on purpose
fn in_pool(seed: u64) -> Outcome<u64> {
    use cudarc::driver::DevicePtr as _;
    let stream = cudarc::driver::CudaContext::new(0)?.default_stream();
    // SAFETY: read only by a kernel that compares it.
    let again = unsafe { stream.alloc::<f32>(COPIES * CANARY)? };
    stream.synchronize()?;
    let address = again.device_ptr(&stream).0;
    let block = Block { address, bytes: (COPIES * CANARY * 4) as u64 };
    Ok(CudaMemory::open()?.count_pattern(&block, pattern(&canary(seed)))?)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    OverwritesNothing,
    SkipsOneBlock,
    SkipsTail,
    TakesLess,
}

struct Flawed {
    device: CudaMemory,
    flaw: Flaw,
    overwritten: u64,
}

impl DeviceMemory for Flawed {
    fn trim(&mut self) -> Result<u64, String> {
        self.device.trim()
    }
    fn free_and_total(&mut self) -> Result<(u64, u64), String> {
        self.device.free_and_total()
    }
    fn take(&mut self, bytes: u64) -> Option<Block> {
        if self.flaw == Flaw::TakesLess && !(1 << 30..=16 << 30).contains(&bytes) {
            return None;
        }
        // Full of something that is not zero, whether or not the driver scrubs what it gives out.
        let block = self.device.take(bytes)?;
        fill(&block).ok().map(|()| block)
    }
    fn overwrite(&mut self, block: &Block) -> Result<(), String> {
        self.overwritten += 1;
        match self.flaw {
            Flaw::OverwritesNothing => Ok(()),
            Flaw::SkipsOneBlock if self.overwritten == 1 => Ok(()),
            Flaw::SkipsTail => self.device.overwrite(&Block { address: block.address, bytes: block.bytes - (1 << 20) }),
            _ => self.device.overwrite(block),
        }
    }
    fn words_not_zero(&mut self, block: &Block) -> Result<u64, String> {
        self.device.words_not_zero(block)
    }
    fn wait(&mut self) -> Result<(), String> {
        self.device.wait()
    }
    fn give_back(&mut self, block: Block) -> Result<(), String> {
        self.device.give_back(block)
    }
}
