//! One trip to a CUDA device for its zeroizer: how fast it is, whether a scan of device memory finds a canary without it
//! and does not with it, what a second process sees, and whether each defect put in is found out by the check that is there for it.
//!
//! ```text
//! cargo run --release -p glasshouse-train --features break-device --example zeroizer_device_check       # all of it
//! ... --example zeroizer_device_check -- --switches                 # each wipe, trim and check off, one at a time
//! ... --example zeroizer_device_check -- --without trim,pool-check  # the checks with these off: exits with 1
//! ... --example zeroizer_device_check -- --lost                     # a context lost to an illegal access, and its switches
//! ```
//!
//! Exits with 1 when a check fails, or when one that should have failed without a part of the zeroizer did not. Takes well
//! under two minutes.
#![allow(clippy::disallowed_methods, clippy::mem_forget, clippy::print_stdout)]

use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candle_core::{Device, Tensor};
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::traits::Zeroizer as _;
use glasshouse_train::cuda_zeroizer::{
    Block, CudaMemory, CudaZeroizer, DeviceMemory, DeviceZeroizer, MARGIN, PinnedBuffer, break_context, hang_context,
    scan, sweep, wipe_for_another,
};
use glasshouse_train::gpu::GpuIdentity;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Values planted: 256 MiB of the canary, again and again.
const COPIES: usize = 1 << 20;
const CANARY: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("--plant") => plant(&canary(seed(&arguments))).map(|()| true),
        Some("--scan") => scanned(seed(&arguments)).map(|_| true),
        Some("--switches") => switches(),
        Some("--lost") => lost_contexts(),
        Some("--lose") => lose(arguments.get(1).map_or("", String::as_str)),
        Some("--wipe") => return ExitCode::from(u8::try_from(wipe_for_another()).unwrap_or(1)),
        Some("--without") => without(arguments.get(1).map_or("", String::as_str)),
        // The first while this process has no context: it would hold memory of the device.
        _ => lost_contexts().and_then(|held| Ok(held & checks(&[])?.is_empty() & second_process()? & switches()?)),
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

/// A part of the zeroizer that can be taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The pool is not told to give back what it keeps.
    Trim,
    /// What the pool keeps all the same is not looked at.
    PoolCheck,
    /// Not all memory is taken.
    AllMemory,
    Overwrite,
    OneBlock,
    Tail,
    /// What was overwritten is not read back.
    ReadBack,
    /// The overwriting is not waited for.
    Wait,
    /// Blocks are not returned to the driver.
    GiveBack,
    PinnedUpload,
    PinnedDownload,
}

/// A part or two taken out, and what the check says that has to fail for it, in any of these words. Another failure is none
/// of that switch's: it shows that something else is broken.
struct Switch {
    name: &'static str,
    parts: &'static [Part],
    seen_as: &'static [&'static str],
}

const SWITCHES: [Switch; 12] = [
    switch("trim", &[Part::Trim], &["are still held"]),
    switch("pool-check", &[Part::PoolCheck], &["no receipt while the pool keeps memory"]),
    switch("trim,pool-check", &[Part::Trim, Part::PoolCheck], &["not found with wiping on"]),
    switch("all-memory", &[Part::AllMemory], &["does not give them"]),
    switch("overwrite", &[Part::Overwrite], &[STILL_THERE]),
    switch("one-block", &[Part::OneBlock], &[STILL_THERE]),
    switch("tail", &[Part::Tail], &[STILL_THERE]),
    switch("read-back", &[Part::ReadBack], &["what is not overwritten is read back as such"]),
    switch("wait", &[Part::Wait], &["and no faster than memory is"]),
    // Whatever allocates next finds nothing left.
    switch("give-back", &[Part::GiveBack], &["what was taken is returned", "CUBLAS_STATUS_ALLOC_FAILED"]),
    switch("pinned-upload", &[Part::PinnedUpload], &["wiped after an upload"]),
    switch("pinned-download", &[Part::PinnedDownload], &["wiped after a download"]),
];
const STILL_THERE: &str = "still holds data after wiping";

const fn switch(name: &'static str, parts: &'static [Part], seen_as: &'static [&'static str]) -> Switch {
    Switch { name, parts, seen_as }
}

/// Takes each part out, one at a time, and looks whether the check fails that is there for it.
fn switches() -> Outcome<bool> {
    let mut seen = Vec::new();
    for Switch { name, parts, seen_as } in SWITCHES {
        println!("## without {name}");
        let failed = checks(parts).unwrap_or_else(|error| vec![error.to_string()]);
        let is_seen = failed.iter().any(|said| seen_as.iter().any(|words| said.contains(words)));
        seen.push((name, is_seen, failed));
    }
    println!("## switches");
    for (name, is_seen, failed) in &seen {
        println!("{} without {name}: {}", if *is_seen { "pass" } else { "FAIL" }, failed.join("; "));
    }
    Ok(seen.iter().all(|(_, is_seen, _)| *is_seen))
}

fn without(name: &str) -> Outcome<bool> {
    let found = SWITCHES.into_iter().find(|switch| switch.name == name);
    let found = found.ok_or_else(|| format!("there is no switch {name:?}"))?;
    Ok(checks(found.parts)?.is_empty())
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

/// More than any device writes or reads in a second: a figure above was not waited for.
const IMPOSSIBLE: f64 = 30.0;

/// Every check with these parts of the zeroizer out; gives those that failed.
fn checks(out: &'static [Part]) -> Outcome<Vec<String>> {
    let mut failed = Vec::new();
    let mut check = |name: &str, holds: bool| {
        println!("{} {name}", if holds { "pass" } else { "FAIL" });
        if !holds {
            failed.push(name.to_owned());
        }
    };
    let zeroize = || DeviceZeroizer::over(HostZeroizer::new(), move || Switched::open(out)).zeroize();

    println!("## speed");
    let before = CudaMemory::open()?.free_and_total()?.0;
    for _ in 0..if out.is_empty() { 3 } else { 1 } {
        let swept = sweep(&mut Switched::open(out)?)?;
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
        let rates = [rate(swept.overwriting), rate(swept.reading)];
        check("overwrites and reads back at 2 TB/s or more", rates.iter().all(|rate| *rate >= 2.0));
        check("and no faster than memory is", rates.iter().all(|rate| *rate < IMPOSSIBLE));
        let after = CudaMemory::open()?.free_and_total()?.0;
        check("what was taken is returned", after.saturating_add(2 * MARGIN) >= before);
    }
    plant(&canary(2))?;
    let receipt = zeroize()?;
    println!("{}", serde_json::to_string_pretty(&receipt)?);
    check("adds less than 2 s to a run", receipt.millis < 2000);

    println!("## a canary, looked for in this process");
    if out.is_empty() {
        plant(&canary(3))?;
        let in_pool = in_pool(3)?;
        println!("in memory that the pool gives out again: {in_pool} copies");
        let (_, unwiped) = scanned(3)?;
        check("found with wiping off", unwiped + in_pool > 0);
        if unwiped == 0 {
            println!("the driver scrubs what it gives out even to the same process: only the pool shows the canary");
        }
    }
    plant(&canary(4))?;
    zeroize()?;
    // The pool first: a scan trims it.
    check("not found with wiping on", in_pool(4)? == 0 && scanned(4)?.1 == 0);

    println!("## a tensor that is still alive");
    let alive = {
        let device = Device::new_cuda(0)?;
        let alive = Tensor::zeros(4, candle_core::DType::F32, &device)?;
        plant(&canary(7))?;
        alive
    };
    let refused = zeroize();
    println!("{}", refused.as_ref().map_or_else(ToString::to_string, |_| "a receipt".to_owned()));
    check("no receipt while the pool keeps memory", refused.is_err());
    drop(alive);
    check("a receipt once it is gone", zeroize().is_ok());

    println!("## a wipe that does nothing");
    let outcome = sweep(&mut Switched { dirty: true, idle: true, ..Switched::open(out)? });
    println!("{}", outcome.as_ref().map_or_else(ToString::to_string, |swept| format!("{swept:?}")));
    check("what is not overwritten is read back as such", outcome.is_err());

    println!("## page-locked buffers");
    let context = cudarc::driver::CudaContext::new(0)?;
    let stream = context.new_stream()?;
    let mut buffer = PinnedBuffer::new(&context, 4 << 20)?;
    // In pieces, of which the last is shorter than the others.
    let (sent, mut back) = (canary(6).repeat(100_000), vec![0.0; CANARY * 100_000]);
    let clean = |buffer: &PinnedBuffer| buffer.iter().all(|word| *word == 0);
    let mut place = stream.alloc_zeros::<f32>(sent.len())?;
    buffer.upload(&stream, &sent, &mut place.as_view_mut())?;
    leave(&mut buffer, &sent, out.contains(&Part::PinnedUpload));
    check("wiped after an upload", clean(&buffer));
    buffer.fill(0);
    buffer.download(&stream, &place, 0, &mut back)?;
    leave(&mut buffer, &back, out.contains(&Part::PinnedDownload));
    check("wiped after a download", clean(&buffer));
    check("everything came back", sent == back);
    buffer.fill(0);
    buffer.download(&stream, &place, 0, &mut back[..3])?;
    check("and after a short copy that follows a long one", clean(&buffer) && sent[..3] == back[..3]);
    Ok(failed)
}

/// What an upload or a download that did not wipe would leave.
fn leave(buffer: &mut PinnedBuffer, values: &[f32], unwiped: bool) {
    if unwiped {
        for (word, value) in buffer.iter_mut().zip(values) {
            *word = u64::from(value.to_bits());
        }
    }
}

fn second_process() -> Outcome<bool> {
    println!("## a canary, looked for by a second process");
    let program = std::env::current_exe()?;
    let other = |arguments: [&str; 2]| -> Outcome<String> {
        let output = Command::new(&program).args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        // A canary that was never planted is not found either.
        match output.status.success() {
            true => Ok(said),
            false => Err(format!("{arguments:?} failed: {said}").into()),
        }
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
    Ok(said.contains("copies of the canary"))
}

/// A process that loses its context to an illegal access, as it is and with parts out, and one whose device does not answer:
/// what each must say.
fn lost_contexts() -> Outcome<bool> {
    let mut held = true;
    for (without, says) in [
        ("", "pass a receipt by a second process"),
        ("answers", "pass a receipt by a second process"),
        ("second", "CUDA_ERROR_ILLEGAL_ADDRESS"),
        ("files", "are still held"),
        ("wipe", "no report"),
    ] {
        println!(
            "## a context lost to an illegal access, without {}",
            if without.is_empty() { "nothing" } else { without }
        );
        let output = Command::new(std::env::current_exe()?).args(["--lose", without]).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        print!("{said}");
        let wiped = ["", "answers"].contains(&without);
        let as_it_must = said.contains(says) && output.status.success() == wiped;
        println!("{} it says {says:?}", if as_it_must { "pass" } else { "FAIL" });
        held &= as_it_must;
    }
    Ok(held)
}

/// Plants a canary, loses the context, and zeroizes. `without` a part: `answers` of the device, the `second` process, `files`
/// that are let go of, or the `wipe` that the second process does.
fn lose(without: &str) -> Outcome<bool> {
    let device = Device::new_cuda(0)?;
    keep_pool()?;
    let values = canary(8);
    let tensor = Tensor::from_vec(values.repeat(COPIES), (COPIES, CANARY), &device)?;
    let freed = tensor.affine(1.0, 0.0)?;
    device.synchronize()?;
    drop(freed);
    // While the device is healthy: it is asked who it is.
    let program = || Command::new("/proc/self/exe");
    let wiper = move || {
        let mut command = program();
        command.arg("--wipe");
        command
    };
    let uuid = GpuIdentity::first().map(|gpu| gpu.uuid).map_err(|error| error.to_string());
    let mut zeroizer = match without {
        "second" => CudaZeroizer::new(),
        "files" => CudaZeroizer::new().last_resort(uuid, |_| Ok(true), wiper),
        "wipe" => CudaZeroizer::new().after_an_error(move || {
            let mut command = program();
            command.args(["--scan", "8"]);
            command
        }),
        "answers" => CudaZeroizer::new().within(Duration::from_secs(3)).after_an_error(wiper),
        _ => CudaZeroizer::new().after_an_error(wiper),
    };
    match without {
        "answers" => hang_context()?,
        _ => println!("the driver says: {}", break_context()?),
    }
    let other = |argument: &str| -> Outcome<String> {
        let output = Command::new(std::env::current_exe()?).args([argument, "8"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    println!("in use, as the driver says: {}", glasshouse_train::gpu::memory_in_use()?);
    println!("a second process, while this one holds it: {}", other("--scan")?);
    if without == "answers" {
        // Freeing waits as everything does; a workload that hangs is not let go of.
        std::mem::forget((tensor, device));
    } else {
        drop((tensor, device));
    }
    let began = std::time::Instant::now();
    let outcome = zeroizer.zeroize();
    println!("{:?}; in use, as the driver says: {:?}", began.elapsed(), glasshouse_train::gpu::memory_in_use());
    println!("a second process, after it: {}", other("--scan")?);
    match outcome {
        Ok(receipt) => {
            println!("{}", serde_json::to_string_pretty(&receipt)?);
            let method = receipt.regions.iter().any(|region| region.method.contains("by a second process"));
            println!("{} a receipt by a second process", if method { "pass" } else { "FAIL" });
            // Three of them are what it waits for a device that does not answer.
            let most = if without == "answers" { 5000 } else { 2000 };
            println!("{} in less than {most} ms", if receipt.millis < most { "pass" } else { "FAIL" });
            Ok(method && receipt.millis < most)
        }
        Err(error) => {
            println!("no receipt: {error}");
            Ok(false)
        }
    }
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

/// The device, with parts of what a sweep asks of it out.
struct Switched {
    device: CudaMemory,
    out: &'static [Part],
    /// Blocks are full of something that is not zero when they are taken, whether or not the driver scrubs them.
    dirty: bool,
    /// Nothing is overwritten.
    idle: bool,
    overwritten: u64,
}

impl Switched {
    fn open(out: &'static [Part]) -> Result<Self, String> {
        let (device, dirty) = (CudaMemory::open()?, !out.is_empty());
        Ok(Self { device, out, dirty, idle: false, overwritten: 0 })
    }

    fn is_out(&self, part: Part) -> bool {
        self.out.contains(&part)
    }
}

/// Blocks that a sweep without their return left behind, until the next one begins.
static LEFT: Mutex<Vec<Block>> = Mutex::new(Vec::new());

fn left() -> MutexGuard<'static, Vec<Block>> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DeviceMemory for Switched {
    fn trim(&mut self) -> Result<u64, String> {
        let left = std::mem::take(&mut *left());
        left.into_iter().try_for_each(|block| self.device.give_back(block))?;
        let kept = if self.is_out(Part::Trim) { reserved()? } else { self.device.trim()? };
        Ok(if self.is_out(Part::PoolCheck) { 0 } else { kept })
    }
    fn free_and_total(&mut self) -> Result<(u64, u64), String> {
        self.device.free_and_total()
    }
    fn take(&mut self, bytes: u64) -> Option<Block> {
        if self.is_out(Part::AllMemory) && !(1 << 30..=16 << 30).contains(&bytes) {
            return None;
        }
        let block = self.device.take(bytes)?;
        (!self.dirty || fill(&block).is_ok()).then_some(block)
    }
    fn overwrite(&mut self, block: &Block) -> Result<(), String> {
        self.overwritten += 1;
        let skips = self.idle || self.is_out(Part::Overwrite) || self.is_out(Part::OneBlock) && self.overwritten == 1;
        match (skips, self.is_out(Part::Tail)) {
            (true, _) => Ok(()),
            (_, true) => self.device.overwrite(&Block { address: block.address, bytes: block.bytes - (1 << 20) }),
            _ => self.device.overwrite(block),
        }
    }
    fn words_not_zero(&mut self, block: &Block) -> Result<u64, String> {
        if self.is_out(Part::ReadBack) { Ok(0) } else { self.device.words_not_zero(block) }
    }
    fn wait(&mut self) -> Result<(), String> {
        if self.is_out(Part::Wait) { Ok(()) } else { self.device.wait() }
    }
    fn give_back(&mut self, block: Block) -> Result<(), String> {
        if self.is_out(Part::GiveBack) {
            left().push(block);
            return Ok(());
        }
        self.device.give_back(block)
    }
}

/// What the pool keeps, untrimmed.
#[allow(unsafe_code)] // pool attributes
fn reserved() -> Result<u64, String> {
    use cudarc::driver::sys::{CUmemPool_attribute, cuDeviceGetDefaultMemPool, cuMemPoolGetAttribute};
    let (mut pool, mut reserved) = (std::ptr::null_mut(), 0_u64);
    let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT;
    // SAFETY: both out-parameters live and have the types that the driver names for them.
    let asked = unsafe {
        cuDeviceGetDefaultMemPool(&mut pool, 0)
            .result()
            .and_then(|()| cuMemPoolGetAttribute(pool, attribute, (&raw mut reserved).cast()).result())
    };
    asked.map(|()| reserved).map_err(|error| error.to_string())
}
