//! What the suite runs on allocations: a workload that talks, or ends its agent; an attestor and a verifier that check
//! only their binding. This is about providers, and what evidence is worth is said elsewhere.

use std::io::Write as _;
use std::time::Duration;

use glasshouse_core::claims::{
    ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Assurance, Claims, ContainerId, EvidenceKind, RuntimeState,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest48, Digest64, Fixed};
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::traits::{
    Appraisal, ArtifactSink, AttestError, Attestor, Binding, Device, Inputs, Progress, Unit, Verifier, Workload,
    WorkloadError,
};
use glasshouse_core::transcript::{sha256, sha384};
use rustix::process::{Signal, getppid, kill_process};

use crate::roles::{Registry, SegmentContext};

/// Says that an agent is one of this suite.
pub(super) const VARIABLE: &str = "GLASSHOUSE_CONTRACT";
pub(super) const NAME: &str = "contract";
/// The entry of the package that says what to do.
pub(super) const TASK: &str = "task";
/// Trains, and no more.
pub(super) const TRAIN: &str = "train";
/// Writes [`log`] to the log, and trains on.
pub(super) const TALK: &str = "talk";
/// Kills its agent after some units, without a word.
pub(super) const EXIT: &str = "exit";

const UNIT: Duration = Duration::from_millis(2);
const SENTENCES: u64 = 40;
/// Between two of them.
const BREATH: Duration = Duration::from_millis(50);
const UNITS_BEFORE_EXIT: u64 = 200;

/// Serves the suite's own agents and segments; in any other process it returns. A test executable calls it first thing in
/// `main`, before [`serve_if_launched`](crate::serve_if_launched) with roles of its own.
pub fn serve_if_launched() {
    if std::env::var_os(VARIABLE).is_some() {
        crate::serve_if_launched(registry());
    }
}

fn registry() -> Registry {
    Registry::new()
        .workload(Talker::default)
        .attestor(EvidenceKind::Software, |context: &SegmentContext| Ok(Echo { image: context.image_digest }))
        .zeroizer(|device| (device == Device::Cpu).then(HostZeroizer::new))
}

pub(super) fn container() -> ContainerId {
    ContainerId { source: "boot-id".to_owned(), value: "host:contract".to_owned() }
}

pub(super) fn measurement() -> Digest32 {
    sha256(NAME)
}

/// Every line that a talking segment writes, in order. Lines repeat, as lines of logs do.
pub(super) fn log() -> Vec<String> {
    (1..=SENTENCES).flat_map(sentence).collect()
}

/// Whether a line of a log is one of them.
pub(super) fn is_said(line: &str) -> bool {
    line.starts_with(NAME)
}

fn sentence(number: u64) -> [String; 3] {
    [format!("{NAME}: {number}"), format!("{NAME}: again"), format!("{NAME}: again")]
}

/// Counts, and does what it is told beside that.
#[derive(Default)]
struct Talker {
    task: String,
    done: u64,
}

impl Talker {
    fn unit(&mut self) {
        self.done = self.done.saturating_add(1);
        match self.task.as_str() {
            TALK if self.done <= SENTENCES => {
                let mut log = std::io::stderr().lock();
                for line in sentence(self.done) {
                    let _ = writeln!(log, "{line}");
                }
                drop(log);
                std::thread::sleep(BREATH);
            }
            // The program of the container, the job or the process.
            EXIT if self.done == UNITS_BEFORE_EXIT => {
                let _ = getppid().map(|agent| kill_process(agent, Signal::KILL));
            }
            _ => std::thread::sleep(UNIT),
        }
    }
}

impl Workload for Talker {
    fn name(&self) -> &'static str {
        NAME
    }
    fn unit(&self) -> Unit {
        Unit::Step
    }
    fn launch_batch(&self) -> u64 {
        1
    }
    fn method(&self) -> String {
        "counting".to_owned()
    }
    fn prepare(&mut self, mut inputs: Inputs, _device: Device) -> Result<(), WorkloadError> {
        self.task = String::from_utf8_lossy(&inputs.take(TASK)?).into_owned();
        Ok(())
    }
    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        (0..units).for_each(|_| self.unit());
        Ok(Progress { done: self.done, ..Progress::default() })
    }
    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        Ok(sha256(self.done.to_be_bytes()))
    }
    fn export(&mut self, _sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        Ok(())
    }
    fn release(&mut self) -> Result<(), WorkloadError> {
        Ok(())
    }
}

/// Repeats what it is told.
struct Echo {
    image: Option<Digest32>,
}

impl Attestor for Echo {
    fn measure(&self) -> Result<Claims, AttestError> {
        Ok(Claims {
            kind: EvidenceKind::Software,
            image_digest: self.image,
            container: container(),
            runtime_measurement: measurement(),
            anti_debug: AntiDebug {
                profile: ANTI_DEBUG_PROFILE.to_owned(),
                level: AntiDebugLevel::Basic,
                not_dumpable: true,
                no_core_files: true,
                no_tracer: true,
                no_preload: true,
                ptrace_scope: None,
            },
            state: RuntimeState::Ready,
        })
    }
    fn gpu_evidence(&self, _nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        Ok(GpuEvidence::default())
    }
    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        Ok(CpuEvidence::Software { jwt: report_data.to_string(), public_key: Fixed([0; 32]) })
    }
}

/// Accepts what [`Echo`] says when it is about this session.
pub(super) struct Listener;

impl Verifier for Listener {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Software
    }
    fn policy_digest(&self) -> Digest48 {
        sha384(NAME)
    }
    fn appraise(
        &self,
        cpu: &CpuEvidence,
        _gpus: &GpuEvidence,
        binding: &Binding<'_>,
        _now: UnixMillis,
    ) -> Result<Appraisal, Refusal> {
        match cpu {
            CpuEvidence::Software { jwt, .. } if *jwt == binding.report_data.to_string() => {
                Ok(Appraisal { assurance: Assurance::SelfReported, claims: Vec::new(), relaxations: Vec::new() })
            }
            _ => Err(Refusal::new(Code::REPORT_DATA_MISMATCH, "this session's report data", "another")),
        }
    }
}
