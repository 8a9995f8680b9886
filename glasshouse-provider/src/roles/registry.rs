use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use glasshouse_core::claims::{AntiDebugLevel, EvidenceKind, RuntimeState};
use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::{AttestError, Attestor, Device, Workload, Zeroizer};

/// What a segment knows of its launch when it makes its attestor.
pub struct SegmentContext {
    /// Digest of the image that was launched, where the launch gave one.
    pub image_digest: Option<Digest32>,
    /// The anti-debug level to apply.
    pub anti_debug: AntiDebugLevel,
    /// Where the attestor must read the container id, by the name of the source in
    /// [`ContainerId`](glasshouse_core::claims::ContainerId); the kernel when absent. What it then reads is the
    /// provider's word.
    pub container_source: Option<String>,
    followers: Mutex<Vec<Follower>>,
}

type Follower = Box<dyn Fn(RuntimeState) + Send + Sync>;

impl SegmentContext {
    pub(crate) fn new(image_digest: Option<Digest32>, anti_debug: AntiDebugLevel) -> Self {
        let container_source = super::container_source();
        Self { image_digest, anti_debug, container_source, followers: Mutex::default() }
    }

    /// Calls `follow` with each state that the segment enters, and at once with `ready`: an attestor that reports the
    /// runtime's state learns it here.
    pub fn on_state(&self, follow: impl Fn(RuntimeState) + Send + Sync + 'static) {
        follow(RuntimeState::Ready);
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(follow));
    }

    pub(crate) fn enter(&self, state: RuntimeState) {
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|follow| follow(state));
    }
}

/// The device that a segment computes on, as its driver names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// `cpu`, or the GPU's model.
    pub model: String,
    /// Driver version; absent on a CPU.
    pub driver: Option<String>,
    /// The GPU's UUID; absent on a CPU.
    pub uuid: Option<String>,
}

type MakeWorkload = Box<dyn Fn() -> Box<dyn Workload> + Send + Sync>;
type MakeAttestor = Box<dyn Fn(&SegmentContext) -> Result<Box<dyn Attestor>, AttestError> + Send + Sync>;
type MakeZeroizer = Box<dyn Fn(Device) -> Option<Box<dyn Zeroizer>> + Send + Sync>;
type Helper = Box<dyn Fn() -> i32 + Send + Sync>;
type ProbeDevice = Box<dyn Fn(Device) -> Option<DeviceFacts> + Send + Sync>;

/// What this executable can do when it is launched as a segment.
#[derive(Default)]
pub struct Registry {
    workloads: BTreeMap<&'static str, MakeWorkload>,
    attestors: BTreeMap<EvidenceKind, MakeAttestor>,
    zeroizers: Vec<MakeZeroizer>,
    probes: Vec<ProbeDevice>,
    helpers: BTreeMap<&'static str, Helper>,
}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a workload under its own name. A later one of the same name takes its place.
    #[must_use]
    pub fn workload<W: Workload + 'static>(mut self, make: impl Fn() -> W + Send + Sync + 'static) -> Self {
        let name = make().name();
        self.workloads.insert(name, Box::new(move || Box::new(make())));
        self
    }

    /// Adds an attestor. Making it also applies its anti-debug profile, so that raw segments, which never attest, run
    /// under the same protections as protected ones.
    #[must_use]
    pub fn attestor<A: Attestor + 'static>(
        mut self,
        kind: EvidenceKind,
        make: impl Fn(&SegmentContext) -> Result<A, AttestError> + Send + Sync + 'static,
    ) -> Self {
        self.attestors.insert(kind, Box::new(move |context| Ok(Box::new(make(context)?))));
        self
    }

    /// Adds a zeroizer. `make` answers `None` for a device that it does not cover; of those that answer the one that
    /// was added last is used. Without one no protected segment starts.
    #[must_use]
    pub fn zeroizer<Z: Zeroizer + 'static>(
        mut self,
        make: impl Fn(Device) -> Option<Z> + Send + Sync + 'static,
    ) -> Self {
        self.zeroizers
            .push(Box::new(move |device| make(device).map(|zeroizer| Box::new(zeroizer) as Box<dyn Zeroizer>)));
        self
    }

    /// Adds a probe that names the device, for reports. A CPU needs none.
    #[must_use]
    pub fn device_probe(mut self, probe: impl Fn(Device) -> Option<DeviceFacts> + Send + Sync + 'static) -> Self {
        self.probes.push(Box::new(probe));
        self
    }

    /// Adds a helper: what a process of this executable does, and its exit code, when it is started by
    /// [`helper_command`](super::helper_command). It is hardened as a segment is, and ends with whoever started it. Helpers
    /// that are named as the other roles are (`agent`, `segment`) are never run.
    #[must_use]
    pub fn helper(mut self, name: &'static str, main: impl Fn() -> i32 + Send + Sync + 'static) -> Self {
        self.helpers.insert(name, Box::new(main));
        self
    }

    pub(crate) fn find_helper(&self, name: &str) -> Option<&(dyn Fn() -> i32 + Send + Sync)> {
        self.helpers.get(name).map(AsRef::as_ref)
    }

    pub(crate) fn make_workload(&self, name: &str) -> Option<Box<dyn Workload>> {
        self.workloads.get(name).map(|make| make())
    }

    pub(crate) fn workload_names(&self) -> String {
        let names: Vec<_> = self.workloads.keys().copied().collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    pub(crate) fn make_attestor(
        &self,
        kind: EvidenceKind,
        context: &SegmentContext,
    ) -> Option<Result<Box<dyn Attestor>, AttestError>> {
        self.attestors.get(&kind).map(|make| make(context))
    }

    pub(crate) fn make_zeroizer(&self, device: Device) -> Option<Box<dyn Zeroizer>> {
        self.zeroizers.iter().rev().find_map(|make| make(device))
    }

    pub(crate) fn device_facts(&self, device: Device) -> DeviceFacts {
        let unprobed = || DeviceFacts { model: device.to_string(), driver: None, uuid: None };
        self.probes.iter().rev().find_map(|probe| probe(device)).unwrap_or_else(unprobed)
    }
}
