use std::time::{Duration, Instant};

use glasshouse_core::contract;
use glasshouse_core::traits::{
    AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, Offer, OfferFilter, Provider, ProviderError,
    TrafficPrice,
};
use glasshouse_provider::VastProvider;

use crate::fakes::openapi::Document;
use crate::fakes::server::{Fake as _, Fault, Served, lock};
use crate::fakes::vast::{Behaviour, Vast};
use crate::{PACING, case, spec};

async fn start(behaviour: Behaviour) -> (Served<Vast>, VastProvider) {
    let served = Served::start(Vast::new(behaviour)).await;
    *lock(&served.fake.address) = served.url();
    let provider = VastProvider::builder().api_key(Vast::KEY).address(served.url()).pacing(PACING).build().unwrap();
    (served, provider)
}

/// Flags take no quotes.
fn plain(name: &str) -> LaunchSpec {
    let mut spec = spec(name);
    spec.env.insert("MODE".into(), "two words".into());
    spec
}

fn gpu(name: &str) -> OfferFilter {
    OfferFilter { gpu: Some(name.to_owned()), ..OfferFilter::default() }
}

async fn offer(provider: &VastProvider) -> Offer {
    provider.offers(&gpu("4090")).await.unwrap().remove(0)
}

async fn create(provider: &VastProvider, name: &str) -> AllocationId {
    match provider.create(&offer(provider).await, &plain(name)).await.unwrap() {
        CreateOutcome::Created(allocation) => allocation.id,
        CreateOutcome::NoCapacity => panic!("no capacity"),
    }
}

/// The public contract, and every exchange of it against Vast.ai's own document.
#[tokio::test]
async fn the_contract_holds_and_every_exchange_is_documented() {
    let slow_list = Behaviour { hidden: Duration::from_millis(30), ..Behaviour::default() };
    for behaviour in [Behaviour::default(), slow_list] {
        let (served, provider) = start(behaviour).await;
        let mut case = case("gh-contract", gpu("4090"));
        case.launch = plain("gh-contract");
        contract::provider(&provider, case, tokio::time::sleep).await;
        assert!(served.fake.billing().is_empty());
        let everything = OfferFilter {
            gpu_count: Some(1),
            max_price_per_hour: Some(1.0),
            min_memory_gib: Some(20),
            min_disk_gib: Some(60),
            min_compute_capability: Some(80),
            min_cuda: Some(124),
            direct_port: true,
            cloud: Some("secure".into()),
            ..gpu("4090")
        };
        let offers = provider.offers(&everything).await.unwrap();
        assert_eq!(offers.len(), 1);
        let CreateOutcome::Created(made) = provider.create(&offers[0], &plain("gh-2")).await.unwrap() else {
            panic!("no capacity")
        };
        assert_eq!(served.fake.request(&made.id.0)["disk"], 60);
        provider.request_terminate(&made.id).await.unwrap();
        if let Some(document) = Document::load("vast.openapi.yaml") {
            let exchanges = crate::fakes::vast::answers_as_documented(served.exchanges());
            let wrong = document.check(&exchanges, true);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

#[tokio::test]
async fn offers_are_filtered_and_the_cheapest_is_first() {
    let (_served, provider) = start(Behaviour::default()).await;
    let prices = async |filter: OfferFilter| -> Vec<f64> {
        provider.offers(&filter).await.unwrap().into_iter().map(|offer| offer.price_per_hour).collect()
    };
    assert_eq!(prices(OfferFilter::default()).await, [0.2, 0.4, 0.5]);
    assert_eq!(prices(gpu("rtx_4090")).await, [0.4, 0.5]);
    assert_eq!(prices(OfferFilter { gpu_count: Some(2), ..gpu("4090") }).await, [0.8]);
    assert_eq!(prices(OfferFilter { min_compute_capability: Some(80), ..OfferFilter::default() }).await, [0.4, 0.5]);
    assert_eq!(prices(OfferFilter { max_price_per_hour: Some(0.3), ..OfferFilter::default() }).await, [0.2]);
    assert_eq!(prices(OfferFilter { direct_port: true, ..OfferFilter::default() }).await, [0.4, 0.5]);
    assert_eq!(prices(OfferFilter { cloud: Some("secure".into()), ..OfferFilter::default() }).await, [0.5]);
    assert!(prices(OfferFilter { cloud: Some("private".into()), ..OfferFilter::default() }).await.is_empty());
    assert!(prices(OfferFilter { min_memory_gib: Some(80), ..OfferFilter::default() }).await.is_empty());
}

#[tokio::test]
async fn a_plan_tells_what_is_in_no_worst_case() {
    let (_served, provider) = start(Behaviour::default()).await;
    let offer = offer(&provider).await;
    let traffic = Some(TrafficPrice { into: 0.003, out: 0.004 });
    assert_eq!(offer.traffic, traffic);
    let plan = provider.plan(&gpu("4090"), &offer, &plain("gh-plan")).unwrap();
    assert_eq!((plan.worst_case_dollars, plan.traffic), (Some(offer.price_per_hour), traffic));
}

#[tokio::test]
async fn an_instance_boots_and_its_port_is_the_hosts() {
    let slow = Duration::from_millis(300);
    let (served, provider) = start(Behaviour { scheduling: slow, loading: slow, ..Behaviour::default() }).await;
    let id = create(&provider, "gh-boot").await;
    let (mut states, mut endpoints) = (Vec::new(), Vec::new());
    while endpoints.is_empty() {
        let seen = provider.observe(&id).await.unwrap();
        if states.last() != Some(&seen.state) {
            states.push(seen.state);
        }
        endpoints = seen.endpoints;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    assert_eq!(states, [AllocationState::Scheduling, AllocationState::Pulling, AllocationState::Running]);
    assert_eq!(endpoints, [Endpoint::Direct("192.0.2.7:41234".parse().unwrap())]);
    let request = served.fake.request(&id.0);
    let env = request["env"].as_str().unwrap();
    assert!(env.starts_with("-p 9443:9443 -e ") && env.contains(" -e MODE='two words'"), "{env}");
    assert!(env.contains(" -e GLASSHOUSE_ROLE=agent") && request["runtype"] == "args");
}

#[tokio::test]
async fn an_error_that_carries_an_id_made_something() {
    let (served, provider) = start(Behaviour::default()).await;
    let offer = offer(&provider).await;
    for (fault, is_named) in [
        (Fault::HappensBut { status: 500, names_it: true }, true),
        // Vast.ai does this with a 4xx too: what is named exists, whatever the status says.
        (Fault::HappensBut { status: 400, names_it: true }, true),
        (Fault::HappensBut { status: 503, names_it: false }, false),
        (Fault::HappensAndBreaks, false),
    ] {
        let before = served.count("PUT asks/id");
        served.fault("PUT asks/id", [fault.clone()]);
        let error = provider.create(&offer, &plain("gh-doubt")).await.unwrap_err();
        let ProviderError::Ambiguous { allocation, .. } = &error else { panic!("{fault:?}: {error}") };
        assert_eq!(allocation.is_some(), is_named, "{fault:?}");
        assert_eq!(served.count("PUT asks/id"), before + 1);
        if let Some(id) = allocation {
            provider.request_terminate(id).await.unwrap();
        }
    }
    let found = provider.find("gh-doubt").await.unwrap();
    // The lists come in pages of two.
    assert_eq!(served.fake.billing().len(), 2);
    for allocation in found {
        provider.request_terminate(&allocation.id).await.unwrap();
    }
    assert!(served.fake.billing().is_empty());
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let (served, provider) = start(Behaviour::default()).await;
    let mut taken = offer(&provider).await;
    taken.id = "99:0".into();
    assert_eq!(provider.create(&taken, &plain("gh-1")).await.unwrap(), CreateOutcome::NoCapacity);
    let offer = offer(&provider).await;
    served.fault("PUT asks/id", [Fault::Status(410), Fault::Status(400)]);
    assert_eq!(provider.create(&offer, &plain("gh-1")).await.unwrap(), CreateOutcome::NoCapacity);
    assert!(matches!(provider.create(&offer, &plain("gh-1")).await, Err(ProviderError::Refused { .. })));
    assert!(matches!(provider.create(&offer, &spec("gh-1")).await, Err(ProviderError::Refused { .. })), "quotes");
    let wrong = VastProvider::builder().api_key("vast_WRONG").address(served.url()).pacing(PACING).build().unwrap();
    for error in [wrong.list_owned().await.unwrap_err(), wrong.observe(&AllocationId("7".into())).await.unwrap_err()] {
        // Its 404 is about the key: taken for absence it would prove that an allocation is gone.
        assert!(matches!(error, ProviderError::Unauthorized { variable: "VAST_API_KEY", .. }), "{error}");
    }
    assert!(wrong.request_terminate(&AllocationId("7".into())).await.is_err());
    assert!(!format!("{wrong:?}").contains("vast_WRONG"));
}

#[tokio::test]
async fn null_is_absence_and_a_404_on_destroy_is_no_proof() {
    let (served, provider) = start(Behaviour { hidden: Duration::from_secs(3600), ..Behaviour::default() }).await;
    let id = create(&provider, "gh-new").await;
    assert!(matches!(provider.observe(&id).await, Err(ProviderError::NotFound { .. })));
    provider.request_terminate(&id).await.unwrap();
    assert_eq!(served.fake.billing(), std::slice::from_ref(&id.0), "asked too early, and not done");
    served.fake.behave(|behaviour| behaviour.hidden = Duration::ZERO);
    assert_eq!(provider.observe(&id).await.unwrap().allocation.name, "gh-new");
    provider.request_terminate(&id).await.unwrap();
    assert!(served.fake.billing().is_empty());
    for strange in ["x", "007", "../1"] {
        assert!(matches!(provider.observe(&AllocationId(strange.into())).await, Err(ProviderError::NotFound { .. })));
    }
    served.fault("GET instances", [Fault::Nonsense, Fault::Ignored]);
    assert!(matches!(provider.list_owned().await, Err(ProviderError::Unintelligible { .. })));
    assert!(matches!(provider.find("gh-new").await, Err(ProviderError::Unintelligible { .. })));
}

#[tokio::test]
async fn a_429_in_plain_text_says_how_long() {
    let (served, provider) = start(Behaviour::default()).await;
    let id = create(&provider, "gh-1").await;
    served.fault("GET instances/id", [Fault::TooManyText]);
    let error = provider.observe(&id).await.unwrap_err();
    // 4.5 s are more than this test's patience.
    let ProviderError::RateLimited { retry_after: Some(wait), .. } = error else { panic!("{error}") };
    assert_eq!(wait, Duration::from_millis(4500));
    served.fault("GET charges", [Fault::TooMany(None), Fault::TooMany(Some(1))]);
    let began = Instant::now();
    assert!((provider.spend(&id).await.unwrap().unwrap().dollars - 0.125).abs() < 1e-9);
    assert!(began.elapsed() >= Duration::from_millis(990));
}

#[tokio::test]
async fn the_documented_pace_is_kept() {
    let served = Served::start(Vast::new(Behaviour::default())).await;
    let provider = VastProvider::builder().api_key(Vast::KEY).address(served.url()).build().unwrap();
    // By the owner's clock: when a busy machine takes a request in says nothing of when it was sent.
    let began = Instant::now();
    for _ in 0..2 {
        provider.list_owned().await.unwrap();
    }
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn strange_states_prices_and_gpus_are_told_as_they_are() {
    let strange = Behaviour { stuck: Some("frozen"), price: Some(7.5), ..Behaviour::default() };
    let (served, provider) = start(strange).await;
    let id = create(&provider, "gh-odd").await;
    let seen = provider.observe(&id).await.unwrap();
    assert_eq!((seen.state, seen.allocation.price_per_hour), (AllocationState::Unknown("frozen".into()), 7.5));
    served.fake.behave(|behaviour| (behaviour.stuck, behaviour.gpus) = (Some("offline"), Some(0)));
    let seen = provider.observe(&id).await.unwrap();
    assert_eq!((seen.state, seen.gpu_count), (AllocationState::Exited(None), Some(0)));
}

#[tokio::test]
async fn a_log_is_resumed_without_loss_or_repeat() {
    let (served, provider) = start(Behaviour::default()).await;
    let id = create(&provider, "gh-log").await;
    let first = provider.logs(&id, None).await.unwrap();
    assert_eq!(first.lines.len(), 6);
    served.fake.log("line 0");
    served.fake.log("line 7");
    let second = provider.logs(&id, Some(&first.next)).await.unwrap();
    assert_eq!(second.lines, ["line 0", "line 7"]);
    assert!(provider.logs(&id, Some(&second.next)).await.unwrap().lines.is_empty());
    *lock(&served.fake.address) = "http://192.0.2.1".into();
    let error = provider.logs(&id, None).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unintelligible { .. }), "{error}");
    assert!(matches!(provider.logs(&AllocationId("9".into()), None).await, Err(ProviderError::NotFound { .. })));
}

#[tokio::test]
async fn many_instances_come_in_pages() {
    let (served, provider) = start(Behaviour::default()).await;
    for i in 0..5 {
        create(&provider, &format!("gh-{i}")).await;
    }
    let foreign = create(&provider, "someone-elses").await;
    let owned = provider.list_owned().await.unwrap();
    assert_eq!(owned.len(), 5);
    assert!(owned.iter().all(|allocation| allocation.id != foreign));
    assert_eq!(provider.find("gh-3").await.unwrap().len(), 1);
    assert!(served.count("GET instances") >= 3);
}
