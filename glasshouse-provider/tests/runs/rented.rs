//! Allocations of the RunPod and Vast.ai fakes that are real agents: what becomes of them when someone is gone.

use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Fixed;
use glasshouse_core::overhead::{Cleanup, Exclusion, Order, Outcome, OverheadFile};
use glasshouse_core::traits::{OfferFilter, Provider};
use glasshouse_provider::run::{OverheadRun, RunError, RunEvent};
use glasshouse_provider::supervisor::{Journal, Patience, RentRequest, Supervisor};
use glasshouse_provider::{Pacing, RunPodProvider, VastProvider};

use crate::fakes::runpod::RunPod;
use crate::fakes::server::{Fake, Served, lock};
use crate::fakes::vast::Vast;
use crate::support::{Listener, Test, block_on, container, own_measurement, seal};

pub(crate) const TESTS: &[Test] = &[
    ("a_pod_without_its_owner_ends_itself", a_pod_without_its_owner_ends_itself),
    ("an_instance_without_its_owner_ends_itself", an_instance_without_its_owner_ends_itself),
    ("a_raw_result_that_never_arrives_is_an_excluded_row", a_raw_result_that_never_arrives_is_an_excluded_row),
];

const PACING: Pacing = Pacing {
    spacing: Duration::from_millis(2),
    tries: 4,
    first_pause: Duration::from_millis(4),
    longest_wait: Duration::from_secs(2),
    timeout: Duration::from_secs(5),
};

pub(crate) const PATIENCE: Patience = Patience {
    poll: Duration::from_millis(40),
    absence_spacing: Duration::from_millis(60),
    settle: Duration::from_millis(500),
    late: Duration::from_millis(200),
    end: Duration::from_secs(20),
    ..Patience::REMOTE
};

pub(crate) const IMAGE: &str = "example/trainer:1";

pub(crate) fn filter() -> OfferFilter {
    OfferFilter { gpu: Some("4090".into()), gpu_count: Some(1), ..OfferFilter::default() }
}

fn port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub(crate) fn runpod(served: &Served<RunPod>) -> RunPodProvider {
    let builder = RunPodProvider::builder().api_key(RunPod::KEY).address(served.url()).pacing(PACING);
    builder.port(port()).reach(glasshouse_provider::runpod::Reach::Direct).build().unwrap()
}

pub(crate) fn vast(served: &Served<Vast>) -> VastProvider {
    *lock(&served.fake.address) = served.url();
    VastProvider::builder().api_key(Vast::KEY).address(served.url()).pacing(PACING).port(port()).build().unwrap()
}

/// An owner rents, and is never heard of again: it ends nothing and asks for nothing.
async fn rent_and_vanish(provider: Arc<dyn Provider>, linger: Duration) {
    let supervisor = Supervisor::new(provider, Arc::new(Journal::memory())).patience(PATIENCE);
    let request = RentRequest {
        filter: filter(),
        image: Some((IMAGE.into(), Fixed([7; 32]))),
        gate_key: Fixed([1; 32]),
        linger,
        env: std::collections::BTreeMap::new(),
        disk_gib: None,
        time_limit: None,
    };
    let _ = ManuallyDrop::new(supervisor.rent(&request).await.unwrap());
}

async fn ends_itself<F: Fake>(served: &Served<F>, billing: impl Fn(&F) -> Vec<String>, end: &str) {
    let linger = Duration::from_secs(2);
    let began = Instant::now();
    assert_eq!(billing(&served.fake).len(), 1);
    while !billing(&served.fake).is_empty() {
        assert!(began.elapsed() < 10 * linger, "it goes on billing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(served.count(end), 1, "the allocation asked, and nobody else");
}

fn a_pod_without_its_owner_ends_itself() {
    block_on(async {
        let served = Served::start(RunPod::with_machines(Default::default())).await;
        rent_and_vanish(Arc::new(runpod(&served)), Duration::from_secs(2)).await;
        ends_itself(&served, RunPod::billing, "DELETE pods/id").await;
    });
}

fn an_instance_without_its_owner_ends_itself() {
    block_on(async {
        let served = Served::start(Vast::with_machines(Default::default())).await;
        rent_and_vanish(Arc::new(vast(&served)), Duration::from_secs(2)).await;
        ends_itself(&served, Vast::billing, "DELETE instances/id").await;
    });
}

/// What was published and could not be told from a result: the protected segment was done, the pod exited, and the raw
/// one's result never came.
fn a_raw_result_that_never_arrives_is_an_excluded_row() {
    let folder = tempfile::tempdir().unwrap();
    let (path, sealed) = seal(folder.path(), "");
    let deadline = Duration::from_secs(60);
    block_on(async {
        let served = Served::start(RunPod::with_machines(Default::default())).await;
        let pod = served.fake.clone();
        let mut progress = 0;
        let run = OverheadRun::builder()
            .provider(runpod(&served))
            .offers(filter())
            .image(IMAGE, Fixed([7; 32]))
            .patience(PATIENCE)
            .linger(Duration::from_secs(4))
            // This test's attestor says so of itself everywhere.
            .container(container())
            .runtime_measurement(own_measurement())
            .verifier(Listener { refuse: false })
            .package(path, sealed)
            .dangerous_allow_cleartext_data()
            .out_dir(folder.path().join("out"))
            .progress_every(Duration::from_millis(50))
            .on_event(move |event| {
                if matches!(event, RunEvent::Progress { position: 1, .. }) {
                    progress += 1;
                    if progress == 3 {
                        let pod = pod.clone();
                        std::thread::spawn(move || pod.exit_all());
                    }
                }
            })
            .order(Order::ProtectedFirst)
            .repeats(1)
            .duration(Duration::from_secs(2));
        let began = Instant::now();
        let failure = run.run().await.unwrap_err();
        assert!(began.elapsed() < deadline, "{:?}", began.elapsed());
        let RunError::AgentLost { segment, last: Some(last), .. } = &failure.error else { panic!("{failure}") };
        assert!(segment.starts_with("raw-") && *last >= 3, "{failure}");
        let row = failure.report.unwrap().row;
        let Outcome::Excluded { reasons, .. } = row.outcome() else { panic!("{row:?}") };
        assert!(reasons.contains(&Exclusion::RawIncomplete), "{reasons:?}");
        assert_eq!(row.facts().cleanup, Cleanup::Observed);
        assert!(served.fake.billing().is_empty());
        assert_eq!(served.count("POST pods"), 1, "one allocation for both segments");
        // It stays in the report, and out of every number.
        let file = OverheadFile::parse(&std::fs::read(folder.path().join("out/overhead.json")).unwrap()).unwrap();
        assert_eq!(file.rows, [row]);
    });
}
