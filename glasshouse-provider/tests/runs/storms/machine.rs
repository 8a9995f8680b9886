//! The owner of one storm, in a process of its own: what happens to a machine happens to all of a process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use glasshouse_core::fixed::Fixed;
use glasshouse_core::gate::LeaseTerms;
use glasshouse_core::job::Budget;
use glasshouse_core::record::{self, RecordError};
use glasshouse_provider::LocalProvider;
use glasshouse_provider::run::{ProtectedRun, RunEvent};
use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::check::{self, Ran, UNITS};
use super::net::{Rng, Storm};
use super::plan::{FullDisk, Moments, Plan, Room};
use super::restart::Restarting;
use super::second::{Knocks, knock};
use super::wall::{self, WALL};
use crate::durable::full_beyond;
use crate::support::{FIXED_MEASUREMENT, MEASURES_NOTHING, block_on, children_of, container, eventually};
use crate::tapped::Tapped;
use crate::whole::composed;

/// Makes this executable the owner of the storm in the folder that follows.
pub(crate) const OWNER: &str = "--storm-owner";
/// Its seed.
pub(super) const SEED: &str = "GLASSHOUSE_TEST_STORM";
/// The file of the runtime's wall clock.
pub(super) const RUNTIME_WALL: &str = "runtime-wall";
/// The run is over, and what it left is looked at.
pub(super) const OVER: &str = "over";
/// A second owner is in the folder.
pub(super) const SECOND_IS_HERE: &str = "second";
/// No run may take longer. The lease and the linger time are a fifth of it.
pub(super) const STUCK: Duration = Duration::from_secs(25);

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Came {
    pub(super) done: bool,
    pub(super) said: String,
    pub(super) seconds: f64,
    pub(super) messages: usize,
    /// Writes that were refused because the disk was full.
    pub(super) full: u64,
    pub(super) restarted: bool,
    /// How often others were refused who do not know the launch secret.
    pub(super) refused: u64,
    /// How often someone with the launch secret asked and was answered.
    pub(super) known: u64,
}

/// What happens to the machines, besides what `weather` does from outside.
struct Trouble {
    plan: Plan,
    rng: Rng,
    storm: Arc<Storm>,
    provider: Arc<Restarting>,
    moved: Arc<Mutex<Option<std::net::SocketAddr>>>,
    agent: Mutex<Option<std::net::SocketAddr>>,
    full: AtomicBool,
    restarted: AtomicBool,
    refused_writes: AtomicU64,
    knocking: AtomicBool,
    knocks: Knocks,
    spawned: Mutex<Vec<tokio::task::JoinHandle<()>>>,
}

pub(crate) fn owner(folder: &Path) {
    wall::it_moves();
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let (plan, store) = (Plan::new(seed), folder.join("out/gate/gate.store"));
    let storm = Arc::new(Storm::with_rate(Rng::new(seed), plan.rate, store.clone()));
    let moved = Arc::new(Mutex::new(None));
    let trouble = Arc::new_cyclic(|trouble: &std::sync::Weak<Trouble>| {
        let (network, now_at, trouble) = (Arc::clone(&storm), Arc::clone(&moved), trouble.clone());
        let tap = move |agent, request: &_, client: &mut _| {
            let agent = now_at.lock().unwrap().unwrap_or(agent);
            if let Some(trouble) = trouble.upgrade() {
                *trouble.agent.lock().unwrap() = Some(agent);
            }
            network.serve(agent, request, client)
        };
        let provider = Restarting::new(Tapped::new(LocalProvider::new().container(container()), tap, || ()));
        Trouble {
            plan,
            rng: Rng::new(seed ^ 0x0074_726f),
            storm: Arc::clone(&storm),
            provider: Arc::new(provider),
            moved: Arc::clone(&moved),
            agent: Mutex::default(),
            full: AtomicBool::new(false),
            restarted: AtomicBool::new(false),
            refused_writes: AtomicU64::new(0),
            knocking: AtomicBool::new(false),
            knocks: Knocks::default(),
            spawned: Mutex::default(),
        }
    });
    let (on_event, home, mut moments) = (Arc::clone(&trouble), folder.to_owned(), Moments::default());
    let measurement = if trouble.plan.attested { FIXED_MEASUREMENT } else { [8; 32] };
    let run = composed(ProtectedRun::builder(), folder, "")
        .shared_provider(trouble.provider.clone())
        .env(MEASURES_NOTHING, "1")
        .env(WALL, folder.join(RUNTIME_WALL).to_str().unwrap())
        .runtime_measurement(Fixed(measurement))
        .lease(LeaseTerms { ttl: STUCK / 5, max_units: None })
        .linger(STUCK / 5)
        .progress_every(Duration::from_millis(20))
        .budget(Budget::Units(UNITS))
        .on_event(move |event| on_event.happens(&home, &event, &mut moments))
        .leave_signals();
    let began = Instant::now();
    let (outcome, took) = block_on(async {
        let outcome = tokio::time::timeout(STUCK, run.run()).await;
        let took = began.elapsed();
        tokio::time::sleep(Duration::from_millis(20)).await; // for signals that are on their way
        let spawned: Vec<_> = trouble.spawned.lock().unwrap().drain(..).collect();
        for task in spawned {
            task.abort();
            let ended = task.await;
            assert!(!ended.is_err_and(|error| error.is_panic()), "a trouble of this storm panicked");
        }
        (outcome, took)
    });
    roomy();
    std::fs::write(folder.join(OVER), "").unwrap();
    let outcome = outcome.unwrap_or_else(|_| panic!("it is stuck past its deadline"));
    eventually("it is alone", Duration::from_secs(10), || !folder.join(SECOND_IS_HERE).exists());
    // Who knocked let go of the provider with the runtime.
    eventually("every agent is gone", Duration::from_secs(10), || children_of(std::process::id()).is_empty());
    holds(folder, &trouble, &outcome);
    let came = Came {
        done: outcome.is_ok(),
        said: outcome.as_ref().map_or_else(ToString::to_string, |_| "done".to_owned()),
        seconds: took.as_secs_f64(),
        messages: storm.messages.load(SeqCst),
        full: trouble.refused_writes.load(SeqCst),
        restarted: trouble.restarted.load(SeqCst),
        refused: trouble.knocks.refused.load(SeqCst),
        known: trouble.knocks.known.load(SeqCst),
    };
    println!("{}", serde_json::to_string(&came).unwrap());
}

impl Trouble {
    fn happens(self: &Arc<Self>, folder: &Path, event: &RunEvent, moments: &mut Moments) {
        let Some(now) = moments.of(event) else { return };
        if let Some(disk) = self.plan.disk.filter(|disk| disk.at == now) {
            Arc::clone(self).fills_up(folder, disk);
        }
        if self.plan.restart == Some(now) {
            let trouble = Arc::clone(self);
            let task = tokio::spawn(async move {
                let after = trouble.rng.millis(0, 300);
                if let Some(address) = trouble.provider.restart(after).await {
                    *trouble.moved.lock().unwrap() = Some(address);
                    trouble.restarted.store(true, SeqCst);
                }
            });
            self.spawned.lock().unwrap().push(task);
        }
        let agent = *self.agent.lock().unwrap();
        if let (true, Some(agent), Some(secret)) = (self.plan.others, agent, self.provider.launch_secret())
            && !self.knocking.swap(true, SeqCst)
        {
            let (trouble, secret) = (Arc::clone(self), self.plan.one_knows.then_some(secret));
            let rng = Rng::new(self.rng.below(usize::MAX) as u64);
            let task = tokio::spawn(async move { knock(rng, agent, secret, &trouble.storm, &trouble.knocks).await });
            self.spawned.lock().unwrap().push(task);
        }
    }

    fn fills_up(self: Arc<Self>, folder: &Path, disk: FullDisk) {
        let length = |name: &str| std::fs::metadata(folder.join(name)).map_or(0, |file| file.len());
        full_beyond(Some(match disk.room {
            Room::Nothing => 0,
            Room::Lines(more) => length("out/gate/gate.store") + more,
            Room::Artifact(bytes) => length("out/gate/gate.store").max(bytes),
        }));
        self.full.store(true, SeqCst);
        // Each write that is refused comes with it (setrlimit(2)); those at the same time may come with one.
        let mut refused = signal(SignalKind::from_raw(Signal::XFSZ.as_raw())).unwrap();
        let trouble = Arc::clone(&self);
        let task = tokio::spawn(async move {
            while refused.recv().await.is_some() {
                trouble.refused_writes.fetch_add(1, SeqCst);
            }
        });
        self.spawned.lock().unwrap().push(task);
        if let Some(lasts) = disk.lasts {
            std::thread::spawn(move || {
                std::thread::sleep(lasts);
                roomy();
            });
        }
    }
}

/// There is room again.
fn roomy() {
    setrlimit(Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
}

fn holds(folder: &Path, trouble: &Trouble, outcome: &Ran) {
    let (storm, plan) = (&trouble.storm, &trouble.plan);
    let wrong = storm.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
    check::no_key_but_to_an_attested_runtime(&folder.join("out/gate/gate.store"), storm, plan.attested);
    check::nothing_acknowledged_is_lost(folder, storm, outcome);
    match outcome {
        Ok(report) => check::it_is_done(folder, report),
        // What could not be written into the journal is seen by who opens it next.
        Err(_) if trouble.full.load(SeqCst) => drop(check::recovered(folder)),
        Err(failure) => check::it_says_that_it_is_not(failure),
    }
    nothing_is_half_written(&folder.join("out"), outcome);
}

/// Every file of the owner's is whole, or not there.
fn nothing_is_half_written(out: &Path, outcome: &Ran) {
    for entry in std::fs::read_dir(out).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let read = || std::fs::read(&path).unwrap();
        match name.as_str() {
            "gate" => {}
            "journal.jsonl" => assert_eq!(check::whole_lines(&path).concat().as_bytes(), read(), "{name}"),
            "gate.pub" => assert_eq!(read().len(), 65),
            "empty.bin" => assert!(read().is_empty()),
            "sum.bin" => {
                let sum = read();
                assert!(sum.len() == 1_600_000 && sum.chunks(8).all(|chunk| *chunk == sum[..8]), "{name}");
            }
            "evidence.json" | "recovered.json" => match record::verify(&read(), None, None) {
                Ok(_) | Err(RecordError::TerminalMissing { .. }) => {}
                Err(error) => panic!("{name}: {error}"),
            },
            other => panic!("{other} was left there: {outcome:?}"),
        }
    }
}
