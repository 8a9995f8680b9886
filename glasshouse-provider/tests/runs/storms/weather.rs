//! What happens to the machines of a storm from outside: clocks that jump, processes that sleep, and a second owner.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::each_seed;
use super::machine::{Came, OVER, OWNER, RUNTIME_WALL, SECOND_IS_HERE, SEED, STUCK};
use super::net::Rng;
use super::plan::Plan;
use super::second::SECOND;
use super::wall::{self, WALL};
use crate::support::{children_of, kill};

const SEEDS: u64 = 16;

#[derive(Debug, Default)]
struct Tally {
    done: u64,
    failed: u64,
    unattested: u64,
    messages: usize,
    jumps: u64,
    sleeps: u64,
    full: u64,
    restarted: u64,
    refused: u64,
    known: u64,
    second_owners: u64,
    longest: f64,
}

pub(super) fn storms_of_machines() {
    let (runs, tally) = each_seed(SEEDS, one);
    // Everything happened, and did not keep good runs from their end.
    let happened =
        [tally.jumps, tally.sleeps, tally.full, tally.restarted, tally.refused, tally.known, tally.second_owners];
    assert!(runs < SEEDS || (tally.done >= runs / 8 && !happened.contains(&0) && tally.unattested > 0), "{tally:?}");
}

/// One run, in a process that sees clocks of its own. Every fifth runtime is another program than the owner expects.
fn one(seed: u64, tally: &Mutex<Tally>) {
    let folder = tempfile::tempdir().unwrap();
    let (plan, rng, home) = (Plan::new(seed), Rng::new(seed ^ 0x0077_6561), folder.path());
    let clocks = [home.join("owner-wall"), home.join(RUNTIME_WALL)];
    clocks.iter().for_each(|clock| wall::set(clock, 0));
    let mut owner = Command::new("/proc/self/exe")
        .args([OWNER.as_ref(), home.as_os_str()])
        .env(SEED, seed.to_string())
        .env(WALL, &clocks[0])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (began, mut off) = (Instant::now(), [0, 0]);
    let (mut jumps, mut sleeps, mut seconds) = (0, 0, 0);
    while owner.try_wait().unwrap().is_none() {
        // Its own limit, and what it looks at after that.
        if began.elapsed() > STUCK * 2 {
            kill(owner.id(), Signal::KILL);
            panic!("seed {seed}: it is stuck past its deadline");
        }
        std::thread::sleep(rng.millis(30, 150));
        if rng.below(100) < plan.clocks {
            match rng.below(4) {
                0 => sleeps += u64::from(sleep(&rng, owner.id())),
                _ => {
                    let who = rng.below(2);
                    off[who] += jump(&rng);
                    wall::set(&clocks[who], off[who]);
                    jumps += 1;
                }
            }
        }
        if plan.others && seconds < 2 && rng.chance(15) && home.join("out/gate/gate.key").exists() {
            seconds += u64::from(second(home));
        }
    }
    let mut said = String::new();
    owner.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(owner.wait().unwrap().success(), "seed {seed}: {plan:?}: an invariant is broken");
    let came: Came = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    println!("  storm {seed}: {:.1} s, {} messages: {}", came.seconds, came.messages, came.said);
    let mut tally = tally.lock().unwrap();
    tally.done += u64::from(came.done);
    tally.failed += u64::from(!came.done);
    tally.unattested += u64::from(!plan.attested);
    tally.messages += came.messages;
    tally.jumps += jumps;
    tally.sleeps += sleeps;
    tally.full += u64::from(came.full > 0);
    tally.restarted += u64::from(came.restarted);
    tally.refused += came.refused;
    tally.known += came.known;
    tally.second_owners += seconds;
    tally.longest = tally.longest.max(came.seconds);
}

/// By how much a wall clock is set forwards or backwards, milliseconds: around what sessions tolerate, and far beyond.
fn jump(rng: &Rng) -> i64 {
    let far = [2_000, 2_000, 30_000, 60_000, 121_000, 400_000, 90_000_000][rng.below(7)];
    let by = 1 + rng.below(far) as i64;
    if rng.chance(50) { by } else { -by }
}

/// A machine sleeps: the owner's, or the allocation's with everything that runs on it. Whether there was one.
fn sleep(rng: &Rng, owner: u32) -> bool {
    let agents = children_of(owner);
    let all = match rng.chance(50) {
        true => vec![owner],
        false => agents.iter().flat_map(|agent| [vec![*agent], children_of(*agent)].concat()).collect(),
    };
    all.iter().for_each(|pid| kill(*pid, Signal::STOP));
    std::thread::sleep(rng.millis(50, 1200));
    all.iter().for_each(|pid| kill(*pid, Signal::CONT));
    !all.is_empty()
}

/// A second owner in the same folder, while the first one is there: it must be kept out of the gate and of the journal.
/// Whether it was there in time to say something.
fn second(home: &Path) -> bool {
    // The first one looks at its folder in peace.
    std::fs::write(home.join(SECOND_IS_HERE), "").unwrap();
    let is_over = || home.join(OVER).exists();
    let said = (!is_over()).then(|| {
        let arguments = [SECOND.as_ref(), home.as_os_str()];
        let output = Command::new("/proc/self/exe").args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success());
        serde_json::from_slice::<[Option<String>; 2]>(&output.stdout).unwrap()
    });
    std::fs::remove_file(home.join(SECOND_IS_HERE)).unwrap();
    let in_use = |error: &Option<String>| error.as_ref().is_some_and(|error| error.contains("in use by another"));
    match said {
        Some(said) if said.iter().all(in_use) => true,
        // It lets go of its folder a moment before it says that its run is over.
        Some(said) => {
            std::thread::sleep(Duration::from_millis(300));
            assert!(is_over(), "two owners in one folder: {said:?}");
            false
        }
        None => false,
    }
}
