//! What there really is, whatever anyone is told: allocations, what each comes to, and what must never be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use glasshouse_core::traits::{Allocation, AllocationId, AllocationState};
use tokio::time::Instant;

use crate::entropy::Rng;
use crate::plan::{Plan, Sabotage};

pub(crate) const PRICE: f64 = 0.5;
/// What the owner agreed to.
pub(crate) const CAP: f64 = 0.6;

/// What an allocation comes to, drawn when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Runs,
    StuckIn(usize),
    Unknown,
    WithoutGpus,
    WithoutAgent,
    Exits,
    Overpriced,
}

pub(crate) struct Thing {
    pub(crate) allocation: Allocation,
    pub(crate) fate: Fate,
    born: Instant,
    shown_after: Duration,
    /// How long each of scheduling, pulling and starting takes.
    phases: [Duration; 3],
    /// When its end takes effect, once that was asked for.
    ends: Option<Instant>,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    /// What was not seen to be gone yet.
    things: BTreeMap<AllocationId, Thing>,
    made: usize,
    /// Taken out of sight without being ended.
    buried: BTreeSet<AllocationId>,
    names: BTreeMap<String, AllocationId>,
    /// The last one for each try of an owner's at a job.
    jobs: BTreeMap<(String, String), AllocationId>,
    pub(crate) calls: u64,
    pub(crate) faults: u64,
    pub(crate) at_once: usize,
    pub(crate) violations: Vec<String>,
    pub(crate) calm: bool,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        Self {
            rng: Rng::new(plan.seed),
            plan,
            things: BTreeMap::new(),
            made: 0,
            buried: BTreeSet::new(),
            names: BTreeMap::new(),
            jobs: BTreeMap::new(),
            calls: 0,
            faults: 0,
            at_once: 0,
            violations: Vec::new(),
            calm: false,
        }
    }

    /// Calls of an owner's life: often short, so that it dies while it cleans up or asks.
    pub(crate) fn lifetime(&mut self) -> u64 {
        let long = if self.rng.chance(850) { self.plan.between_kills / 10 } else { self.plan.between_kills };
        self.rng.between(1, long)
    }

    pub(crate) fn created(&self) -> usize {
        self.names.len()
    }

    /// Whether this goes wrong now.
    pub(crate) fn goes_wrong(&mut self, per_mille: u64) -> bool {
        let wrong = !self.calm && self.rng.chance(per_mille);
        self.faults += u64::from(wrong);
        wrong
    }

    pub(crate) fn create(&mut self, name: &str, job: (String, String)) -> Allocation {
        // Within one try, the one before must be seen to be gone.
        let twin = self.jobs.get(&job).and_then(|id| self.things.get(id)).filter(|twin| !twin.is_gone());
        let twin = twin.map(|twin| twin.allocation.name.clone());
        if let Some(twin) = twin {
            self.violations.push(format!("job {job:?} was created twice: {name} beside {twin}"));
        }
        self.made += 1;
        let id = AllocationId(format!("thing-{}", self.made));
        self.jobs.insert(job.clone(), id.clone());
        if self.names.insert(name.to_owned(), id.clone()).is_some() {
            self.violations.push(format!("{name} was created twice"));
        }
        let fate = self.fate();
        let price = if fate == Fate::Overpriced { 2.0 * CAP } else { PRICE };
        let allocation = Allocation { id: id.clone(), name: name.to_owned(), price_per_hour: price };
        let hidden = if self.calm { 0 } else { self.plan.hidden.as_millis() as u64 };
        let late = if self.plan.sabotage == Some(Sabotage::ShowsTooLate) { 200 } else { 0 };
        let mut phase = || Duration::from_millis(self.rng.between(100, 30_000));
        let phases = [phase(), phase(), phase()];
        let shown_after = Duration::from_millis(self.rng.between(0, hidden)) + Duration::from_secs(late);
        let thing =
            Thing { allocation: allocation.clone(), fate, born: Instant::now(), shown_after, phases, ends: None };
        self.things.insert(id, thing);
        if self.things.len() > self.at_once {
            self.things.retain(|_, thing| !thing.is_gone());
            self.at_once = self.at_once.max(self.things.len());
        }
        allocation
    }

    fn fate(&mut self) -> Fate {
        if self.calm || !self.rng.chance(self.plan.bad) {
            return Fate::Runs;
        }
        let stuck = Fate::StuckIn(self.rng.below(3) as usize);
        let others = [Fate::Unknown, Fate::WithoutGpus, Fate::WithoutAgent, Fate::Exits, Fate::Overpriced];
        let other = self.rng.pick(&others);
        self.rng.pick(&[stuck, other])
    }

    /// What exists and bills.
    pub(crate) fn living(&self) -> impl Iterator<Item = &Thing> {
        self.things.values().filter(|thing| !thing.is_gone())
    }

    /// What anyone is shown.
    pub(crate) fn shown(&self) -> impl Iterator<Item = &Thing> {
        self.things.values().filter(|thing| self.is_shown(thing))
    }

    fn is_shown(&self, thing: &Thing) -> bool {
        !thing.is_gone() && thing.born.elapsed() >= thing.shown_after && !self.buried.contains(&thing.allocation.id)
    }

    /// The same, by its name.
    pub(crate) fn named(&self, name: &str) -> Option<&Thing> {
        self.names.get(name).and_then(|id| self.find(id))
    }

    pub(crate) fn find(&self, id: &AllocationId) -> Option<&Thing> {
        self.things.get(id).filter(|thing| self.is_shown(thing))
    }

    /// Whether there is such a thing to end.
    pub(crate) fn end(&mut self, id: &AllocationId) -> bool {
        let takes = Duration::from_millis(self.rng.between(0, 20_000));
        let hidden = self.find(id).is_none();
        if hidden {
            return false;
        }
        if self.plan.sabotage == Some(Sabotage::HidesInsteadOfEnding) && self.rng.chance(100) {
            self.buried.insert(id.clone());
            return true;
        }
        if let Some(thing) = self.things.get_mut(id) {
            thing.ends.get_or_insert(Instant::now() + takes);
        }
        true
    }

    /// Whatever runs has to be in what the owner remembers.
    pub(crate) fn compare(&mut self, remembered: &BTreeSet<String>, when: &str) {
        let forgotten = self.living().map(|thing| &thing.allocation.name).filter(|name| !remembered.contains(*name));
        let said: Vec<String> =
            forgotten.map(|name| format!("{when}: {name} runs and is not in the journal")).collect();
        self.violations.extend(said);
    }

    /// At the end nothing may run.
    pub(crate) fn nothing_is_left(&mut self) {
        let said: Vec<String> =
            self.living().map(|thing| format!("{} runs and nobody knows", thing.allocation.name)).collect();
        self.violations.extend(said);
    }
}

impl Thing {
    fn is_gone(&self) -> bool {
        self.ends.is_some_and(|at| Instant::now() >= at)
    }

    pub(crate) fn state(&self) -> AllocationState {
        if self.ends.is_some() {
            return AllocationState::Terminating;
        }
        let mut age = self.born.elapsed();
        for (phase, takes) in self.phases.iter().enumerate() {
            if age < *takes || self.fate == Fate::StuckIn(phase) {
                return [AllocationState::Scheduling, AllocationState::Pulling, AllocationState::Starting][phase]
                    .clone();
            }
            age -= *takes;
        }
        match self.fate {
            Fate::Unknown => AllocationState::Unknown("HIBERNATING".to_owned()),
            Fate::Exits => AllocationState::Exited(Some(1)),
            _ => AllocationState::Running,
        }
    }
}
