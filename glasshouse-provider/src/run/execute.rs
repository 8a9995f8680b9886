//! A plan of segments on one allocation: rent, upload, run each, end, prove.

use std::io::{Cursor, Read, Seek};
use std::time::{Duration, Instant};

use glasshouse_core::channel::{EventBody, EventHeader, OwnerChannel};
use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, ReferenceValues};
use glasshouse_core::fixed::{Digest48, Fixed, Nonce32};
use glasshouse_core::gate::{OwnerConfig, OwnerSession, PackageKey};
use glasshouse_core::job::{Budget, JobSpec};
use glasshouse_core::overhead::{Cleanup, Label, Mode};
use glasshouse_core::package::open_file;
use glasshouse_core::protocol::encode;
use glasshouse_core::record::{CleanupProof, Moment};
use glasshouse_core::secret::Secret;
use sha2::{Digest as _, Sha384};

use super::builder::Setup;
use super::drive::{Begun, Leg, Link};
use super::result::SegmentResult;
use super::{RunError, RunEvent};
use crate::bundle;
use crate::supervisor::{RentRequest, Rented, Supervisor};
use crate::wire::{SegmentId, SegmentMode, StartSegment};

/// What a plan came to. An error stands beside what came home before it.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) run: Nonce32,
    pub(super) results: Vec<SegmentResult>,
    /// What tells this instance from any other.
    pub(super) instance: String,
    pub(super) cleanup: Option<CleanupProof>,
    pub(super) moments: Vec<Moment>,
    pub(super) error: Option<RunError>,
}

/// Tells the tool what happens, and keeps the owner's timeline.
pub(super) struct Teller<'a> {
    began: Instant,
    moments: Vec<Moment>,
    setup: &'a Setup,
    listener: &'a mut (dyn FnMut(RunEvent) + Send),
}

impl Teller<'_> {
    pub(super) fn event(&mut self, event: RunEvent) {
        (self.listener)(event);
    }

    pub(super) fn moment(&mut self, name: &str, session: Option<Nonce32>) {
        let micros = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.moments.push(Moment { name: Label::lossy(name), session, micros });
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.setup.stop.is_stopped()
    }

    pub(super) fn runtime_event(&mut self, position: usize, _header: &EventHeader, body: &EventBody) {
        match body {
            EventBody::Phase { phase, .. } => self.event(RunEvent::Phase { position, phase: *phase }),
            EventBody::Progress { progress, interval } => {
                self.event(RunEvent::Progress { position, progress: *progress, interval: *interval });
            }
            _ => {}
        }
    }
}

/// Runs the plan. An error before anything was rented is given as such; later ones stand in the result.
pub(super) async fn execute(
    setup: &Setup,
    plan: &[Mode],
    listener: &mut (dyn FnMut(RunEvent) + Send),
) -> Result<Executed, RunError> {
    crate::roles::ensure_owner()?;
    super::files::prepare_folder(&setup.out)?;
    let run = Nonce32::random().map_err(|_| RunError::NoRandomness)?;
    let uploads = Uploads::prepare(setup, plan)?;
    let supervisor = setup.supervisor();
    // What an earlier owner left behind is ended first: it may hold the port, the card or the budget.
    supervisor.recover().await?;
    let mut tell = Teller { began: Instant::now(), moments: Vec::new(), setup, listener };
    tell.event(RunEvent::Renting);
    let request = setup.rent_request();
    let rented = tokio::select! {
        rented = supervisor.rent(&request) => rented?,
        () = interrupted(setup) => {
            supervisor.recover().await?;
            return Err(RunError::Interrupted);
        }
    };
    tell.moment("rented", None);
    tell.event(RunEvent::Rented { id: rented.allocation.id.clone() });
    let mut begun = Vec::new();
    let ran = tokio::select! {
        ran = segments(setup, plan, &uploads, &rented, &mut begun, &mut tell) => ran,
        () = interrupted(setup) => Err(RunError::Interrupted),
    };
    tell.event(RunEvent::Ending);
    tell.moment("end-requested", None);
    let instance = rented.allocation.id.to_string();
    let cleanup = rented.end().await?;
    tell.moment("end-observed", None);
    tell.event(RunEvent::Ended { cleanup: cleanup.outcome });
    let unconfirmed = (cleanup.outcome != Cleanup::Observed)
        .then(|| RunError::CleanupUnconfirmed { allocation: cleanup.allocation.clone() });
    let error = ran.err();
    let last = begun.len().saturating_sub(1);
    let results = begun.into_iter().enumerate();
    let results = results.map(|(i, begun)| begun.finish(error.as_ref().filter(|_| i == last))).collect();
    let error = error.or(unconfirmed);
    Ok(Executed { run, results, instance, cleanup: Some(cleanup), moments: tell.moments, error })
}

async fn segments(
    setup: &Setup,
    plan: &[Mode],
    uploads: &Uploads,
    rented: &Rented,
    begun: &mut Vec<Begun>,
    tell: &mut Teller<'_>,
) -> Result<(), RunError> {
    uploads.send(rented, tell).await?;
    tell.moment("uploaded", None);
    for (position, mode) in plan.iter().copied().enumerate() {
        tell.event(RunEvent::SegmentStarted { position, of: plan.len(), mode });
        let (start, link) = setup.segment(position, mode, uploads, rented)?;
        let leg = Leg { client: &rented.client, start, position, mode, limit: setup.limit(), outage: setup.outage() };
        begun.push(Begun::new(&leg, link));
        let Some(current) = begun.last_mut() else { continue };
        let ended = leg.drive(current, tell).await;
        tell.event(RunEvent::SegmentEnded { position, completed: ended.is_ok() });
        ended?;
    }
    Ok(())
}

/// What goes up: the sealed package, and for raw segments the same entries in the clear.
pub(super) struct Uploads {
    sealed: Option<(std::path::PathBuf, Digest48, u64)>,
    raw: Option<(Vec<u8>, Digest48)>,
}

impl Uploads {
    fn prepare(setup: &Setup, plan: &[Mode]) -> Result<Self, RunError> {
        let sealed = match plan.contains(&Mode::Protected) {
            true => Some(digest_of(&setup.package.path)?),
            false => None,
        };
        let raw = match plan.contains(&Mode::Raw) {
            true => Some(raw_bundle(setup)?),
            false => None,
        };
        Ok(Self { sealed, raw })
    }

    async fn send(&self, rented: &Rented, tell: &mut Teller<'_>) -> Result<(), RunError> {
        if let Some((path, digest, length)) = &self.sealed {
            let mut file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
            send(rented, digest, *length, &mut file, tell).await?;
        }
        if let Some((bytes, digest)) = &self.raw {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            send(rented, digest, length, &mut Cursor::new(bytes), tell).await?;
        }
        Ok(())
    }
}

async fn send<R: Read + Seek + Send>(
    rented: &Rented,
    digest: &Digest48,
    total: u64,
    source: &mut R,
    tell: &mut Teller<'_>,
) -> Result<(), RunError> {
    let told = |done| tell.event(RunEvent::Uploading { done, total });
    Ok(rented.client.upload(digest, total, source, told).await?)
}

fn raw_bundle(setup: &Setup) -> Result<(Vec<u8>, Digest48), RunError> {
    let (provider, sealed) = (setup.provider.name(), &setup.package.sealed);
    if provider != "local" && !sealed.manifest.public_data && !setup.allow_cleartext {
        return Err(RunError::CleartextData { provider });
    }
    let opened = open_file(&setup.package.path, &sealed.data_key, &sealed.digests)?;
    let mut bytes = Vec::new();
    bundle::write(&opened.entries, &opened.manifest.public_inputs, &mut bytes).map_err(|e| RunError::File {
        path: setup.package.path.clone(),
        what: "bundled for raw segments",
        why: e.to_string(),
    })?;
    let digest = Fixed(Sha384::digest(&bytes).into());
    Ok((bytes, digest))
}

fn unreadable(path: &std::path::Path, error: &std::io::Error) -> RunError {
    RunError::File { path: path.to_owned(), what: "read", why: error.to_string() }
}

fn digest_of(path: &std::path::Path) -> Result<(std::path::PathBuf, Digest48, u64), RunError> {
    let mut file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let (mut hash, mut total, mut buffer) = (Sha384::new(), 0_u64, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).map_err(|e| unreadable(path, &e))?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
        hash.update(piece);
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok((path.to_owned(), Fixed(hash.finalize().into()), total))
}

/// Ctrl-C or SIGTERM; never, when the tool handles signals itself.
async fn interrupted(setup: &Setup) {
    use tokio::signal::unix::{SignalKind, signal};
    if setup.handle_signals
        && let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    } else {
        std::future::pending().await
    }
}

impl Setup {
    fn supervisor(&self) -> Supervisor {
        let supervisor = Supervisor::new(self.provider.clone(), self.journal.clone());
        match self.patience {
            Some(patience) => supervisor.patience(patience),
            None => supervisor,
        }
    }

    fn rent_request(&self) -> RentRequest {
        let mut env = self.env.clone();
        env.insert(crate::roles::ANTI_DEBUG_VARIABLE.to_owned(), self.anti_debug.as_str().to_owned());
        RentRequest {
            filter: self.filter.clone(),
            image: self.image.clone(),
            gate_key: self.gate.public(),
            linger: self.linger,
            env,
            disk_gib: self.disk_gib,
            time_limit: self.time_limit,
        }
    }

    /// How long a segment may take in all: its lease, and time to come and go.
    fn limit(&self) -> Duration {
        let work = match self.budget {
            Budget::Millis(millis) => Duration::from_millis(millis),
            Budget::Units(_) => self.lease.ttl,
        };
        work.max(self.lease.ttl).saturating_add(self.linger)
    }

    /// How long the agent may be unreachable before its segment counts as lost.
    fn outage(&self) -> Duration {
        if self.provider.name() == "local" { Duration::from_secs(1) } else { self.linger.min(Duration::from_secs(120)) }
    }

    fn job(&self) -> JobSpec {
        JobSpec {
            workload: self.package.sealed.manifest.workload.clone(),
            device: self.device,
            warmup_units: self.warmup_units,
            budget: self.budget,
            progress_millis: u64::try_from(self.progress.as_millis()).unwrap_or(u64::MAX),
            export: self.export,
        }
    }

    fn reference(&self, rented: &Rented) -> Result<ReferenceValues, RunError> {
        let container = self.container.clone().or_else(|| rented.container.clone());
        let missing = RunError::Missing { what: "the container id that evidence must name", call: "container" };
        Ok(ReferenceValues {
            kind: self.verifier.kind(),
            image_digest: self.image.as_ref().map(|(_, digest)| *digest),
            container: container.ok_or(missing)?,
            runtime_measurement: self.runtime,
            anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
            anti_debug_level: self.anti_debug,
            policy_digest: self.verifier.policy_digest(),
            minimum_assurance: self.package.sealed.manifest.minimum_assurance,
        })
    }

    fn segment(
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
                let (_, digest) = uploads.raw.as_ref().ok_or(missing)?;
                let job = Some(glasshouse_core::fixed::Blob(encode(&self.job())));
                let start = StartSegment { id, mode: SegmentMode::Raw, session, attestor, package: *digest, job };
                Ok((start, Link::Raw(Box::new(OwnerChannel::raw(&rented.launch_secret, session)))))
            }
            Mode::Protected => {
                let (_, digest, _) = uploads.sealed.as_ref().ok_or(missing)?;
                let start =
                    StartSegment { id, mode: SegmentMode::Protected, session, attestor, package: *digest, job: None };
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
