use std::time::Duration;

use glasshouse_core::contract;
use glasshouse_core::traits::{
    AllocationId, AllocationState, CreateOutcome, Endpoint, Offer, OfferFilter, Provider, ProviderError,
};
use glasshouse_provider::runpod::{PodAction, Reach};
use glasshouse_provider::{ConfigError, RunPodProvider};

use crate::fakes::openapi::Document;
use crate::fakes::runpod::{Behaviour, RunPod};
use crate::fakes::server::{Fake as _, Fault, Served};
use crate::{PACING, case, spec};

async fn start(behaviour: Behaviour) -> (Served<RunPod>, RunPodProvider) {
    let served = Served::start(RunPod::new(behaviour)).await;
    let provider = RunPodProvider::builder().api_key(RunPod::KEY).address(served.url()).pacing(PACING).build().unwrap();
    (served, provider)
}

fn gpu(name: &str) -> OfferFilter {
    OfferFilter { gpu: Some(name.to_owned()), ..OfferFilter::default() }
}

async fn offer(provider: &RunPodProvider) -> Offer {
    provider.offers(&gpu("4090")).await.unwrap().remove(0)
}

async fn create(provider: &RunPodProvider, name: &str) -> AllocationId {
    match provider.create(&offer(provider).await, &spec(name)).await.unwrap() {
        CreateOutcome::Created(allocation) => allocation.id,
        CreateOutcome::NoCapacity => panic!("no capacity"),
    }
}

/// The public contract, and every exchange of it against RunPod's own document.
#[tokio::test]
async fn the_contract_holds_and_every_exchange_is_documented() {
    let slow_list = Behaviour { hidden: Duration::from_millis(30), ..Behaviour::default() };
    for behaviour in [Behaviour::default(), slow_list] {
        let (served, provider) = start(behaviour).await;
        contract::provider(&provider, case("gh-contract", gpu("4090")), tokio::time::sleep).await;
        assert!(served.fake.billing().is_empty());
        let cuda = OfferFilter { min_cuda: Some(124), gpu_count: Some(2), ..gpu("A100") };
        let offers = provider.offers(&cuda).await.unwrap();
        let created = provider.create(&offers[0], &spec("gh-cuda")).await.unwrap();
        let CreateOutcome::Created(created) = created else { panic!("no capacity") };
        tokio::time::sleep(Duration::from_millis(40)).await;
        provider.act(&created.id, PodAction::Stop).await.unwrap();
        provider.spend(&created.id).await.unwrap();
        provider.request_terminate(&created.id).await.unwrap();
        if let Some(document) = Document::load("runpod-rest-v2.openapi.json") {
            let wrong = document.check(&served.exchanges(), true);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

#[tokio::test]
async fn the_check_against_the_document_can_fail() {
    let Some(document) = Document::load("runpod-rest-v2.openapi.json") else { return };
    let (served, provider) = start(Behaviour::default()).await;
    let id = create(&provider, "gh-1").await;
    provider.request_terminate(&id).await.unwrap();
    let good = served.exchanges();
    assert!(document.check(&good, true).is_empty());
    let at = good.iter().position(|exchange| exchange.method == "POST").unwrap();
    let spoil = |spoil: &dyn Fn(&mut serde_json::Value)| {
        let mut bad = good[at].clone();
        spoil(bad.body.as_mut().unwrap());
        document.check(&[bad], true).len()
    };
    assert_eq!(spoil(&|body| body["disk"] = 0.into()), 1);
    assert_eq!(spoil(&|body| body["surprise"] = 1.into()), 1);
    assert_eq!(spoil(&|body| body["gpu"]["minCudaVersion"] = "12".into()), 1);
    assert_eq!(spoil(&|body| body["env"]["A"] = 1.into()), 1);
    assert_eq!(spoil(&|body| drop(body.as_object_mut().unwrap().remove("image"))), 1);
    let mut strange = good[0].clone();
    strange.query.push(("page".into(), "1".into()));
    strange.query.retain(|(name, _)| name != "count");
    strange.query.push(("count".into(), "many".into()));
    assert_eq!(document.check(&[strange], true).len(), 2);
}

#[tokio::test]
async fn offers_are_filtered_by_what_the_catalogue_says() {
    let (_served, provider) = start(Behaviour::default()).await;
    let names = async |filter: OfferFilter| -> Vec<(String, f64)> {
        let offers = provider.offers(&filter).await.unwrap();
        offers.into_iter().map(|offer| (offer.gpu.unwrap(), offer.price_per_hour)).collect()
    };
    let all = names(OfferFilter::default()).await;
    // Two clouds, three NVIDIA models in stock; AMD and what is sold out are not there; the cheapest first.
    assert_eq!(all.len(), 6);
    assert!(all.is_sorted_by(|a, b| a.1 <= b.1));
    let secure = OfferFilter { cloud: Some("secure".into()), ..OfferFilter::default() };
    assert_eq!(names(secure.clone()).await.len(), 3);
    assert_eq!(names(OfferFilter { direct_port: true, ..OfferFilter::default() }).await.len(), 3);
    assert_eq!(names(OfferFilter { min_memory_gib: Some(40), ..secure.clone() }).await.len(), 1);
    assert_eq!(names(OfferFilter { min_compute_capability: Some(80), ..secure.clone() }).await.len(), 2);
    assert_eq!(names(OfferFilter { max_price_per_hour: Some(0.6), ..secure.clone() }).await.len(), 2);
    let two = names(OfferFilter { gpu_count: Some(2), ..gpu("rtx 4090") }).await;
    assert_eq!(two, [("NVIDIA GeForce RTX 4090".to_owned(), 0.5), ("NVIDIA GeForce RTX 4090".to_owned(), 1.0)]);
    assert!(names(OfferFilter { gpu_count: Some(5), cloud: Some("community".into()), ..gpu("4090") }).await.is_empty());
    assert!(names(OfferFilter { gpu_count: Some(0), ..OfferFilter::default() }).await.is_empty());
}

#[tokio::test]
async fn a_pod_boots_and_its_ports_appear() {
    let slow = Duration::from_millis(300);
    let (served, provider) = start(Behaviour { provisioning: slow, starting: slow, ..Behaviour::default() }).await;
    let id = create(&provider, "gh-boot").await;
    let (mut states, mut endpoints) = (Vec::new(), Vec::new());
    while endpoints.len() < 2 {
        let seen = provider.observe(&id).await.unwrap();
        if states.last() != Some(&seen.state) {
            states.push(seen.state);
        }
        endpoints = seen.endpoints;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let booted = [AllocationState::Pulling, AllocationState::Starting, AllocationState::Running];
    assert!(states.ends_with(&booted), "{states:?}");
    assert!(matches!(endpoints[0], Endpoint::Direct(_)));
    assert_eq!(endpoints[1], Endpoint::Proxy(format!("https://{id}-9443.proxy.runpod.net")));
    let request = served.fake.request(&id.0);
    assert_eq!(request["image"], format!("example/trainer:1@sha256:{}", "07".repeat(32)));
    assert_eq!(request["ports"], serde_json::json!(["9443/tcp", "9443/http"]));
    assert_eq!(request["env"]["GLASSHOUSE_ROLE"], "agent");
    assert_eq!(request["env"]["MODE"], "it's \"quoted\"");
}

#[tokio::test]
async fn without_a_public_address_the_proxy_is_left() {
    let (_served, provider) = start(Behaviour { public_address: false, ..Behaviour::default() }).await;
    let id = create(&provider, "gh-proxy").await;
    tokio::time::sleep(Duration::from_millis(120)).await;
    let seen = provider.observe(&id).await.unwrap();
    assert_eq!(seen.endpoints, [Endpoint::Proxy(format!("https://{id}-9443.proxy.runpod.net"))]);
}

#[tokio::test]
async fn a_create_is_never_repeated_blindly() {
    let (served, provider) = start(Behaviour::default()).await;
    let offer = offer(&provider).await;
    let faults = [
        (Fault::HappensBut { status: 500, names_it: false }, false),
        (Fault::HappensBut { status: 502, names_it: true }, true),
        (Fault::HappensAndBreaks, false),
        (Fault::Nonsense, false),
    ];
    for (fault, is_named) in faults {
        let before = served.count("POST pods");
        served.fault("POST pods", [fault.clone()]);
        let error = provider.create(&offer, &spec("gh-doubt")).await.unwrap_err();
        let ProviderError::Ambiguous { allocation, .. } = &error else { panic!("{fault:?}: {error}") };
        assert_eq!(allocation.is_some(), is_named, "{fault:?}");
        assert_eq!(served.count("POST pods"), before + 1, "{fault:?}");
    }
    let found = provider.find("gh-doubt").await.unwrap();
    assert_eq!(found.len(), served.fake.billing().len());
    for allocation in found {
        provider.request_terminate(&allocation.id).await.unwrap();
    }
    assert!(served.fake.billing().is_empty());
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let (served, provider) = start(Behaviour::default()).await;
    let offer = offer(&provider).await;
    for status in [400, 403, 422] {
        served.fault("POST pods", [Fault::Status(status)]);
        let error = provider.create(&offer, &spec("gh-no")).await.unwrap_err();
        assert!(matches!(&error, ProviderError::Refused { why, .. } if why.contains("scripted")), "{status}: {error}");
    }
    served.fault("POST pods", [Fault::Status(402)]);
    let error = provider.create(&offer, &spec("gh-no")).await.unwrap_err();
    assert!(matches!(&error, ProviderError::OutOfFunds { why, .. } if why.contains("scripted")), "{error}");
    served.fake.sold_out();
    let sold_out = provider.create(&offer, &spec("gh-no")).await.unwrap();
    assert_eq!(sold_out, CreateOutcome::NoCapacity);
    let wrong = RunPodProvider::builder().api_key("rpa_WRONG").address(served.url()).pacing(PACING).build().unwrap();
    let error = wrong.list_owned().await.unwrap_err();
    assert!(matches!(error, ProviderError::Unauthorized { variable: "RUNPOD_API_KEY", .. }), "{error}");
    assert!(!error.to_string().contains("rpa_WRONG") && !format!("{wrong:?}").contains("rpa_WRONG"));
    assert!(served.fake.billing().is_empty());
}

#[tokio::test]
async fn waits_as_it_is_told_and_as_it_was_set() {
    let (served, provider) = start(Behaviour::default()).await;
    served.fault("GET pods", [Fault::TooMany(Some(1)), Fault::TooMany(None), Fault::Status(503)]);
    provider.list_owned().await.unwrap();
    let gaps = served.gaps("GET pods");
    assert_eq!(gaps.len(), 3);
    assert!(gaps[0] >= Duration::from_millis(990), "{gaps:?}");
    served.fault("GET pods", [Fault::TooMany(Some(60))]);
    let error = provider.list_owned().await.unwrap_err();
    assert!(matches!(error, ProviderError::RateLimited { retry_after: Some(wait), .. } if wait.as_secs() == 60));
    // A create that was turned away at the door did not happen, so it is asked for again.
    let offer = offer(&provider).await;
    served.fault("POST pods", [Fault::TooMany(None)]);
    assert!(matches!(provider.create(&offer, &spec("gh-1")).await, Ok(CreateOutcome::Created(_))));
    assert_eq!(served.fake.billing().len(), 1);
}

#[tokio::test]
async fn an_outage_that_says_how_long_holds_everybody_back() {
    let (served, provider) = start(Behaviour::default()).await;
    let offer = offer(&provider).await;
    served.fault("GET pods", [Fault::Later(503, 1)]);
    // Also who comes meanwhile.
    let (one, other) = tokio::join!(provider.list_owned(), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        provider.list_owned().await
    });
    assert!(one.is_ok() && other.is_ok());
    let gaps = served.gaps("GET pods");
    assert!(gaps.len() == 2 && gaps[0] >= Duration::from_millis(990), "{gaps:?}");
    // Longer than anybody waits here: the caller's to decide on, and nothing is asked before.
    served.fault("GET pods", [Fault::Later(503, 60)]);
    for _ in 0..2 {
        let error = provider.list_owned().await.unwrap_err();
        assert!(matches!(error, ProviderError::RateLimited { retry_after: Some(wait), .. } if wait.as_secs() >= 59));
    }
    assert_eq!(served.count("GET pods"), 4);
    // What was made of a create nobody knows, so it is not asked for again.
    served.fault("POST pods", [Fault::Later(503, 1)]);
    let error = provider.create(&offer, &spec("gh-1")).await.unwrap_err();
    assert!(matches!(error, ProviderError::Ambiguous { .. }), "{error}");
    assert_eq!(served.count("POST pods"), 1);
}

#[tokio::test]
async fn requests_to_one_endpoint_are_spaced() {
    let served = Served::start(RunPod::new(Behaviour::default())).await;
    let pacing = glasshouse_provider::Pacing { spacing: Duration::from_millis(30), ..PACING };
    let provider = RunPodProvider::builder().api_key(RunPod::KEY).address(served.url()).pacing(pacing).build().unwrap();
    let began = std::time::Instant::now();
    let listed = futures_util::future::join_all((0..4).map(|_| provider.list_owned())).await;
    assert!(listed.iter().all(Result::is_ok));
    // On the owner's side: how long a request is on its way is not its own choice.
    assert!(began.elapsed() >= Duration::from_millis(90));
}

#[tokio::test]
async fn an_unknown_pod_is_not_there_and_a_404_on_delete_is_no_proof() {
    let (served, provider) = start(Behaviour { hidden: Duration::from_secs(3600), ..Behaviour::default() }).await;
    let id = create(&provider, "gh-new").await;
    let error = provider.observe(&id).await.unwrap_err();
    assert!(matches!(&error, ProviderError::NotFound { id: named, .. } if *named == id), "{error}");
    // Neither way of ending knows the pod yet. The request is made; what is billed says that it was not done.
    provider.request_terminate(&id).await.unwrap();
    assert_eq!(served.fake.billing(), std::slice::from_ref(&id.0));
    served.fake.behave(|behaviour| behaviour.hidden = Duration::ZERO);
    assert_eq!(provider.find("gh-new").await.unwrap().len(), 1);
    served.fault("DELETE pods/id", [Fault::Status(404)]);
    provider.request_terminate(&id).await.unwrap();
    assert!(served.fake.billing().is_empty(), "the action is the other way to the same end");
    served.fault("DELETE pods/id", vec![Fault::Status(500); 4]);
    served.fault("POST pods/action", vec![Fault::Status(500); 4]);
    let error = provider.request_terminate(&id).await.unwrap_err();
    assert!(matches!(error, ProviderError::Ambiguous { .. }), "{error}");
}

#[tokio::test]
async fn strange_states_prices_and_gpus_are_told_as_they_are() {
    let strange = Behaviour { stuck: Some("HIBERNATING"), cost: Some(9.5), ..Behaviour::default() };
    let (served, provider) = start(strange).await;
    let id = create(&provider, "gh-odd").await;
    let seen = provider.observe(&id).await.unwrap();
    assert_eq!(seen.state, AllocationState::Unknown("HIBERNATING".into()));
    assert!((seen.allocation.price_per_hour - 9.5).abs() < 1e-9);
    served.fake.behave(|behaviour| *behaviour = Behaviour { gpus: Some(0), ..Behaviour::default() });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(provider.observe(&id).await.unwrap().gpu_count, Some(0));
    served.fake.behave(|behaviour| behaviour.exits = Some(Duration::ZERO));
    assert_eq!(provider.observe(&id).await.unwrap().state, AllocationState::Exited(None));
    served.fake.behave(|behaviour| behaviour.stuck = Some("TERMINATED"));
    assert!(matches!(provider.observe(&id).await, Err(ProviderError::NotFound { .. })));
    assert!(provider.list_owned().await.unwrap().is_empty());
}

#[tokio::test]
async fn nonsense_is_no_absence() {
    let (served, provider) = start(Behaviour::default()).await;
    let id = create(&provider, "gh-1").await;
    served.fault("GET pods", [Fault::Nonsense, Fault::Ignored]);
    served.fault("GET pods/id", [Fault::Nonsense]);
    assert!(matches!(provider.list_owned().await, Err(ProviderError::Unintelligible { .. })));
    assert!(matches!(provider.find("gh-1").await, Err(ProviderError::Unintelligible { .. })));
    assert!(matches!(provider.observe(&id).await, Err(ProviderError::Unintelligible { .. })));
}

#[tokio::test]
async fn a_log_is_resumed_without_loss_or_repeat() {
    let (served, provider) = start(Behaviour::default()).await;
    let id = create(&provider, "gh-log").await;
    let first = provider.logs(&id, None).await.unwrap();
    assert_eq!(first.lines, (0..6).map(|i| format!("line {i}")).collect::<Vec<_>>());
    // More of the second that was last, and of a later one.
    served.fake.log(1_780_000_001, "line 6");
    served.fake.log(1_780_000_009, "line 7");
    let second = provider.logs(&id, Some(&first.next)).await.unwrap();
    assert_eq!(second.lines, ["line 6", "line 7"]);
    let third = provider.logs(&id, Some(&second.next)).await.unwrap();
    assert!(third.lines.is_empty() && third.next == second.next);
    let gone = provider.logs(&AllocationId("nobody".into()), None).await;
    assert!(matches!(gone, Err(ProviderError::NotFound { .. })));
}

#[tokio::test]
async fn what_would_be_asked_can_be_seen_without_the_secret() {
    let (served, provider) = start(Behaviour::default()).await;
    let mut offer = offer(&provider).await;
    let plan = provider.plan(&gpu("4090"), &offer, &spec("gh-plan")).unwrap();
    let calls: Vec<_> = plan.requests.iter().map(|request| request.call).collect();
    assert_eq!(calls, ["offers", "offers", "create", "observe", "request_terminate", "find", "spend"]);
    let said = format!("{plan:?}");
    assert!(!said.contains(&"09".repeat(32)) && !said.contains(RunPod::KEY), "{said}");
    assert_eq!(plan.worst_case_dollars, Some(offer.price_per_hour));
    assert_eq!(served.count("POST pods"), 0);
    // What is shown is what is sent.
    let shown = plan.create().unwrap();
    assert_eq!(shown.request, format!("POST {}/v2/pods", served.url()));
    let CreateOutcome::Created(made) = provider.create(&offer, &spec("gh-plan")).await.unwrap() else { panic!() };
    let sent = served.fake.request(&made.id.0).to_string().replace(&"09".repeat(32), "[launch secret]");
    assert_eq!(shown.body.as_ref().unwrap().to_string(), sent);
    provider.request_terminate(&made.id).await.unwrap();

    let mut leaking = spec("gh-plan");
    leaking.env.insert("HELP".into(), format!("key={}", RunPod::KEY));
    let error = provider.create(&offer, &leaking).await.unwrap_err();
    assert!(error.to_string().contains("HELP") && !error.to_string().contains(RunPod::KEY));
    let mut unpinned = spec("gh-plan");
    unpinned.image_digest = None;
    assert!(matches!(provider.create(&offer, &unpinned).await, Err(ProviderError::Refused { .. })));
    offer.id = "another provider's".into();
    assert!(matches!(provider.create(&offer, &spec("gh-plan")).await, Err(ProviderError::Refused { .. })));
    assert_eq!(served.count("POST pods"), 1);
}

#[test]
fn a_builder_checks_and_redacts() {
    let builder = RunPodProvider::builder().api_key("rpa_SECRET").reach(Reach::Proxy);
    assert!(!format!("{builder:?}").contains("rpa_SECRET"));
    assert!(matches!(builder.clone().cloud("private").build(), Err(ConfigError::BadValue { .. })));
    assert!(matches!(RunPodProvider::builder().build(), Err(ConfigError::NoKey { .. })));
    let clear = builder.clone().address("http://api.runpod.io").build();
    assert!(matches!(clear, Err(ConfigError::BadAddress { .. })));
    assert!(!format!("{:?}", builder.build().unwrap()).contains("rpa_SECRET"));
}
