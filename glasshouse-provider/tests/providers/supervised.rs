//! What the supervisor makes of providers that misbehave over HTTP: nothing is created twice, and nothing goes on billing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::fixed::Fixed;
use glasshouse_core::traits::{OfferFilter, Provider, ProviderError};
use glasshouse_provider::contract::{self, Bench, Trouble};
use glasshouse_provider::supervisor::{BootBudgets, Journal, Patience, RentRequest, Supervisor, SupervisorError};
use glasshouse_provider::{RunPodProvider, VastProvider};

use crate::PACING;
use crate::fakes::runpod::RunPod;
use crate::fakes::server::{Fake, Fault, Served, lock};
use crate::fakes::vast::Vast;

pub(crate) const QUICK: Patience = Patience {
    boot: BootBudgets::each(Duration::from_secs(5)),
    settle: Duration::from_millis(400),
    late: Duration::from_millis(200),
    poll: Duration::from_millis(20),
    watch: Duration::from_millis(50),
    absence_spacing: Duration::from_millis(60),
    end: Duration::from_secs(10),
};

/// One GPU of which the fakes have two offers.
pub(crate) fn request() -> RentRequest {
    RentRequest {
        filter: OfferFilter {
            gpu: Some("4090".into()),
            gpu_count: Some(1),
            max_price_per_hour: Some(1.0),
            ..OfferFilter::default()
        },
        image: Some(("example/trainer:1".into(), Fixed([7; 32]))),
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(60),
        env: BTreeMap::new(),
        disk_gib: None,
        time_limit: Some(Duration::from_secs(3600)),
    }
}

pub(crate) fn runpod(url: &str) -> Arc<dyn Provider> {
    let builder = RunPodProvider::builder().api_key(RunPod::KEY).address(url).pacing(PACING);
    Arc::new(builder.reach(glasshouse_provider::runpod::Reach::Direct).build().unwrap())
}

pub(crate) fn vast(url: &str) -> Arc<dyn Provider> {
    Arc::new(VastProvider::builder().api_key(Vast::KEY).address(url).pacing(PACING).build().unwrap())
}

impl Bench for Served<RunPod> {
    fn provider(&self) -> Arc<dyn Provider> {
        runpod(&self.url())
    }

    fn arrange(&self, trouble: Trouble) -> bool {
        let ends = ["DELETE pods/id", "POST pods/action"];
        self.fake.behave(|fake| match trouble {
            Trouble::StuckInSchedule => (fake.stuck, fake.placed) = (Some("PROVISIONING"), false),
            Trouble::StuckInPull => fake.stuck = Some("PROVISIONING"),
            Trouble::StuckInStart => fake.stuck = Some("STARTING"),
            Trouble::WithoutPorts => fake.public_address = false,
            Trouble::WithoutGpus => fake.gpus = Some(0),
            Trouble::UnknownState => fake.stuck = Some("HIBERNATING"),
            Trouble::ExitsEarly => fake.exits = Some(Duration::ZERO),
            Trouble::PriceAboveCap => fake.cost = Some(1.5),
            Trouble::HiddenAfterCreate => fake.hidden = Duration::from_millis(200),
            Trouble::EveryOfferTaken => fake.taken = true,
            Trouble::ClockAhead => (fake.hours_off, fake.hidden) = (6, Duration::from_millis(200)),
            Trouble::ClockBehind => (fake.hours_off, fake.hidden) = (-6, Duration::from_millis(200)),
            _ => {}
        });
        arrange(self, trouble, "POST pods", "GET pods/id", &ends)
    }

    async fn billing(&self) -> Vec<String> {
        self.fake.billing()
    }

    fn creates(&self) -> Option<usize> {
        Some(self.count("POST pods"))
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

impl Bench for Served<Vast> {
    fn provider(&self) -> Arc<dyn Provider> {
        vast(&self.url())
    }

    fn arrange(&self, trouble: Trouble) -> bool {
        let taken = [Fault::Status(410), Fault::Status(404)];
        self.fake.behave(|fake| match trouble {
            Trouble::StuckInSchedule => fake.stuck = Some("created"),
            Trouble::StuckInPull => fake.stuck = Some("loading"),
            Trouble::StuckInStart => fake.stuck = Some("starting"),
            Trouble::WithoutPorts => fake.ports = Duration::from_secs(3600),
            Trouble::WithoutGpus => fake.gpus = Some(0),
            Trouble::UnknownState => fake.stuck = Some("frozen"),
            Trouble::ExitsEarly => fake.stuck = Some("offline"),
            Trouble::PriceAboveCap => fake.price = Some(1.5),
            Trouble::HiddenAfterCreate => fake.hidden = Duration::from_millis(200),
            Trouble::EveryOfferTaken => self.fault("PUT asks/id", taken),
            Trouble::ClockAhead => (fake.hours_off, fake.hidden) = (6, Duration::from_millis(200)),
            Trouble::ClockBehind => (fake.hours_off, fake.hidden) = (-6, Duration::from_millis(200)),
            _ => {}
        });
        arrange(self, trouble, "PUT asks/id", "GET instances/id", &["DELETE instances/id"])
    }

    async fn billing(&self) -> Vec<String> {
        self.fake.billing()
    }

    fn creates(&self) -> Option<usize> {
        Some(self.count("PUT asks/id"))
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

/// What is scripted alike on every fake: answers of its endpoints for create, look and end. Its allocations are nothing that
/// segments could run on; `tests/runs` has some that are.
fn arrange<F: Fake>(served: &Served<F>, trouble: Trouble, create: &str, look: &str, ends: &[&str]) -> bool {
    let seconds = |wait: Option<Duration>| wait.map(|wait| wait.as_secs());
    match trouble {
        Trouble::CreateFailsButHappens => served.fault(create, [Fault::HappensBut { status: 500, names_it: false }]),
        Trouble::CreateErrorNamesIt => served.fault(create, [Fault::HappensBut { status: 500, names_it: true }]),
        Trouble::CreateBreaksOff => served.fault(create, [Fault::HappensAndBreaks]),
        Trouble::CreateNeverAnswers => served.fault(create, [Fault::HappensUnanswered]),
        Trouble::FirstOfferRefused => served.fault(create, [Fault::Status(400)]),
        Trouble::TooManyCreates(wait) => served.fault(create, [Fault::TooMany(seconds(wait))]),
        Trouble::TooManyLooks(wait) => served.fault(look, [Fault::TooMany(seconds(wait))]),
        Trouble::EndSaysNotFound => {
            let answers = [Fault::Status(404), Fault::Status(500), Fault::Status(500), Fault::TooMany(None)];
            ends.iter().for_each(|end| served.fault(end, answers.clone()));
        }
        // It says until when by its own clock.
        Trouble::ClockAhead | Trouble::ClockBehind => served.fault(look, [Fault::TooManyUntil(1)]),
        _ => {}
    }
    !trouble.needs_agent()
}

/// Every trouble that takes no segments.
pub(crate) fn without_segments() -> Vec<Trouble> {
    Trouble::ALL.into_iter().filter(|trouble| !trouble.needs_agent()).collect()
}

#[tokio::test]
async fn every_trouble_on_runpod() {
    let arranged = contract::supervised(async || Served::start(RunPod::new(Default::default())).await).await;
    assert_eq!(arranged, without_segments());
}

/// "Stop; no candidate will succeed."
#[tokio::test]
async fn an_empty_account_is_tried_once() {
    let served = Served::start(RunPod::new(Default::default())).await;
    served.fault("POST pods", vec![Fault::Status(402); 5]);
    let journal = Arc::new(Journal::memory());
    let supervisor = Supervisor::new(runpod(&served.url()), journal.clone()).patience(QUICK);
    let error = supervisor.rent(&request()).await.err().unwrap();
    assert!(matches!(error, SupervisorError::Provider(ProviderError::OutOfFunds { .. })), "{error}");
    assert!(error.to_string().contains("add credit"), "{error}");
    assert_eq!(served.count("POST pods"), 1);
    assert!(journal.open_entries().is_empty(), "it was refused, so there is nothing to look for");
}

#[tokio::test]
async fn every_trouble_on_vast() {
    let bench = async || {
        let served = Served::start(Vast::new(Default::default())).await;
        *lock(&served.fake.address) = served.url();
        served
    };
    assert_eq!(contract::supervised(bench).await, without_segments());
}
