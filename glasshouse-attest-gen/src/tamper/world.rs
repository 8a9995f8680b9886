//! A gate that trusts the generator's roots, and the runtime that answers it.

use std::sync::Arc;
use std::time::Duration;

use glasshouse_attest::hardware::{HardwareCollateral, HardwarePolicy, HardwareVerifier};
use glasshouse_attest::tamper::{Attempt, SuiteError};
use glasshouse_core::claims::{
    ANTI_DEBUG_PROFILE, AntiDebug, AntiDebugLevel, Claims, ContainerId, ReferenceValues, RuntimeState,
};
use glasshouse_core::clock::Now;
use glasshouse_core::evidence::{GpuEvidence, gpu_nonce, report_data};
use glasshouse_core::fixed::{Digest32, Digest48, Nonce32};
use glasshouse_core::gate::{GateStore, LeaseTerms, MemoryGateStore, OwnerConfig, OwnerSession, PackageKey};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::protocol::{
    Challenge, EvidenceMessage, LaunchKeys, ResultKey, RuntimeKey, SUITES, Signed, SigningSecret, TranscriptFields,
    transcript_hash,
};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Device, Verifier as _};
use glasshouse_core::transcript::sha384;

use crate::platform::{AUDIT_TIME, Platform};

/// What is done to devices' evidence over a nonce.
type Change = Box<dyn FnOnce(&mut GpuEvidence, &Digest32)>;

/// A machine, its owner's policy and collateral, and what the runtime on it does to its evidence.
pub(super) struct Attack {
    pub(super) platform: Platform,
    pub(super) policy: HardwarePolicy,
    pub(super) collateral: HardwareCollateral,
    /// Changes the devices' evidence; the quote binds what comes of it.
    pub(super) devices: Change,
    /// Whether the quote is made over no devices at all.
    pub(super) quote_leaves_devices_out: bool,
}

impl Attack {
    /// An honest machine.
    pub(super) fn on(platform: Platform) -> Self {
        let policy = platform.policy();
        let collateral = Platform::collateral();
        Self { platform, policy, collateral, devices: Box::new(|_, _| {}), quote_leaves_devices_out: false }
    }

    /// Plays the session up to the gate's decision.
    pub(super) fn run(self) -> Result<Attempt, SuiteError> {
        let policy = self.policy.clone();
        let verifier = HardwareVerifier::new(policy, Platform::roots(), self.collateral.clone());
        let verifier = verifier.map_err(|_| SuiteError::Unfit("a policy that can accept something"))?;
        let launch_secret = Arc::new(Secret::random().map_err(no_randomness)?);
        let session = Nonce32::random().map_err(no_randomness)?;
        let package = PackageKey {
            package_digest: sha384("a package"),
            manifest_digest: sha384("its manifest"),
            data_key: Secret::random().map_err(no_randomness)?,
        };
        let (package_digest, manifest_digest) = (package.package_digest, package.manifest_digest);
        let claims = claims(verifier.kind());
        let config = OwnerConfig {
            session,
            gate_key: Arc::new(SigningSecret::random().map_err(no_randomness)?),
            result_key: Arc::new(ResultKey::random().map_err(no_randomness)?),
            launch_secret: Arc::clone(&launch_secret),
            package,
            job: JobSpec {
                workload: "mlp".to_owned(),
                device: Device::Cpu,
                warmup_units: 1,
                budget: Budget::Units(1),
                progress_millis: 100,
                export: false,
            },
            reference: ReferenceValues {
                kind: claims.kind,
                image_digest: None,
                container: claims.container.clone(),
                runtime_measurement: claims.runtime_measurement,
                anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
                anti_debug_level: AntiDebugLevel::Basic,
                policy_digest: verifier.policy_digest(),
                minimum_assurance: self.policy.minimum_assurance.level(),
            },
            lease: LeaseTerms { ttl: Duration::from_secs(60), max_units: Some(1) },
            challenge_ttl: Duration::from_secs(30),
            max_skew: Duration::from_secs(120),
            max_challenges: 3,
        };
        let store = Arc::new(MemoryGateStore::default());
        let mut owner = OwnerSession::new(config, Arc::clone(&store) as Arc<dyn GateStore>, Arc::new(verifier))?;
        let challenge = owner.challenge(now())?;
        let evidence = self.answer(&challenge, &launch_secret, claims, [package_digest, manifest_digest])?;
        let result = owner.evidence(&evidence, now());
        let stored = store.sessions().map_err(|_| SuiteError::Unfit("a store in memory"))?;
        let key_left = !stored.is_empty() || owner.release_bytes().is_some();
        match Attempt::of(result)? {
            Attempt::Refused { refusal, .. } => Ok(Attempt::Refused { refusal, key_left }),
            Attempt::Accepted => Ok(Attempt::Accepted),
        }
    }

    /// The runtime's signed answer.
    fn answer(
        self,
        challenge: &[u8],
        launch_secret: &Secret<32>,
        claims: Claims,
        [package_digest, manifest_digest]: [Digest48; 2],
    ) -> Result<Vec<u8>, SuiteError> {
        let signed = Signed::<Challenge>::from_bytes(challenge)?;
        let challenge = signed.peek()?;
        let event_key = SigningSecret::random().map_err(no_randomness)?;
        let (hpke, event) = (RuntimeKey::random().map_err(no_randomness)?.public(), event_key.public());
        let t = transcript_hash(&TranscriptFields {
            challenge: &signed.digest(),
            suites: SUITES,
            hpke_key: &hpke,
            event_key: &event,
            package_digest: &package_digest,
            manifest_digest: &manifest_digest,
            claims: &claims,
            timestamp: AUDIT_TIME,
            minimum_assurance: challenge.minimum_assurance,
        });
        let nonce = gpu_nonce(&t);
        let mut gpus = self.platform.gpu_evidence(&nonce);
        (self.devices)(&mut gpus, &nonce);
        let bound = if self.quote_leaves_devices_out { GpuEvidence::default().digest() } else { gpus.digest() };
        let launch = LaunchKeys::new(launch_secret, challenge.session);
        let message = EvidenceMessage {
            session: challenge.session,
            nonce: challenge.nonce,
            challenge: signed.digest(),
            policy_digest: challenge.policy_digest,
            hpke_key: hpke,
            event_key: event,
            package_digest,
            manifest_digest,
            claims,
            timestamp: AUDIT_TIME,
            t,
            mac: launch.mac_transcript(&t),
            keys_mac: launch.mac_keys(&challenge.nonce, &hpke, &event),
            cpu: self.platform.quote(&report_data(&t, &bound)),
            gpus,
        };
        Ok(Signed::sign(&message, &event_key).to_bytes())
    }
}

fn claims(kind: glasshouse_core::claims::EvidenceKind) -> Claims {
    Claims {
        kind,
        image_digest: None,
        container: ContainerId { source: "boot-id".to_owned(), value: "host:generated".to_owned() },
        runtime_measurement: Digest32::from([3; 32]),
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
    }
}

fn now() -> Now {
    Now { wall: AUDIT_TIME, boot: Duration::from_secs(1_000) }
}

fn no_randomness<E>(_: E) -> SuiteError {
    SuiteError::NoRandomness
}
