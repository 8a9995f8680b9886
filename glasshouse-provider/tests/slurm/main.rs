//! `SlurmProvider` against a real Slurm: `scripts/slurm-local.sh` starts one from Debian's packages where they are
//! installed; skipped aloud otherwise. This executable is the owner, the agent of each job and every segment.

// Without the usual harness this is no `cfg(test)` code to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing)]
#![allow(dead_code, reason = "the other tests' support is used in part")]

#[path = "../runs/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use glasshouse_core::contract::ProviderCase;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::job::Budget;
use glasshouse_core::overhead::{Cleanup, Order};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{
    AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, Observation, OfferFilter, Provider,
    ProviderError,
};
use glasshouse_provider::client::AgentClient;
use glasshouse_provider::contract::{self, Trouble};
use glasshouse_provider::run::{OverheadRun, ProtectedRun, RunBuilder};
use glasshouse_provider::supervisor::{BootBudgets, Patience, RentRequest};
use glasshouse_provider::{SlurmProvider, serve_if_launched};
use support::{Listener, Test, block_on, container, own_measurement, seal};

const TESTS: &[Test] = &[
    ("the_contract_holds", the_contract_holds),
    ("the_supervisors_contract_holds", the_supervisors_contract_holds),
    ("an_agent_is_reached_and_its_log_read", an_agent_is_reached_and_its_log_read),
    ("another_job_of_that_number_is_left_alone", another_job_of_that_number_is_left_alone),
    ("exit_codes_are_told", exit_codes_are_told),
    ("what_would_be_submitted_can_be_seen", what_would_be_submitted_can_be_seen),
    ("a_time_limit_ends_a_job", a_time_limit_ends_a_job),
    ("jobs_wait_for_gpus", jobs_wait_for_gpus),
    ("refusals_are_told_apart", refusals_are_told_apart),
    ("a_protected_run_on_slurm", a_protected_run_on_slurm),
    ("two_segments_and_more_on_one_job", two_segments_and_more_on_one_job),
];

/// Short: the address of the munge socket must fit into 108 bytes.
const FOLDER: &str = "/run/glasshouse-slurm-test";

fn main() {
    contract::serve_if_launched();
    serve_if_launched(support::registry());
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == support::ALONE) {
        std::process::exit(support::main_code(TESTS, 1));
    }
    if arguments.iter().any(|argument| argument == "--list") || !start() {
        return;
    }
    // It has two devices, and some of the tests take both.
    let ended = std::panic::catch_unwind(|| support::main_code(TESTS, 1));
    script("stop");
    std::process::exit(ended.unwrap_or(1));
}

fn start() -> bool {
    let installed = |name: &str| ["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(name).is_file());
    let missing = ["slurmctld", "slurmd", "sbatch", "munged"].into_iter().filter(|name| !installed(name));
    let missing: Vec<_> = missing.collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        support::skip(
            "slurm",
            &format!("no Slurm here ({missing} missing): apt-get install slurmctld slurmd slurm-client munge"),
        );
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        support::skip("slurm", "a Slurm of its own needs root; run the slurm tests with sudo");
        return false;
    }
    assert!(script("start"), "Slurm is installed and does not start; see {FOLDER}/log");
    true
}

fn script(action: &str) -> bool {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/slurm-local.sh");
    Command::new(script).args([action, FOLDER]).env("GLASSHOUSE_SLURM_PORT", "16917").status().unwrap().success()
}

fn output() -> PathBuf {
    Path::new(FOLDER).join("output")
}

fn provider() -> SlurmProvider {
    provider_of(&std::env::current_exe().unwrap())
}

fn provider_of(program: &Path) -> SlurmProvider {
    let configuration = Path::new(FOLDER).join("slurm.conf");
    SlurmProvider::builder().configuration(configuration).folder(output()).program(program).build().unwrap()
}

fn spec(name: &str) -> LaunchSpec {
    LaunchSpec {
        name: name.to_owned(),
        image: None,
        image_digest: None,
        launch_secret: Secret::take(&mut [0xab; 32]),
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(60),
        env: BTreeMap::from([("ODD".to_owned(), "commas, spaces and 'quotes'".to_owned())]),
        disk_gib: None,
        time_limit: Some(Duration::from_secs(600)),
    }
}

async fn create(provider: &SlurmProvider, name: &str, filter: &OfferFilter) -> AllocationId {
    let offer = provider.offers(filter).await.unwrap().remove(0);
    match provider.create(&offer, &spec(name)).await.unwrap() {
        CreateOutcome::Created(allocation) => allocation.id,
        CreateOutcome::NoCapacity => panic!("no capacity"),
    }
}

async fn until(
    provider: &SlurmProvider,
    id: &AllocationId,
    what: &str,
    holds: impl Fn(&Observation) -> bool,
) -> Observation {
    let began = Instant::now();
    loop {
        let seen = provider.observe(id).await.unwrap();
        if holds(&seen) {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{what}: still {seen:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn end(provider: &SlurmProvider, id: &AllocationId) {
    provider.request_terminate(id).await.unwrap();
    let began = Instant::now();
    while !matches!(provider.observe(id).await, Err(ProviderError::NotFound { .. })) {
        assert!(began.elapsed() < Duration::from_secs(60), "{id} does not end");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn the_contract_holds() {
    let filter = OfferFilter { gpu_count: Some(1), ..OfferFilter::default() };
    let (poll, patience) = (Duration::from_millis(300), Duration::from_secs(60));
    let case = ProviderCase { filter, launch: spec("gh-contract"), poll, patience };
    block_on(glasshouse_core::contract::provider(&provider(), case, tokio::time::sleep));
}

/// `contract` and `all` are known.
fn slow_tests() -> Option<String> {
    std::env::var("GLASSHOUSE_SLOW_TESTS").ok()
}

/// Every trouble over real jobs. Agents are started, and taken to answer.
fn the_supervisors_contract_holds() {
    if slow_tests().is_none() {
        println!("SKIPPED: set GLASSHOUSE_SLOW_TESTS=contract to see every trouble over real jobs (a minute or two)");
        return;
    }
    let request = || RentRequest {
        filter: OfferFilter { gpu_count: Some(1), max_price_per_hour: Some(1.0), ..OfferFilter::default() },
        image: None,
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(60),
        env: BTreeMap::new(),
        disk_gib: None,
        time_limit: Some(Duration::from_secs(600)),
    };
    let brief = Patience { boot: BootBudgets::each(Duration::from_secs(24)), late: Duration::from_secs(1), ..PATIENCE };
    let bench = async || contract::Faulty::new(|| Arc::new(provider()), request, brief).billed_by(jobs).at_once(2);
    assert_eq!(block_on(contract::supervised(bench)), Trouble::ALL);
}

/// Jobs of these names that are not over, by Slurm's own word.
fn jobs(names: &[String]) -> Vec<String> {
    let mut squeue = Command::new("squeue");
    let squeue =
        squeue.env("SLURM_CONF", Path::new(FOLDER).join("slurm.conf")).args(["--noheader", "--format=%j %A %T"]);
    let said = squeue.output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let lines = String::from_utf8(said.stdout).unwrap();
    let is_one = |line: &&str| line.split(' ').next().is_some_and(|name| names.iter().any(|asked| asked == name));
    lines.lines().map(str::trim).filter(is_one).map(str::to_owned).collect()
}

fn an_agent_is_reached_and_its_log_read() {
    block_on(async {
        let provider = provider();
        let id = create(&provider, "gh-agent", &OfferFilter { gpu_count: Some(2), ..OfferFilter::default() }).await;
        let seen = until(&provider, &id, "an endpoint", |seen| !seen.endpoints.is_empty()).await;
        assert_eq!(seen.gpu_count, Some(2));
        assert_eq!(seen.container.unwrap().source, "slurm-job");
        let Endpoint::Direct(address) = &seen.endpoints[0] else { panic!("{:?}", seen.endpoints) };
        let client = AgentClient::new(&Endpoint::Direct(*address), &spec("").launch_secret).unwrap();
        assert_eq!(client.hello().await.unwrap().name, "gh-agent");
        let log = provider.logs(&id, None).await.unwrap();
        assert!(log.lines.iter().any(|line| line.contains("agent gh-agent listens")), "{log:?}");
        assert!(provider.logs(&id, Some(&log.next)).await.unwrap().lines.is_empty());
        // The secret went with the environment, and is on no command line and in no script.
        let job = Command::new("scontrol")
            .env("SLURM_CONF", Path::new(FOLDER).join("slurm.conf"))
            .args(["show", "job", number(&id)])
            .output()
            .unwrap();
        assert!(!String::from_utf8_lossy(&job.stdout).contains("abab"));
        end(&provider, &id).await;
    });
}

fn number(id: &AllocationId) -> &str {
    id.0.split_once('@').unwrap().0
}

/// As after numbers began anew: the journal has an id of which another job has the number.
fn another_job_of_that_number_is_left_alone() {
    block_on(async {
        let provider = provider_of(&program("sleeper", "exec sleep 600"));
        let id = create(&provider, "gh-new", &OfferFilter::default()).await;
        until(&provider, &id, "running", |seen| seen.state == AllocationState::Running).await;
        let of_before = AllocationId(format!("{}@gh-old", number(&id)));
        let other = provider_of(Path::new("/bin/true"));
        for provider in [&provider, &other] {
            provider.request_terminate(&of_before).await.unwrap();
            assert!(matches!(provider.observe(&of_before).await, Err(ProviderError::NotFound { .. })));
            assert!(matches!(provider.logs(&of_before, None).await, Err(ProviderError::NotFound { .. })));
            assert_eq!(provider.observe(&id).await.unwrap().state, AllocationState::Running);
        }
        end(&other, &id).await;
    });
}

/// A program that is no agent.
fn program(name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(output()).unwrap();
    let path = output().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn exit_codes_are_told() {
    block_on(async {
        let provider = provider_of(&program("seven", "echo \"$ODD\" >&2; exit 7"));
        let id = create(&provider, "gh-seven", &OfferFilter::default()).await;
        let is_over = |seen: &Observation| matches!(seen.state, AllocationState::Exited(_));
        let seen = until(&provider, &id, "its exit", is_over).await;
        assert_eq!(seen.state, AllocationState::Exited(Some(7)));
        assert_eq!(provider.logs(&id, None).await.unwrap().lines, ["commas, spaces and 'quotes'"]);
        assert!(provider.find("gh-seven").await.unwrap().is_empty(), "what is over is not there");
        end(&provider, &id).await;
        let provider = provider_of(&program("signal", "kill -9 $$"));
        let id = create(&provider, "gh-signal", &OfferFilter::default()).await;
        assert_eq!(until(&provider, &id, "its exit", is_over).await.state, AllocationState::Exited(None));
        end(&provider, &id).await;
    });
}

fn what_would_be_submitted_can_be_seen() {
    let provider = provider();
    block_on(async {
        let offer = provider.offers(&OfferFilter::default()).await.unwrap().remove(0);
        let plan = provider.plan(&offer, &spec("gh-limit")).unwrap();
        let request = &plan.create().unwrap().request;
        assert!(request.contains(" --time=10") && request.contains(" --gres=gpu:1"), "{request}");
        assert!(request.contains(" --no-requeue") && !format!("{plan:?}").contains("abab"), "{plan:?}");
        assert_eq!(plan.worst_case_dollars, Some(0.0));
    });
}

/// Slurm counts in minutes and looks every half minute, so this one is only run when it is asked for.
fn a_time_limit_ends_a_job() {
    if slow_tests().is_none_or(|which| which != "all") {
        println!("SKIPPED: set GLASSHOUSE_SLOW_TESTS=all to see a time limit of one minute end a job");
        return;
    }
    block_on(async {
        let provider = provider_of(&program("sleeper", "exec sleep 600"));
        let offer = provider.offers(&OfferFilter::default()).await.unwrap().remove(0);
        let limited = LaunchSpec { time_limit: Some(Duration::from_secs(1)), ..spec("gh-limit") };
        let CreateOutcome::Created(made) = provider.create(&offer, &limited).await.unwrap() else {
            panic!("no capacity")
        };
        let began = Instant::now();
        while !matches!(provider.observe(&made.id).await.unwrap().state, AllocationState::Exited(_)) {
            assert!(began.elapsed() < Duration::from_secs(180), "the limit does not end it");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        println!("a limit of one minute ended the job after {:?}", began.elapsed());
        end(&provider, &made.id).await;
    });
}

fn jobs_wait_for_gpus() {
    block_on(async {
        let provider = provider_of(&program("sleeper", "exec sleep 600"));
        let two = OfferFilter { gpu_count: Some(2), ..OfferFilter::default() };
        let first = create(&provider, "gh-first", &two).await;
        until(&provider, &first, "running", |seen| seen.state == AllocationState::Running).await;
        let second = create(&provider, "gh-second", &two).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(provider.observe(&second).await.unwrap().state, AllocationState::Scheduling);
        // Another owner process of the same user finds both, and ends them.
        let other = provider_of(Path::new("/bin/true"));
        let owned = other.list_owned().await.unwrap();
        assert!([&first, &second].iter().all(|id| owned.iter().any(|allocation| allocation.id == **id)), "{owned:?}");
        for id in [&second, &first] {
            end(&other, id).await;
        }
        assert!(other.list_owned().await.unwrap().is_empty());
    });
}

fn refusals_are_told_apart() {
    block_on(async {
        let provider = provider();
        assert!(
            provider.offers(&OfferFilter { gpu_count: Some(3), ..OfferFilter::default() }).await.unwrap().is_empty()
        );
        let mut offer = provider.offers(&OfferFilter::default()).await.unwrap().remove(0);
        offer.id = "nowhere:-:1:0".into();
        let error = provider.create(&offer, &spec("gh-no")).await.unwrap_err();
        assert!(matches!(&error, ProviderError::Refused { why, .. } if why.contains("partition")), "{error}");
        assert!(matches!(
            provider.observe(&AllocationId("999999@gh-gone".into())).await,
            Err(ProviderError::NotFound { .. })
        ));
        provider.request_terminate(&AllocationId("999999@gh-gone".into())).await.unwrap();
        let nowhere = SlurmProvider::builder().commands("/nowhere").folder(output()).build().unwrap();
        let error = nowhere.list_owned().await.unwrap_err();
        assert!(error.to_string().contains("install Slurm"), "{error}");
    });
}

const PATIENCE: Patience = Patience {
    boot: BootBudgets::each(Duration::from_secs(60)),
    settle: Duration::from_secs(5),
    late: Duration::from_secs(5),
    poll: Duration::from_millis(300),
    watch: Duration::from_secs(5),
    absence_spacing: Duration::from_millis(500),
    end: Duration::from_secs(60),
};

fn composed<K>(builder: RunBuilder<K>, folder: &Path) -> RunBuilder<K> {
    let (path, sealed) = seal(folder, "");
    builder
        .provider(provider())
        // This test's attestor says so of itself everywhere.
        .container(container())
        .runtime_measurement(own_measurement())
        .verifier(Listener { refuse: false })
        .package(path, sealed)
        .out_dir(folder.join("out"))
        .progress_every(Duration::from_millis(100))
        .dangerous_allow_cleartext_data()
        .patience(PATIENCE)
}

fn a_protected_run_on_slurm() {
    let folder = tempfile::tempdir().unwrap();
    let run = composed(ProtectedRun::builder(), folder.path()).budget(Budget::Millis(500));
    let report = block_on(run.run()).unwrap();
    assert_eq!(report.cleanup.as_ref().unwrap().outcome, Cleanup::Observed);
    assert!(report.receipt.is_some() && report.artifacts.len() == 2);
}

fn two_segments_and_more_on_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let run = composed(OverheadRun::builder(), folder.path())
        .order(Order::Abba)
        .repeats(1)
        .duration(Duration::from_millis(400));
    let report = block_on(run.run()).unwrap();
    assert!(report.row.figures().is_some(), "{:?}", report.row);
    assert_eq!(report.samples.len(), 4);
}
