//! The end of an allocation: asked for until it is accepted, then absence seen twice, then the bill.

use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::overhead::{Cleanup, Figure, Label};
use glasshouse_core::record::{BilledSpend, CleanupProof};
use glasshouse_core::traits::{AllocationId, Provider, ProviderError};
use tokio::time::Instant;

use super::money::Ledger;
use super::pause::{from_now, pause};
use super::{Journal, OpenEntry, Patience, SupervisorError};
use crate::clock::Steady;

/// What everything that ends allocations shares.
#[derive(Clone)]
pub(super) struct Core {
    pub(super) provider: Arc<dyn Provider>,
    pub(super) journal: Arc<Journal>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) patience: Patience,
}

impl Core {
    /// Ends what an entry stands for, as far as it can be found. An error is that of the journal alone: the end was
    /// asked for and looked for all the same. For as long as it may be `hidden` yet, which is no time once the provider
    /// has shown it, its absence means nothing.
    pub(super) async fn end(&self, entry: &OpenEntry, hidden: Duration) -> Result<CleanupProof, SupervisorError> {
        // One for all of them: a proof whose sightings were not in order would be none.
        let clock = Steady::new();
        let sightings = self.until_absent(entry, hidden, &clock).await;
        let spend = match &entry.id {
            Some(id) => self.answer("spend", self.provider.spend(id)).await.ok().flatten().and_then(|spend| {
                let dollars = Figure::new(spend.dollars)?;
                Some(BilledSpend { dollars, read_at: spend.read_at, is_final: spend.is_final })
            }),
            None => None,
        };
        let allocation = entry.id.clone().map_or_else(|| entry.name.clone(), |id| id.0);
        // A request that nobody accepted is still one that was made: without a date the proof would say `kept`.
        let requested_at = sightings.requested_at.or(Some(clock.wall()));
        let proof = |absent_at| {
            let provider = Label::lossy(self.provider.name());
            CleanupProof::new(provider, allocation.clone(), requested_at, absent_at, spend)
        };
        let journalled = match sightings.is_gone() {
            true => {
                self.ledger.settle(&entry.name, spend.map(|spend| spend.dollars.value()));
                self.journal.gone(&entry.name)
            }
            false => Ok(()),
        };
        match journalled {
            Ok(()) => Ok(proof(sightings.absent_at)),
            // Record and journal say the same: an allocation that the journal still has is not confirmed to be gone.
            Err(error) => {
                Err(SupervisorError::Unjournalled { proof: Box::new(proof(Vec::new())), error, others: Box::default() })
            }
        }
    }

    /// An answer, or the error of a provider that does not give one.
    pub(super) async fn answer<T>(
        &self,
        call: &'static str,
        asked: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        self.answer_within(self.patience.end, call, asked).await
    }

    /// The same with another limit. Whether what was asked for happens all the same nobody knows.
    pub(super) async fn answer_within<T>(
        &self,
        limit: Duration,
        call: &'static str,
        asked: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            let why = format!("no answer within {} s", limit.as_secs_f64());
            Err(ProviderError::Ambiguous { provider: self.provider.name(), call, why, allocation: None })
        })
    }

    /// The end of one that is not wanted any more: whether it was seen to be gone, and the journal says so.
    pub(super) async fn is_ended(&self, entry: &OpenEntry, hidden: Duration) -> bool {
        self.end(entry, hidden).await.is_ok_and(|proof| proof.outcome == Cleanup::Observed)
    }

    async fn until_absent(&self, entry: &OpenEntry, hidden: Duration, clock: &Steady) -> Sightings {
        let (began, mut seen) = (Instant::now(), false);
        let deadline = from_now(self.patience.end.saturating_add(hidden));
        let mut sightings = Sightings { requested_at: None, absent_at: Vec::new() };
        while !sightings.is_gone() && Instant::now() < deadline {
            let look = self.look(entry).await;
            if !matches!(look, Look::Absent) {
                sightings.absent_at.clear();
            }
            match look {
                // Absence counts from the request on; one that was gone before is asked to end all the same.
                Look::Absent if sightings.requested_at.is_none() => match self.request(entry.id.iter()).await {
                    Ok(()) => sightings.requested_at = Some(clock.wall()),
                    // Who does not take the request may not know what there is, either.
                    Err(error) => pause(self.patience.poll, Some(&error), deadline).await,
                },
                // Another account, or another cluster, never knew of it. One that has shown it did: it has a new key.
                Look::Absent if !seen && !self.is_of_this_account(entry) => break,
                // It was asked for a moment ago, and may come to be seen yet.
                Look::Absent if !seen && began.elapsed() < hidden => pause(self.patience.poll, None, deadline).await,
                Look::Absent => {
                    sightings.absent_at.push(clock.wall());
                    if !sightings.is_gone() {
                        tokio::time::sleep(self.patience.absence_spacing).await;
                    }
                }
                Look::There(ids) => {
                    seen = true;
                    let refused = self.request(ids.iter()).await.err();
                    if refused.is_none() {
                        sightings.requested_at.get_or_insert_with(|| clock.wall());
                    }
                    pause(self.patience.poll, refused.as_ref(), deadline).await;
                }
                Look::Unknown(error) => {
                    // It bills on whether anybody can look or not.
                    if sightings.requested_at.is_none()
                        && entry.id.is_some()
                        && self.request(entry.id.iter()).await.is_ok()
                    {
                        sightings.requested_at = Some(clock.wall());
                    }
                    pause(self.patience.poll, Some(&error), deadline).await;
                }
            }
        }
        sightings
    }

    fn is_of_this_account(&self, entry: &OpenEntry) -> bool {
        match (&entry.account, self.provider.account()) {
            (Some(asked), Some(now)) => *asked == now,
            _ => true,
        }
    }

    /// By name, by id, and in the list of everything: what any of the three shows is there.
    async fn look(&self, entry: &OpenEntry) -> Look {
        let mut there: Vec<AllocationId> = Vec::new();
        match self.answer("find", self.provider.find(&entry.name)).await {
            Ok(found) => there.extend(found.into_iter().map(|allocation| allocation.id)),
            Err(ProviderError::NotFound { .. }) => {}
            Err(error) => return Look::Unknown(error),
        }
        if let Some(id) = &entry.id {
            match self.answer("observe", self.provider.observe(id)).await {
                Ok(_) => there.push(id.clone()),
                Err(ProviderError::NotFound { .. }) => {}
                Err(error) => return Look::Unknown(error),
            }
        }
        if there.is_empty() {
            match self.answer("list_owned", self.provider.list_owned()).await {
                Ok(owned) => {
                    let same = owned.into_iter().filter(|a| a.name == entry.name || entry.id.as_ref() == Some(&a.id));
                    there.extend(same.map(|allocation| allocation.id));
                }
                Err(error) => return Look::Unknown(error),
            }
        }
        there.sort();
        there.dedup();
        if there.is_empty() { Look::Absent } else { Look::There(there) }
    }

    /// Asks for the end of each. The error is the last one of those that were not accepted.
    pub(super) async fn request(&self, ids: impl Iterator<Item = &AllocationId>) -> Result<(), ProviderError> {
        let mut last = Ok(());
        for id in ids {
            match self.answer("request_terminate", self.provider.request_terminate(id)).await {
                Ok(()) | Err(ProviderError::NotFound { .. }) => {}
                Err(error) => last = Err(error),
            }
        }
        last
    }
}

struct Sightings {
    requested_at: Option<UnixMillis>,
    absent_at: Vec<UnixMillis>,
}

impl Sightings {
    fn is_gone(&self) -> bool {
        self.absent_at.len() >= 2
    }
}

enum Look {
    There(Vec<AllocationId>),
    Absent,
    Unknown(ProviderError),
}
