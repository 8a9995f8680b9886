use std::fmt::Display;
use std::time::Duration;

use crate::Provider;
use crate::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, LaunchSpec, Offer, OfferFilter, ProviderError,
};

/// What to rent for the test, and how patiently.
pub struct ProviderCase {
    /// The first offer that it gives is rented, once, until the test ends.
    pub filter: OfferFilter,
    /// What to start; its name must be new.
    pub launch: LaunchSpec,
    /// How long between two looks.
    pub poll: Duration,
    /// How long until something must have come about: running, gone.
    pub patience: Duration,
}

/// Checks a [`Provider`] with one allocation: offers, create, find, list, observe, logs, spend, terminate, absence.
///
/// Knows no async runtime: it awaits the provider's calls and `sleep`. When a clause fails, it asks for the end of every
/// allocation of the case's name before it panics. On a real provider this costs money; give it the cheapest offer.
///
/// # Panics
/// With the clause that does not hold.
pub async fn provider<S: AsyncFn(Duration)>(provider: &dyn Provider, case: ProviderCase, sleep: S) {
    let mut clauses = Clauses { provider, case: &case, sleep: &sleep };
    if let Err(broken) = clauses.run().await {
        let left = clauses.end_everything().await;
        panic!("clause {broken}; {left}");
    }
}

struct Clauses<'a, S> {
    provider: &'a dyn Provider,
    case: &'a ProviderCase,
    sleep: &'a S,
}

/// The clause and what was seen.
type Outcome<T = ()> = Result<T, String>;

impl<S: AsyncFn(Duration)> Clauses<'_, S> {
    async fn run(&mut self) -> Outcome {
        holds("a provider has a stable name", super::is_stable_name(self.provider.name()), self.provider.name())?;
        let offer = self.offers_are_filtered().await?;
        let name = self.case.launch.name.as_str();
        let before = promised("find looks a name up", self.provider.find(name).await)?;
        holds("an unknown name finds nothing", before.is_empty(), format_args!("{before:?}"))?;

        let created = self.create(&offer).await?;
        self.it_is_found_and_listed(&created).await?;
        self.it_runs(&created).await?;
        self.it_has_logs_and_a_price(&created.id).await?;
        self.it_ends(&created.id).await
    }

    async fn offers_are_filtered(&self) -> Outcome<Offer> {
        let nothing = OfferFilter { gpu: Some("no such gpu".into()), ..OfferFilter::default() };
        let none = promised("offers answers", self.provider.offers(&nothing).await)?;
        holds("offers are filtered", none.is_empty(), format_args!("{none:?} for a GPU that does not exist"))?;
        let offers = promised("offers answers", self.provider.offers(&self.case.filter).await)?;
        offers
            .into_iter()
            .next()
            .ok_or_else(|| "`there is an offer to test with` is broken: the filter gives none".to_owned())
    }

    async fn create(&self, offer: &Offer) -> Outcome<Allocation> {
        match promised("create rents an offer", self.provider.create(offer, &self.case.launch).await)? {
            CreateOutcome::Created(created) => {
                holds("an allocation has the name it was given", created.name == self.case.launch.name, &created.name)?;
                holds("an allocation has an id", !created.id.0.is_empty(), "it is empty")?;
                let price = created.price_per_hour;
                holds("an allocation has a price", price.is_finite() && price >= 0.0, price)?;
                Ok(created)
            }
            CreateOutcome::NoCapacity => {
                Err("`create rents an offer` is broken: no capacity; try another offer".into())
            }
        }
    }

    async fn it_is_found_and_listed(&self, created: &Allocation) -> Outcome {
        let name = created.name.as_str();
        self.wait("find gives every allocation of a name", async || {
            let found = promised("find looks a name up", self.provider.find(name).await)?;
            if found.len() > 1 {
                return Err(format!("`create makes one allocation` is broken: {found:?}"));
            }
            Ok(found.iter().any(|a| a.id == created.id))
        })
        .await?;
        self.wait("list_owned gives everything that exists", async || {
            let owned = promised("list_owned answers", self.provider.list_owned().await)?;
            Ok(owned.iter().any(|a| a.id == created.id))
        })
        .await?;
        let part: String = name.chars().take(name.chars().count().saturating_sub(1)).collect();
        let found = promised("find looks a name up", self.provider.find(&part).await)?;
        let strangers = found.iter().any(|a| a.name != part);
        holds("find takes the whole name", !strangers, format_args!("{part:?} found {found:?}"))
    }

    async fn it_runs(&self, created: &Allocation) -> Outcome {
        self.wait("an allocation comes to run", async || match self.provider.observe(&created.id).await {
            Ok(seen) => {
                holds("observe is of the allocation asked for", seen.allocation.id == created.id, &seen.allocation.id)?;
                let exited = matches!(seen.state, AllocationState::Exited(_));
                holds("an allocation comes to run", !exited, format_args!("{:?}", seen.state))?;
                Ok(seen.state == AllocationState::Running)
            }
            // Right after a create, no answer is an answer.
            Err(ProviderError::NotFound { .. } | ProviderError::RateLimited { .. }) => Ok(false),
            Err(error) => Err(format!("`observe answers` is broken: {error}")),
        })
        .await
    }

    async fn it_has_logs_and_a_price(&self, id: &AllocationId) -> Outcome {
        let first = promised("logs answers", self.provider.logs(id, None).await)?;
        promised("logs goes on from the position it gave", self.provider.logs(id, Some(&first.next)).await)?;
        if let Some(spend) = promised("spend answers", self.provider.spend(id).await)? {
            holds("spend is an amount", spend.dollars.is_finite() && spend.dollars >= 0.0, spend.dollars)?;
        }
        Ok(())
    }

    async fn it_ends(&self, id: &AllocationId) -> Outcome {
        for _ in 0..2 {
            promised("request_terminate is idempotent", self.provider.request_terminate(id).await)?;
        }
        self.wait("observe of an allocation that is gone is NotFound", async || {
            match self.provider.observe(id).await {
                Ok(_) | Err(ProviderError::RateLimited { .. }) => Ok(false),
                Err(ProviderError::NotFound { id: named, .. }) => {
                    holds("NotFound names the allocation", named == *id, named)?;
                    Ok(true)
                }
                Err(error) => Err(format!("`observe of an allocation that is gone is NotFound` is broken: {error}")),
            }
        })
        .await?;
        self.wait("list_owned does not give what is gone", async || {
            let owned = promised("list_owned answers", self.provider.list_owned().await)?;
            Ok(!owned.iter().any(|a| a.id == *id))
        })
        .await?;
        let found = promised("find looks a name up", self.provider.find(&self.case.launch.name).await)?;
        holds("find does not give what is gone", found.is_empty(), format_args!("{found:?}"))?;
        match self.provider.request_terminate(id).await {
            Ok(()) | Err(ProviderError::NotFound { .. }) => Ok(()),
            Err(error) => Err(format!("`request_terminate is idempotent` is broken: once gone, it says {error}")),
        }
    }

    /// Looks until it is so, for as long as the case is patient.
    async fn wait(&self, clause: &str, mut look: impl AsyncFnMut() -> Outcome<bool>) -> Outcome {
        let mut waited = Duration::ZERO;
        while !look().await? {
            holds(clause, waited < self.case.patience, format_args!("not within {:?}", self.case.patience))?;
            (self.sleep)(self.case.poll).await;
            waited = waited.saturating_add(self.case.poll.max(Duration::from_millis(1)));
        }
        Ok(())
    }

    async fn end_everything(&self) -> String {
        let Ok(left) = self.provider.find(&self.case.launch.name).await else {
            return format!("look for allocations named {} and end them", self.case.launch.name);
        };
        for allocation in &left {
            if let Err(error) = self.provider.request_terminate(&allocation.id).await {
                return format!("end {} yourself, it was not taken: {error}", allocation.id);
            }
        }
        format!("the end of {} allocations was asked for", left.len())
    }
}

fn holds(clause: &str, holds: bool, seen: impl Display) -> Outcome {
    if holds { Ok(()) } else { Err(format!("`{clause}` is broken: {seen}")) }
}

fn promised<T>(clause: &str, result: Result<T, ProviderError>) -> Outcome<T> {
    result.map_err(|error| format!("`{clause}` is broken: {error}"))
}
