//! An owner, a runtime, an attestor and a verifier that agree, for tests to take apart.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used)] // shared by several test binaries, each of which uses a part

pub mod run;

use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::claims::{
    ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Assurance, Claims, ContainerId, EvidenceKind, ReferenceValues,
    RuntimeState,
};
use glasshouse_core::clock::{Now, UnixMillis};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest48, Digest64, Nonce32, PublicKey32};
use glasshouse_core::gate::{GateStore, LeaseTerms, MemoryGateStore, OwnerConfig, OwnerSession, PackageKey};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::protocol::{ResultKey, SigningSecret};
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::secret::Secret;
use glasshouse_core::segment::{SegmentConfig, SegmentSession};
use glasshouse_core::traits::{Appraisal, AttestError, Attestor, Binding, Device, Verifier};

/// How long leases last here.
pub const LEASE_SECONDS: u64 = 3600;

pub fn now(seconds: u64) -> Now {
    Now { wall: UnixMillis((1_795_000_000 + seconds) * 1000), boot: Duration::from_secs(500 + seconds) }
}

/// Answers with fixed claims; its quote is the report data in hex.
#[derive(Clone)]
pub struct TestAttestor {
    pub claims: Claims,
}

impl Attestor for TestAttestor {
    fn measure(&self) -> Result<Claims, AttestError> {
        Ok(self.claims.clone())
    }

    fn gpu_evidence(&self, _nonce: &Digest32) -> Result<GpuEvidence, AttestError> {
        Ok(GpuEvidence::default())
    }

    fn quote(&self, report_data: &Digest64) -> Result<CpuEvidence, AttestError> {
        Ok(CpuEvidence::Software { jwt: report_data.to_string(), public_key: PublicKey32::from([0; 32]) })
    }
}

/// Accepts a quote that is the report data in hex.
pub struct TestVerifier;

impl Verifier for TestVerifier {
    fn kind(&self) -> EvidenceKind {
        EvidenceKind::Software
    }

    fn policy_digest(&self) -> Digest48 {
        Digest48::from([9; 48])
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
                Ok(Appraisal { assurance: Assurance::SelfReported, claims: vec![], relaxations: vec![] })
            }
            _ => Err(Refusal::new(Code::REPORT_DATA_MISMATCH, binding.report_data, "another")),
        }
    }
}

pub struct World {
    pub session: Nonce32,
    pub gate_key: Arc<SigningSecret>,
    pub result_key: Arc<ResultKey>,
    pub launch_secret: Arc<Secret<32>>,
    pub data_key: [u8; 32],
    pub reference: ReferenceValues,
    pub attestor: TestAttestor,
    pub store: Arc<dyn GateStore>,
}

impl World {
    pub fn new() -> Self {
        let anti_debug = AntiDebug {
            profile: ANTI_DEBUG_PROFILE.to_owned(),
            level: AntiDebugLevel::Basic,
            not_dumpable: true,
            no_core_files: true,
            no_tracer: true,
            no_preload: true,
            ptrace_scope: None,
        };
        let claims = Claims {
            kind: EvidenceKind::Software,
            image_digest: None,
            container: ContainerId { source: "boot-id".into(), value: "host:1".into() },
            runtime_measurement: Digest32::from([3; 32]),
            anti_debug,
            state: RuntimeState::Ready,
        };
        let reference = ReferenceValues {
            kind: claims.kind,
            image_digest: claims.image_digest,
            container: claims.container.clone(),
            runtime_measurement: claims.runtime_measurement,
            anti_debug_profile: claims.anti_debug.profile.clone(),
            anti_debug_level: claims.anti_debug.level,
            policy_digest: TestVerifier.policy_digest(),
            minimum_assurance: Assurance::SelfReported,
        };
        Self {
            session: Nonce32::random().unwrap(),
            gate_key: Arc::new(SigningSecret::random().unwrap()),
            result_key: Arc::new(ResultKey::random().unwrap()),
            launch_secret: Arc::new(Secret::random().unwrap()),
            data_key: [5; 32],
            reference,
            attestor: TestAttestor { claims },
            store: Arc::new(MemoryGateStore::default()),
        }
    }

    /// The same world over another store.
    pub fn again(&self, store: Arc<dyn GateStore>) -> Self {
        Self {
            session: self.session,
            gate_key: Arc::clone(&self.gate_key),
            result_key: Arc::clone(&self.result_key),
            launch_secret: Arc::clone(&self.launch_secret),
            data_key: self.data_key,
            reference: self.reference.clone(),
            attestor: self.attestor.clone(),
            store,
        }
    }

    /// Closes the store before the next one is opened.
    pub fn drop_store_and(mut self, open: impl FnOnce() -> Arc<dyn GateStore>) -> Self {
        self.store = Arc::new(MemoryGateStore::default());
        self.store = open();
        self
    }

    pub fn job(&self) -> JobSpec {
        JobSpec {
            workload: "mlp".into(),
            device: Device::Cpu,
            warmup_units: 4,
            budget: Budget::Units(8),
            progress_millis: 100,
            export: true,
        }
    }

    pub fn owner(&self) -> OwnerSession {
        let config = OwnerConfig {
            session: self.session,
            gate_key: Arc::clone(&self.gate_key),
            result_key: Arc::clone(&self.result_key),
            launch_secret: Arc::clone(&self.launch_secret),
            package: PackageKey {
                package_digest: Digest48::from([1; 48]),
                manifest_digest: Digest48::from([2; 48]),
                data_key: Secret::take(&mut self.data_key.clone()),
            },
            job: self.job(),
            reference: self.reference.clone(),
            lease: LeaseTerms { ttl: Duration::from_secs(LEASE_SECONDS), max_units: None },
            challenge_ttl: Duration::from_secs(30),
            max_skew: Duration::from_secs(120),
            max_challenges: 8,
        };
        OwnerSession::new(config, Arc::clone(&self.store), Arc::new(TestVerifier)).unwrap()
    }

    pub fn runtime(&self) -> SegmentSession {
        self.runtime_of(self)
    }

    /// A runtime in another world's session that was launched with this world's secret.
    pub fn runtime_of(&self, other: &World) -> SegmentSession {
        SegmentSession::new(SegmentConfig {
            session: other.session,
            gate_key: other.gate_key.public(),
            launch_secret: Secret::take(&mut self.launch_secret.expose().clone()),
            package_digest: Digest48::from([1; 48]),
            manifest_digest: Digest48::from([2; 48]),
        })
    }
}
