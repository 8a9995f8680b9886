//! The examples on machines that are not this process's: `overhead_mlp` and `providers` as they are, against RunPod's and
//! Vast.ai's documented HTTP with pods that are real agents on loopback, and on a real Slurm. This executable is the
//! programs, the pods, the agents and every segment.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "../../glasshouse-provider/tests/fakes/mod.rs"]
mod fakes;
/// With the allocator of this executable.
#[path = "../qwen_lora.rs"]
mod qwen_lora;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use fakes::openapi::{Document, Exchange};
use fakes::runpod::{self, RunPod};
use fakes::server::{Fake, Served, lock};
use fakes::vast::{self, Vast};
use glasshouse_core::fixed::Fixed;
use glasshouse_core::record;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{CreateOutcome, LaunchSpec, OfferFilter, Provider as _};
use glasshouse_provider::{Measurement, RunPodProvider, serve_if_launched};
use serde_json::{Value, json};

/// Which example this process is.
const PROGRAM: &str = "GLASSHOUSE_TEST_PROGRAM";

fn main() -> ExitCode {
    serve_if_launched(examples::registry());
    match std::env::var(PROGRAM).as_deref() {
        Ok("overhead_mlp") => return examples::overhead_mlp(),
        Ok("providers") => return examples::providers(),
        Ok("qwen_lora") => return qwen_lora::main(),
        _ => {}
    }
    let tests: [(&str, fn()); 10] = [
        ("what_is_wrong_with_a_command_line_is_said", what_is_wrong_with_a_command_line_is_said),
        ("a_dry_run_shows_everything_and_rents_nothing", a_dry_run_shows_everything_and_rents_nothing),
        ("what_does_not_fit_is_said_before_anything_is_rented", what_does_not_fit_is_said_before_anything_is_rented),
        ("a_row_of_a_pod_of_runpod", a_row_of_a_pod_of_runpod),
        ("a_row_of_an_instance_of_vast", a_row_of_an_instance_of_vast),
        ("a_pod_that_runs_something_else_gets_no_key", a_pod_that_runs_something_else_gets_no_key),
        ("an_adapter_of_a_pod_of_runpod", an_adapter_of_a_pod_of_runpod),
        ("what_a_killed_owner_left_is_reaped", what_a_killed_owner_left_is_reaped),
        ("a_journal_that_cannot_be_written_stops_no_other", a_journal_that_cannot_be_written_stops_no_other),
        ("a_row_of_a_real_slurm", a_row_of_a_real_slurm),
    ];
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let chosen = tests.into_iter().filter(|(name, _)| wanted.as_ref().is_none_or(|part| name.contains(part)));
    let one = |(name, test): (&str, fn())| {
        let began = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, began.elapsed());
        passed
    };
    // All at once: they wait for programs, which wait for providers.
    let passed = std::thread::scope(|scope| {
        let running: Vec<_> = chosen.map(|test| scope.spawn(move || one(test))).collect();
        running.into_iter().all(|test| test.join().is_ok_and(|passed| passed))
    });
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// An image that was never built: only its digest travels.
const IMAGE: &str = "example/glasshouse:1@sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// A provider's key and the address of its API, by the variables that the examples read.
struct Account<'a> {
    provider: &'a str,
    env: [(&'a str, String); 2],
}

impl<'a> Account<'a> {
    fn runpod(served: &Served<RunPod>) -> Self {
        Self { provider: "runpod", env: [("RUNPOD_API_KEY", RunPod::KEY.into()), ("RUNPOD_API_URL", served.url())] }
    }

    fn vast(served: &Served<Vast>) -> Self {
        Self { provider: "vast", env: [("VAST_API_KEY", Vast::KEY.into()), ("VAST_API_URL", served.url())] }
    }

    /// An example with this account, in a folder.
    fn program(&self, name: &str, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = program(name, folder, arguments);
        command.args(["--provider", self.provider]).envs(self.env.clone());
        command
    }
}

fn program(name: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.current_dir(folder).env("HOME", folder).env(PROGRAM, name).args(arguments).stdin(Stdio::null());
    for variable in ["RUNPOD_API_KEY", "RUNPOD_API_URL", "VAST_API_KEY", "VAST_API_URL"] {
        command.env_remove(variable);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A runtime on which fakes go on serving while this thread waits for a program.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Slow enough that a pod's agent listens before the fake says that the pod runs.
fn pods() -> runpod::Behaviour {
    let second = Duration::from_secs(1);
    runpod::Behaviour { provisioning: second, starting: second, ports: Duration::ZERO, ..Default::default() }
}

/// Below those that the kernel gives out by itself, so that nobody gets it in between.
fn free_port() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    let mut ports = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
    ports.find(|port| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok()).unwrap().to_string()
}

/// What an image's build would have written, of this executable.
fn measurement(folder: &Path) -> String {
    let digest = IMAGE.split_once("@sha256:").unwrap().1;
    let measured = Measurement::of_this_executable().unwrap();
    let path = folder.join("measurement.json");
    let json = serde_json::json!({
        "executable": "rented", "sha256": measured.sha256, "image": IMAGE, "image_digest": digest,
    });
    std::fs::write(&path, json.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The row that a program wrote into `out`, with its record checked.
fn row(folder: &Path, said: &Output) -> Value {
    assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    let out = folder.join("out");
    let key = std::fs::read_to_string(out.join("gate.pub")).unwrap();
    let key = glasshouse_core::fixed::Fixed::from_hex(key.trim()).unwrap();
    record::verify(&std::fs::read(out.join("evidence.json")).unwrap(), Some(key), None).unwrap();
    let file: Value = serde_json::from_slice(&std::fs::read(out.join("overhead.json")).unwrap()).unwrap();
    let row = file["rows"][0].clone();
    assert_eq!((&row["valid"], &row["sameInstance"]), (&true.into(), &true.into()), "{row:#}");
    assert_eq!((&row["attestation"], &row["runtimeState"]), (&"verified".into(), &"zeroized".into()), "{row:#}");
    assert_eq!(row["cleanup"], "observed", "{row:#}");
    row
}

const SHORT: [&str; 8] = ["--shape", "tiny", "--duration", "1s", "--order", "raw-first", "--repeats", "1"];

fn a_row_of_a_pod_of_runpod() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let served = runtime.block_on(Served::start(RunPod::with_machines(pods())));
    let (port, measurement) = (free_port(), measurement(folder.path()));
    let wanted = ["--gpu", "4090", "--measurement", &measurement, "--port", &port, "--device", "cpu", "--out", "out"];
    let mut command = Account::runpod(&served).program("overhead_mlp", folder.path(), &[&SHORT[..], &wanted].concat());
    let row = row(folder.path(), &command.output().unwrap());
    assert_eq!(row["provider"], "runpod");
    assert!(served.fake.billing().is_empty());
    assert_eq!(served.count("POST pods"), 1, "one allocation for both segments");
    documented("runpod-rest-v2.openapi.json", &served.exchanges());
}

fn a_row_of_an_instance_of_vast() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let slow = vast::Behaviour { loading: Duration::from_secs(2), ..Default::default() };
    let served = runtime.block_on(Served::start(Vast::with_machines(slow)));
    *lock(&served.fake.address) = served.url();
    let (port, measurement) = (free_port(), measurement(folder.path()));
    let wanted = ["--gpu", "4090", "--measurement", &measurement, "--port", &port, "--device", "cpu", "--out", "out"];
    let mut command = Account::vast(&served).program("overhead_mlp", folder.path(), &[&SHORT[..], &wanted].concat());
    let row = row(folder.path(), &command.output().unwrap());
    assert_eq!(row["provider"], "vast");
    assert!(served.fake.billing().is_empty());
    assert_eq!(served.count("PUT asks/id"), 1, "one allocation for both segments");
    let exchanges = vast::answers_as_documented(served.exchanges());
    documented("vast.openapi.yaml", &exchanges);
}

fn a_pod_that_runs_something_else_gets_no_key() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let served = runtime.block_on(Served::start(RunPod::with_machines(pods())));
    let (port, measurement) = (free_port(), measurement(folder.path()));
    let mut other: Value = serde_json::from_slice(&std::fs::read(&measurement).unwrap()).unwrap();
    other["sha256"] = "22".repeat(32).into();
    std::fs::write(&measurement, other.to_string()).unwrap();
    let wanted = ["--measurement", &measurement, "--port", &port, "--device", "cpu", "--out", "out"];
    let mut command = Account::runpod(&served).program("overhead_mlp", folder.path(), &[&SHORT[..], &wanted].concat());
    let said = command.output().unwrap();
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains(&"22".repeat(32)), "{}", text(&said.stderr));
    let file: Value = serde_json::from_slice(&std::fs::read(folder.path().join("out/overhead.json")).unwrap()).unwrap();
    let row = &file["rows"][0];
    assert_eq!((&row["valid"], &row["cleanup"]), (&false.into(), &"observed".into()), "{row:#}");
    assert!(row["attestation"].to_string().contains("refused") || row["reason"].is_string(), "{row:#}");
    assert!(served.fake.billing().is_empty());
}

fn an_adapter_of_a_pod_of_runpod() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let served = runtime.block_on(Served::start(RunPod::with_machines(pods())));
    let (port, measurement) = (free_port(), measurement(folder.path()));
    let account = Account::runpod(&served);
    let wanted = ["--steps", "4", "--seq", "64", "--measurement", &measurement, "--port", &port, "--device", "cpu"];
    let said =
        account.program("qwen_lora", folder.path(), &[&wanted[..], &["--out", "out"]].concat()).output().unwrap();
    assert!(said.status.success(), "{}{}", text(&said.stdout), text(&said.stderr));
    assert!(folder.path().join("out/adapter_model.safetensors").is_file());
    assert!(served.fake.billing().is_empty());
    documented("runpod-rest-v2.openapi.json", &served.exchanges());
    // What a pod does not have is said before anything is asked.
    let folder_here = [&wanted[4..], &["--model", "/some/folder"]].concat();
    let said = account.program("qwen_lora", folder.path(), &folder_here).output().unwrap();
    assert!(text(&said.stderr).contains("which runpod does not have"), "{}", text(&said.stderr));
}

/// Every request of the run, and every answer, against the provider's published document.
fn documented(document: &str, exchanges: &[Exchange]) {
    assert!(exchanges.len() > 5, "{exchanges:?}");
    if let Some(document) = Document::load(document) {
        let wrong = document.check(exchanges, true);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

fn what_a_killed_owner_left_is_reaped() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let served = runtime.block_on(Served::start(RunPod::with_machines(pods())));
    let (port, measurement) = (free_port(), measurement(folder.path()));
    let account = Account::runpod(&served);
    let wanted = ["--duration", "60s", "--measurement", &measurement, "--port", &port, "--device", "cpu"];
    let wanted = [&wanted[..], &["--shape", "tiny", "--out", "glasshouse-out/killed"]].concat();
    let mut owner = account.program("overhead_mlp", folder.path(), &wanted).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stderr.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("[1/8]")), "no segment started");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let billing = served.fake.billing();
    assert_eq!(billing.len(), 1);

    let journal = text(&program("providers", folder.path(), &["journal"]).output().unwrap().stdout);
    assert!(journal.contains(&billing[0]) && journal.contains("1 allocations that nobody saw"), "{journal}");
    let owned = text(&account.program("providers", folder.path(), &["owned"]).output().unwrap().stdout);
    assert!(owned.contains(&billing[0]), "{owned}");
    let tag = std::fs::read_to_string(folder.path().join(".glasshouse/owner")).unwrap();
    let name = owned.split_whitespace().find(|word| word.starts_with("gh-")).unwrap();
    assert!(name.starts_with(&format!("gh-{}-", tag.trim())), "{name}");
    // The next run, in a folder of its own, says it before anything else.
    let dear = ["--measurement", &measurement, "--max-price", "0.01"];
    let next = account.program("overhead_mlp", folder.path(), &dear).output().unwrap();
    let hint = "`providers reap --provider runpod --out glasshouse-out`";
    assert!(text(&next.stderr).contains(hint), "{}", text(&next.stderr));
    // One whose folder is beside that of the killed one, by its mere name.
    let beside = [&dear[..], &["--out", "next"]].concat();
    let mut next = account.program("overhead_mlp", &folder.path().join("glasshouse-out"), &beside);
    let next = text(&next.output().unwrap().stderr);
    assert!(
        next.contains(&format!("nobody saw the end of {name}")) && next.contains("--provider runpod --out .`"),
        "{next}"
    );

    let reaped = account.program("providers", folder.path(), &["reap"]).output().unwrap();
    assert!(reaped.status.success(), "{}{}", text(&reaped.stdout), text(&reaped.stderr));
    assert!(text(&reaped.stdout).contains(&format!("{}: gone", billing[0])), "{}", text(&reaped.stdout));
    assert!(served.fake.billing().is_empty());
    let journal = text(&program("providers", folder.path(), &["journal"]).output().unwrap().stdout);
    assert!(journal.contains("0 allocations that nobody saw"), "{journal}");
    a_stray_is_reaped(&account, folder.path(), &wanted, &served);
    documented("runpod-rest-v2.openapi.json", &served.exchanges());
}

/// A second owner that is killed, whose folder is lost too.
fn a_stray_is_reaped(account: &Account<'_>, folder: &Path, wanted: &[&str], served: &Served<RunPod>) {
    let mut owner = account.program("overhead_mlp", folder, wanted).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stderr.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("[1/8]")), "no segment started");
    let refused = account.program("providers", folder, &["reap", "--strays"]).output().unwrap();
    assert!(text(&refused.stderr).contains("goes on and would be ended too"), "{}", text(&refused.stderr));
    assert_eq!(served.fake.billing().len(), 1, "a run was ended that goes on");
    owner.kill().unwrap();
    owner.wait().unwrap();
    std::fs::remove_dir_all(folder.join("glasshouse-out/killed")).unwrap();
    let kept = account.program("providers", folder, &["reap"]).output().unwrap();
    assert!(text(&kept.stdout).contains("--strays ends this owner's"), "{}", text(&kept.stdout));
    let others =
        account.program("providers", folder, &["reap", "--strays", "--owner", "someoneelse"]).output().unwrap();
    assert!(others.status.success(), "{}{}", text(&others.stdout), text(&others.stderr));
    assert_eq!(served.fake.billing().len(), 1, "another owner's was ended");
    // The tag is in the home folder: a container that is started anew has another host name, and finds its own.
    let reaped = account.program("providers", folder, &["reap", "--strays"]).output().unwrap();
    assert!(reaped.status.success(), "{}{}", text(&reaped.stdout), text(&reaped.stderr));
    assert!(served.fake.billing().is_empty());
}

/// Two journals of killed owners, of which the first has no room for another line.
fn a_journal_that_cannot_be_written_stops_no_other() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let served = runtime.block_on(Served::start(RunPod::new(Default::default())));
    let api = served.url();
    let made = runtime.block_on(async move {
        let provider = RunPodProvider::builder().api_key(RunPod::KEY).address(api).build().unwrap();
        let offer = provider.offers(&OfferFilter::default()).await.unwrap().remove(0);
        let spec = |name: &str| LaunchSpec {
            name: name.to_owned(),
            image: Some("example/trainer".to_owned()),
            image_digest: Some(Fixed([7; 32])),
            launch_secret: Secret::take(&mut [9; 32]),
            gate_key: Fixed([1; 32]),
            linger: Duration::from_secs(60),
            env: BTreeMap::new(),
            disk_gib: None,
            time_limit: None,
        };
        let mut made = Vec::new();
        for name in ["gh-a-1", "gh-a-2"] {
            let CreateOutcome::Created(pod) = provider.create(&offer, &spec(name)).await.unwrap() else {
                panic!("none")
            };
            made.push((name, pod.id.0));
        }
        made
    });
    let line = |event: Value| format!("{event}\n");
    // Asked for when this machine came up: longer ago than anything stays hidden, unless that was a moment ago.
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let boot = json!({ "id": boot.trim(), "millis": 0 });
    let asking =
        |name: &str| line(json!({ "event": "asking", "provider": "runpod", "name": name, "at": 1, "boot": boot }));
    for ((name, id), run) in made.iter().zip(["full", "sound"]) {
        let gone = [asking("gh-a-0"), line(json!({ "event": "gone", "name": "gh-a-0", "at": 1 }))].concat();
        let before = if run == "full" { gone.repeat(100) } else { String::new() };
        let created = line(json!({ "event": "created", "name": name, "id": id, "at": 1 }));
        let out = folder.path().join("glasshouse-out").join(run);
        std::fs::create_dir_all(&out).unwrap();
        std::fs::write(out.join("journal.jsonl"), before + &asking(name) + &created).unwrap();
    }
    // No file may grow beyond 4 KiB, and who tries is told and not killed.
    let reap = r#"trap "" XFSZ; ulimit -f 8; exec /proc/$PPID/exe reap --provider runpod"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", reap]).current_dir(folder.path()).env("HOME", folder.path()).env(PROGRAM, "providers");
    let said = shell.envs(Account::runpod(&served).env).output().unwrap();
    let (out, error) = (text(&said.stdout), text(&said.stderr));
    assert_eq!(said.status.code(), Some(1), "{out}{error}");
    assert!(error.contains("full/journal.jsonl") && error.contains("cannot be journalled"), "{out}{error}");
    assert!(out.contains(&format!("{}: gone", made[1].1)), "{out}{error}");
    assert!(served.fake.billing().is_empty(), "{out}{error}");
    // With room, the first is seen to be gone as well.
    let again = Account::runpod(&served).program("providers", folder.path(), &["reap"]).output().unwrap();
    assert!(again.status.success(), "{}{}", text(&again.stdout), text(&again.stderr));
}

fn a_dry_run_shows_everything_and_rents_nothing() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let runpod = runtime.block_on(Served::start(RunPod::new(Default::default())));
    let vast = runtime.block_on(Served::start(Vast::new(Default::default())));
    let wanted = ["--gpu", "4090", "--image", IMAGE, "--max-price", "0.75", "--time-limit", "2h", "--dry-run"];
    let dry = |account: Account<'_>, requests: &[&str]| {
        let said = account.program("overhead_mlp", folder.path(), &wanted).output().unwrap();
        let shown = text(&said.stdout);
        assert!(said.status.success(), "{}", text(&said.stderr));
        assert!(requests.iter().all(|request| shown.contains(request)), "{shown}");
        assert!(shown.contains(IMAGE) && shown.contains("[launch secret]"), "{shown}");
        assert!(shown.contains("Worst case: $1.50, for 2h (--time-limit) at $0.75 an hour"), "{shown}");
        assert!(shown.contains("Not in it: "), "{shown}");
        assert!(!shown.contains(&account.env[0].1), "the key is shown: {shown}");
    };
    let url = runpod.url();
    let requests = [
        format!("GET {url}/v2/catalog/gpus?include=AVAILABILITY"),
        format!("POST {url}/v2/pods\n"),
        format!("DELETE {url}/v2/pods/ID"),
    ];
    dry(Account::runpod(&runpod), &requests.each_ref().map(String::as_str));
    let url = vast.url();
    let requests = [
        format!("POST {url}/api/v0/bundles"),
        format!("PUT {url}/api/v0/asks/11"),
        format!("DELETE {url}/api/v0/instances/ID"),
    ];
    dry(Account::vast(&vast), &requests.each_ref().map(String::as_str));
    // Looked at, and nothing else.
    assert!(runpod.exchanges().iter().all(|exchange| exchange.path == "/v2/catalog/gpus"));
    assert!(vast.exchanges().iter().all(|exchange| exchange.path == "/api/v0/bundles"));
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none(), "a dry run wrote something");
}

fn what_does_not_fit_is_said_before_anything_is_rented() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let served = runtime.block_on(Served::start(RunPod::new(Default::default())));
    let measurement = measurement(folder.path());
    for (wanted, words) in [
        (["--gpu", "H2000"], "runpod has no GPU named like \"H2000\" to rent now; it has NVIDIA A100 80GB PCIe"),
        (["--max-price", "0.10"], "what fits on runpod costs $0.25 an hour and more, and the cap is $0.10"),
        (["--gpu", "V100"], "nothing on runpod fits all that was asked for now"),
    ] {
        let wanted = [&wanted[..], &["--measurement", &measurement]].concat();
        let said = Account::runpod(&served).program("overhead_mlp", folder.path(), &wanted).output().unwrap();
        assert_eq!(said.status.code(), Some(1));
        assert!(text(&said.stderr).contains(words), "{}", text(&said.stderr));
    }
    assert_eq!(served.count("POST pods"), 0);
}

/// Arguments, environment, and what must be said.
type Misuse<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

fn what_is_wrong_with_a_command_line_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let key = ("RUNPOD_API_KEY", "k");
    let cases: [Misuse<'_>; 11] = [
        (&["--provider", "runpod"], &[], "set RUNPOD_API_KEY"),
        (&["--provider", "vast", "--dry-run"], &[], "set VAST_API_KEY"),
        (&["--provider", "runpod"], &[key], "give --image NAME@sha256:DIGEST"),
        (&["--provider", "runpod", "--image", "me/app:1"], &[key], "it is not pinned"),
        (&["--provider", "runpod", "--image", IMAGE], &[key], "--measurement is missing"),
        (
            &["--provider", "runpod", "--image", IMAGE],
            &[key, ("RUNPOD_API_URL", "https://example.org")],
            "may only name runpod.io",
        ),
        (&["--provider", "slurm", "--cloud", "secure"], &[], "--cloud means nothing with --provider slurm"),
        (&["--provider", "slurm", "--image", IMAGE], &[], "--image means nothing with --provider slurm"),
        (&["--gpu", "h100"], &[], "--gpu means nothing with --provider local"),
        (&["--provider", "vast", "--max-price", "0"], &[], "US dollars per hour"),
        (&["--owner", "My Lab"], &[], "use 1 to 20 of a-z and 0-9"),
    ];
    for (arguments, env, words) in cases {
        let mut command = program("overhead_mlp", folder.path(), arguments);
        let said = command.env("HOME", folder.path()).envs(env.iter().copied()).output().unwrap();
        let error = text(&said.stderr);
        assert_eq!(said.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

/// Says so, and fails where nothing may be skipped.
fn skip(why: &str) {
    println!("SKIPPED: {why}");
    let named = std::env::var("GLASSHOUSE_NO_SKIPS").unwrap_or_default();
    assert!(!named.split(',').any(|word| word == "slurm" || word == "all"), "GLASSHOUSE_NO_SKIPS={named}: {why}");
}

/// Short: the address of the munge socket must fit into 108 bytes.
const SLURM: &str = "/run/glasshouse-slurm-row";

fn a_row_of_a_real_slurm() {
    let there = |name: &str| ["/usr/sbin", "/usr/bin"].iter().any(|folder| Path::new(folder).join(name).is_file());
    if !["slurmctld", "slurmd", "sbatch", "munged"].into_iter().all(there) {
        return skip("no Slurm here: apt-get install slurmctld slurmd slurm-client munge");
    }
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) != 0) {
        return skip("a Slurm of its own needs root; run the tests of the examples with sudo");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/slurm-local.sh");
    let slurm = |action: &str| {
        let status = Command::new(&script).args([action, SLURM]).env("GLASSHOUSE_SLURM_PORT", "16957").status();
        assert!(status.unwrap().success(), "slurm-local.sh {action} fails; see {SLURM}/log");
    };
    slurm("start");
    let ended = catch_unwind(AssertUnwindSafe(on_slurm));
    slurm("stop");
    ended.unwrap();
}

fn on_slurm() {
    let folder = tempfile::tempdir().unwrap();
    let configured = |name: &str, arguments: &[&str]| {
        let mut command = program(name, folder.path(), arguments);
        let command = command.env("SLURM_CONF", Path::new(SLURM).join("slurm.conf")).env("HOME", folder.path());
        command.args(["--provider", "slurm"]).output().unwrap()
    };
    let said = configured("overhead_mlp", &[&SHORT[..], &["--out", "out", "--time-limit", "10m"]].concat());
    let row = row(folder.path(), &said);
    assert_eq!(row["provider"], "slurm");
    let shown = text(&configured("overhead_mlp", &["--gpus", "2", "--dry-run"]).stdout);
    assert!(shown.contains("sbatch --parsable") && shown.contains("--gres=gpu:2"), "{shown}");
    let owned = text(&configured("providers", &["owned"]).stdout);
    assert!(owned.contains("0 allocations"), "{owned}");
    let none = configured("overhead_mlp", &["--gpu", "h100"]);
    assert!(text(&none.stderr).contains("slurm has no GPU named like \"h100\""), "{}", text(&none.stderr));
}
