//! A thousand allocations at once through random faults, on a clock that the test moves: the real supervisor over the
//! real journal, a provider that does its worst, and an owner that is killed a hundred times. A seed draws the faults
//! and every name; a failing run prints it.
//!
//! ```text
//! cargo test -p glasshouse-provider --test fleet                                                   # one seed
//! GLASSHOUSE_SIM_RUNS=50 cargo test -p glasshouse-provider --test fleet storm -- --nocapture       # minutes
//! GLASSHOUSE_SIM_SEED=17 cargo test -p glasshouse-provider --test fleet storm -- --nocapture       # that one
//! ```
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of a test

#[path = "../../../glasshouse-core/tests/simulation/entropy.rs"]
mod entropy;
mod owner;
mod plan;
mod provider;
mod run;
mod world;

use std::path::Path;
use std::time::Instant;

use plan::{Plan, Sabotage};
use run::{Report, run};

/// Enough for a thousand that run at once: some are turned away, some are done early.
const JOBS: usize = 1200;

/// A folder in memory where there is one: a journal syncs every line.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    in_memory.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn checked(plan: &Plan) -> Report {
    let report = run(plan, folder().path());
    let replay = format!("GLASSHOUSE_SIM_SEED={} cargo test -p glasshouse-provider --test fleet storm", plan.seed);
    assert!(report.violations.is_empty(), "{:#?}\n{report:?}\nreplay: {replay}", report.violations);
    report
}

#[test]
fn in_calm_weather_everything_is_rented_once() {
    let report = checked(&Plan { jobs: 50, ..Plan::calm(1) });
    assert_eq!((report.done, report.created, report.kills), (50, 50, 0));
    assert_eq!(report.faults, 0);
}

#[test]
fn a_thousand_at_once_in_a_storm_with_a_hundred_kills() {
    let seeds = match number("GLASSHOUSE_SIM_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("GLASSHOUSE_SIM_RUNS").unwrap_or(1),
    };
    for seed in seeds {
        let began = Instant::now();
        let report = checked(&Plan { jobs: JOBS, kills: 100, ..Plan::storm(seed) });
        println!("seed {seed}: {report} in {:?}", began.elapsed());
        assert_eq!((report.done, report.kills), (JOBS, 100));
        assert!(report.at_once >= 1000, "{report}");
        assert!(report.faults > 1000 && report.created > 1000, "{report}");
    }
    let peak = peak_mib();
    println!("at most {peak} MiB");
    assert!(peak < 200, "{peak} MiB");
}

#[test]
fn a_seed_draws_the_same_run() {
    let plan = Plan { jobs: 60, ..Plan::storm(7) };
    let [first, second] = [0; 2].map(|_| checked(&plan));
    assert_eq!(first, second);
}

#[test]
fn every_defect_put_in_is_seen() {
    for sabotage in Sabotage::ALL {
        let began = Instant::now();
        let seen = (0..20).find_map(|seed| {
            let plan = Plan { jobs: 10, kills: 2, between_kills: 200, sabotage: Some(sabotage), ..Plan::storm(seed) };
            let report = run(&plan, folder().path());
            report.violations.into_iter().find(|said| said.contains(sabotage.violates()))
        });
        let said = seen.unwrap_or_else(|| panic!("{sabotage:?} was not seen"));
        println!("{sabotage:?}: {said} ({:?})", began.elapsed());
    }
}

/// The most memory that this process ever had.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}
