//! A run's parts, complete, and what each step takes out of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::channel::OwnerChannel;
use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, AntiDebugLevel, ContainerId, ReferenceValues};
use glasshouse_core::fixed::{Blob, Digest32, Nonce32};
use glasshouse_core::gate::{LeaseTerms, OwnerConfig, OwnerSession, PackageKey};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::overhead::Mode;
use glasshouse_core::package::SealedPackage;
use glasshouse_core::protocol::encode;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Device, Provider, Verifier};

use super::artifacts::ArtifactFolder;
use super::builder::Supervise;
use super::drive::Link;
use super::limits::{Limits, progress_interval};
use super::uploads::Uploads;
use super::{Gate, RunError, StopHandle};
use crate::raw::{RawOrder, raw_key};
use crate::supervisor::{Journal, Patience, RentRequest, Rented, Supervisor};
use crate::wire::{SegmentId, SegmentMode, StartSegment};

/// A sealed package and where it lies.
pub(super) struct PackageFile {
    pub(super) path: PathBuf,
    pub(super) sealed: SealedPackage,
}

/// Everything that a run was given, complete.
pub(super) struct Setup {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) verifier: Arc<dyn Verifier>,
    pub(super) gate: Gate,
    pub(super) package: PackageFile,
    pub(super) runtime: Digest32,
    pub(super) out: PathBuf,
    pub(super) journal: Arc<Journal>,
    pub(super) journal_path: PathBuf,
    pub(super) device: Device,
    pub(super) warmup_units: u64,
    pub(super) budget: Budget,
    pub(super) progress: Duration,
    pub(super) export: bool,
    pub(super) lease: LeaseTerms,
    pub(super) challenge_ttl: Duration,
    pub(super) max_skew: Duration,
    pub(super) max_challenges: u32,
    pub(super) container: Option<ContainerId>,
    pub(super) anti_debug: AntiDebugLevel,
    pub(super) request: RentRequest,
    pub(super) allow_cleartext: bool,
    pub(super) handle_signals: bool,
    pub(super) stop: StopHandle,
    pub(super) patience: Option<Patience>,
    pub(super) supervise: Option<Supervise>,
    /// Segments in the plan, which share the record.
    pub(super) segments: usize,
    /// Bytes of all artifacts together.
    pub(super) artifact_limit: u64,
}

impl Setup {
    pub(super) fn supervisor(&self) -> Supervisor {
        let supervisor = Supervisor::new(self.provider.clone(), self.journal.clone());
        let supervisor = match self.patience {
            Some(patience) => supervisor.patience(patience),
            None => supervisor,
        };
        match &self.supervise {
            Some(supervise) => supervise(supervisor),
            None => supervisor,
        }
    }

    /// What a segment may come to: in time, its lease, and time to come and go.
    pub(super) fn limit(&self) -> Limits {
        Limits::new(self.training().max(self.lease.ttl).saturating_add(self.request.linger), self.segments)
    }

    /// How long a segment trains at most.
    fn training(&self) -> Duration {
        match self.budget {
            Budget::Millis(millis) => Duration::from_millis(millis),
            Budget::Units(_) => self.lease.ttl,
        }
    }

    /// How long the agent may be unreachable before its segment counts as lost.
    pub(super) fn outage(&self) -> Duration {
        if self.provider.name() == "local" {
            Duration::from_secs(1)
        } else {
            self.request.linger.min(Duration::from_secs(120))
        }
    }

    /// The output folder as artifacts may use it: not over the package, nor over the journal.
    pub(super) fn artifact_folder(&self) -> ArtifactFolder {
        let taken = [self.package.path.as_path(), self.journal_path.as_path()];
        ArtifactFolder::new(&self.out, taken, self.artifact_limit)
    }

    fn job(&self) -> JobSpec {
        let progress = progress_interval(self.progress, self.training(), self.segments);
        JobSpec {
            workload: self.package.sealed.manifest.workload.clone(),
            device: self.device,
            warmup_units: self.warmup_units,
            budget: self.budget,
            progress_millis: u64::try_from(progress.as_millis()).unwrap_or(u64::MAX),
            export: self.export,
        }
    }

    fn reference(&self, rented: &Rented) -> Result<ReferenceValues, RunError> {
        let container = self.container.clone().or_else(|| rented.container.clone());
        let missing = RunError::Missing { what: "the container id that evidence must name", call: "container" };
        Ok(ReferenceValues {
            kind: self.verifier.kind(),
            image_digest: self.request.image.as_ref().map(|(_, digest)| *digest),
            container: container.ok_or(missing)?,
            runtime_measurement: self.runtime,
            anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
            anti_debug_level: self.anti_debug,
            policy_digest: self.verifier.policy_digest(),
            minimum_assurance: self.package.sealed.manifest.minimum_assurance,
        })
    }

    pub(super) fn segment(
        &self,
        position: usize,
        mode: Mode,
        uploads: &Uploads,
        rented: &Rented,
    ) -> Result<(StartSegment, Link), RunError> {
        let session = Nonce32::random().map_err(|_| RunError::NoRandomness)?;
        let id = SegmentId::new(&format!("{mode}-{position}"));
        let id = id.ok_or(RunError::Missing { what: "a segment id", call: "run" })?;
        let missing = RunError::Missing { what: "a package", call: "package" };
        let attestor = self.verifier.kind();
        match mode {
            Mode::Raw => {
                let raw = uploads.raw.as_ref().ok_or(missing)?;
                let unmet = RunError::Missing { what: "an agent that has answered", call: "provider" };
                let boot = rented.client.boot().ok_or(unmet)?;
                let secret = &rented.launch_secret;
                let order = RawOrder::seal(self.job(), &raw.data_key, &raw.digests, secret, &session)?;
                let (package, job) = (raw.upload.digest, Some(Blob(encode(&order))));
                let start = StartSegment { id, mode: SegmentMode::Raw, session, attestor, package, job };
                let channel = Box::new(OwnerChannel::raw(secret, session, &boot));
                Ok((start, Link::Raw(channel, raw_key(secret, session)?)))
            }
            Mode::Protected => {
                let package = uploads.sealed.as_ref().ok_or(missing)?.digest;
                let start = StartSegment { id, mode: SegmentMode::Protected, session, attestor, package, job: None };
                let reference = self.reference(rented)?;
                let sealed = &self.package.sealed;
                let config = OwnerConfig {
                    session,
                    gate_key: self.gate.signing.clone(),
                    result_key: self.gate.result.clone(),
                    launch_secret: rented.launch_secret.clone(),
                    package: PackageKey {
                        package_digest: sealed.digests.package,
                        manifest_digest: sealed.digests.manifest,
                        data_key: copy_of(&sealed.data_key),
                    },
                    job: self.job(),
                    reference: reference.clone(),
                    lease: self.lease,
                    challenge_ttl: self.challenge_ttl,
                    max_skew: self.max_skew,
                    max_challenges: self.max_challenges,
                };
                let gate = OwnerSession::new(config, self.gate.store.clone(), self.verifier.clone())?;
                Ok((start, Link::Gate(Box::new(gate), reference)))
            }
        }
    }
}

/// The environment that the tool asked for, with what the run itself tells its agent.
pub(super) fn agent_env(env: &BTreeMap<String, String>, anti_debug: AntiDebugLevel) -> BTreeMap<String, String> {
    let level = (crate::roles::ANTI_DEBUG_VARIABLE.to_owned(), anti_debug.as_str().to_owned());
    env.iter().map(|(name, value)| (name.clone(), value.clone())).chain([level]).collect()
}

/// Each session of the gate takes its own copy of the data key over, in memory that is wiped.
fn copy_of(secret: &Secret<32>) -> Secret<32> {
    let copied = Secret::fill_with(|bytes| {
        bytes.copy_from_slice(secret.expose());
        Ok::<(), std::convert::Infallible>(())
    });
    match copied {
        Ok(copy) => copy,
        Err(never) => match never {},
    }
}
