//! What must hold for a provider under the [`Supervisor`], for whoever writes one: each [`Trouble`] is arranged in turn,
//! and whatever happens, nothing goes on billing. `glasshouse_core::contract::provider` checks the provider by itself.
//!
//! Some troubles take segments that really run: for those the allocations' executable, which may be the test itself, calls
//! [`serve_if_launched`] first thing in its `main`, and the test has `harness = false`.

#![allow(clippy::panic)] // what a contract test does when a clause is broken

mod clocks;
mod faulty;
mod judge;
mod killed;
mod segments;
mod trouble;
mod workload;

pub use faulty::Faulty;
pub use trouble::Trouble;
pub use workload::serve_if_launched;

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::record::CleanupProof;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Endpoint, Provider};
use tokio::time::Instant;

use crate::client::{AgentClient, ClientError};
use crate::supervisor::{
    BootPhase, Dial, Journal, OwnerTag, Patience, RentRequest, Rented, Supervisor, SupervisorError,
};

/// A backend over something that can be told to misbehave: a fake that speaks the provider's HTTP, or a test account.
pub trait Bench {
    /// The provider under test, with at least two offers for [`Bench::request`] where it has a choice.
    fn provider(&self) -> Arc<dyn Provider>;
    /// The same as an owner has it who comes after that one's death: with nothing of what the other had in memory.
    fn next_provider(&self) -> Arc<dyn Provider> {
        self.provider()
    }
    /// Arranges it for the next create; false when this backend cannot have it. What [needs an agent](Trouble::needs_agent)
    /// takes allocations that are one.
    fn arrange(&self, trouble: Trouble) -> bool;
    /// Ids of everything that bills, whatever the provider says.
    fn billing(&self) -> impl Future<Output = Vec<String>>;
    /// Creates that were asked for so far, where they can be counted.
    fn creates(&self) -> Option<usize>;
    /// What to rent.
    fn request(&self) -> RentRequest;
    /// How patiently.
    fn patience(&self) -> Patience;
    /// How many benches may be in use at a time, where they have nothing in common that one could take from another. Most of
    /// what the suite does is waiting.
    fn at_once(&self) -> usize {
        1
    }
}

/// Checks a backend under the supervisor with every trouble that its bench can arrange, each on a bench of its own, and
/// gives those that it could. Where no segment is needed agents are taken to answer: this is about the provider.
///
/// # Panics
/// With the trouble and what does not hold.
pub async fn supervised<B: Bench>(bench: impl AsyncFn() -> B) -> Vec<Trouble> {
    let (mut arranged, bills) = (Vec::new(), Cell::new(false));
    let (calm, troubles) = Trouble::ALL.split_at(1);
    let at_once = bench().await.at_once().max(1);
    for troubles in std::iter::once(calm).chain(troubles.chunks(at_once)) {
        let checked = all(troubles.iter().map(|trouble| checked(&bench, *trouble, &bills))).await;
        for (trouble, checked) in troubles.iter().zip(checked) {
            match checked {
                Ok(true) => arranged.push(*trouble),
                Ok(false) => {}
                Err(broken) => panic!("{trouble:?}: {broken}"),
            }
        }
    }
    arranged
}

/// Whether the bench could arrange it. `bills` is whether a bill was found on a calm day.
async fn checked<B: Bench>(bench: &impl AsyncFn() -> B, trouble: Trouble, bills: &Cell<bool>) -> Result<bool, String> {
    let one = bench().await;
    if !one.arrange(trouble) {
        return Ok(false);
    }
    match trouble {
        Trouble::OwnerKilled => killed::at_every_call(bench, one.at_once()).await?,
        Trouble::ClockAhead | Trouble::ClockBehind => clocks::differ(&one, trouble, bills.get()).await?,
        trouble if trouble.needs_agent() => segments::check(&one, trouble).await?,
        trouble => {
            let end = check(&one, trouble).await?;
            bills.set(bills.get() || end.is_some_and(|proof| proof.spend.is_some()));
        }
    }
    Ok(true)
}

/// Drives all of them in one task, and gives what each came to, in order.
async fn all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    poll_fn(|context| {
        for (future, output) in &mut running {
            if let Some(Poll::Ready(ready)) = future.as_mut().map(|future| future.as_mut().poll(context)) {
                (*future, *output) = (None, Some(ready));
            }
        }
        if running.iter().all(|(future, _)| future.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

/// Rents under a trouble and ends what came of it. Gives the proof of that end.
async fn check(bench: &impl Bench, trouble: Trouble) -> Result<Option<CleanupProof>, String> {
    let (journal, patience) = (Arc::new(Journal::memory()), bench.patience());
    let patience = Patience { boot: trouble.shorten(patience.boot), ..patience };
    let supervisor = Supervisor::new(bench.provider(), journal.clone())
        .patience(patience)
        .attempts(trouble.attempts())
        .dial(Arc::new(Answers(journal.clone())));
    let began = Instant::now();
    let result = supervisor.rent(&request(bench)).await;
    let took = began.elapsed();
    let outcome = judge::outcome(trouble, &result);
    let proof = end(result).await?;
    outcome?;
    let creates = bench.creates();
    nothing_bills(bench).await?;
    holds(creates.is_none_or(|creates| creates == trouble.creates()), || {
        format!("{creates:?} creates were asked for")
    })?;
    holds(journal.open_entries().is_empty(), || format!("the journal has {:?}", journal.open_entries()))?;
    let limit = inside(&patience, trouble.last_phase());
    holds(took <= limit, || format!("it took {took:?}, more than {limit:?}"))?;
    // As long as it was told to, which none of its waits is by chance.
    let least = trouble.asked_wait().unwrap_or_default();
    holds(took >= least, || format!("it took {took:?}, and was told to wait {least:?}"))?;
    Ok(proof)
}

async fn end(result: Result<Rented, SupervisorError>) -> Result<Option<CleanupProof>, String> {
    let Ok(rented) = result else { return Ok(None) };
    let proof = rented.end().await.map_err(|error| error.to_string())?;
    holds(proof.outcome == Cleanup::Observed, || format!("its end was not seen: {proof:?}"))?;
    Ok(Some(proof))
}

async fn nothing_bills(bench: &impl Bench) -> Result<(), String> {
    let billing = bench.billing().await;
    holds(billing.is_empty(), || format!("{billing:?} goes on billing"))
}

/// What the bench rents, as an agent of this suite.
fn request(bench: &impl Bench) -> RentRequest {
    let mut request = bench.request();
    request.env.insert(workload::VARIABLE.to_owned(), "1".to_owned());
    request
}

/// An owner that nobody else is.
fn fresh_owner() -> Result<OwnerTag, String> {
    let unique = Fixed::<8>::random().map_err(|_| "the operating system gives no randomness".to_owned())?;
    OwnerTag::new(&unique.to_string()).map_err(|error| error.to_string())
}

/// One phase's budget for each, and the end.
fn longest(patience: &Patience) -> Duration {
    inside(patience, None) + patience.late
}

/// The budgets of the phases up to and including the one that something is stuck in, and the end. An allocation that is
/// stuck for ever goes through no phase after that one.
fn inside(patience: &Patience, last: Option<BootPhase>) -> Duration {
    let way = [BootPhase::Schedule, BootPhase::Pull, BootPhase::Start, BootPhase::Reachable, BootPhase::GpuReady];
    let gone_through = way.iter().take_while(|phase| last.is_none_or(|last| **phase <= last));
    gone_through.map(|phase| patience.boot.of(*phase)).sum::<Duration>() + 4 * patience.settle + patience.end
}

fn holds(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// A way to agents that are not there: each answers, with the name that its journal's newest allocation was asked for under.
pub struct Answers(pub Arc<Journal>);

#[async_trait]
impl Dial for Answers {
    async fn dial(&self, at: &Endpoint, secret: &Secret<32>) -> Result<(AgentClient, String), ClientError> {
        let name = self
            .0
            .open_entries()
            .into_iter()
            .max_by_key(|entry| entry.asked_at)
            .map(|entry| entry.name)
            .unwrap_or_default();
        Ok((AgentClient::new(at, secret)?, name))
    }
}
