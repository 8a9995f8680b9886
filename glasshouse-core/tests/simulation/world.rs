//! What both sides know, their clocks, and what really happened.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::claims::{Assurance, EvidenceKind};
use glasshouse_core::clock::{Now, UnixMillis};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest48, PublicKey32};
use glasshouse_core::gate::{GateStore, LeaseTerms, OwnerConfig, PackageKey};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::refusal::Refusal;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Appraisal, Binding, Verifier};

use crate::common::{TestVerifier, World};
use crate::entropy::Rng;
use crate::plan::{Plan, Sabotage};

/// One machine's clocks.
pub(crate) struct Clock {
    boot: u64,
    wall: i64,
    /// Whether it ever did what no boot clock may do.
    pub(crate) ran_back: bool,
}

impl Clock {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        // Up to two seconds apart.
        Self { boot: rng.between(5_000, 5_000_000), wall: 1_795_000_000_000 + rng.below(2_000) as i64, ran_back: false }
    }

    pub(crate) fn now(&self) -> Now {
        Now { wall: UnixMillis(self.wall.max(0) as u64), boot: Duration::from_millis(self.boot) }
    }

    pub(crate) fn advance(&mut self, millis: u64) {
        self.boot += millis;
        self.wall += millis as i64;
    }

    /// Someone sets the wall clock, or the machine sleeps; and, where the plan says so, what no clock may do.
    pub(crate) fn jump(&mut self, rng: &mut Rng, boot_runs_back: bool) -> String {
        let far = rng.pick(&[2_000, 30_000, 119_000, 121_000, 400_000, 90_000_000]);
        let by = rng.between(1, far);
        match rng.below(if boot_runs_back { 4 } else { 3 }) {
            0 => self.wall += by as i64,
            1 => self.wall -= by as i64,
            2 => {
                let by = by.min(300_000);
                self.advance(by);
                return format!("slept {by} ms");
            }
            _ => {
                self.boot = self.boot.saturating_sub(by);
                self.ran_back = true;
                return format!("boot clock back by {by} ms");
            }
        }
        format!("wall clock off by {by} ms")
    }
}

/// What really happened, seen from outside.
#[derive(Default)]
pub(crate) struct Truth {
    /// HPKE keys that genuine runtimes made.
    pub(crate) attested_keys: BTreeSet<PublicKey32>,
    /// Releases that genuine runtimes opened.
    pub(crate) grants: u64,
    pub(crate) impostor_opened: bool,
    /// Bodies that the granted runtime emitted, encoded.
    pub(crate) emitted: Vec<Vec<u8>>,
    /// Set when all that was asked was done and wiped.
    pub(crate) completed: Option<Completed>,
    /// What broke an invariant while it ran.
    pub(crate) violations: Vec<String>,
}

pub(crate) struct Completed {
    pub(crate) units: u64,
    pub(crate) weights: Digest32,
    pub(crate) artifact: Vec<u8>,
}

/// Identity of a run's owner, on its disk.
pub(crate) struct Setting {
    pub(crate) world: World,
    pub(crate) plan: Plan,
    /// The gate's store.
    pub(crate) path: PathBuf,
}

impl Setting {
    pub(crate) fn owner_config(&self) -> OwnerConfig {
        let world = &self.world;
        OwnerConfig {
            session: world.session,
            gate_key: Arc::clone(&world.gate_key),
            result_key: Arc::clone(&world.result_key),
            launch_secret: Arc::clone(&world.launch_secret),
            package: PackageKey {
                package_digest: Digest48::from([1; 48]),
                manifest_digest: Digest48::from([2; 48]),
                data_key: Secret::take(&mut world.data_key.clone()),
            },
            job: self.job(),
            reference: world.reference.clone(),
            lease: LeaseTerms { ttl: self.plan.lease, max_units: self.plan.max_units },
            challenge_ttl: Duration::from_secs(15),
            max_skew: Duration::from_secs(120),
            max_challenges: 10,
        }
    }

    pub(crate) fn job(&self) -> JobSpec {
        JobSpec { budget: Budget::Units(self.plan.units), ..self.world.job() }
    }

    pub(crate) fn verifier(&self) -> Arc<dyn Verifier> {
        match self.plan.sabotage {
            Some(Sabotage::VerifierTakesAnything) => Arc::new(TakesAnything),
            _ => Arc::new(TestVerifier),
        }
    }

    pub(crate) fn session(
        &self,
        store: &Arc<dyn GateStore>,
    ) -> Result<glasshouse_core::gate::OwnerSession, glasshouse_core::gate::GateError> {
        glasshouse_core::gate::OwnerSession::new(self.owner_config(), Arc::clone(store), self.verifier())
    }
}

struct TakesAnything;

impl Verifier for TakesAnything {
    fn kind(&self) -> EvidenceKind {
        TestVerifier.kind()
    }
    fn policy_digest(&self) -> Digest48 {
        TestVerifier.policy_digest()
    }
    fn appraise(&self, _: &CpuEvidence, _: &GpuEvidence, _: &Binding<'_>, _: UnixMillis) -> Result<Appraisal, Refusal> {
        Ok(Appraisal { assurance: Assurance::SelfReported, claims: vec![], relaxations: vec![] })
    }
}
