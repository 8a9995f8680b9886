//! The end of an allocation: asked for until it is accepted, then absence seen twice, then the bill.

use std::time::Instant;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::overhead::{Figure, Label};
use glasshouse_core::record::{BilledSpend, CleanupProof};
use glasshouse_core::traits::{AllocationId, Provider, ProviderError};

use super::{Journal, OpenEntry, Patience, SupervisorError};
use crate::clock;

/// Ends what an entry stands for, as far as it can be found. An error is that of the journal alone: the end was asked for
/// and looked for all the same.
pub(super) async fn end(
    provider: &dyn Provider,
    journal: &Journal,
    patience: Patience,
    entry: &OpenEntry,
) -> Result<CleanupProof, SupervisorError> {
    let deadline = Instant::now() + patience.end;
    let mut requested_at = None;
    let mut absent_at: Vec<UnixMillis> = Vec::new();
    while absent_at.len() < 2 && Instant::now() < deadline {
        match look(provider, entry).await {
            // Absence counts from the request on; one that was gone before is asked to end all the same.
            Look::Absent if requested_at.is_some() => {
                absent_at.push(clock::wall());
                tokio::time::sleep(patience.absence_spacing).await;
            }
            Look::Absent => {
                request_all(provider, entry.id.iter().cloned().collect()).await;
                requested_at = Some(clock::wall());
            }
            Look::There(ids) => {
                absent_at.clear();
                if request_all(provider, ids).await {
                    requested_at.get_or_insert_with(clock::wall);
                }
                tokio::time::sleep(patience.poll).await;
            }
            Look::Unknown => {
                absent_at.clear();
                tokio::time::sleep(patience.poll).await;
            }
        }
    }
    let id = entry.id.clone();
    let spend = match &id {
        Some(id) => provider.spend(id).await.ok().flatten().and_then(|spend| {
            let dollars = Figure::new(spend.dollars)?;
            Some(BilledSpend { dollars, read_at: spend.read_at, is_final: spend.is_final })
        }),
        None => None,
    };
    let allocation = id.map_or_else(|| entry.name.clone(), |id| id.0);
    let gone = absent_at.len() >= 2;
    // A request that nobody accepted is still one that was made: without a date the proof would say `kept`.
    let requested_at = requested_at.or(Some(clock::wall()));
    let proof = |absent_at| {
        CleanupProof::new(Label::lossy(provider.name()), allocation.clone(), requested_at, absent_at, spend)
    };
    let journalled = if gone { journal.gone(&entry.name) } else { Ok(()) };
    match journalled {
        Ok(()) => Ok(proof(absent_at)),
        // Record and journal say the same: an allocation that the journal still has is not confirmed to be gone.
        Err(error) => Err(SupervisorError::Unjournalled { proof: Box::new(proof(Vec::new())), error }),
    }
}

enum Look {
    There(Vec<AllocationId>),
    Absent,
    Unknown,
}

/// By id and by name: an id that is unknown and a name that finds something is something.
async fn look(provider: &dyn Provider, entry: &OpenEntry) -> Look {
    let mut there: Vec<AllocationId> = match provider.find(&entry.name).await {
        Ok(found) => found.into_iter().map(|allocation| allocation.id).collect(),
        Err(ProviderError::NotFound { .. }) => Vec::new(),
        Err(_) => return Look::Unknown,
    };
    if let Some(id) = &entry.id {
        match provider.observe(id).await {
            Ok(_) if !there.contains(id) => there.push(id.clone()),
            Ok(_) | Err(ProviderError::NotFound { .. }) => {}
            Err(_) => return Look::Unknown,
        }
    }
    if there.is_empty() { Look::Absent } else { Look::There(there) }
}

/// Whether every request was accepted.
async fn request_all(provider: &dyn Provider, ids: Vec<AllocationId>) -> bool {
    let mut accepted = true;
    for id in ids {
        match provider.request_terminate(&id).await {
            Ok(()) | Err(ProviderError::NotFound { .. }) => {}
            Err(_) => accepted = false,
        }
    }
    accepted
}
