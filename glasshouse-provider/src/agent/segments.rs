//! Segments as processes: started fresh, talked to over their pipes, ended with the agent.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glasshouse_core::fixed::{Blob, Digest48};
use glasshouse_core::secret::Secret;
use glasshouse_core::transcript::sha384;
use rustix::process::Signal;
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, Command};

use super::artifacts::Artifacts;
use super::outbox::{Answer, Outbox};
use crate::frames::{self, FromSegment, SegmentStart, ToSegment};
use crate::local::ProcessId;
use crate::roles::{Launch, ROLE_VARIABLE, note};
use crate::wire::{MAX_WAIT, SegmentId, SegmentStatus, StartSegment, WireCode, WireError};

/// A segment has this long to answer a challenge or a release. Below the 60 s after which proxies cut a request.
const ANSWER_DEADLINE: Duration = Duration::from_secs(50);

/// One segment, running or ended.
pub(super) struct Segment {
    pub(super) start: StartSegment,
    process: Option<ProcessId>,
    pub(super) outbox: Outbox,
    /// `None` once it is closed, which tells the segment that its owner is gone.
    input: tokio::sync::Mutex<Option<ChildStdin>>,
    /// Held over a question and its answer, so that two requests cannot take each other's.
    /// Holds the digest of the release that was opened: the same one again is not a second one.
    asking: tokio::sync::Mutex<Option<Digest48>>,
}

pub(super) struct Segments {
    launch_secret: Secret<32>,
    folder: PathBuf,
    all: Mutex<BTreeMap<SegmentId, Arc<Segment>>>,
    order: Mutex<Vec<SegmentId>>,
}

impl Segments {
    pub(super) fn new(launch_secret: Secret<32>, folder: PathBuf) -> Self {
        Self { launch_secret, folder, all: Mutex::default(), order: Mutex::default() }
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
        let (segment, Some(child)) = self.find_or_spawn(&start)? else { return self.find(&start.id) };
        tokio::spawn(follow(segment.clone(), child));
        let first = ToSegment::Start(SegmentStart {
            id: start.id,
            mode: start.mode,
            session: start.session,
            attestor: start.attestor,
            gate_key: launch.gate_key,
            image_digest: launch.image_digest,
            linger_millis: launch.linger_millis,
            package,
            job: start.job,
        });
        segment.write(self.launch_secret.expose()).await?;
        segment.send(&first).await?;
        Ok(segment)
    }

    fn find_or_spawn(&self, start: &StartSegment) -> Result<(Arc<Segment>, Option<Child>), WireError> {
        let exists = |message: String| Err(WireError::new(WireCode::SegmentExists, message));
        let mut all = self.all();
        if let Some(segment) = all.get(&start.id) {
            if segment.start == *start {
                return Ok((segment.clone(), None));
            }
            return exists(format!("segment {} was started with other parameters; choose another id", start.id));
        }
        if let Some(running) = all.values().find(|segment| segment.outbox.exit().is_none()) {
            return exists(format!("segment {} still runs; wait for its end", running.start.id));
        }
        let (segment, child) = self.spawn(start.clone())?;
        all.insert(start.id.clone(), segment.clone());
        self.order.lock().unwrap_or_else(PoisonError::into_inner).push(start.id.clone());
        Ok((segment, Some(child)))
    }

    fn spawn(&self, start: StartSegment) -> Result<(Arc<Segment>, Child), WireError> {
        let machine = |what: &str, e: std::io::Error| {
            WireError::new(WireCode::Machine, format_args!("cannot {what}: {e}; look at the allocation's limits"))
        };
        let folder = self.folder.join(start.id.as_str());
        std::fs::create_dir_all(&folder).map_err(|e| machine("make a directory for artifacts", e))?;
        let mut child = Command::new("/proc/self/exe")
            .arg("glasshouse-segment")
            .arg(start.id.as_str())
            .env(ROLE_VARIABLE, "segment")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| machine("start a segment", e))?;
        let segment = Arc::new(Segment {
            start,
            process: child.id().and_then(ProcessId::of),
            outbox: Outbox::new(Artifacts::new(folder)),
            input: tokio::sync::Mutex::new(child.stdin.take()),
            asking: tokio::sync::Mutex::default(),
        });
        Ok((segment, child))
    }

    /// Asks every segment to end, waits for their zeroization, kills what is left.
    pub(super) async fn end_all(&self, grace: Duration) {
        let running: Vec<_> = self.all().values().filter(|s| s.outbox.exit().is_none()).cloned().collect();
        for segment in &running {
            segment.input.lock().await.take();
            segment.signal(Signal::TERM);
        }
        let ended = async {
            for segment in &running {
                segment.exited().await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            running.iter().for_each(|segment| segment.signal(Signal::KILL));
            for segment in &running {
                let _ = tokio::time::timeout(Duration::from_millis(500), segment.exited()).await;
            }
        }
    }
}

impl Segment {
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.map(|process| process.pid)
    }

    pub(super) fn status(&self) -> SegmentStatus {
        self.outbox.status(&self.start, self.pid())
    }

    fn signal(&self, signal: Signal) {
        if let Some(process) = self.process {
            process.signal(signal);
        }
    }

    async fn exited(&self) {
        let mut changes = self.outbox.subscribe();
        while self.outbox.exit().is_none() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Hands over a challenge and gives the evidence.
    pub(super) async fn challenge(&self, bytes: Vec<u8>) -> Result<Blob, WireError> {
        let _asking = self.asking.lock().await;
        match self.ask(&ToSegment::Challenge(Blob(bytes))).await? {
            Answer::Evidence(evidence) => Ok(evidence),
            Answer::Refused(refusal) => Err(refused(refusal)),
            Answer::Released => Err(WireError::new(WireCode::WrongStep, "the segment has its release")),
        }
    }

    /// Hands over a release.
    pub(super) async fn release(&self, bytes: Vec<u8>) -> Result<(), WireError> {
        let mut opened = self.asking.lock().await;
        let digest = sha384(&bytes);
        if *opened == Some(digest) {
            return Ok(());
        }
        match self.ask(&ToSegment::Release(Blob(bytes))).await? {
            Answer::Released => {
                *opened = Some(digest);
                Ok(())
            }
            Answer::Refused(refusal) => Err(refused(refusal)),
            Answer::Evidence(_) => Err(WireError::new(WireCode::WrongStep, "the segment answers a challenge")),
        }
    }

    /// Waits until something changes, at most `wait`; at once when there is something after `after`.
    pub(super) async fn wait_for_records(&self, after: Option<u64>, wait: Duration) {
        let mut changes = self.outbox.subscribe();
        let something = async {
            loop {
                let status = self.status();
                if status.exit.is_some() || status.last_seq.is_some_and(|last| after.is_none_or(|after| last > after)) {
                    return;
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(wait.min(MAX_WAIT), something).await;
    }

    pub(super) async fn send(&self, message: &impl Serialize) -> Result<(), WireError> {
        let frame = frames::encode(message).map_err(|e| WireError::new(WireCode::TooLarge, e))?;
        self.write(&frame).await
    }

    async fn write(&self, bytes: &[u8]) -> Result<(), WireError> {
        let mut input = self.input.lock().await;
        let Some(pipe) = input.as_mut() else { return Err(self.ended()) };
        match pipe.write_all(bytes).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended()),
        }
    }

    async fn ask(&self, question: &ToSegment) -> Result<Answer, WireError> {
        let mut changes = self.outbox.subscribe();
        self.outbox.answer();
        self.send(question).await?;
        let answer = async {
            loop {
                if let Some(answer) = self.outbox.answer() {
                    return Ok(answer);
                }
                if self.outbox.exit().is_some() || changes.changed().await.is_err() {
                    return Err(self.ended());
                }
            }
        };
        let silent = |_| {
            let message = format!("segment {} did not answer within {} s", self.start.id, ANSWER_DEADLINE.as_secs());
            Err(WireError::new(WireCode::SegmentSilent, message))
        };
        tokio::time::timeout(ANSWER_DEADLINE, answer).await.unwrap_or_else(silent)
    }

    fn ended(&self) -> WireError {
        let how = match self.outbox.exit() {
            Some(exit) => exit.to_string(),
            None => format!("closed its input in step {}", self.status().step),
        };
        WireError::new(WireCode::SegmentEnded, format_args!("segment {} {how}", self.start.id))
    }
}

fn refused(refusal: glasshouse_core::refusal::Refusal) -> WireError {
    WireError { refusal: Some(Box::new(refusal.clone())), ..WireError::new(WireCode::SegmentRefused, refusal) }
}

/// Takes everything that the segment says until it ends, then how it ended.
async fn follow(segment: Arc<Segment>, mut child: Child) {
    let mut broken = None;
    if let Some(mut stdout) = child.stdout.take() {
        loop {
            match frames::read_async::<FromSegment>(&mut stdout).await {
                Ok(Some(message)) => {
                    if let Err(why) = segment.outbox.take(message) {
                        broken = Some(why);
                        break;
                    }
                }
                Ok(None) => break,
                Err(e) => {
                    broken = Some(format!("its channel is unreadable: {e}"));
                    break;
                }
            }
        }
    }
    if broken.is_some() {
        segment.signal(Signal::KILL);
    }
    let status = child.wait().await.ok();
    segment.input.lock().await.take();
    segment.outbox.exited(status.and_then(|s| s.code()), status.as_ref().and_then(ExitStatus::signal), broken);
    if let Some(exit) = segment.outbox.exit() {
        note(format_args!("segment {} {exit}", segment.start.id));
    }
}
