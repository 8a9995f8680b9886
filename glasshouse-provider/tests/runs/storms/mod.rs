//! The faults of core's simulation over real processes and sockets, for a sample: whole runs through a network that drops,
//! duplicates, delays, cuts, reorders and changes messages and is slow; on machines whose clocks jump and whose disks fill
//! up, with two owners at one allocation, and with an agent that is started again under the same id. And what has to hold
//! however each of them ends.
//!
//! ```text
//! cargo test -p glasshouse-provider --test runs storms                              # the seeds below
//! GLASSHOUSE_STORMS=200 cargo test -p glasshouse-provider --test runs storms        # more of them
//! GLASSHOUSE_STORM_SEED=7 cargo test -p glasshouse-provider --test runs storms      # one
//! ```
//!
//! `storms_of_messages` and `storms_of_machines` are the two halves; a seed of one is none of the other.

mod check;
pub(crate) mod machine;
mod net;
mod plan;
mod restart;
mod second;
pub(crate) mod wall;
mod weather;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Fixed;
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::job::Budget;
use glasshouse_provider::LocalProvider;
use glasshouse_provider::run::ProtectedRun;

use crate::support::{FIXED_MEASUREMENT, MEASURES_NOTHING, Test, block_on, children_of, container, eventually};
use crate::tapped::Tapped;
use crate::whole::composed;
use check::UNITS;
use net::Storm;

pub(crate) use second::{SECOND, second};

pub(crate) const TESTS: &[Test] = &[
    ("storms_have_a_wall_clock_that_moves", wall::it_moves),
    ("storms_of_messages_break_no_invariant", storms_of_messages),
    ("storms_of_machines_break_no_invariant", weather::storms_of_machines),
];

/// Seeds 0 to this one.
const SEEDS: u64 = 16;
/// Runs mostly wait.
const AT_ONCE: usize = 6;
/// The lease, and with it a run's own deadline, is half of that.
const STUCK: Duration = Duration::from_secs(40);

fn storms_of_messages() {
    let (runs, tally) = each_seed(SEEDS, one);
    eventually("every agent is gone", Duration::from_secs(10), || children_of(std::process::id()).is_empty());
    // Faults happened, and did not keep good runs from their end.
    assert!(runs < SEEDS || (tally.done >= runs / 5 && tally.faults.len() == 8 && tally.unattested > 0), "{tally:?}");
}

/// Runs a storm for each seed, some at once, and gives how many there were and their tally. Fails with the seeds that failed.
fn each_seed<T: Default + Debug + Send>(usual: u64, one: fn(u64, &Mutex<T>)) -> (u64, T) {
    let seeds = seeds(usual);
    let (next, runs) = (AtomicU64::new(seeds.start), seeds.end - seeds.start);
    let (tally, failed) = (Mutex::new(T::default()), Mutex::new(Vec::new()));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, SeqCst);
                    if seed >= seeds.end {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| one(seed, &tally))).is_err() {
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let (tally, failed) = (tally.into_inner().unwrap(), failed.into_inner().unwrap());
    println!("  {runs} storms in {:.1?}: {tally:?}", began.elapsed());
    assert!(failed.is_empty(), "seeds {failed:?}: run each with GLASSHOUSE_STORM_SEED");
    (runs, tally)
}

/// Those of the environment, or from 0 to `usual`.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("GLASSHOUSE_STORM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("GLASSHOUSE_STORMS").unwrap_or(usual),
    }
}

#[derive(Debug, Default)]
struct Tally {
    done: u64,
    failed: u64,
    unattested: u64,
    messages: usize,
    faults: BTreeMap<net::Fault, u64>,
    longest: Duration,
}

/// One run. Every fourth runtime is another program than the owner expects, and must get nothing.
fn one(seed: u64, tally: &Mutex<Tally>) {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("out/gate/gate.store");
    let (storm, attested) = (Arc::new(Storm::new(seed, store.clone())), seed % 4 != 3);
    let (network, pause) = (Arc::clone(&storm), storm.pause());
    let tap = move |agent, request: &_, client: &mut _| network.serve(agent, request, client);
    let provider = Tapped::new(LocalProvider::new().container(container()), tap, || ()).slow(pause);
    let measurement = if attested { FIXED_MEASUREMENT } else { [8; 32] };
    let run = composed(ProtectedRun::builder(), folder.path(), "")
        .provider(provider)
        .env(MEASURES_NOTHING, "1")
        .runtime_measurement(Fixed(measurement))
        .lease(LeaseTerms { ttl: STUCK / 4, max_units: None })
        .linger(STUCK / 4)
        .progress_every(Duration::from_millis(20))
        .budget(Budget::Units(UNITS))
        .leave_signals();
    let began = Instant::now();
    let outcome = block_on(async { tokio::time::timeout(STUCK, run.run()).await });
    let took = began.elapsed();
    let outcome = outcome.unwrap_or_else(|_| panic!("seed {seed}: it is stuck past its deadline"));
    let said = outcome.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned());
    println!("  storm {seed}: {took:.1?}, {} messages: {said}", storm.messages.load(SeqCst));

    let wrong = storm.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "seed {seed}: {wrong:?}");
    check::no_key_but_to_an_attested_runtime(&store, &storm, attested);
    check::nothing_acknowledged_is_lost(folder.path(), &storm, &outcome);
    match &outcome {
        Ok(report) => check::it_is_done(folder.path(), report),
        Err(failure) => check::it_says_that_it_is_not(failure),
    }
    let mut tally = tally.lock().unwrap();
    tally.done += u64::from(outcome.is_ok());
    tally.failed += u64::from(outcome.is_err());
    tally.unattested += u64::from(!attested);
    tally.messages += storm.messages.load(SeqCst);
    tally.longest = tally.longest.max(took);
    storm.faults.lock().unwrap().iter().for_each(|(fault, count)| *tally.faults.entry(*fault).or_default() += count);
}
