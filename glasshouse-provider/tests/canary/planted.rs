//! A workload that holds the canary in every encoding, and goes out by the way that its package names.

use std::time::Duration;

use glasshouse_core::claims::Assurance;
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::package::{PackageBuilder, Source};
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{ArtifactSink, Device, Inputs, Progress, Unit, Workload, WorkloadError};
use glasshouse_core::transcript::sha256;

use crate::allocator;
use crate::barrier::{BARRIER_AT, barrier, folder, hidden};
use crate::large;
use crate::ways::way_out;

/// Long enough to get to the barrier within it.
pub(crate) const LEASE: Duration = Duration::from_secs(12);

/// Random bytes. Never a zero, so that pages of zeros need no second look.
pub(crate) fn canary() -> [u8; 64] {
    Fixed::<64>::random().unwrap().0.map(|byte| byte | 1)
}

/// Seals the canary and the way out.
pub(crate) fn package<'a>(canary: &'a [u8; 64], way: &'a str) -> PackageBuilder<'a> {
    PackageBuilder::new("planted")
        .entry("canary", Source::Slice(canary))
        .entry("way", Source::Slice(way.as_bytes()))
        .minimum_assurance(Assurance::SelfReported)
}

#[derive(Default)]
pub(crate) struct Planted {
    way: String,
    sealed: Option<SecretBuffer>,
    raw: Box<[u8]>,
    f32s: Box<[f32]>,
    tokens: Box<[u32]>,
    large: [Vec<u8>; 2],
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
        self.large = large::planted(&canary);
        self.sealed = Some(canary);
        Ok(())
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        self.done += units;
        if self.done == BARRIER_AT {
            barrier("training");
        }
        if self.done > BARRIER_AT {
            way_out(&self.way, self.done)?;
            std::thread::sleep(Duration::from_millis(20));
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
        (self.raw, self.f32s, self.tokens, self.large) = Default::default();
        Ok(())
    }
}
