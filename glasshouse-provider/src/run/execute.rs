//! A plan of segments on one allocation: rent, upload, run each, end, prove.

use std::pin::pin;
use std::time::Instant;

use glasshouse_core::channel::{EventBody, EventHeader};
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::overhead::{Cleanup, Label, Mode};
use glasshouse_core::record::{CleanupProof, Moment};

use super::artifacts::ArtifactFolder;
use super::drive::{Begun, Leg};
use super::result::SegmentResult;
use super::setup::Setup;
use super::uploads::Uploads;
use super::{RunError, RunEvent};
use crate::supervisor::{Rented, STOPPING, SupervisorError};

/// What a plan came to. An error stands beside what came home before it.
#[derive(Debug)]
pub(super) struct Executed {
    pub(super) run: Nonce32,
    pub(super) results: Vec<SegmentResult>,
    /// What tells this instance from any other.
    pub(super) instance: String,
    pub(super) cleanup: Option<CleanupProof>,
    pub(super) moments: Vec<Moment>,
    /// What went wrong, in order.
    pub(super) errors: Vec<RunError>,
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
            EventBody::End { outcome, .. } => self.event(RunEvent::Reported { position, outcome: *outcome }),
            _ => {}
        }
    }
}

/// Runs the plan. An error before anything was rented is given as such; later ones stand in the result.
pub(super) async fn execute(
    setup: &Setup,
    plan: &[Mode],
    artifacts: Option<&ArtifactFolder>,
    listener: &mut (dyn FnMut(RunEvent) + Send),
) -> Result<Executed, RunError> {
    crate::roles::ensure_owner()?;
    super::files::prepare_folder(&setup.out)?;
    let run = Nonce32::random().map_err(|_| RunError::NoRandomness)?;
    let mut uploads = Uploads::prepare(setup, plan)?;
    let supervisor = setup.supervisor();
    // What an earlier owner left behind is ended first: it may hold the port, the card or the budget.
    let recovered = supervisor.recover().await?;
    let mut tell = Teller { began: Instant::now(), moments: Vec::new(), setup, listener };
    for proof in recovered {
        tell.event(RunEvent::Recovered { proof });
    }
    for entry in setup.journal.open_entries() {
        tell.event(RunEvent::Unconfirmed { entry });
    }
    tell.event(RunEvent::Renting);
    let rented = tokio::select! {
        rented = supervisor.rent(&setup.request) => rented?,
        () = interrupted(setup) => {
            for proof in supervisor.recover().await? {
                tell.event(RunEvent::Recovered { proof });
            }
            return Err(RunError::Interrupted);
        }
    };
    tell.moment("rented", None);
    tell.event(RunEvent::Rented { id: rented.allocation.id.clone() });
    let mut begun = Vec::new();
    let ran = {
        let mut running = pin!(segments(setup, plan, artifacts, &mut uploads, &rented, &mut begun, &mut tell));
        tokio::select! {
            ran = &mut running => ran,
            why = rented.watch() => {
                // Time runs out with some of it left for this; money does not.
                if matches!(why, SupervisorError::OutOfTime { .. }) {
                    in_good_order(setup, running).await;
                }
                Err(why.into())
            }
            () = interrupted(setup) => {
                in_good_order(setup, running).await;
                Err(RunError::Interrupted)
            }
        }
    };
    tell.event(RunEvent::Ending);
    tell.moment("end-requested", None);
    let instance = rented.allocation.id.to_string();
    let (cleanup, unconfirmed) = ended(rented.end().await);
    tell.moment("end-observed", None);
    let outcome = cleanup.as_ref().map_or(Cleanup::Unconfirmed, |proof| proof.outcome);
    tell.event(RunEvent::Ended { cleanup: outcome });
    let error = ran.err();
    let last = begun.len().saturating_sub(1);
    let results = begun.into_iter().enumerate();
    let results = results.map(|(i, begun)| begun.finish(error.as_ref().filter(|_| i == last))).collect();
    let errors = error.into_iter().chain(unconfirmed).collect();
    Ok(Executed { run, results, instance, cleanup, moments: tell.moments, errors })
}

/// What the record says of the end, and what the run says when that is not that it was observed.
fn ended(end: Result<CleanupProof, SupervisorError>) -> (Option<CleanupProof>, Option<RunError>) {
    match end {
        Ok(proof) if proof.outcome == Cleanup::Observed => (Some(proof), None),
        Ok(proof) => {
            let allocation = proof.allocation.clone();
            (Some(proof), Some(RunError::CleanupUnconfirmed { allocation }))
        }
        Err(error) => {
            let proof = match &error {
                SupervisorError::Unjournalled { proof, .. } => Some((**proof).clone()),
                _ => None,
            };
            (proof, Some(error.into()))
        }
    }
}

async fn segments(
    setup: &Setup,
    plan: &[Mode],
    artifacts: Option<&ArtifactFolder>,
    uploads: &mut Uploads,
    rented: &Rented,
    begun: &mut Vec<Begun>,
    tell: &mut Teller<'_>,
) -> Result<(), RunError> {
    uploads.send(rented, tell).await?;
    tell.moment("uploaded", None);
    for (position, mode) in plan.iter().copied().enumerate() {
        if tell.is_stopped() {
            return Err(RunError::Interrupted);
        }
        tell.event(RunEvent::SegmentStarted { position, of: plan.len(), mode });
        let (start, link) = setup.segment(position, mode, uploads, rented)?;
        let (limit, outage) = (setup.limit(), setup.outage());
        let leg = Leg { rented, start, position, mode, limit, outage, artifacts };
        begun.push(Begun::new(&leg, link));
        let Some(current) = begun.last_mut() else { continue };
        let ended = leg.drive(current, tell).await;
        tell.event(RunEvent::SegmentEnded { position, completed: ended.is_ok() });
        ended?;
    }
    Ok(())
}

/// A first signal asks the segment to stop, so that it exports, zeroizes and says so. A second one, or too long a wait,
/// leaves that to the end of the allocation.
async fn in_good_order(setup: &Setup, running: impl Future<Output = Result<(), RunError>>) {
    setup.stop.stop();
    tokio::select! {
        _ = running => {}
        () = interrupted(setup) => {}
        () = tokio::time::sleep(STOPPING) => {}
    }
}

/// Ctrl-C, SIGTERM, or a terminal that was closed; never, when the tool handles signals itself.
async fn interrupted(setup: &Setup) {
    use tokio::signal::unix::{SignalKind, signal};
    if setup.handle_signals
        && let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()), signal(SignalKind::hangup()))
    {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    } else {
        std::future::pending().await
    }
}
