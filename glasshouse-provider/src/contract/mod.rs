//! What must hold for a provider under the [`Supervisor`], for whoever writes one: each [`Trouble`] is arranged in turn,
//! and whatever happens, nothing goes on billing. `glasshouse_core::contract::provider` checks the provider by itself.

#![allow(clippy::panic)] // what a contract test does when a clause is broken

mod faulty;
mod judge;
mod trouble;

pub use faulty::Faulty;
pub use trouble::Trouble;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::overhead::Cleanup;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Endpoint, Provider};
use tokio::time::Instant;

use crate::client::{AgentClient, ClientError};
use crate::supervisor::{Dial, Journal, Patience, RentRequest, Rented, Supervisor, SupervisorError};

/// A backend over something that can be told to misbehave: a fake that speaks the provider's HTTP, or a test account.
pub trait Bench {
    /// The provider under test, with at least two offers for [`Bench::request`] where it has a choice.
    fn provider(&self) -> Arc<dyn Provider>;
    /// Arranges it for the next create; false when this backend cannot have it.
    fn arrange(&self, trouble: Trouble) -> bool;
    /// Ids of everything that bills, whatever the provider says.
    fn billing(&self) -> impl Future<Output = Vec<String>>;
    /// Creates that were asked for so far, where they can be counted.
    fn creates(&self) -> Option<usize>;
    /// What to rent.
    fn request(&self) -> RentRequest;
    /// How patiently.
    fn patience(&self) -> Patience;
}

/// Checks a backend under the supervisor with every trouble that its bench can arrange, each on a bench of its own, and
/// gives those that it could. Agents are taken to answer: this is about the provider.
///
/// # Panics
/// With the trouble and what does not hold.
pub async fn supervised<B: Bench>(bench: impl AsyncFn() -> B) -> Vec<Trouble> {
    let mut arranged = Vec::new();
    for trouble in Trouble::ALL {
        let bench = bench().await;
        if bench.arrange(trouble) {
            if let Err(broken) = check(&bench, trouble).await {
                panic!("{trouble:?}: {broken}");
            }
            arranged.push(trouble);
        }
    }
    arranged
}

async fn check(bench: &impl Bench, trouble: Trouble) -> Result<(), String> {
    let (journal, patience) = (Arc::new(Journal::memory()), bench.patience());
    let patience = Patience { boot: trouble.shorten(patience.boot), ..patience };
    let supervisor = Supervisor::new(bench.provider(), journal.clone())
        .patience(patience)
        .attempts(trouble.attempts())
        .dial(Arc::new(Answers(journal.clone())));
    let began = Instant::now();
    let result = supervisor.rent(&bench.request()).await;
    let took = began.elapsed();
    let outcome = judge::outcome(trouble, &result);
    end(result).await?;
    outcome?;
    let (billing, creates) = (bench.billing().await, bench.creates());
    holds(billing.is_empty(), || format!("{billing:?} goes on billing"))?;
    holds(creates.is_none_or(|creates| creates == trouble.creates()), || {
        format!("{creates:?} creates were asked for")
    })?;
    holds(journal.open_entries().is_empty(), || format!("the journal has {:?}", journal.open_entries()))?;
    let limit = longest(&patience);
    holds(took <= limit, || format!("it took {took:?}, more than {limit:?}"))
}

async fn end(result: Result<Rented, SupervisorError>) -> Result<(), String> {
    let Ok(rented) = result else { return Ok(()) };
    let proof = rented.end().await.map_err(|error| error.to_string())?;
    holds(proof.outcome == Cleanup::Observed, || format!("its end was not seen: {proof:?}"))
}

/// One phase's budget for each, and the end.
fn longest(patience: &Patience) -> Duration {
    let boot = &patience.boot;
    boot.schedule + boot.pull + boot.start + boot.reachable + boot.gpu_ready + 4 * patience.settle + patience.end
}

fn holds(holds: bool, broken: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(broken()) }
}

/// A way to agents that are not there: each answers, with the name that its journal's newest allocation was asked for under.
pub struct Answers(pub Arc<Journal>);

#[async_trait]
impl Dial for Answers {
    async fn dial(&self, at: &Endpoint, secret: &Secret<32>) -> Result<(AgentClient, String), ClientError> {
        let name = self.0.open_entries().pop().map(|entry| entry.name).unwrap_or_default();
        Ok((AgentClient::new(at, secret)?, name))
    }
}
