//! What a segment of these runs is: a workload that adds up, and an attestor of the generator's or the machine's own.

use glasshouse_attest::software::{RuntimeStateCell, harden};
use glasshouse_attest::tee::TeeAttestor;
use glasshouse_attest_gen::{GeneratedAttestor, Platform};
use glasshouse_core::claims::{Claims, EvidenceKind};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64};
use glasshouse_core::traits::{
    ArtifactSink, AttestError, Attestor, Device, Inputs, Progress, Unit, Workload, WorkloadError,
};
use glasshouse_core::transcript::sha256;
use glasshouse_provider::{Registry, SegmentContext};

/// Which attestor a segment makes: the generator's, unless this asks for the machine's own.
pub(crate) const ATTESTOR: &str = "GLASSHOUSE_TEST_ATTESTOR";

/// As the machine's own attestor says it.
pub(crate) const GPU_OFF: &str = "confidential computing is off on GPU 0";

pub(crate) fn registry() -> Registry {
    examples::registry().workload(Counting::default).attestor(EvidenceKind::Tdx, |context: &SegmentContext| {
        harden(context.anti_debug)?;
        Ok(match std::env::var(ATTESTOR).as_deref() {
            Ok("machine") => Either::Machine(Box::new(TeeAttestor::tdx(RuntimeStateCell::new())?)),
            Ok("gpu-off") => Either::GpuOff(Box::new(GeneratedAttestor::new(Platform::tdx(1)))),
            _ => Either::Generated(Box::new(GeneratedAttestor::new(Platform::tdx(1)))),
        })
    })
}

/// The machine's own attestor, or the generator's, of a GPU in confidential-computing mode or of one that is not.
enum Either {
    Machine(Box<TeeAttestor>),
    Generated(Box<GeneratedAttestor>),
    GpuOff(Box<GeneratedAttestor>),
}

impl Either {
    fn get(&self) -> &dyn Attestor {
        match self {
            Self::Machine(attestor) => &**attestor,
            Self::Generated(attestor) | Self::GpuOff(attestor) => &**attestor,
        }
    }
}

impl Attestor for Either {
    fn measure(&self) -> Result<Claims, AttestError> {
        self.get().measure()
    }
    fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        match self {
            Self::GpuOff(_) => Err(AttestError::NotAvailable { what: "evidence of GPUs", why: GPU_OFF.to_owned() }),
            _ => self.get().gpu_evidence(nonce),
        }
    }
    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        self.get().quote(report_data)
    }
}

/// Adds up what was sealed.
#[derive(Default)]
struct Counting {
    sum: u64,
    done: u64,
}

impl Workload for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }
    fn unit(&self) -> Unit {
        Unit::Step
    }
    fn launch_batch(&self) -> u64 {
        1
    }
    fn prepare(&mut self, mut inputs: Inputs, _device: Device) -> Result<(), WorkloadError> {
        self.sum = inputs.take("data")?.iter().map(|byte| u64::from(*byte)).sum();
        Ok(())
    }
    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        self.done += units;
        Ok(Progress { done: self.done, loss: Some(0.0), ..Progress::default() })
    }
    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        Ok(sha256(self.sum.to_le_bytes()))
    }
    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        sink.put("sum.txt", self.sum.to_string().as_bytes())
    }
    fn release(&mut self) -> Result<(), WorkloadError> {
        self.sum = 0;
        Ok(())
    }
}
