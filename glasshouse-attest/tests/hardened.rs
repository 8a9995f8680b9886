//! `harden` in real processes: this program starts itself as a child for each case, as this user and, where it may, as
//! one without privileges. In one process it would make the test runner itself undumpable.
#![allow(clippy::print_stdout, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use glasshouse_attest::software::{
    RuntimeStateCell, SoftwareAttestor, SoftwarePolicy, SoftwareVerifier, executable_digest, harden, read_back,
    system_clock,
};
use glasshouse_core::claims::{ANTI_DEBUG_PROFILE, AntiDebugLevel, Assurance, Claims, ReferenceValues};
use glasshouse_core::contract::{self, VerifierSample};
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Digest32, Digest64};
use glasshouse_core::traits::{Attestor as _, Verifier as _};

const ROLE: &str = "GLASSHOUSE_TEST_ROLE";
const NOBODY: u32 = 65_534;

fn main() {
    match std::env::var(ROLE).ok().as_deref() {
        Some("hold") => hold(),
        Some("preloaded") => preloaded(),
        Some("crash") => crash(AntiDebugLevel::Basic),
        Some("crash-off") => crash(AntiDebugLevel::Off),
        Some("off") => off(),
        Some("spy") => spy(),
        Some(other) => panic!("no role {other}"),
        None => parent(),
    }
}

fn parent() {
    let program = Program::install();
    let users: &[Option<u32>] = if rustix::process::geteuid().is_root() { &[None, Some(NOBODY)] } else { &[None] };
    for user in users {
        holds_from_inside_and_outside(&program, *user);
        for role in ["preloaded", "off"] {
            let output = program.start(role, *user).wait_with_output().unwrap();
            assert!(output.status.success(), "{role} as {user:?}");
        }
        leaves_no_core(&program, *user);
        println!("hardened as {}: ok", user.map_or("this user".to_owned(), |id| format!("user {id}")));
    }
}

/// The child measures and quotes after hardening; meanwhile another process of the same user tries to read it.
fn holds_from_inside_and_outside(program: &Program, user: Option<u32>) {
    let mut child = program.start("hold", user);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready"), "{line:?}");
    print!("  {line}");

    let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let core: Vec<_> =
        limits.lines().find(|l| l.starts_with("Max core file size")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    assert_eq!(fs::metadata(format!("/proc/{}/environ", child.id())).unwrap().uid(), 0, "given to root");
    if user.is_some() {
        let spy = program.command("spy", user).env("TARGET", child.id().to_string()).status().unwrap();
        assert!(spy.success(), "another process of the same user read the hardened one");
    }
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// In the child: everything an attestor does still works after hardening, also without privileges.
fn hold() {
    // As in a segment: first of all, and then by its attestor, who must still find out what was preloaded.
    glasshouse_core::anti_debug::apply().unwrap();
    let applied = harden(AntiDebugLevel::Basic).unwrap();
    assert_eq!(applied, read_back().unwrap());
    assert_eq!(applied.level, AntiDebugLevel::Basic);
    assert!(applied.not_dumpable && applied.no_core_files && applied.no_tracer && applied.no_preload);

    let attestor = SoftwareAttestor::new(RuntimeStateCell::new()).unwrap();
    let start = Instant::now();
    let claims = attestor.measure().unwrap();
    let first = start.elapsed();
    let own = std::env::current_exe().unwrap();
    assert_eq!(claims.runtime_measurement, executable_digest(&own).unwrap());
    let start = Instant::now();
    assert_eq!(attestor.measure().unwrap(), claims);
    let again = start.elapsed();

    let report_data = Digest64::from([5; 64]);
    let start = Instant::now();
    let quote = attestor.quote(&report_data).unwrap();
    let quoted = start.elapsed();
    keeps_the_contracts(&attestor, &claims, &quote, &report_data);
    let size = fs::metadata(&own).unwrap().len();
    println!("ready: {size} bytes measured in {first:?}, again in {again:?}, quoted in {quoted:?}");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// Under the default policy, with nothing relaxed.
fn keeps_the_contracts(attestor: &SoftwareAttestor, claims: &Claims, quote: &CpuEvidence, report_data: &Digest64) {
    contract::attestor(attestor);
    let verifier = SoftwareVerifier::new(SoftwarePolicy::default());
    let reference = ReferenceValues {
        kind: claims.kind,
        image_digest: None,
        container: claims.container.clone(),
        runtime_measurement: claims.runtime_measurement,
        anti_debug_profile: ANTI_DEBUG_PROFILE.to_owned(),
        anti_debug_level: AntiDebugLevel::Basic,
        policy_digest: verifier.policy_digest(),
        minimum_assurance: Assurance::SelfReported,
    };
    let now = system_clock();
    contract::verifier(&verifier, || VerifierSample {
        claims: claims.clone(),
        reference: reference.clone(),
        gpu_nonce: Digest32::from([0; 32]),
        report_data: *report_data,
        cpu: quote.clone(),
        gpus: GpuEvidence::default(),
        now,
        signed_bytes: usize::MAX,
    });
}

fn preloaded() {
    glasshouse_core::anti_debug::apply().unwrap();
    let error = harden(AntiDebugLevel::Basic).unwrap_err();
    assert!(error.to_string().contains("preload"), "{error}");
    assert_eq!(read_back().unwrap().level, AntiDebugLevel::Off);
}

fn off() {
    let now = harden(AntiDebugLevel::Off).unwrap();
    assert_eq!(now.level, AntiDebugLevel::Off);
    assert!(!now.not_dumpable, "off applies nothing");
}

/// Asks for core files of any size, hardens, and dies of SIGABRT.
fn crash(level: AntiDebugLevel) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Core).maximum;
    setrlimit(Resource::Core, Rlimit { current: hard, maximum: hard }).unwrap();
    harden(level).unwrap();
    std::process::abort();
}

fn leaves_no_core(program: &Program, user: Option<u32>) {
    let status = program.start("crash", user).wait_with_output().unwrap().status;
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped(), "a hardened process left a core");
    let control = program.start("crash-off", user).wait_with_output().unwrap().status;
    println!("  the kernel dumps an unprotected process here: {}", control.core_dumped());
}

/// Another process of the same user: neither the memory nor the environment may open.
fn spy() {
    let target = std::env::var("TARGET").unwrap();
    for file in ["mem", "environ", "auxv", "maps"] {
        let path = format!("/proc/{target}/{file}");
        let read = fs::File::open(&path).and_then(|mut open| open.read(&mut [0; 1]));
        assert!(read.is_err(), "{path} could be read");
        let own = format!("/proc/self/{file}");
        fs::File::open(&own).unwrap_or_else(|error| panic!("{own}, of a process that is not hardened: {error}"));
    }
}

/// A copy of this program where every user can reach it.
struct Program {
    folder: PathBuf,
}

impl Program {
    fn install() -> Self {
        let folder = std::env::temp_dir().join(format!("glasshouse-hardened-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let program = Self { folder };
        fs::copy(std::env::current_exe().unwrap(), program.path()).unwrap();
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
        program
    }

    fn path(&self) -> PathBuf {
        self.folder.join("program")
    }

    fn command(&self, role: &str, user: Option<u32>) -> Command {
        let mut command = Command::new(self.path());
        command.env(ROLE, role).current_dir(Path::new(&self.folder));
        if role == "preloaded" {
            command.env("LD_PRELOAD", "/glasshouse-test/no-such-library.so");
        } else {
            command.env_remove("LD_PRELOAD").env_remove("LD_AUDIT");
        }
        if let Some(id) = user {
            command.uid(id).gid(id);
        }
        command
    }

    fn start(&self, role: &str, user: Option<u32>) -> Child {
        let mut command = self.command(role, user);
        let quiet = if role == "preloaded" || role.starts_with("crash") { Stdio::null() } else { Stdio::inherit() };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(quiet).spawn().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}
