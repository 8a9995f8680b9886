//! A deterministic simulation of owner, runtime and what is between them: the real sessions, the real gate store, a
//! clock and a network that do their worst. A seed replays a run to the byte; a failing run prints its seed.
//!
//! ```text
//! cargo test -p glasshouse-core --test simulation                                                  # 200 seeds
//! GLASSHOUSE_SIM_RUNS=10000 cargo test -p glasshouse-core --test simulation random -- --nocapture  # minutes
//! GLASSHOUSE_SIM_SEED=17 cargo test -p glasshouse-core --test simulation random -- --nocapture     # replays one
//! ```
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // helpers of a test

#[path = "../common/mod.rs"]
mod common;

mod allocation;
mod check;
mod disk;
mod entropy;
mod hostile;
mod net;
mod owner;
mod plan;
mod run;
mod world;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::Instant;

use owner::End;
use plan::{Fault, Plan, Sabotage};
use run::{Report, run};

/// A folder in memory where there is one: a run syncs its store dozens of times.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn a_calm_run_is_done() {
    let folder = folder();
    for seed in 0..5 {
        let report = run(&Plan::calm(seed), folder.path());
        assert_eq!((report.end, &report.violations), (Some(End::Done), &vec![]), "{report:#?}");
    }
}

#[test]
fn one_fault_at_any_message_is_survived() {
    let folder = folder();
    let messages = run(&Plan::calm(0), folder.path()).frames;
    assert!(messages > 20);
    for (index, fault) in (0..messages).flat_map(|index| Fault::ALL.map(|fault| (index, fault))) {
        let plan = Plan { single: Some((index, fault)), ..Plan::calm(0) };
        let report = run(&plan, folder.path());
        assert_eq!(report.faults, BTreeMap::from([(fault, 1)]), "message {index} was not hit");
        assert_eq!((report.end, &report.violations), (Some(End::Done), &vec![]), "{fault:?} of {index}: {report:#?}");
    }
}

#[test]
fn an_owner_may_die_at_any_moment() {
    let folder = folder();
    for (at, disk) in (1..=60).flat_map(|tick| [(tick * 500, 0), (tick * 500, 60)]) {
        let plan = Plan { owner_dies_at: Some(at), disk, ..Plan::calm(at) };
        let report = run(&plan, folder.path());
        assert!(report.violations.is_empty(), "at {at} ms: {report:#?}");
        // With a bad disk besides, it may die so often that the runtime takes it for gone.
        assert!(disk > 0 || report.end == Some(End::Done), "at {at} ms: {report:#?}");
    }
}

#[test]
fn random_faults_break_no_invariant() {
    let folder = folder();
    if let Some(seed) = number("GLASSHOUSE_SIM_SEED") {
        let plan = Plan::random(seed);
        let report = run(&plan, folder.path());
        println!("{plan:#?}\n{}\n{:?}", report.trace.join("\n"), report.end);
        assert!(report.violations.is_empty(), "seed {seed}: {:#?}", report.violations);
        return;
    }
    let began = Instant::now();
    let runs = number("GLASSHOUSE_SIM_RUNS").unwrap_or(200);
    let mut table = Table::default();
    for seed in 0..runs {
        match catch_unwind(|| run(&Plan::random(seed), folder.path())) {
            Ok(report) if report.violations.is_empty() => table.add(&report),
            Ok(report) => panic!("{:#?}\n{}", report.violations, replay(seed)),
            Err(_) => panic!("the code under test panicked\n{}", replay(seed)),
        }
    }
    println!("{runs} runs in {:?}\n{table}", began.elapsed());
    // Faults happened, and did not keep good runs from their end.
    assert!(table.ends.get("Done, released").is_some_and(|done| *done >= runs / 5), "{table}");
    assert!(table.ends.len() >= 5 && table.counts.len() >= 10, "{table}");
    assert!(table.counts.values().all(|count| *count > 0), "{table}");
}

fn replay(seed: u64) -> String {
    format!("replay: GLASSHOUSE_SIM_SEED={seed} cargo test -p glasshouse-core --test simulation random -- --nocapture")
}

#[test]
fn a_seed_replays_to_the_byte() {
    let folder = folder();
    for seed in [3, 11, 42, 77, 113] {
        let [first, second] = [0; 2].map(|_| run(&Plan::random(seed), folder.path()));
        assert_eq!(first, second, "seed {seed}");
    }
}

#[test]
fn every_defect_put_in_is_seen() {
    let folder = folder();
    for sabotage in Sabotage::ALL {
        let seen = (0..400).find_map(|seed| {
            let plan = Plan { sabotage: Some(sabotage), boot_runs_back: false, ..Plan::random(seed) };
            let said = run(&plan, folder.path()).violations;
            let of_it = |what: &&String| sabotage.violates().iter().any(|words| what.contains(words));
            said.iter().find(of_it).map(|what| (seed, what.clone()))
        });
        let (seed, what) = seen.unwrap_or_else(|| panic!("{sabotage:?} was not seen in 400 runs"));
        let sound = Plan { boot_runs_back: false, ..Plan::random(seed) };
        assert_eq!(run(&sound, folder.path()).violations, Vec::<String>::new(), "seed {seed} without {sabotage:?}");
        println!("{sabotage:?}: seed {seed}: {what}");
    }
}

/// How runs ended, and what happened in them.
#[derive(Default)]
struct Table {
    ends: BTreeMap<String, u64>,
    counts: BTreeMap<String, u64>,
}

impl Table {
    fn add(&mut self, report: &Report) {
        let end = report.end.map_or("clock ran back: no end".into(), |end| format!("{end:?}"));
        let released = if report.released { "released" } else { "nothing released" };
        *self.ends.entry(format!("{end}, {released}")).or_default() += 1;
        let faults = report.faults.iter().map(|(fault, count)| (format!("messages: {fault:?}"), *count));
        let others = [
            ("messages in all", report.frames),
            ("clock jumps", report.clock_jumps),
            ("owners started again", report.owner_starts.saturating_sub(1)),
            ("runtimes restarted under the same id", report.runtime_restarts),
            ("impostors' evidence", report.impostures),
        ];
        for (name, count) in faults.chain(others.map(|(name, count)| (name.to_owned(), count))) {
            *self.counts.entry(name).or_default() += count;
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let disk = disk::FAILED.load(std::sync::atomic::Ordering::Relaxed);
        for (name, count) in self.ends.iter().chain(&self.counts) {
            writeln!(f, "{count:>9}  {name}")?;
        }
        writeln!(f, "{disk:>9}  disk failures (in this process)")
    }
}
