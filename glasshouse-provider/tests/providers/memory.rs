//! The provider in memory: the contract of every other one, and each trouble of theirs.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use glasshouse_core::traits::{AllocationState, Endpoint, Provider};
use glasshouse_provider::MemoryProvider;
use glasshouse_provider::contract::{self, Bench, Trouble};
use glasshouse_provider::memory::{Call, Fault};
use glasshouse_provider::supervisor::{Patience, RentRequest};

use crate::fakes::server::lock;
use crate::supervised::{QUICK, request, without_segments};

struct Memory(Mutex<Arc<MemoryProvider>>);

impl Memory {
    fn new() -> Self {
        Self(Mutex::new(Arc::new(Self::calm())))
    }

    fn calm() -> MemoryProvider {
        let address = Endpoint::Direct(([127, 0, 0, 1], 1).into());
        MemoryProvider::new().cards("4090", 2).endpoint(address)
    }

    fn troubled(trouble: Trouble) -> MemoryProvider {
        let calm = Self::calm();
        match trouble {
            Trouble::CreateFailsButHappens | Trouble::CreateBreaksOff => {
                calm.fault(Call::Create, [Fault::FailsButHappens { names_it: false }])
            }
            Trouble::CreateNeverAnswers => calm.fault(Call::Create, [Fault::HappensUnanswered]),
            Trouble::CreateErrorNamesIt => calm.fault(Call::Create, [Fault::FailsButHappens { names_it: true }]),
            Trouble::FirstOfferRefused => calm.fault(Call::Create, [Fault::Refused]),
            Trouble::EveryOfferTaken => calm.fault(Call::Create, [Fault::NoCapacity, Fault::NoCapacity]),
            Trouble::StuckInSchedule => calm.boot([AllocationState::Scheduling]),
            Trouble::StuckInPull => calm.boot([AllocationState::Scheduling, AllocationState::Pulling]),
            Trouble::StuckInStart => calm.boot([AllocationState::Pulling, AllocationState::Starting]),
            Trouble::WithoutPorts => MemoryProvider::new().cards("4090", 2),
            Trouble::WithoutGpus => calm.gpus(0),
            Trouble::UnknownState => calm.boot([AllocationState::Unknown("frozen".into())]),
            Trouble::ExitsEarly => calm.boot([AllocationState::Pulling, AllocationState::Exited(Some(7))]),
            Trouble::PriceAboveCap => calm.real_price(1.5),
            Trouble::HiddenAfterCreate | Trouble::ClockAhead | Trouble::ClockBehind => {
                calm.hidden(Duration::from_millis(200))
            }
            Trouble::EndSaysNotFound => calm.fault(Call::Terminate, [Fault::NotFound, Fault::Fails, Fault::Ignored]),
            Trouble::TooManyLooks(retry_after) => calm.fault(Call::Observe, [Fault::RateLimited { retry_after }]),
            Trouble::TooManyCreates(retry_after) => calm.fault(Call::Create, [Fault::RateLimited { retry_after }]),
            _ => calm,
        }
    }

    fn now(&self) -> Arc<MemoryProvider> {
        lock(&self.0).clone()
    }
}

impl Bench for Memory {
    fn provider(&self) -> Arc<dyn Provider> {
        self.now()
    }

    fn arrange(&self, trouble: Trouble) -> bool {
        *lock(&self.0) = Arc::new(Self::troubled(trouble));
        !trouble.needs_agent()
    }

    async fn billing(&self) -> Vec<String> {
        self.now().existing().into_iter().map(|id| id.0).collect()
    }

    fn creates(&self) -> Option<usize> {
        Some(self.now().calls().into_iter().filter(|call| *call == Call::Create).count())
    }

    fn request(&self) -> RentRequest {
        request()
    }

    fn patience(&self) -> Patience {
        QUICK
    }

    fn at_once(&self) -> usize {
        Trouble::ALL.len()
    }
}

#[tokio::test(start_paused = true)]
async fn every_trouble_in_memory() {
    assert_eq!(contract::supervised(async || Memory::new()).await, without_segments());
}

/// A bench that has one trouble, and something else besides.
struct Broken(Trouble, Arc<MemoryProvider>);

impl Bench for Broken {
    fn provider(&self) -> Arc<dyn Provider> {
        self.1.clone()
    }

    fn arrange(&self, trouble: Trouble) -> bool {
        trouble == self.0
    }

    async fn billing(&self) -> Vec<String> {
        self.1.existing().into_iter().map(|id| id.0).collect()
    }

    fn creates(&self) -> Option<usize> {
        None
    }

    fn request(&self) -> RentRequest {
        request()
    }

    fn patience(&self) -> Patience {
        QUICK
    }
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "OwnerKilled: After call 2, create: [\"memory-1\"] goes on billing")]
async fn what_shows_too_late_is_not_reaped() {
    let late = || Memory::calm().hidden(3 * QUICK.settle);
    contract::supervised(async || Broken(Trouble::OwnerKilled, Arc::new(late()))).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "OwnerKilled: After call 2, create: not everything was reaped")]
async fn what_does_not_end_is_not_reaped() {
    let immortal = || Memory::calm().fault(Call::Terminate, vec![Fault::Ignored; 10_000]);
    contract::supervised(async || Broken(Trouble::OwnerKilled, Arc::new(immortal()))).await;
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "ClockAhead: it came to: memory-1 was stuck in phase schedule")]
async fn a_wait_by_another_clock_is_no_deadline() {
    let hours = Some(Duration::from_secs(6 * 3600));
    let waits = || Memory::calm().fault(Call::Observe, vec![Fault::RateLimited { retry_after: hours }; 10_000]);
    contract::supervised(async || Broken(Trouble::ClockAhead, Arc::new(waits()))).await;
}
