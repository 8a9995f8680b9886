//! What a run is composed of.

mod complete;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::claims::{AntiDebugLevel, ContainerId};
use glasshouse_core::fixed::Digest32;
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::job::Budget;
use glasshouse_core::package::SealedPackage;
use glasshouse_core::traits::{Device, OfferFilter, Provider, Verifier};

use super::setup::PackageFile;
use super::{Gate, RunEvent, StopHandle};
use crate::supervisor::{Patience, Supervisor};

pub(in crate::run) type Supervise = Box<dyn Fn(Supervisor) -> Supervisor + Send + Sync>;
pub(in crate::run) type Listener = Box<dyn FnMut(RunEvent) + Send>;

/// Composes a run. `provider`, `verifier`, `package` and `out_dir` must be given; everything else has a default.
pub struct RunBuilder<K> {
    pub(in crate::run) kind: K,
    provider: Option<Arc<dyn Provider>>,
    verifier: Option<Arc<dyn Verifier>>,
    gate: Option<Gate>,
    package: Option<PackageFile>,
    runtime: Option<Digest32>,
    out: Option<PathBuf>,
    journal: Option<PathBuf>,
    device: Device,
    warmup_units: u64,
    budget: Budget,
    progress: Duration,
    export: bool,
    lease: LeaseTerms,
    container: Option<ContainerId>,
    anti_debug: AntiDebugLevel,
    filter: OfferFilter,
    image: Option<(String, Digest32)>,
    env: BTreeMap<String, String>,
    disk_gib: Option<u32>,
    time_limit: Option<Duration>,
    linger: Duration,
    allow_cleartext: bool,
    handle_signals: bool,
    stop: StopHandle,
    patience: Option<Patience>,
    supervise: Option<Supervise>,
    artifact_limit: u64,
    listener: Option<Listener>,
}

impl<K> RunBuilder<K> {
    pub(in crate::run) fn new(kind: K) -> Self {
        Self {
            kind,
            provider: None,
            verifier: None,
            gate: None,
            package: None,
            runtime: None,
            out: None,
            journal: None,
            device: Device::Cpu,
            warmup_units: 3,
            budget: Budget::Millis(5_000),
            progress: Duration::from_millis(500),
            export: true,
            lease: LeaseTerms { ttl: Duration::from_secs(3600), max_units: None },
            container: None,
            anti_debug: AntiDebugLevel::Basic,
            filter: OfferFilter::default(),
            image: None,
            env: BTreeMap::new(),
            disk_gib: None,
            time_limit: None,
            linger: Duration::from_secs(600),
            allow_cleartext: false,
            handle_signals: true,
            stop: StopHandle::new(),
            patience: None,
            supervise: None,
            artifact_limit: 4 << 30,
            listener: None,
        }
    }

    /// Where to run.
    #[must_use]
    pub fn provider(mut self, provider: impl Provider + 'static) -> Self {
        self.provider = Some(Arc::new(provider));
        self
    }

    /// Where to run, shared with others.
    #[must_use]
    pub fn shared_provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Who appraises the evidence. Its kind is the attestor that the runtime must have.
    #[must_use]
    pub fn verifier(mut self, verifier: impl Verifier + 'static) -> Self {
        self.verifier = Some(Arc::new(verifier));
        self
    }

    /// Keys and memory of the gate; one in the output folder's folder `gate`, which outlives this process, when not given.
    #[must_use]
    pub fn gate(mut self, gate: Gate) -> Self {
        self.gate = Some(gate);
        self
    }

    /// The sealed package and its file. Its manifest names the workload and the minimum assurance.
    #[must_use]
    pub fn package(mut self, path: impl Into<PathBuf>, sealed: SealedPackage) -> Self {
        self.package = Some(PackageFile { path: path.into(), sealed });
        self
    }

    /// SHA-256 of the executable that must run there, from its `measurement.json`; this very executable when not given
    /// and the provider is `local`.
    #[must_use]
    pub fn runtime_measurement(mut self, measurement: Digest32) -> Self {
        self.runtime = Some(measurement);
        self
    }

    /// Folder for artifacts and the record; made if need be.
    #[must_use]
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out = Some(folder.into());
        self
    }

    /// File of the write-ahead journal; `journal.jsonl` in the output folder when not given.
    #[must_use]
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Where the workload computes.
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Uncounted units before the weights digest is published; 3 when not given, rounded up to the launch batch.
    #[must_use]
    pub fn warmup_units(mut self, units: u64) -> Self {
        self.warmup_units = units;
        self
    }

    /// When training ends; after 5 s of steady state when not given.
    #[must_use]
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// How often progress is sent, for raw and protected alike; every 500 ms when not given. The longer a
    /// segment trains, the less often it comes: at 500 ms from the 17th minute on, and every 42 s after a day. Each event's
    /// signed header stays in the record, which holds some 48,000 of them for all segments of a run.
    #[must_use]
    pub fn progress_every(mut self, interval: Duration) -> Self {
        self.progress = interval;
        self
    }

    /// Whether artifacts are fetched.
    #[must_use]
    pub fn export(mut self, export: bool) -> Self {
        self.export = export;
        self
    }

    /// Bytes of all artifacts together; 4 GiB when not given. They are held in memory until the report is dropped.
    #[must_use]
    pub fn artifact_limit(mut self, bytes: u64) -> Self {
        self.artifact_limit = bytes;
        self
    }

    /// For how long a key is released: an hour without a limit of units when not given.
    #[must_use]
    pub fn lease(mut self, lease: LeaseTerms) -> Self {
        self.lease = lease;
        self
    }

    /// The container id that the evidence must name; what the provider observes when not given.
    #[must_use]
    pub fn container(mut self, container: ContainerId) -> Self {
        self.container = Some(container);
        self
    }

    /// The anti-debug level that segments apply and must show.
    #[must_use]
    pub fn anti_debug(mut self, level: AntiDebugLevel) -> Self {
        self.anti_debug = level;
        self
    }

    /// What offers fit, with the price cap.
    #[must_use]
    pub fn offers(mut self, filter: OfferFilter) -> Self {
        self.filter = filter;
        self
    }

    /// Container image and its digest, where the provider runs images.
    #[must_use]
    pub fn image(mut self, image: impl Into<String>, digest: Digest32) -> Self {
        self.image = Some((image.into(), digest));
        self
    }

    /// Further environment of the agent and its segments; never a secret.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Disk wanted, GiB.
    #[must_use]
    pub fn disk_gib(mut self, gib: u32) -> Self {
        self.disk_gib = Some(gib);
        self
    }

    /// After this the run ends its allocation, from before it is asked for; the provider may end it by itself then. The
    /// most that an allocation can cost is its price times this.
    #[must_use]
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = Some(limit);
        self
    }

    /// How long the allocation goes on without its owner; ten minutes when not given.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Lets raw segments show private data to a machine that is not the owner's.
    #[must_use]
    pub fn dangerous_allow_cleartext_data(mut self) -> Self {
        self.allow_cleartext = true;
        self
    }

    /// Leaves Ctrl-C and SIGTERM to the tool. Otherwise they end the allocation and then the run.
    #[must_use]
    pub fn leave_signals(mut self) -> Self {
        self.handle_signals = false;
        self
    }

    /// Stops the run in good order when the handle is used.
    #[must_use]
    pub fn stop_handle(mut self, stop: StopHandle) -> Self {
        self.stop = stop;
        self
    }

    /// How patiently the provider is dealt with.
    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Sets the rest of the supervision: whose allocations these are, how many offers are tried, what all of them may
    /// come to: `supervise(|supervisor| supervisor.attempts(2).budget(5.0))`.
    #[must_use]
    pub fn supervise(mut self, with: impl Fn(Supervisor) -> Supervisor + Send + Sync + 'static) -> Self {
        self.supervise = Some(Box::new(with));
        self
    }

    /// Is told what happens.
    #[must_use]
    pub fn on_event(mut self, listener: impl FnMut(RunEvent) + Send + 'static) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }
}
