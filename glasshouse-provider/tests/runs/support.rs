//! A workload that trains nothing, an attestor and a verifier that check only their binding, and a runner for tests in
//! an executable that is also the agent and the segments.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use glasshouse_core::claims::{
    ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Assurance, Claims, ContainerId, EvidenceKind, RuntimeState,
};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest48, Digest64, Fixed};
use glasshouse_core::host_memory::HostZeroizer;
use glasshouse_core::package::{PackageBuilder, SealedPackage, Source};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::secret::SecretBuffer;
use glasshouse_core::traits::{
    Appraisal, ArtifactSink, AttestError, Attestor, Binding, Device, Inputs, Progress, Unit, Verifier, Workload,
    WorkloadError,
};
use glasshouse_core::transcript::{sha256, sha384};
use glasshouse_provider::{Registry, SegmentContext};

pub(crate) fn registry() -> Registry {
    Registry::new()
        .workload(Counting::default)
        .attestor(EvidenceKind::Software, |context: &SegmentContext| Ok(Launched(Parrot, context.image_digest)))
        .zeroizer(|device| {
            let millis = std::env::var(SLOW_ZEROIZER).map_or(0, |millis| millis.parse().unwrap());
            std::thread::sleep(Duration::from_millis(millis));
            (device == Device::Cpu).then(HostZeroizer::new)
        })
}

pub(crate) fn container() -> ContainerId {
    ContainerId { source: "boot-id".into(), value: "host:test".into() }
}

/// What [`Parrot`] measures in runs that are about something else: hashing this executable takes a while.
pub(crate) const FIXED_MEASUREMENT: [u8; 32] = [7; 32];
/// Says that such a run it is.
pub(crate) const MEASURES_NOTHING: &str = "GLASSHOUSE_TEST_MEASURES_NOTHING";

pub(crate) fn own_measurement() -> Digest32 {
    if std::env::var_os(MEASURES_NOTHING).is_some() {
        return Fixed(FIXED_MEASUREMENT);
    }
    sha256(std::fs::read("/proc/self/exe").unwrap())
}

/// Where a segment's standard error, which is the agent's log, goes from when it is prepared.
pub(crate) const LOG: &str = "GLASSHOUSE_TEST_LOG";
/// Data in a panic's message.
pub(crate) const PANIC_QUOTES: &str = "a patient's name";

/// How long a zeroizer takes to be made, milliseconds.
pub(crate) const SLOW_ZEROIZER: &str = "GLASSHOUSE_TEST_SLOW_ZEROIZER";
/// Lets a [`Parrot`] panic when it is let go of, which is after the grant.
pub(crate) const DROPPED_BADLY: &str = "GLASSHOUSE_TEST_DROPPED_BADLY";

/// Repeats what it is told, with claims that every test expects.
pub(crate) struct Parrot;

impl Drop for Parrot {
    fn drop(&mut self) {
        assert!(std::env::var_os(DROPPED_BADLY).is_none(), "asked to");
    }
}

impl Attestor for Parrot {
    fn measure(&self) -> Result<Claims, AttestError> {
        Ok(Claims {
            kind: EvidenceKind::Software,
            image_digest: None,
            container: container(),
            runtime_measurement: own_measurement(),
            anti_debug: AntiDebug {
                profile: ANTI_DEBUG_PROFILE.into(),
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

/// A [`Parrot`] that knows which image it was launched from.
struct Launched(Parrot, Option<Digest32>);

impl Attestor for Launched {
    fn measure(&self) -> Result<Claims, AttestError> {
        Ok(Claims { image_digest: self.1, ..self.0.measure()? })
    }

    fn gpu_evidence(&self, nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        self.0.gpu_evidence(nonce)
    }

    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        self.0.quote(report_data)
    }
}

/// Accepts what [`Parrot`] says when it is about this session.
pub(crate) struct Listener {
    pub(crate) refuse: bool,
}

impl Verifier for Listener {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Software
    }

    fn policy_digest(&self) -> Digest48 {
        sha384(b"listener")
    }

    fn appraise(
        &self,
        cpu: &CpuEvidence,
        _gpus: &GpuEvidence,
        binding: &Binding<'_>,
        _now: UnixMillis,
    ) -> Result<Appraisal, Refusal> {
        match cpu {
            CpuEvidence::Software { jwt, .. } if *jwt == binding.report_data.to_string() && !self.refuse => {
                Ok(Appraisal { assurance: Assurance::SelfReported, claims: Vec::new(), relaxations: Vec::new() })
            }
            _ => Err(Refusal::new(Code::REPORT_DATA_MISMATCH, "this session's report data", "another")),
        }
    }
}

/// Adds the data up, again and again. What it is to do wrong stands in the entry `trouble`.
#[derive(Default)]
pub(crate) struct Counting {
    data: Option<SecretBuffer>,
    trouble: String,
    done: u64,
    sum: u64,
}

impl Workload for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn unit(&self) -> Unit {
        Unit::Epoch
    }

    fn launch_batch(&self) -> u64 {
        2
    }

    fn method(&self) -> String {
        // A segment that cannot do what the one before it did says so.
        match self.trouble.as_str() {
            "method" => format!("fallback of process {}", std::process::id()),
            _ => "adding".to_owned(),
        }
    }

    fn prepare(&mut self, mut inputs: Inputs, _device: Device) -> Result<(), WorkloadError> {
        self.trouble = String::from_utf8_lossy(&inputs.take("trouble")?).into_owned();
        if let Some(path) = std::env::var_os(LOG) {
            rustix::stdio::dup2_stderr(std::fs::File::options().create(true).append(true).open(path).unwrap()).unwrap();
        }
        self.data = Some(inputs.take("data")?);
        Ok(())
    }

    fn advance(&mut self, units: u64) -> Result<Progress, WorkloadError> {
        if self.trouble == "talk" {
            std::thread::sleep(Duration::from_millis(1));
            self.done += units;
            return Ok(Progress { done: self.done, ..Progress::default() });
        }
        println!("what a workload prints must not get into the channel");
        for _ in 0..units {
            std::thread::sleep(Duration::from_millis(1));
            let data = self.data.as_deref().ok_or(WorkloadError::Misuse { call: "advance", when: "before prepare" })?;
            self.sum = self.sum.wrapping_add(data.iter().map(|b| u64::from(*b)).sum::<u64>());
            self.done += 1;
        }
        match self.trouble.as_str() {
            // As the standard library does when a string is cut in the middle of a character.
            "panic" if self.done > 10 => panic!("this is no character boundary: `{PANIC_QUOTES}`"),
            "hang" if self.done > 10 => loop {
                std::thread::park();
            },
            "error" | "checkpoints" if self.done > 10 => {
                return Err(WorkloadError::NotFinite { loss: f64::NAN, done: self.done });
            }
            _ => {}
        }
        Ok(Progress { done: self.done, loss: Some(1.0 / self.done as f64), ..Progress::default() })
    }

    fn checkpoint(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        match self.trouble == "checkpoints" && self.done.is_multiple_of(4) {
            true => sink.put(&format!("checkpoint-{}", self.done), &self.sum.to_le_bytes()),
            false => Ok(()),
        }
    }

    fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        Ok(sha256(self.sum.to_le_bytes()))
    }

    fn export(&mut self, sink: &mut dyn ArtifactSink) -> Result<(), WorkloadError> {
        if let Some(name) = self.trouble.strip_prefix("artifact ") {
            sink.put(name, b"not what the owner thinks")?;
        }
        if let Some(canary) = self.trouble.strip_prefix("canary ") {
            sink.put("canary.bin", canary.repeat(100).as_bytes())?;
        }
        if self.trouble == "hoard" {
            (0..120).try_for_each(|n| sink.put(&format!("{n}.bin"), b""))?;
        }
        sink.put("empty.bin", b"")?;
        sink.put("sum.bin", &self.sum.to_le_bytes().repeat(200_000))
    }

    fn release(&mut self) -> Result<(), WorkloadError> {
        self.data = None;
        Ok(())
    }
}

/// Seals a package for [`Counting`].
pub(crate) fn seal(folder: &std::path::Path, trouble: &str) -> (std::path::PathBuf, SealedPackage) {
    let path = folder.join("job.package");
    let sealed = PackageBuilder::new("counting")
        .entry("data", Source::Slice(&[7; 100_000]))
        .entry("trouble", Source::Slice(trouble.as_bytes()))
        .minimum_assurance(Assurance::SelfReported)
        .seal_to_file(&path)
        .unwrap();
    (path, sealed)
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(future)
}

/// Processes whose parent this is, without zombies.
pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let stats = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let living = fields.next()? != "Z";
        (living && fields.next()?.parse() == Ok(parent)).then_some(pid)
    });
    stats.collect()
}

/// Whether a process runs; a zombie does not.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

pub(crate) fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

/// Waits until `holds`, or gives up.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

/// Says what is left out, which is a failure where `GLASSHOUSE_NO_SKIPS` names it (`slurm,gcore`, or `all`).
#[allow(dead_code)] // not everywhere where this file is shared
pub(crate) fn skip(name: &str, why: &str) {
    println!("SKIPPED: {why}");
    let named = std::env::var("GLASSHOUSE_NO_SKIPS").unwrap_or_default();
    assert!(!named.split(',').any(|word| word == name || word == "all"), "GLASSHOUSE_NO_SKIPS={named}: {why}");
}

pub(crate) type Test = (&'static str, fn());

/// Runs the tests whose names contain the first argument, and exits like the usual harness.
pub(crate) fn main(tests: &[Test]) {
    std::process::exit(main_code(tests, AT_ONCE))
}

/// Tests wait for most of their time, so more of them run at once than there are processors.
const AT_ONCE: usize = 4;
/// Runs the test of this name, here.
pub(crate) const ALONE: &str = "--alone";

/// The same, so many at once, and gives the code. Each is a process of its own, so that its children and statics are.
pub(crate) fn main_code(tests: &[Test], at_once: usize) -> i32 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        tests.iter().for_each(|(name, _)| println!("{name}: test"));
        return 0;
    }
    if let Some(alone) = arguments.iter().skip_while(|argument| *argument != ALONE).nth(1) {
        let (_, test) = tests.iter().find(|(name, _)| name == alone).expect("one of the tests");
        return i32::from(catch_unwind(AssertUnwindSafe(test)).is_err());
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let chosen = tests.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str())));
    let (next, failed) = (Mutex::new(chosen), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let worker = || {
            // In a block, so that the lock is not held for the test.
            while let Some((name, _)) = { next.lock().unwrap().next() } {
                let began = Instant::now();
                let this = std::env::current_exe().unwrap();
                let ended = std::process::Command::new(this).args([ALONE, name]).output().unwrap();
                let said = [ended.stdout, ended.stderr].concat();
                print!("{}", String::from_utf8_lossy(&said));
                let passed = if ended.status.success() { "ok" } else { "FAILED" };
                println!("test {name} ... {passed} ({:.1?})", began.elapsed());
                failed.fetch_add(usize::from(!ended.status.success()), Ordering::Relaxed);
            }
        };
        (0..at_once).for_each(|_| drop(scope.spawn(worker)));
    });
    i32::from(failed.into_inner() > 0)
}
