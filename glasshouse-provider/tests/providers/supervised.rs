//! What the supervisor makes of providers that misbehave over HTTP: nothing is created twice, and nothing goes on billing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use glasshouse_core::fixed::Fixed;
use glasshouse_core::traits::{OfferFilter, Provider};
use glasshouse_provider::supervisor::{BootBudgets, Journal, Patience, RentRequest, Supervisor, SupervisorError};
use glasshouse_provider::{RunPodProvider, VastProvider};

use crate::PACING;
use crate::fakes::runpod::{self, RunPod};
use crate::fakes::server::{Fake, Fault, Served, lock};
use crate::fakes::vast::{self, Vast};

const QUICK: Patience = Patience {
    boot: BootBudgets::each(Duration::from_millis(700)),
    settle: Duration::from_millis(400),
    poll: Duration::from_millis(20),
    watch: Duration::from_millis(100),
    absence_spacing: Duration::from_millis(60),
    end: Duration::from_secs(10),
};

/// Rents one of an agent that is not there, and sees to it that nothing is left.
async fn rent(provider: Arc<dyn Provider>) -> SupervisorError {
    let journal = Arc::new(Journal::memory());
    let supervisor = Supervisor::new(provider, journal.clone()).patience(QUICK).attempts(1);
    let request = RentRequest {
        filter: OfferFilter { gpu: Some("4090".into()), ..OfferFilter::default() },
        image: Some(("example/trainer:1".into(), Fixed([7; 32]))),
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(60),
        env: BTreeMap::new(),
        disk_gib: None,
        time_limit: None,
    };
    let error = supervisor.rent(&request).await.err().expect("no agent listens there");
    assert!(journal.open_entries().is_empty(), "{error}");
    error
}

async fn on_runpod(behaviour: runpod::Behaviour, faults: &[(&str, Vec<Fault>)]) -> (SupervisorError, Served<RunPod>) {
    // A port that nothing listens on: connections are refused at once.
    let agent = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let served = Served::start(RunPod::new(runpod::Behaviour { agent: Some(agent), ..behaviour })).await;
    for (endpoint, faults) in faults {
        served.fault(endpoint, faults.clone());
    }
    let provider = RunPodProvider::builder().api_key(RunPod::KEY).address(served.url()).pacing(PACING);
    let provider = provider.reach(glasshouse_provider::runpod::Reach::Direct).build().unwrap();
    let error = rent(Arc::new(provider)).await;
    assert!(served.fake.billing().is_empty(), "{error}");
    (error, served)
}

async fn on_vast(behaviour: vast::Behaviour, faults: &[(&str, Vec<Fault>)]) -> (SupervisorError, Served<Vast>) {
    let served = Served::start(Vast::new(behaviour)).await;
    *lock(&served.fake.address) = served.url();
    for (endpoint, faults) in faults {
        served.fault(endpoint, faults.clone());
    }
    let provider = VastProvider::builder().api_key(Vast::KEY).address(served.url()).pacing(PACING).build().unwrap();
    let error = rent(Arc::new(provider)).await;
    assert!(served.fake.billing().is_empty(), "{error}");
    (error, served)
}

fn created<F: Fake>(served: &Served<F>, endpoint: &str) {
    assert_eq!(served.count(endpoint), 1, "a create was repeated");
}

#[tokio::test]
async fn a_create_in_doubt_is_adopted_and_ended() {
    for fault in [
        Fault::HappensBut { status: 500, names_it: false },
        Fault::HappensBut { status: 502, names_it: true },
        Fault::HappensAndBreaks,
    ] {
        let (error, served) = on_runpod(Default::default(), &[("POST pods", vec![fault.clone()])]).await;
        assert!(matches!(error, SupervisorError::Stuck { .. }), "{fault:?}: {error}");
        created(&served, "POST pods");
    }
    // Vast.ai's 400 that names what it made.
    let fault = vec![Fault::HappensBut { status: 400, names_it: true }];
    let (error, served) = on_vast(Default::default(), &[("PUT asks/id", fault)]).await;
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
    created(&served, "PUT asks/id");
}

#[tokio::test]
async fn stuck_in_any_phase_is_ended() {
    for status in ["PROVISIONING", "STARTING", "RUNNING", "HIBERNATING"] {
        let behaviour = runpod::Behaviour { stuck: Some(status), public_address: false, ..Default::default() };
        let (error, _) = on_runpod(behaviour, &[]).await;
        assert!(matches!(error, SupervisorError::Stuck { .. }), "{status}: {error}");
    }
    let (error, _) = on_vast(vast::Behaviour { stuck: Some("loading"), ..Default::default() }, &[]).await;
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
    for status in ["EXITED", "ERROR"] {
        let (error, _) = on_runpod(runpod::Behaviour { stuck: Some(status), ..Default::default() }, &[]).await;
        assert!(matches!(error, SupervisorError::EndedEarly { .. }), "{status}: {error}");
    }
    let (error, _) = on_vast(vast::Behaviour { stuck: Some("offline"), ..Default::default() }, &[]).await;
    assert!(matches!(error, SupervisorError::EndedEarly { .. }), "{error}");
}

#[tokio::test]
async fn unknown_right_after_create_is_tolerated() {
    let hidden = Duration::from_millis(150);
    let (error, _) = on_runpod(runpod::Behaviour { hidden, ..Default::default() }, &[]).await;
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
    let (error, _) = on_vast(vast::Behaviour { hidden, ..Default::default() }, &[]).await;
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
}

#[tokio::test]
async fn an_end_that_is_not_taken_is_asked_for_again() {
    let gone = vec![Fault::Status(404), Fault::Status(500), Fault::Status(500), Fault::TooMany(None)];
    let faults = [("DELETE pods/id", gone.clone()), ("POST pods/action", gone)];
    let (error, served) = on_runpod(Default::default(), &faults).await;
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
    assert!(served.count("DELETE pods/id") > 1);
    let faults = [("DELETE instances/id", vec![Fault::Status(404), Fault::TooMany(Some(1)), Fault::Status(500)])];
    let (error, served) = on_vast(Default::default(), &faults).await;
    assert!(matches!(error, SupervisorError::Stuck { .. }), "{error}");
    assert!(served.count("DELETE instances/id") > 1);
}

#[tokio::test]
async fn no_capacity_leaves_nothing() {
    // Both asks that fit are gone by the time they are accepted.
    let faults = [("PUT asks/id", vec![Fault::Status(410), Fault::Status(404)])];
    let (error, _) = on_vast(Default::default(), &faults).await;
    assert!(matches!(error, SupervisorError::NoOffer { .. }), "{error}");
}
