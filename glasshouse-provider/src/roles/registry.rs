use std::collections::BTreeMap;

use glasshouse_core::claims::{AntiDebugLevel, EvidenceKind};
use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::{AttestError, Attestor, Device, Workload, Zeroizer};

/// What a segment knows of its launch when it makes its attestor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentContext {
    /// Digest of the image that was launched, where the launch gave one.
    pub image_digest: Option<Digest32>,
    /// The anti-debug level to apply.
    pub anti_debug: AntiDebugLevel,
}

type MakeWorkload = Box<dyn Fn() -> Box<dyn Workload> + Send + Sync>;
type MakeAttestor = Box<dyn Fn(&SegmentContext) -> Result<Box<dyn Attestor>, AttestError> + Send + Sync>;
type MakeZeroizer = Box<dyn Fn(Device) -> Option<Box<dyn Zeroizer>> + Send + Sync>;

/// What this executable can do when it is launched as a segment.
#[derive(Default)]
pub struct Registry {
    workloads: BTreeMap<&'static str, MakeWorkload>,
    attestors: BTreeMap<EvidenceKind, MakeAttestor>,
    zeroizers: Vec<MakeZeroizer>,
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

    /// Adds a zeroizer. `make` answers `None` for a device that it does not cover; every one that answers is used.
    #[must_use]
    pub fn zeroizer(mut self, make: impl Fn(Device) -> Option<Box<dyn Zeroizer>> + Send + Sync + 'static) -> Self {
        self.zeroizers.push(Box::new(make));
        self
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

    pub(crate) fn make_zeroizers(&self, device: Device) -> Vec<Box<dyn Zeroizer>> {
        self.zeroizers.iter().filter_map(|make| make(device)).collect()
    }
}
