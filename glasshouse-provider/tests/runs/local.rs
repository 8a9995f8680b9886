//! The local provider: truthful about real processes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use glasshouse_core::contract::{self, ProviderCase};
use glasshouse_core::fixed::Fixed;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{
    AllocationState, CreateOutcome, Endpoint, LaunchSpec, Offer, OfferFilter, Provider, ProviderError,
};
use glasshouse_provider::client::AgentClient;
use glasshouse_provider::roles::{agent_environment, helper_command};
use glasshouse_provider::{LocalProvider, MemoryProvider, Registry};
use rustix::process::{DumpableBehavior, Resource, Signal, dumpable_behavior, getrlimit};

use crate::support::{Test, block_on, eventually, kill, runs};

pub(crate) const TESTS: &[Test] = &[
    ("local_keeps_the_contract", local_keeps_the_contract),
    ("memory_keeps_the_contract", memory_keeps_the_contract),
    ("a_port_in_use_is_said", a_port_in_use_is_said),
    ("a_program_that_is_no_agent_is_said", a_program_that_is_no_agent_is_said),
    ("an_agent_that_died_is_seen", an_agent_that_died_is_seen),
    ("another_owner_finds_and_ends_it", another_owner_finds_and_ends_it),
    ("a_secret_in_the_environment_does_not_stay", a_secret_in_the_environment_does_not_stay),
    ("roles_are_closed_before_they_know_a_secret", roles_are_closed_before_they_know_a_secret),
    ("helpers_are_closed_and_end_with_whoever_waits_for_them", helpers_are_closed_and_end_with_whoever_waits_for_them),
    ("without_an_owner_a_lingering_agent_ends", without_an_owner_a_lingering_agent_ends),
];

/// What this executable is as a helper.
pub(crate) fn helpers(registry: Registry) -> Registry {
    let closed = || {
        let core = getrlimit(Resource::Core);
        let closed = dumpable_behavior().unwrap() == DumpableBehavior::NotDumpable;
        if closed && (core.current, core.maximum) == (Some(0), Some(0)) { CLOSED } else { 1 }
    };
    let waits = || {
        println!("here");
        loop {
            std::thread::park();
        }
    };
    registry.helper("closed", closed).helper("waits", waits).helper("segment", || panic!("a segment is none"))
}

const CLOSED: i32 = 7;

fn helpers_are_closed_and_end_with_whoever_waits_for_them() {
    assert_eq!(helper_command("closed").status().unwrap().code(), Some(CLOSED));
    assert_eq!(helper_command("unheard-of").stderr(Stdio::null()).status().unwrap().code(), Some(64));
    // Nor does one run whose parent is not who made its command: that one ended before it could be told of.
    for other in ["1", "", "x"] {
        let mut orphan = helper_command("closed");
        assert_eq!(orphan.env("GLASSHOUSE_HELPER_OF", other).stderr(Stdio::null()).status().unwrap().code(), Some(1));
    }
    // Of the built-in role, which finds no launch.
    let mut segment = helper_command("segment");
    let segment = segment.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(segment.status().unwrap().code(), Some(1));
    let starter = std::thread::spawn(|| {
        let mut child = helper_command("waits").stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 4]).unwrap();
        child
    });
    assert_eq!(starter.join().unwrap().wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
}

pub(crate) fn spec(secret: u8) -> LaunchSpec {
    LaunchSpec {
        name: format!("gh-test-{}", Fixed::<6>::random().unwrap()),
        image: None,
        image_digest: None,
        launch_secret: Secret::take(&mut [secret; 32]),
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(30),
        env: BTreeMap::new(),
        disk_gib: None,
        time_limit: None,
    }
}

pub(crate) fn offer() -> Offer {
    Offer { id: "local".into(), gpu: None, gpu_count: 0, price_per_hour: 0.0, location: None, traffic: None }
}

pub(crate) async fn created(provider: &dyn Provider, spec: &LaunchSpec) -> glasshouse_core::traits::Allocation {
    match provider.create(&offer(), spec).await.unwrap() {
        CreateOutcome::Created(allocation) => allocation,
        CreateOutcome::NoCapacity => panic!("no capacity"),
    }
}

fn case() -> ProviderCase {
    let (poll, patience) = (Duration::from_millis(20), Duration::from_secs(10));
    ProviderCase { filter: OfferFilter::default(), launch: spec(3), poll, patience }
}

fn local_keeps_the_contract() {
    block_on(contract::provider(&LocalProvider::new(), case(), tokio::time::sleep));
}

fn memory_keeps_the_contract() {
    block_on(contract::provider(&MemoryProvider::new(), case(), tokio::time::sleep));
}

fn a_port_in_use_is_said() {
    let held = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let provider = LocalProvider::new().port(held.local_addr().unwrap().port());
    block_on(async {
        let spec = spec(3);
        let error = provider.create(&offer(), &spec).await.unwrap_err();
        assert!(matches!(error, ProviderError::Refused { .. }));
        assert!(error.to_string().contains("is in use; choose another"), "{error}");
        eventually("nothing stays behind", Duration::from_secs(5), || true);
        while !provider.find(&spec.name).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

fn a_program_that_is_no_agent_is_said() {
    block_on(async {
        let error = LocalProvider::new().program("/bin/true").create(&offer(), &spec(3)).await.unwrap_err();
        assert!(error.to_string().contains("serve_if_launched"), "{error}");
        let error = LocalProvider::new().program("/no/such/file").create(&offer(), &spec(3)).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/file"), "{error}");
    });
}

fn an_agent_that_died_is_seen() {
    block_on(async {
        let provider = LocalProvider::new();
        let allocation = created(&provider, &spec(3)).await;
        let seen = provider.observe(&allocation.id).await.unwrap();
        assert_eq!((seen.state, seen.endpoints.len()), (AllocationState::Running, 1));
        kill(provider.process(&allocation.id).unwrap().pid, Signal::KILL);
        let state = async || provider.observe(&allocation.id).await.unwrap().state;
        while state().await == AllocationState::Running {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(matches!(state().await, AllocationState::Exited(_)));
        provider.request_terminate(&allocation.id).await.unwrap();
        assert!(matches!(provider.observe(&allocation.id).await, Err(ProviderError::NotFound { .. })));
    });
}

fn another_owner_finds_and_ends_it() {
    block_on(async {
        let (one, other) = (LocalProvider::new(), LocalProvider::new());
        let spec = spec(3);
        let allocation = created(&one, &spec).await;
        assert_eq!(other.find(&spec.name).await.unwrap(), std::slice::from_ref(&allocation));
        assert!(other.list_owned().await.unwrap().contains(&allocation));
        assert_eq!(other.observe(&allocation.id).await.unwrap().state, AllocationState::Running);
        other.request_terminate(&allocation.id).await.unwrap();
        let pid = one.process(&allocation.id).unwrap().pid;
        eventually("it ends", Duration::from_secs(5), || !runs(pid));
        assert!(matches!(other.observe(&allocation.id).await, Err(ProviderError::NotFound { .. })));
    });
}

/// An agent as a provider starts it that can hand over an environment and nothing else.
pub(crate) fn lingering(spec: &LaunchSpec, user: Option<u32>) -> (std::process::Child, SocketAddr) {
    use std::io::BufRead as _;
    let mut command = Command::new("/proc/self/exe");
    if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
        command.uid(user).gid(user);
    }
    let mut child = command
        .env_clear()
        .envs(agent_environment(spec, (Ipv4Addr::LOCALHOST, 0).into(), None))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let report: serde_json::Value = serde_json::from_str(&line).unwrap();
    (child, report["listening"].as_str().unwrap().parse().unwrap())
}

fn a_secret_in_the_environment_does_not_stay() {
    let spec = spec(0xab);
    let (mut child, address) = lingering(&spec, None);
    // Nobody but root may read it at all.
    match std::fs::read(format!("/proc/{}/environ", child.id())) {
        Ok(environment) => {
            let environment = String::from_utf8_lossy(&environment);
            assert!(environment.contains("GLASSHOUSE_ROLE"), "{environment}");
            assert!(!environment.contains("abab") && !environment.contains("LAUNCH"), "{environment}");
        }
        Err(error) => assert!(!rustix::process::geteuid().is_root(), "{error}"),
    }
    block_on(async {
        let client = AgentClient::new(&Endpoint::Direct(address), &spec.launch_secret).unwrap();
        assert_eq!(client.hello().await.unwrap().name, spec.name);
        client.shutdown().await.unwrap();
    });
    assert!(child.wait().unwrap().success());
}

/// A user without privileges: to the process of one, the kernel's own answer to who may look into it can be seen.
const NOBODY: u32 = 65_534;

fn roles_are_closed_before_they_know_a_secret() {
    for (role, level, closed) in
        [("agent", "basic", true), ("segment", "basic", true), ("agent", "off", false), ("segment", "off", false)]
    {
        // It waits for the launch, which begins with the secret and never comes.
        let mut command = Command::new("/proc/self/exe");
        command.env("GLASSHOUSE_ROLE", role).env("GLASSHOUSE_ANTI_DEBUG", level);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut child = command.spawn().unwrap();
        let proc = |file: &str| format!("/proc/{}/{file}", child.id());
        let is_closed = || std::fs::metadata(proc("environ")).unwrap().uid() == 0;
        if closed {
            eventually("it is closed", Duration::from_secs(10), is_closed);
            let limits = std::fs::read_to_string(proc("limits")).unwrap();
            let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
        } else {
            std::thread::sleep(Duration::from_millis(300));
            assert!(!is_closed(), "{role} with anti-debug off");
        }
        drop(child.stdin.take());
        assert!(!child.wait().unwrap().success());
    }
    // And one that is closed to its own user still serves.
    let spec = spec(3);
    let (mut child, address) = lingering(&spec, Some(NOBODY));
    assert_eq!(std::fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid(), 0);
    block_on(async {
        let client = AgentClient::new(&Endpoint::Direct(address), &spec.launch_secret).unwrap();
        client.hello().await.unwrap();
        client.shutdown().await.unwrap();
    });
    assert!(child.wait().unwrap().success());
}

fn without_an_owner_a_lingering_agent_ends() {
    let spec = LaunchSpec { linger: Duration::from_millis(400), ..spec(3) };
    let (mut child, _) = lingering(&spec, None);
    let pid = child.id();
    let took = eventually("it ends", Duration::from_secs(5), || !runs(pid));
    assert!(took > Duration::from_millis(200), "{took:?}");
    assert!(child.wait().unwrap().success());
}
