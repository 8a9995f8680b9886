//! The calls of the trait, each with the fault that was scripted for it.

use async_trait::async_trait;
use glasshouse_core::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, LaunchSpec, LogChunk, Observation, Offer, OfferFilter,
    Provider, ProviderError, Spend,
};
use tokio::time::Instant;

use super::fault::failure;
use super::{Call, Fault, Life, MemoryProvider, NAME};
use crate::clock;

#[async_trait]
impl Provider for MemoryProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    fn account(&self) -> Option<String> {
        self.lock().account.clone()
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let (inner, fault) = self.enter(Call::Offers);
        match fault {
            Some(Fault::NoCapacity) => Ok(Vec::new()),
            Some(fault) => Err(failure(Call::Offers, &fault, None)),
            None => {
                let gpu_count = u32::from(inner.card.is_some());
                let has = |wanted: &String| inner.card.as_ref().is_some_and(|card| card.contains(wanted.as_str()));
                let fits = filter.gpu.as_ref().is_none_or(has) && filter.gpu_count.is_none_or(|n| n == gpu_count);
                let offer = |n: usize| Offer {
                    id: format!("memory-offer-{n}"),
                    gpu: inner.card.clone(),
                    gpu_count,
                    price_per_hour: inner.offered,
                    location: None,
                    traffic: None,
                };
                Ok(if fits { (1..=inner.offers).map(offer).collect() } else { Vec::new() })
            }
        }
    }

    async fn create(&self, _offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let (id, allocation, fault) = {
            let (mut inner, fault) = self.enter(Call::Create);
            match fault {
                None | Some(Fault::FailsButHappens { .. } | Fault::HappensUnanswered) => {}
                Some(Fault::NoCapacity) => return Ok(CreateOutcome::NoCapacity),
                Some(fault) => return Err(failure(Call::Create, &fault, None)),
            }
            let id = AllocationId(format!("memory-{}", inner.next));
            inner.next = inner.next.saturating_add(1);
            let allocation = Allocation { id: id.clone(), name: spec.name.clone(), price_per_hour: inner.offered };
            let life = Life { allocation: allocation.clone(), born: Instant::now(), seen: 0, terminating: false };
            inner.living.insert(id.clone(), life);
            (id, allocation, fault)
        };
        match fault {
            Some(Fault::HappensUnanswered) => std::future::pending().await,
            Some(Fault::FailsButHappens { names_it }) => Err(ProviderError::Ambiguous {
                provider: NAME,
                call: Call::Create.name(),
                why: "status 500".to_owned(),
                allocation: names_it.then_some(id),
            }),
            _ => Ok(CreateOutcome::Created(allocation)),
        }
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        let (inner, fault) = self.enter(Call::Find);
        match fault {
            Some(Fault::NotFound | Fault::Ignored) => Ok(Vec::new()),
            Some(fault) => Err(failure(Call::Find, &fault, None)),
            None => Ok(inner.shown().filter(|allocation| allocation.name == name).collect()),
        }
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let (mut inner, fault) = self.enter(Call::Observe);
        if let Some(fault) = fault {
            return Err(failure(Call::Observe, &fault, Some(id)));
        }
        let (boot, endpoint, gpus, price) = (inner.boot.clone(), inner.endpoint.clone(), inner.gpus, inner.price);
        let hidden = inner.hidden;
        let life = inner.living.get_mut(id).filter(|life| life.born.elapsed() >= hidden);
        let life = life.ok_or_else(|| failure(Call::Observe, &Fault::NotFound, Some(id)))?;
        let state = if life.terminating {
            AllocationState::Terminating
        } else {
            boot.get(life.seen).or(boot.last()).cloned().unwrap_or(AllocationState::Running)
        };
        life.seen = life.seen.saturating_add(1);
        Ok(Observation {
            allocation: Allocation { price_per_hour: price, ..life.allocation.clone() },
            endpoints: endpoint.filter(|_| state == AllocationState::Running).into_iter().collect(),
            gpu_count: gpus.filter(|_| state == AllocationState::Running),
            state,
            container: None,
        })
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        let (inner, fault) = self.enter(Call::Logs);
        match fault {
            None if inner.living.contains_key(id) => {
                Ok(LogChunk { lines: Vec::new(), next: after.unwrap_or("0").to_owned() })
            }
            fault => Err(failure(Call::Logs, &fault.unwrap_or(Fault::NotFound), Some(id))),
        }
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        let (mut inner, fault) = self.enter(Call::Terminate);
        match fault {
            Some(Fault::Ignored) => {
                // Accepted, and it stays: the stuck `terminating` that some providers show for hours.
                if let Some(life) = inner.living.get_mut(id) {
                    life.terminating = true;
                }
                Ok(())
            }
            Some(Fault::FailsButHappens { .. }) => {
                inner.living.remove(id);
                Err(failure(Call::Terminate, &Fault::Fails, Some(id)))
            }
            Some(fault) => Err(failure(Call::Terminate, &fault, Some(id))),
            None => {
                if inner.living.remove(id).is_some() {
                    inner.spent += inner.price / 60.0;
                }
                Ok(())
            }
        }
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        let (inner, fault) = self.enter(Call::ListOwned);
        match fault {
            Some(Fault::NotFound | Fault::Ignored) => Ok(Vec::new()),
            Some(fault) => Err(failure(Call::ListOwned, &fault, None)),
            None => Ok(inner.shown().collect()),
        }
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        let (inner, fault) = self.enter(Call::Spend);
        match fault {
            Some(fault) => Err(failure(Call::Spend, &fault, Some(id))),
            None => Ok(Some(Spend {
                dollars: inner.spent,
                read_at: clock::wall(),
                is_final: !inner.living.contains_key(id),
            })),
        }
    }
}
