//! One owner, one runtime and what they share, all real: what the attackers of the suite are let loose on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use glasshouse_core::channel::{EventBody, Outcome, SealedRecord};
use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, AntiDebugLevel, Assurance, EvidenceKind, ReferenceValues};
use glasshouse_core::clock::{Now, UnixMillis};
use glasshouse_core::fixed::{Digest32, Digest48, Nonce32};
use glasshouse_core::gate::{
    BurnOutcome, CommittedRelease, GateError, GateStore, LeaseTerms, MemoryGateStore, OwnerConfig, OwnerSession,
    PackageKey, StoreError,
};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::protocol::{ResultKey, SigningSecret};
use glasshouse_core::secret::Secret;
use glasshouse_core::segment::{Grant, SegmentConfig, SegmentSession};
use glasshouse_core::traits::{Attestor as _, Device, Verifier as _};

use super::{Attempt, Control, SuiteError};
use crate::software::{
    ContainerSource, RuntimeStateCell, SoftwareAttestor, SoftwarePolicy, SoftwareVerifier, container_id,
    running_executable,
};

/// How long leases last here, seconds.
pub(super) const LEASE_SECONDS: u64 = 3600;
/// How many units leases allow here.
pub(super) const LEASE_UNITS: u64 = 100;

/// The suite's clock: an instant so many seconds after its beginning.
pub(super) fn at(seconds: u64) -> Now {
    let seconds_since_boot = 1_000_u64.saturating_add(seconds);
    let wall = UnixMillis(1_795_417_200_000).after(Duration::from_secs(seconds));
    Now { wall, boot: Duration::from_secs(seconds_since_boot) }
}

/// One session's world.
pub(super) struct World {
    pub(super) session: Nonce32,
    pub(super) gate_key: Arc<SigningSecret>,
    pub(super) launch_secret: Arc<Secret<32>>,
    pub(super) package_digest: Digest48,
    pub(super) manifest_digest: Digest48,
    pub(super) reference: ReferenceValues,
    pub(super) attestor: SoftwareAttestor,
    result_key: Arc<ResultKey>,
    data_key: Secret<32>,
    store: Arc<AuditStore>,
}

impl World {
    /// A fresh world, whose reference values are what this process really is.
    pub(super) fn new() -> Result<Self, SuiteError> {
        let policy_digest = SoftwareVerifier::new(SoftwarePolicy::default()).policy_digest();
        let attestor = SoftwareAttestor::new(RuntimeStateCell::new())?.clock(Arc::new(|| at(0).wall));
        if attestor.measure()?.anti_debug.level < AntiDebugLevel::Basic {
            return Err(SuiteError::NotHardened);
        }
        let reference = ReferenceValues {
            kind: EvidenceKind::Software,
            image_digest: None,
            container: container_id(ContainerSource::Kernel)?,
            runtime_measurement: running_executable()?,
            anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
            anti_debug_level: attestor.measure()?.anti_debug.level,
            policy_digest,
            minimum_assurance: Assurance::SelfReported,
        };
        Ok(Self {
            session: random()?,
            gate_key: Arc::new(SigningSecret::random().map_err(no_randomness)?),
            launch_secret: Arc::new(Secret::random().map_err(no_randomness)?),
            package_digest: random_digest()?,
            manifest_digest: random_digest()?,
            reference,
            attestor,
            result_key: Arc::new(ResultKey::random().map_err(no_randomness)?),
            data_key: Secret::random().map_err(no_randomness)?,
            store: Arc::new(AuditStore::default()),
        })
    }

    /// Another session of the same owner with the same gate, package and launch secret.
    pub(super) fn another_session(&self) -> Result<Self, SuiteError> {
        Ok(Self {
            gate_key: Arc::clone(&self.gate_key),
            launch_secret: Arc::clone(&self.launch_secret),
            package_digest: self.package_digest,
            manifest_digest: self.manifest_digest,
            result_key: Arc::clone(&self.result_key),
            ..Self::new()?
        })
    }

    /// The gate.
    pub(super) fn owner(&self) -> Result<OwnerSession, SuiteError> {
        self.owner_expecting(self.reference.clone())
    }

    /// The gate with other reference values.
    pub(super) fn owner_expecting(&self, reference: ReferenceValues) -> Result<OwnerSession, SuiteError> {
        let config = OwnerConfig {
            session: self.session,
            gate_key: Arc::clone(&self.gate_key),
            result_key: Arc::clone(&self.result_key),
            launch_secret: Arc::clone(&self.launch_secret),
            package: PackageKey {
                package_digest: self.package_digest,
                manifest_digest: self.manifest_digest,
                data_key: copy(&self.data_key),
            },
            job: JobSpec {
                workload: "mlp".to_owned(),
                device: Device::Cpu,
                warmup_units: 1,
                budget: Budget::Units(LEASE_UNITS),
                progress_millis: 100,
                export: true,
            },
            reference,
            lease: LeaseTerms { ttl: Duration::from_secs(LEASE_SECONDS), max_units: Some(LEASE_UNITS) },
            challenge_ttl: Duration::from_secs(30),
            max_skew: Duration::from_secs(120),
            max_challenges: 3,
        };
        let verifier = Arc::new(SoftwareVerifier::new(SoftwarePolicy::default()));
        Ok(OwnerSession::new(config, Arc::clone(&self.store) as Arc<dyn GateStore>, verifier)?)
    }

    /// The honest runtime.
    pub(super) fn runtime(&self) -> SegmentSession {
        SegmentSession::new(SegmentConfig {
            session: self.session,
            gate_key: self.gate_key.public(),
            launch_secret: copy(&self.launch_secret),
            package_digest: self.package_digest,
            manifest_digest: self.manifest_digest,
        })
    }

    /// An honest session up to its grant.
    pub(super) fn granted(&self) -> Result<(OwnerSession, Grant), SuiteError> {
        let (mut owner, mut runtime) = (self.owner()?, self.runtime());
        let challenge = owner.challenge(at(0))?;
        let evidence = runtime.challenge(&challenge, &self.attestor, at(0))?;
        let release = owner.evidence(&evidence, at(0))?;
        Ok((owner, runtime.release(&release, at(0))?))
    }

    /// What became of evidence at the gate, with `releases` made before it in this world. A key has left when the store
    /// was asked for one commit more, or the gate has more bytes to send, whatever the call itself said.
    pub(super) fn judge(
        &self,
        owner: &OwnerSession,
        result: Result<Vec<u8>, GateError>,
        releases: usize,
    ) -> Result<Attempt, SuiteError> {
        let key_left = self.store.commits() != releases || (releases == 0 && owner.release_bytes().is_some());
        match Attempt::of(result)? {
            Attempt::Refused { refusal, .. } => Ok(Attempt::Refused { refusal, key_left }),
            Attempt::Accepted => Ok(Attempt::Accepted),
        }
    }
}

/// The untampered session, from challenge to terminal event: the key arrives, and it is the right one.
pub(super) fn control() -> Result<Control, SuiteError> {
    let world = World::new()?;
    let (mut owner, mut grant) = world.granted()?;
    let released = world.store.commits() == 1 && grant.data_key.ct_eq(&world.data_key);
    let end = EventBody::End { outcome: Outcome::Completed, reason: None };
    owner.records(&[grant.channel.emit(&end, at(1))?])?;
    let parts = owner.record_parts().ok_or(SuiteError::Unfit("a released session has parts for its record"))?;
    parts.channel.chain().finish()?;
    let verdict = owner.verdict().ok_or(SuiteError::Unfit("a released session has a verdict"))?;
    Ok(Control::new(released, verdict.appraisal.assurance))
}

pub(super) fn random() -> Result<Nonce32, SuiteError> {
    Nonce32::random().map_err(no_randomness)
}

pub(super) fn random_digest32() -> Result<Digest32, SuiteError> {
    Digest32::random().map_err(no_randomness)
}

pub(super) fn random_digest() -> Result<Digest48, SuiteError> {
    Digest48::random().map_err(no_randomness)
}

pub(super) fn no_randomness<E>(_: E) -> SuiteError {
    SuiteError::NoRandomness
}

fn copy(secret: &Secret<32>) -> Secret<32> {
    Secret::take(&mut { *secret.expose() })
}

/// A gate store that counts how often the gate wanted to release, refused commits included.
#[derive(Default)]
struct AuditStore {
    inner: MemoryGateStore,
    commits: AtomicUsize,
}

impl AuditStore {
    fn commits(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }
}

impl GateStore for AuditStore {
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError> {
        self.inner.issue(session, nonce)
    }
    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError> {
        self.inner.burn(session, nonce)
    }
    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.inner.commit(release)
    }
    fn committed(&self, session: &Nonce32) -> Result<Option<CommittedRelease>, StoreError> {
        self.inner.committed(session)
    }
    fn keep(&self, session: &Nonce32, record: &SealedRecord) -> Result<(), StoreError> {
        self.inner.keep(session, record)
    }
    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError> {
        self.inner.kept(session)
    }
}
