//! Places where a process stops. They are in this executable's own workload, attestor, factories and store wrapper:
//! the library has no switch of this kind.

use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use glasshouse_core::channel::SealedRecord;
use glasshouse_core::claims::{Claims, EvidenceKind};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64, Nonce32};
use glasshouse_core::gate::{BurnOutcome, CommittedRelease, FileGateStore, GateStore, StoreError};
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::traits::{
    ArtifactSink, AttestError, Attestor, Device, Inputs, Progress, Unit, Workload, WorkloadError,
};
use glasshouse_provider::{Registry, SegmentContext};

use crate::support::{Counting, Parrot};

/// The case's folder.
pub(crate) const FOLDER: &str = "GLASSHOUSE_TEST_FOLDER";
/// The step to stop in.
pub(crate) const STOP: &str = "GLASSHOUSE_TEST_STOP";
/// Appears in the folder when the step is reached.
pub(crate) const REACHED: &str = "reached";
/// Once it is in the folder, what stopped goes on.
pub(crate) const GO: &str = "go";

/// Of the case that this process belongs to.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

fn is_wanted(step: &str) -> bool {
    std::env::var(STOP).as_deref() == Ok(step)
}

/// Stops here, once, when this is the case's step: says so, and goes on when it is told to.
pub(crate) fn stop_at(step: &str) {
    static STOPPED: AtomicBool = AtomicBool::new(false);
    let Some(folder) = folder().filter(|_| is_wanted(step)) else { return };
    if STOPPED.swap(true, Ordering::SeqCst) {
        return;
    }
    std::fs::write(folder.join(REACHED), step).unwrap();
    while !folder.join(GO).exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The log of agent and segment outlives an owner who would have read it.
pub(crate) fn log_to_folder() {
    if let (Some(folder), Ok("agent")) = (folder(), std::env::var("GLASSHOUSE_ROLE").as_deref()) {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("agent.log")).unwrap();
        rustix::stdio::dup2_stderr(log.as_fd()).unwrap();
    }
}

pub(crate) fn registry() -> Registry {
    if std::env::var("GLASSHOUSE_ROLE").as_deref() == Ok("segment") {
        stop_at("start");
    }
    Registry::new()
        .workload(|| {
            // The first one is asked for its name only.
            static MADE: AtomicU32 = AtomicU32::new(0);
            if MADE.fetch_add(1, Ordering::SeqCst) > 0 && is_wanted("release-sent") {
                std::thread::sleep(Duration::from_secs(3600));
            }
            Staged::default()
        })
        .attestor(EvidenceKind::Software, |_: &SegmentContext| {
            stop_at("harden");
            Ok(StagedParrot)
        })
        .zeroizer(|device| {
            stop_at("open-package");
            (device == Device::Cpu).then(HostZeroizer::new)
        })
}

struct StagedParrot;

impl Attestor for StagedParrot {
    fn measure(&self) -> Result<Claims, AttestError> {
        Parrot.measure()
    }

    fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        Parrot.gpu_evidence(nonce)
    }

    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        stop_at("attest");
        Parrot.quote(report_data)
    }
}

#[derive(Default)]
struct Staged(Counting);

impl Workload for Staged {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn unit(&self) -> Unit {
        self.0.unit()
    }

    fn launch_batch(&self) -> u64 {
        self.0.launch_batch()
    }

    fn prepare(&mut self, inputs: Inputs, device: Device) -> Result<(), WorkloadError> {
        stop_at("prepare");
        self.0.prepare(inputs, device)
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        let progress = self.0.advance(units)?;
        if progress.done <= crate::owner::WARM_UP {
            stop_at("warm-up");
        } else if progress.done >= crate::owner::UNITS / 2 {
            stop_at("train");
            stop_at("raw-train");
            // Meanwhile the owner stops over a record: the segment is found here.
            if is_wanted("record-kept") {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        Ok(progress)
    }

    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        self.0.weights_digest()
    }

    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        stop_at("export");
        self.0.export(sink)
    }

    fn release(&mut self) -> Result<(), WorkloadError> {
        stop_at("zeroize");
        self.0.release()
    }
}

/// The gate's memory, which stops once a change is durable.
pub(crate) struct StagedStore(pub(crate) FileGateStore);

impl GateStore for StagedStore {
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError> {
        self.0.issue(session, nonce)
    }

    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError> {
        let outcome = self.0.burn(session, nonce)?;
        stop_at("nonce-burned");
        Ok(outcome)
    }

    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError> {
        self.0.commit(release)?;
        stop_at("verdict-committed");
        Ok(())
    }

    fn sessions(&self) -> Result<Vec<Nonce32>, StoreError> {
        self.0.sessions()
    }

    fn committed(&self, session: &Nonce32) -> Result<Option<CommittedRelease>, StoreError> {
        self.0.committed(session)
    }

    fn keep(&self, session: &Nonce32, record: &SealedRecord) -> Result<(), StoreError> {
        self.0.keep(session, record)?;
        if record.seq == 2 {
            stop_at("record-kept");
        }
        Ok(())
    }

    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError> {
        self.0.kept(session)
    }
}
