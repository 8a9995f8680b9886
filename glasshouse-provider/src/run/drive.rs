//! The owner's side of one segment, from its start to its last acknowledged record.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::time::{Duration, Instant};

use glasshouse_core::channel::{Command, EventBody, EventHeader, Outcome, OwnerChannel, SealedRecord};
use glasshouse_core::claims::ReferenceValues;
use glasshouse_core::gate::{GateError, OwnerSession};
use glasshouse_core::overhead::Mode;
use glasshouse_core::protocol::{ResultKey, SealedArtifact, decode, encode, open_artifact};
use glasshouse_core::record::{RawSegmentRecord, SessionRecord};
use glasshouse_core::refusal::Refusal;
use glasshouse_core::transcript::sha256;

use super::artifacts::ArtifactFolder;
use super::execute::Teller;
use super::limits::{Limits, weight};
use super::result::{Protocol, SegmentResult};
use super::{RunError, RunEvent};
use crate::client::ClientError;
use crate::clock;
use crate::supervisor::Rented;
use crate::wire::{ArtifactEntry, SegmentExit, SegmentStep, StartSegment};

/// One request for records waits this long, for raw and protected segments alike.
const POLL: Duration = Duration::from_secs(2);
/// After its acknowledgement a segment ends within this.
const EXIT: Duration = Duration::from_secs(15);

/// Between two attempts to reach an agent that is away.
const BETWEEN: Duration = Duration::from_millis(100);

/// The owner's end of the channel.
pub(super) enum Link {
    Gate(Box<OwnerSession>, ReferenceValues),
    /// With the key that artifacts of a raw segment are sealed to.
    Raw(Box<OwnerChannel>, ResultKey),
}

/// Which segment, and how patiently.
pub(super) struct Leg<'a> {
    pub(super) rented: &'a Rented,
    pub(super) start: StartSegment,
    pub(super) position: usize,
    pub(super) mode: Mode,
    pub(super) limit: Limits,
    /// How long the agent may be unreachable.
    pub(super) outage: Duration,
    /// Where artifacts are made durable; a run that only measures fetches none.
    pub(super) artifacts: Option<&'a ArtifactFolder>,
}

/// A segment that was begun. It lives outside of the future that drives it, so that an interrupted run still has what
/// came home.
pub(super) struct Begun {
    pub(super) link: Link,
    pub(super) home: SegmentResult,
}

impl Begun {
    pub(super) fn new(leg: &Leg<'_>, link: Link) -> Self {
        let home = SegmentResult {
            session: leg.start.session,
            mode: leg.mode,
            position: leg.position,
            events: Vec::new(),
            steps: Vec::new(),
            protocol: Protocol::Nothing,
            artifacts: Vec::new(),
        };
        Self { link, home }
    }

    /// What came home, with what of the protocol goes into the record. `error` is what ended the run, if it did.
    pub(super) fn finish(mut self, error: Option<&RunError>) -> SegmentResult {
        // What was kept was checked when it came; bytes that cannot be read again are no part of any record.
        self.home.protocol = self.link.protocol(error).unwrap_or(Protocol::Nothing);
        self.home
    }
}

impl Leg<'_> {
    /// Runs the segment. What came home is in `begun` however this ends.
    pub(super) async fn drive(&self, begun: &mut Begun, tell: &mut Teller<'_>) -> Result<(), RunError> {
        match self.steps(begun, tell).await {
            Err(RunError::Client(error @ ClientError::Unreachable { .. })) => {
                let (segment, last) = (self.start.id.to_string(), last_record(&begun.home));
                Err(RunError::AgentLost { segment, last, error: Box::new(error) })
            }
            outcome => outcome,
        }
    }

    async fn steps(&self, begun: &mut Begun, tell: &mut Teller<'_>) -> Result<(), RunError> {
        let Begun { link, home } = begun;
        let (client, id, session) = (&self.rented.client, &self.start.id, Some(self.start.session));
        tell.moment("segment-started", session);
        client.start(&self.start).await?;
        if let Link::Gate(gate, _) = link {
            let challenge = gate.challenge(clock::now())?;
            tell.moment("challenge-sent", session);
            let evidence = self.rented.attest(client.challenge(id, challenge)).await??;
            tell.moment("evidence-received", session);
            let release = gate.evidence(&evidence, clock::now())?;
            client.release(id, release).await?;
            tell.moment("released", session);
            tell.event(RunEvent::Released { position: self.position });
        }
        self.records(link, home, tell).await?;
        tell.moment("ended", session);
        let last = home.events.len().saturating_sub(1);
        let last = u64::try_from(last).unwrap_or(u64::MAX);
        // Everything is home: a short break must not make a failure of it.
        patiently(self.outage, || client.acknowledge(id, last)).await?;
        tell.moment("acknowledged", session);
        let exit = self.exit(home).await?;
        judge(self.start.id.to_string(), self.mode, home)?;
        // Everything is here, but a process that died before its last step did not wipe its session keys itself.
        match exit.signal.is_some() || exit.step != SegmentStep::Done {
            true => Err(RunError::SegmentLost {
                segment: self.start.id.to_string(),
                last: last_record(home),
                exit: Box::new(exit),
            }),
            false => Ok(()),
        }
    }

    /// Takes records until the terminal event, and each artifact once its event is there.
    async fn records(&self, link: &mut Link, home: &mut SegmentResult, tell: &mut Teller<'_>) -> Result<(), RunError> {
        let (began, mut down, mut stopped) = (Instant::now(), None::<Instant>, false);
        let (mut after, mut weighed, mut ended) = (None, 0_usize, false);
        loop {
            if tell.is_stopped() && !stopped {
                stopped = true;
                let stop = encode(&link.stop()?);
                patiently(self.outage, || self.rented.client.command(&self.start.id, stop.clone())).await?;
            }
            let page = match self.rented.client.records(&self.start.id, after, POLL).await {
                Ok(page) => page,
                Err(ClientError::Unreachable { .. })
                    if down.get_or_insert_with(Instant::now).elapsed() < self.outage =>
                {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            down = None;
            home.steps = page.status.steps;
            let records: Vec<SealedRecord> = page
                .records
                .iter()
                .map(|record| decode("sealed record", &record.record.0, 2 * SealedRecord::LIMIT))
                .collect::<Result<_, Refusal>>()?;
            let events = link.accept(&records)?;
            after = records.last().map(|record| record.seq).or(after);
            ended |= events.iter().any(|(header, _)| header.terminal);
            for (header, body) in events {
                tell.runtime_event(self.position, &header, &body);
                weighed = weighed.saturating_add(weight(&body));
                home.events.push((header, body));
            }
            if weighed > self.limit.record {
                let (segment, events) = (self.start.id.to_string(), home.events.len());
                return Err(RunError::TooManyEvents { segment, events });
            }
            match self.fetch(link, home, &page.artifacts).await {
                Ok(()) if ended => return Ok(()),
                // The next page tries again, and knows how long that may go on: the segment waits for its last
                // acknowledgement, and a short break must not cost what it trained.
                Ok(()) | Err(RunError::Client(ClientError::Unreachable { .. })) => {}
                Err(error) => return Err(error),
            }
            if let Some(through) = after.filter(|_| !records.is_empty() && !ended) {
                self.keep_up(through).await?;
            }
            if let Some(exit) = page.status.exit.filter(|_| page.records.is_empty()) {
                return Err(RunError::SegmentLost {
                    segment: self.start.id.to_string(),
                    last: last_record(home),
                    exit: Box::new(exit),
                });
            }
            if began.elapsed() > self.limit.time {
                let seconds = self.limit.time.as_secs();
                return Err(RunError::Overdue { segment: self.start.id.to_string(), seconds });
            }
        }
    }

    /// Acknowledges what is durable, so that the agent lets go of it. The terminal event is not among it: the segment
    /// waits for that one, and it is said last. An agent that is away is told with the next page.
    async fn keep_up(&self, through: u64) -> Result<(), RunError> {
        match self.rented.client.acknowledge(&self.start.id, through).await {
            Ok(_) | Err(ClientError::Unreachable { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Downloads what the events announced and is not here yet, and checks it against what they say: a checkpoint must
    /// outlive the allocation that it was made on. The signed sizes are what is asked for.
    async fn fetch(&self, link: &Link, home: &mut SegmentResult, entries: &[ArtifactEntry]) -> Result<(), RunError> {
        let Some(folder) = self.artifacts else { return Ok(()) };
        let SegmentResult { events, artifacts, .. } = home;
        let announced = || {
            events.iter().filter_map(|(_, body)| match body {
                EventBody::Artifact { name, sha256, bytes, sealed_sha256 } => {
                    Some((name, *sha256, *bytes, *sealed_sha256))
                }
                _ => None,
            })
        };
        folder.expect(announced().map(|(name, _, bytes, _)| (name.as_str(), bytes)))?;
        for (name, digest, bytes, sealed_digest) in announced().skip(artifacts.len()) {
            folder.admit(name, artifacts)?;
            let wrong = |why: &str| RunError::Artifact { name: name.clone(), why: why.to_owned() };
            let sealed_digest = sealed_digest.ok_or_else(|| wrong("it is not sealed to this owner"))?;
            let entry = entries.iter().find(|entry| entry.name == *name);
            let entry = entry.ok_or_else(|| wrong("the agent does not have it"))?;
            if entry.size != SealedArtifact::encoded_len(bytes) {
                return Err(wrong("it has not the size that the runtime signed"));
            }
            let raw = self.rented.client.artifact(&self.start.id, entry).await?;
            if sha256(&raw) != sealed_digest {
                return Err(wrong("it was changed on the way"));
            }
            let sealed: SealedArtifact = decode("sealed artifact", &raw, raw.len())?;
            drop(raw);
            let opened = match link {
                Link::Gate(gate, _) => gate.open_artifact(name, &sealed)?,
                Link::Raw(_, key) => open_artifact(key, &self.start.session, name, &sealed)?,
            };
            if sha256(&*opened) != digest {
                return Err(wrong("its SHA-256 is not the one that the runtime signed"));
            }
            // Before the acknowledgement, upon which the allocation forgets it.
            artifacts.push(folder.keep(name, digest, &opened)?);
        }
        Ok(())
    }

    /// Waits until the process is gone, so that the next segment has the machine to itself.
    async fn exit(&self, home: &mut SegmentResult) -> Result<SegmentExit, RunError> {
        let began = Instant::now();
        let last = u64::try_from(home.events.len()).unwrap_or(u64::MAX);
        loop {
            let page = patiently(self.outage, || self.rented.client.records(&self.start.id, Some(last), POLL)).await?;
            home.steps = page.status.steps;
            if let Some(exit) = page.status.exit {
                return Ok(exit);
            }
            if began.elapsed() > EXIT {
                return Err(RunError::Overdue { segment: self.start.id.to_string(), seconds: EXIT.as_secs() });
            }
        }
    }
}

/// What the segment says of itself. A protected one that left no receipt is not done, whatever it says.
fn judge(segment: String, mode: Mode, home: &SegmentResult) -> Result<(), RunError> {
    match home.outcome() {
        Some((Outcome::Completed, _)) if mode == Mode::Protected && home.receipt().is_none() => {
            Err(RunError::ReceiptMissing { segment })
        }
        Some((Outcome::Completed, _)) => Ok(()),
        Some((Outcome::Stopped, reason)) => {
            Err(RunError::SegmentStopped { segment, reason: reason.unwrap_or_default() })
        }
        Some((Outcome::Failed, reason)) => Err(RunError::SegmentFailed { segment, reason: reason.unwrap_or_default() }),
        None => Err(RunError::Overdue { segment, seconds: 0 }),
    }
}

/// Sequence number of the last record that is here.
fn last_record(home: &SegmentResult) -> Option<u64> {
    home.events.last().map(|(header, _)| header.seq)
}

/// Asks again while the agent is away, for as long as a break may last.
async fn patiently<T, F>(outage: Duration, mut ask: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut down = None::<Instant>;
    loop {
        match ask().await {
            Err(ClientError::Unreachable { .. }) if down.get_or_insert_with(Instant::now).elapsed() < outage => {
                tokio::time::sleep(BETWEEN).await;
            }
            answered => return answered,
        }
    }
}

impl Link {
    fn accept(&mut self, records: &[SealedRecord]) -> Result<Vec<(EventHeader, EventBody)>, RunError> {
        match self {
            Self::Gate(gate, _) => Ok(gate.records(records)?),
            Self::Raw(channel, _) => {
                Ok(records.iter().map(|record| channel.accept(record)).collect::<Result<_, Refusal>>()?)
            }
        }
    }

    fn stop(&mut self) -> Result<SealedRecord, RunError> {
        match self {
            Self::Gate(gate, _) => Ok(gate.command(&Command::Stop)?),
            Self::Raw(channel, _) => Ok(channel.command(&Command::Stop)?),
        }
    }

    /// What of this goes into the record.
    fn protocol(self, error: Option<&RunError>) -> Result<Protocol, Refusal> {
        match self {
            Self::Raw(channel, _) => Ok(Protocol::Raw(Box::new(RawSegmentRecord::from_channel(&channel)))),
            Self::Gate(gate, reference) => match (gate.record_parts(), gate.verdict(), error.and_then(refusal_in)) {
                (Some(parts), Some(verdict), _) => {
                    let record = SessionRecord::from_parts(&parts, reference)?;
                    Ok(Protocol::Released(Box::new(record), verdict.appraisal.assurance))
                }
                (_, _, Some(refusal)) => Ok(Protocol::Refused { refusal: refusal.clone(), at: clock::wall() }),
                _ => Ok(Protocol::Nothing),
            },
        }
    }
}

/// The refusal in an error, whichever side refused.
fn refusal_in(error: &RunError) -> Option<&Refusal> {
    match error {
        RunError::Gate(GateError::Refused(refusal)) | RunError::Refused(refusal) => Some(refusal),
        RunError::Client(error) => error.refused()?.refusal.as_deref(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::fixed::Fixed;
    use glasshouse_core::traits::Receipt;

    fn home(mode: Mode, bodies: Vec<EventBody>) -> SegmentResult {
        let header = |terminal| EventHeader {
            session: Fixed([1; 32]),
            seq: 0,
            previous: Fixed([0; 48]),
            body: Fixed([0; 48]),
            terminal,
            at: clock::wall(),
            boot_micros: 0,
        };
        SegmentResult {
            session: Fixed([1; 32]),
            mode,
            position: 0,
            events: bodies.into_iter().map(|body| (header(matches!(body, EventBody::End { .. })), body)).collect(),
            steps: Vec::new(),
            protocol: Protocol::Nothing,
            artifacts: Vec::new(),
        }
    }

    #[test]
    fn a_protected_segment_is_done_with_its_receipt_alone() {
        let end = || EventBody::End { outcome: Outcome::Completed, reason: None };
        let judged = |mode, bodies| judge("a".to_owned(), mode, &home(mode, bodies));
        let receipt = Receipt {
            zeroizer: "host".to_owned(),
            regions: Vec::new(),
            allocator_bytes: None,
            large_blocks: None,
            small_blocks: None,
            unlocked_bytes: 0,
            key_memory: Default::default(),
            swapped_bytes: None,
            not_covered: Vec::new(),
            millis: 0,
        };
        let error = judged(Mode::Protected, vec![end()]).unwrap_err();
        assert!(matches!(error, RunError::ReceiptMissing { .. }), "{error}");
        judged(Mode::Protected, vec![EventBody::Zeroized { receipt }, end()]).unwrap();
        judged(Mode::Raw, vec![end()]).unwrap();
    }
}
