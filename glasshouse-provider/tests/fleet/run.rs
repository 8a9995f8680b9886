//! One run: owner after owner until every job is done, then calm, then nothing may be left.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use glasshouse_provider::supervisor::Journal;

use crate::entropy::seeded;
use crate::owner::{self, Jobs, remembered};
use crate::plan::{Plan, Sabotage};
use crate::provider::Line;
use crate::world::World;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) done: usize,
    pub(crate) created: usize,
    pub(crate) kills: usize,
    pub(crate) calls: u64,
    pub(crate) faults: u64,
    pub(crate) at_once: usize,
    pub(crate) violations: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} jobs done with {} allocations, {} of them at once, {} calls, {} faults, {} kills",
            self.done, self.created, self.at_once, self.calls, self.faults, self.kills
        )
    }
}

pub(crate) fn run(plan: &Plan, folder: &Path) -> Report {
    // Hash maps draw a key once a thread, from the same source: before the seed is there.
    let _ = std::hash::RandomState::new();
    let _seeded = seeded(plan.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(simulate(plan, &folder.join("journal")))
}

async fn simulate(plan: &Plan, journal: &Path) -> Report {
    let world = Arc::new(Mutex::new(World::new(plan.clone())));
    let jobs: Jobs = Arc::new(Mutex::new((0..plan.jobs).map(|job| (job, 0)).collect()));
    let mut kills = 0;
    loop {
        let dies_after = (kills < plan.kills).then(|| world.lock().unwrap().lifetime());
        let line = Arc::new(Line::new(world.clone(), dies_after));
        if !owner::live(line, journal, &jobs).await {
            break;
        }
        kills += 1;
        between_two_lives(&mut world.lock().unwrap(), journal, kills);
    }
    world.lock().unwrap().calm = true;
    // An hour later nothing is on its way any more.
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    let line = Arc::new(Line::new(world.clone(), None));
    let last = owner::supervisor(&line, Arc::new(Journal::open(journal).unwrap()));
    let reaped = if plan.sabotage.is_some() { None } else { Some(last.reap().await.unwrap()) };
    drop(last);
    let mut world = world.lock().unwrap();
    if let Some(reaped) = reaped
        && (!reaped.is_clean() || !remembered(journal).is_empty())
    {
        world.violations.push(format!("in calm weather something does not end: {reaped:?}"));
    }
    world.nothing_is_left();
    Report {
        done: plan.jobs - jobs.lock().unwrap().len(),
        created: world.created(),
        kills,
        calls: world.calls,
        faults: world.faults,
        at_once: world.at_once,
        violations: std::mem::take(&mut world.violations),
    }
}

/// The journal as the kill left it, perhaps in the middle of a line, has everything that runs.
fn between_two_lives(world: &mut World, journal: &Path, kill: usize) {
    if world.plan.sabotage == Some(Sabotage::JournalIsLost) {
        std::fs::write(journal, "").unwrap();
    }
    if world.rng.chance(300) {
        let mut file = std::fs::OpenOptions::new().append(true).open(journal).unwrap();
        file.write_all(b"{\"event\":\"asking\",\"prov").unwrap();
    }
    let remembered = remembered(journal);
    world.compare(&remembered, &format!("after kill {kill}"));
}
