//! Segments as processes: started fresh, talked to over their pipes, ended with the agent.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glasshouse_core::fixed::Nonce32;
use glasshouse_core::secret::Secret;
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::OwnedMutexGuard;

use super::artifacts::Artifacts;
use super::outbox::Outbox;
use super::segment::{Segment, follow};
use crate::frames::{self, SegmentStart, ToSegment};
use crate::local::ProcessId;
use crate::roles::{Launch, ROLE_VARIABLE};
use crate::wire::{SegmentId, SegmentStatus, StartSegment, WireCode, WireError};

/// A pipe that nobody writes to is closed at once.
const CLOSING: Duration = Duration::from_millis(100);

pub(super) struct Segments {
    launch_secret: Secret<32>,
    boot: Nonce32,
    folder: PathBuf,
    all: Mutex<BTreeMap<SegmentId, Arc<Segment>>>,
    order: Mutex<Vec<SegmentId>>,
}

/// A segment whose process has just begun, with its pipe held for what must go in first.
struct Spawned {
    segment: Arc<Segment>,
    input: OwnedMutexGuard<Option<ChildStdin>>,
    child: Child,
}

impl Segments {
    pub(super) fn new(launch_secret: Secret<32>, boot: Nonce32, folder: PathBuf) -> Self {
        Self { launch_secret, boot, folder, all: Mutex::default(), order: Mutex::default() }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<SegmentId, Arc<Segment>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn find(&self, id: &SegmentId) -> Result<Arc<Segment>, WireError> {
        let missing = || WireError::new(WireCode::NoSuchSegment, format_args!("there is no segment {id}"));
        self.all().get(id).cloned().ok_or_else(missing)
    }

    /// Every segment, in the order in which they were started.
    pub(super) fn statuses(&self) -> Vec<SegmentStatus> {
        let all = self.all();
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.iter().filter_map(|id| all.get(id)).map(|segment| segment.status()).collect()
    }

    /// Starts a segment; the same request again finds it. One runs at a time: two would measure each other.
    pub(super) async fn start(
        &self,
        launch: &Launch,
        start: StartSegment,
        package: PathBuf,
    ) -> Result<Arc<Segment>, WireError> {
        let Some(Spawned { segment, mut input, child }) = self.find_or_spawn(&start, launch)? else {
            return self.find(&start.id);
        };
        tokio::spawn(follow(segment.clone(), child));
        let first = ToSegment::Start(SegmentStart {
            id: start.id,
            mode: start.mode,
            session: start.session,
            boot: self.boot,
            attestor: start.attestor,
            gate_key: launch.gate_key,
            image_digest: launch.image_digest,
            linger_millis: launch.linger_millis,
            package,
            job: start.job,
        });
        let first = frames::encode(&first).map_err(|e| WireError::new(WireCode::TooLarge, e))?;
        // Nobody else gets the pipe before the secret and the start are in it.
        let Some(pipe) = input.as_mut() else { return Err(segment.ended()) };
        for part in [self.launch_secret.expose().as_slice(), &first] {
            pipe.write_all(part).await.map_err(|_| segment.ended())?;
        }
        drop(input);
        Ok(segment)
    }

    /// Nothing when there is such a segment already.
    fn find_or_spawn(&self, start: &StartSegment, launch: &Launch) -> Result<Option<Spawned>, WireError> {
        let exists = |message: String| Err(WireError::new(WireCode::SegmentExists, message));
        let mut all = self.all();
        if let Some(segment) = all.get(&start.id) {
            if segment.start == *start {
                return Ok(None);
            }
            return exists(format!("segment {} was started with other parameters; choose another id", start.id));
        }
        if let Some(running) = all.values().find(|segment| segment.outbox.exit().is_none()) {
            return exists(format!("segment {} still runs; wait for its end", running.start.id));
        }
        let spawned = self.spawn(start.clone(), launch)?;
        all.insert(start.id.clone(), spawned.segment.clone());
        self.order.lock().unwrap_or_else(PoisonError::into_inner).push(start.id.clone());
        Ok(Some(spawned))
    }

    fn spawn(&self, start: StartSegment, launch: &Launch) -> Result<Spawned, WireError> {
        let machine = |what: &str, e: std::io::Error| {
            WireError::new(WireCode::Machine, format_args!("cannot {what}: {e}; look at the allocation's limits"))
        };
        let folder = self.folder.join(start.id.as_str());
        std::fs::create_dir_all(&folder).map_err(|e| machine("make a directory for artifacts", e))?;
        let mut command = Command::new("/proc/self/exe");
        if let Some(own_end) = &launch.own_end {
            // The end of the allocation is no segment's business.
            command.env_remove(&own_end.key_variable);
        }
        let mut child = command
            .arg("glasshouse-segment")
            .arg(start.id.as_str())
            .env(ROLE_VARIABLE, "segment")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| machine("start a segment", e))?;
        let input = Arc::new(tokio::sync::Mutex::new(child.stdin.take()));
        let busy = |_| WireError::new(WireCode::Machine, "a pipe that was just made is in use");
        let held = input.clone().try_lock_owned().map_err(busy)?;
        let segment = Arc::new(Segment {
            start,
            process: child.id().and_then(ProcessId::of),
            outbox: Outbox::new(Artifacts::new(folder)),
            input,
            asking: tokio::sync::Mutex::default(),
        });
        Ok(Spawned { segment, input: held, child })
    }

    /// Asks every segment to end, waits for their zeroization, kills what is left after `grace`, and waits for that until
    /// `limit` is over and no longer: one that is stuck in the kernel dies when the kernel lets it.
    pub(super) async fn end_all(&self, grace: Duration, limit: Duration) {
        let running: Vec<_> = self.all().values().filter(|s| s.outbox.exit().is_none()).cloned().collect();
        // First of all, and to all of them: whoever writes to a segment that reads nothing holds its pipe.
        running.iter().for_each(|segment| segment.signal(Signal::TERM));
        let ended = async {
            for segment in &running {
                let close = async { drop(segment.input.lock().await.take()) };
                let _ = tokio::time::timeout(CLOSING, close).await;
            }
            for segment in &running {
                segment.exited().await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            running.iter().for_each(|segment| segment.signal(Signal::KILL));
            let killed = async {
                for segment in &running {
                    segment.exited().await;
                }
            };
            let _ = tokio::time::timeout(limit.saturating_sub(grace), killed).await;
        }
    }
}
