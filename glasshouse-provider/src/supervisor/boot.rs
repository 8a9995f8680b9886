//! From `create` to an agent that answers: each phase inside its budget, the price looked at with every look.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use glasshouse_core::claims::ContainerId;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Allocation, AllocationState, Observation, Offer, ProviderError};
use tokio::time::{Instant, timeout};

use super::dial::{Unreached, reach};
use super::end::Core;
use super::patience::PhaseClock;
use super::pause::{from_now, pause};
use super::{BootPhase, RentRequest, Supervisor, SupervisorError};
use crate::client::AgentClient;

/// What was agreed on.
#[derive(Clone)]
pub(super) struct Terms {
    name: String,
    cap: Option<f64>,
    offered: f64,
    gpus: u32,
    limit: Option<Duration>,
    /// When its time began: with the request, or where waiting costs nothing, when it left the queue.
    began: Arc<OnceLock<Instant>>,
}

/// How long a segment that is told to stop has to hand out what it has and to wipe the rest: after a signal (a service
/// manager kills after 90 s), and of a time limit.
pub(crate) const STOPPING: Duration = Duration::from_secs(60);

impl Terms {
    pub(super) fn new(name: &str, offer: &Offer, request: &RentRequest) -> Self {
        let began = Arc::new(OnceLock::new());
        if offer.price_per_hour > 0.0 {
            let _ = began.set(Instant::now());
        }
        Self {
            name: name.to_owned(),
            cap: request.filter.max_price_per_hour,
            offered: offer.price_per_hour,
            gpus: offer.gpu_count,
            limit: request.time_limit,
            began,
        }
    }

    /// When it has to stop, whatever it does.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let limit = self.limit?;
        self.began.get()?.checked_add(limit.saturating_sub(STOPPING.min(limit / 4)))
    }

    /// It is out of the queue.
    fn left_the_queue(&self) {
        self.began.get_or_init(Instant::now);
    }

    /// Whether its price matters to anyone.
    pub(super) fn costs(&self) -> bool {
        self.offered > 0.0 || self.cap.is_some()
    }

    /// The price that it really has against the cap, and its worst case against the budget.
    pub(super) fn check(&self, core: &Core, allocation: &Allocation) -> Result<(), SupervisorError> {
        // Some providers tell no price for a while; then it is the offer's.
        let told = allocation.price_per_hour;
        let price = if told == 0.0 { self.offered } else { told };
        match self.cap {
            // Not a number is above every cap.
            Some(cap) if price.is_nan() || price > cap => {
                Err(SupervisorError::TooExpensive { id: allocation.id.clone(), price, cap })
            }
            _ => core.ledger.promise(&self.name, price, self.limit),
        }
    }

    pub(super) fn check_time(&self, allocation: &Allocation) -> Result<(), SupervisorError> {
        match (self.limit, self.deadline()) {
            (Some(limit), Some(deadline)) if Instant::now() >= deadline => {
                Err(SupervisorError::OutOfTime { id: allocation.id.clone(), limit })
            }
            _ => Ok(()),
        }
    }
}

/// An allocation whose agent answers.
pub(super) struct Up {
    pub(super) client: AgentClient,
    pub(super) container: Option<ContainerId>,
    pub(super) allocation: Allocation,
}

/// One allocation on its way.
pub(super) struct Boot<'a> {
    pub(super) supervisor: &'a Supervisor,
    pub(super) allocation: &'a Allocation,
    pub(super) terms: &'a Terms,
    pub(super) secret: &'a Secret<32>,
    /// Whether the provider has shown it.
    pub(super) seen: bool,
    state: AllocationState,
    why: String,
    clock: PhaseClock,
}

impl<'a> Boot<'a> {
    pub(super) fn new(
        supervisor: &'a Supervisor,
        allocation: &'a Allocation,
        terms: &'a Terms,
        secret: &'a Secret<32>,
    ) -> Self {
        Self {
            supervisor,
            allocation,
            terms,
            secret,
            seen: false,
            state: AllocationState::Scheduling,
            why: "it was not seen yet".to_owned(),
            clock: PhaseClock::start(supervisor.core.patience.boot),
        }
    }

    pub(super) async fn until_up(&mut self) -> Result<Up, SupervisorError> {
        let (core, id) = (&self.supervisor.core, &self.allocation.id);
        self.terms.check(core, self.allocation)?;
        let began = Instant::now();
        loop {
            self.terms.check_time(self.allocation)?;
            let left = self.left()?;
            let mut wait = None;
            match timeout(left, core.provider.observe(id)).await {
                Ok(Ok(seen)) => {
                    self.seen = true;
                    if let Some(up) = self.judge(seen).await? {
                        return Ok(up);
                    }
                }
                Ok(Err(ProviderError::NotFound { .. })) if !self.seen && began.elapsed() < core.patience.settle => {}
                Ok(Err(error @ (ProviderError::NotFound { .. } | ProviderError::Unauthorized { .. }))) => {
                    return Err(error.into());
                }
                Ok(Err(error)) => {
                    self.why = error.to_string();
                    wait = Some(error);
                }
                Err(_) => self.why = format!("{} did not answer", core.provider.name()),
            }
            let until = from_now(self.left()?);
            pause(core.patience.poll, wait.as_ref(), until).await;
        }
    }

    /// What a look comes to: nothing yet, an agent, or the end of waiting.
    async fn judge(&mut self, seen: Observation) -> Result<Option<Up>, SupervisorError> {
        self.terms.check(&self.supervisor.core, &seen.allocation)?;
        self.state = seen.state.clone();
        if !matches!(seen.state, AllocationState::Scheduling | AllocationState::Unknown(_)) {
            self.terms.left_the_queue();
        }
        let missing = seen.gpu_count.filter(|count| *count < self.terms.gpus);
        match &seen.state {
            AllocationState::Exited(_) | AllocationState::Terminating => {
                let code = if let AllocationState::Exited(code) = seen.state { code } else { None };
                let log = self.log_tail().await;
                return Err(SupervisorError::EndedEarly { id: self.allocation.id.clone(), code, log });
            }
            AllocationState::Scheduling => self.clock.enter(BootPhase::Schedule),
            AllocationState::Pulling => self.clock.enter(BootPhase::Pull),
            AllocationState::Starting => self.clock.enter(BootPhase::Start),
            AllocationState::Running if missing.is_some() => self.clock.enter(BootPhase::GpuReady),
            AllocationState::Running => self.clock.enter(BootPhase::Reachable),
            // Whatever it means, the phase that it was in goes on.
            AllocationState::Unknown(_) => {}
        }
        if let (Some(count), AllocationState::Running) = (missing, &seen.state) {
            self.why = format!("{count} of {} GPUs are there", self.terms.gpus);
            return Ok(None);
        }
        let reached = reach(&*self.supervisor.dial, &seen, self.secret, &self.terms.name);
        match timeout(self.left()?, reached).await {
            Ok(Ok(client)) => {
                let Observation { allocation, container, .. } = seen;
                Ok(Some(Up { client, container, allocation }))
            }
            Ok(Err(Unreached::Foreign(error))) => Err(error.into()),
            Ok(Err(Unreached::NotYet(why))) => {
                self.why = why;
                Ok(None)
            }
            Err(_) => {
                self.why = "its agent did not answer".to_owned();
                Ok(None)
            }
        }
    }

    /// What is left of the phase that it is in.
    fn left(&self) -> Result<Duration, SupervisorError> {
        let (left, phase) = (self.clock.left(), self.clock.phase());
        match left.is_zero() {
            false => Ok(left),
            true => Err(SupervisorError::Stuck {
                id: self.allocation.id.clone(),
                phase,
                budget: self.supervisor.core.patience.boot.of(phase),
                state: self.state.clone(),
                why: self.why.clone(),
            }),
        }
    }

    async fn log_tail(&self) -> String {
        /// A log must not hold up the end of what is billed.
        const PATIENCE: Duration = Duration::from_secs(10);
        let log = timeout(PATIENCE, self.supervisor.core.provider.logs(&self.allocation.id, None)).await;
        match log {
            Ok(Ok(log)) if !log.lines.is_empty() => {
                let skip = log.lines.len().saturating_sub(5);
                log.lines.get(skip..).unwrap_or_default().join("; ")
            }
            _ => "it has no log".to_owned(),
        }
    }
}
