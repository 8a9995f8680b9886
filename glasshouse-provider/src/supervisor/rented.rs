//! An allocation in use: watched while it runs, ended in the end.

use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::claims::ContainerId;
use glasshouse_core::record::CleanupProof;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Allocation, AllocationState};
use tokio::time::Instant;

use super::boot::Terms;
use super::end::Core;
use super::{BootPhase, OpenEntry, SupervisorError, Tried};
use crate::client::AgentClient;

/// An allocation whose agent answers. [`Rented::end`] ends it and proves it; dropping it only asks for the end.
pub struct Rented {
    pub(super) core: Core,
    pub(super) entry: OpenEntry,
    pub(super) terms: Terms,
    pub(super) ended: bool,
    /// The allocation.
    pub allocation: Allocation,
    /// The container id that evidence from there must name, as the provider knows it.
    pub container: Option<ContainerId>,
    /// What the allocation was launched with.
    pub launch_secret: Arc<Secret<32>>,
    /// Its agent.
    pub client: AgentClient,
    /// The offers before it that came to nothing.
    pub tried: Vec<Tried>,
}

impl Rented {
    /// Looks after it for as long as all is well, and gives the reason when it has to end: a price above the cap, a
    /// budget that is spent, its time limit. To be run beside the work, which it ends by returning.
    pub async fn watch(&self) -> SupervisorError {
        let deadline = self.terms.deadline();
        loop {
            if let Err(error) = self.terms.check_time(&self.allocation) {
                return error;
            }
            let next = match self.terms.costs() {
                true => Instant::now().checked_add(self.core.patience.watch),
                false => None,
            };
            match [next, deadline].into_iter().flatten().min() {
                Some(wake) => tokio::time::sleep_until(wake).await,
                None => std::future::pending().await,
            }
            // What does not answer now does later; the work notices by itself whether its agent is there.
            let look = self.core.provider.observe(&self.allocation.id);
            let limit = deadline.map_or(self.core.patience.watch, |at| at.saturating_duration_since(Instant::now()));
            let limit = limit.min(self.core.patience.watch);
            let Ok(seen) = self.core.answer_within(limit, "observe", look).await else { continue };
            if let Err(error) = self.terms.check(&self.core, &seen.allocation) {
                return error;
            }
        }
    }

    /// Waits for evidence inside the budget of [`BootPhase::Attest`].
    ///
    /// # Errors
    /// [`SupervisorError::Stuck`] when it does not come; the allocation is still there and has to be ended.
    pub async fn attest<T>(&self, evidence: impl Future<Output = T>) -> Result<T, SupervisorError> {
        let phase = BootPhase::Attest;
        let budget = self.core.patience.boot.of(phase);
        tokio::time::timeout(budget, evidence).await.map_err(|_| SupervisorError::Stuck {
            id: self.allocation.id.clone(),
            phase,
            budget,
            state: AllocationState::Running,
            why: "there is no evidence yet".to_owned(),
        })
    }

    /// Ends the allocation and gives the proof; its outcome says whether absence was seen. What was not seen to be
    /// gone stays in the journal.
    ///
    /// # Errors
    /// [`SupervisorError::Unjournalled`], with the proof, when the journal cannot be written.
    pub async fn end(mut self) -> Result<CleanupProof, SupervisorError> {
        let ended = self.core.end(&self.entry, Duration::ZERO).await;
        // Asked for and looked for, whatever the journal took.
        self.ended = true;
        ended
    }
}

impl Drop for Rented {
    /// The last resort of a run that was dropped: asks for the end, without proof; the journal keeps the entry.
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (provider, id) = (self.core.provider.clone(), self.allocation.id.clone());
        // A runtime of its own: the one that this is dropped in may be shutting down.
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            let asked = async { tokio::time::timeout(Duration::from_secs(10), provider.request_terminate(&id)).await };
            runtime.block_on(asked).ok()?.ok()
        });
        let _ = asked.join();
    }
}
