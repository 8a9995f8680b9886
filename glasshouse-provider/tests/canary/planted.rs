//! A workload that holds the canary in every encoding, and the barriers: while it trains, and after zeroization.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Digest32;
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{
    ArtifactSink, Device, Inputs, Progress, Receipt, SecretRegion, Unit, Workload, WorkloadError, ZeroizeError,
    Zeroizer,
};
use glasshouse_core::transcript::sha256;

use crate::allocator;
use crate::scan::{Found, Hidden, in_process};

/// Where owner and segment meet.
pub(crate) const FOLDER: &str = "GLASSHOUSE_TEST_FOLDER";
/// Units until the barrier.
pub(crate) const BARRIER_AT: u64 = 5;
/// A barrier that nobody opens opens itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn folder() -> PathBuf {
    std::env::var_os(FOLDER).unwrap().into()
}

pub(crate) fn hidden(folder: &Path) -> Hidden {
    Hidden(std::fs::read(folder.join("complement")).unwrap().try_into().unwrap())
}

/// Says what this process finds in itself, and waits.
fn barrier(name: &str) {
    let folder = folder();
    let [raw, f32s, tokens]: Found = in_process(&hidden(&folder));
    let line = format!("{} {raw} {f32s} {tokens} {}", std::process::id(), allocator::freed_with_canary());
    std::fs::write(folder.join("new"), line).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    let (began, open) = (Instant::now(), folder.join(format!("{name}-on")));
    while !open.exists() && began.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Default)]
pub(crate) struct Planted {
    way: String,
    sealed: Option<SecretBuffer>,
    raw: Box<[u8]>,
    f32s: Box<[f32]>,
    tokens: Box<[u32]>,
    done: u64,
}

impl Workload for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn unit(&self) -> Unit {
        Unit::Step
    }

    fn launch_batch(&self) -> u64 {
        1
    }

    fn prepare(&mut self, mut inputs: Inputs, _device: Device) -> Result<(), WorkloadError> {
        allocator::look_for(hidden(&folder()));
        self.way = String::from_utf8_lossy(&inputs.take("way")?).into_owned();
        if self.way == "unwiped" {
            allocator::stop_wiping();
        }
        let canary = inputs.take("canary")?;
        // Not at the start of a block, where the C library writes when it is freed; and grown, as parsers do.
        let (mut raw, mut f32s, mut tokens) = (vec![0; 500], vec![0.0; 500], vec![0; 500]);
        for byte in canary.iter() {
            raw.push(*byte);
            f32s.push(f32::from(*byte));
            tokens.push(u32::from(*byte));
        }
        (self.raw, self.f32s, self.tokens) = (raw.into(), f32s.into(), tokens.into());
        self.sealed = Some(canary);
        Ok(())
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        self.done += units;
        if self.done == BARRIER_AT {
            barrier("training");
        }
        if self.done > BARRIER_AT {
            match self.way.as_str() {
                "error" => return Err(WorkloadError::NotFinite { loss: f64::NAN, done: self.done }),
                "panic" => panic!("asked to"),
                "allocation" => {
                    SecretBuffer::try_zeroed(usize::MAX / 4)
                        .map_err(|e| WorkloadError::Device { what: "an allocation".into(), why: e.to_string() })?;
                }
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(Progress { done: self.done, ..Progress::default() })
    }

    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        Ok(sha256(self.done.to_le_bytes()))
    }

    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        // Leaves sealed to the owner; what is made of it here must be gone as well.
        sink.put("canary.bin", &self.raw)
    }

    fn release(&mut self) -> Result<(), WorkloadError> {
        self.sealed = None;
        (self.raw, self.f32s, self.tokens) = Default::default();
        Ok(())
    }
}

/// The host's zeroizer, and a barrier after it.
pub(crate) struct Halting(HostZeroizer);

impl Halting {
    pub(crate) fn new() -> Self {
        Self(HostZeroizer::new())
    }
}

impl Zeroizer for Halting {
    fn name(&self) -> &'static str {
        self.0.name()
    }
    fn track(&mut self, region: SecretRegion) {
        self.0.track(region);
    }
    fn zeroize(&mut self) -> Result<Receipt, ZeroizeError> {
        let receipt = self.0.zeroize();
        barrier("wiped");
        receipt
    }
}
