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
use glasshouse_core::package::{PackageBuilder, PackageDigests, Source, open};
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

/// Plaintext bytes of a chunk of the package here.
pub(super) const CHUNK_BYTES: u32 = 4096;
const ENTRY: &str = "data.bin";
/// Five chunks of something.
static CONTENT: [u8; 18_000] = [0x5a; 18_000];

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
    /// The sealed package's bytes, and what names them.
    pub(super) package: Vec<u8>,
    pub(super) digests: PackageDigests,
    pub(super) data_key: Secret<32>,
    pub(super) reference: ReferenceValues,
    pub(super) attestor: SoftwareAttestor,
    result_key: Arc<ResultKey>,
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
        let mut package = Vec::new();
        let sealed = PackageBuilder::new("mlp")
            .entry(ENTRY, Source::Slice(&CONTENT))
            .chunk_bytes(CHUNK_BYTES)
            .seal_to(&mut package)
            .map_err(|error| SuiteError::Package(error.to_string()))?;
        Ok(Self {
            session: random()?,
            package,
            digests: sealed.digests,
            data_key: sealed.data_key,
            gate_key: Arc::new(SigningSecret::random().map_err(no_randomness)?),
            launch_secret: Arc::new(Secret::random().map_err(no_randomness)?),
            reference,
            attestor,
            result_key: Arc::new(ResultKey::random().map_err(no_randomness)?),
            store: Arc::new(AuditStore::default()),
        })
    }

    /// Another session of the same owner with the same gate, package and launch secret.
    pub(super) fn another_session(&self) -> Result<Self, SuiteError> {
        Ok(Self {
            gate_key: Arc::clone(&self.gate_key),
            launch_secret: Arc::clone(&self.launch_secret),
            package: self.package.clone(),
            digests: self.digests,
            data_key: copy(&self.data_key),
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
                package_digest: self.digests.package,
                manifest_digest: self.digests.manifest,
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
            package_digest: self.digests.package,
            manifest_digest: self.digests.manifest,
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

/// The untampered session, from challenge to terminal event: the key arrives once, is the right
/// one, and opens the package.
pub(super) fn control() -> Result<Control, SuiteError> {
    let world = World::new()?;
    let (mut owner, mut grant) = world.granted()?;
    let opened = open(world.package.as_slice(), &grant.data_key, &world.digests);
    let opened = opened.map_err(|error| SuiteError::Package(error.to_string()))?;
    let content = opened.entries.get(ENTRY).is_some_and(|entry| **entry == CONTENT);
    let released = world.store.commits() == 1 && grant.data_key.ct_eq(&world.data_key) && content;
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

pub(super) fn copy(secret: &Secret<32>) -> Secret<32> {
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
    fn sessions(&self) -> Result<Vec<Nonce32>, StoreError> {
        self.inner.sessions()
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
