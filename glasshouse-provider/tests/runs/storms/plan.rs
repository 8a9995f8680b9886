//! What goes wrong with the machines of one run, drawn from its seed.

use std::time::Duration;

use glasshouse_provider::run::RunEvent;

use super::net::Rng;

/// When in a run something happens, as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moment {
    Rented,
    Started,
    Released,
    Progress(u64),
    Reported,
    Ending,
}

/// How much of the owner's disk is left: no file grows beyond it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    Nothing,
    /// So many bytes more for the gate's memory: its next lines, and a part of one.
    Lines(u64),
    /// So many bytes of the larger artifact.
    Artifact(u64),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct FullDisk {
    pub(super) at: Moment,
    pub(super) room: Room,
    /// Until then; `None` for the rest of the run.
    pub(super) lasts: Option<Duration>,
}

/// Everything about a run that is not an answer of the code under test. One of four kinds of trouble is there in each run,
/// in turn; the others may be there too.
#[derive(Debug)]
pub(super) struct Plan {
    /// Of a thousand messages, how many suffer.
    pub(super) rate: u64,
    /// Whether the runtime is the program that the owner expects.
    pub(super) attested: bool,
    /// Of a hundred looks at the weather, how many let a clock jump or a process sleep.
    pub(super) clocks: usize,
    pub(super) disk: Option<FullDisk>,
    /// Others who take themselves for the owner.
    pub(super) others: bool,
    /// The agent is killed, and started again under the same id.
    pub(super) restart: Option<Moment>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let rng = Rng::new(seed ^ 0x6d61_6368);
        let [clocks, full, others, restart] = [0, 1, 2, 3].map(|trouble| seed % 4 == trouble || rng.chance(8));
        let progress = |most: usize| Moment::Progress(1 + rng.below(most) as u64);
        let disk = full.then(|| FullDisk {
            at: [
                Moment::Rented,
                Moment::Started,
                Moment::Released,
                progress(6),
                progress(6),
                Moment::Reported,
                Moment::Ending,
            ][rng.below(7)],
            room: match rng.below(4) {
                0 => Room::Nothing,
                1 => Room::Artifact(rng.below(1_600_000) as u64),
                _ => Room::Lines(rng.below(60_000) as u64),
            },
            lasts: rng.chance(40).then(|| rng.millis(20, 400)),
        });
        let moments = [Moment::Started, Moment::Released, progress(6), progress(6), Moment::Reported];
        Self {
            rate: [0, 0, 20, 60][rng.below(4)],
            attested: seed % 5 != 4,
            clocks: if clocks { 10 + rng.below(40) } else { 0 },
            disk,
            others,
            restart: restart.then(|| moments[rng.below(5)]),
        }
    }
}

/// Tells moments of a run by its events.
#[derive(Default)]
pub(super) struct Moments {
    progress: u64,
}

impl Moments {
    pub(super) fn of(&mut self, event: &RunEvent) -> Option<Moment> {
        match event {
            RunEvent::Rented { .. } => Some(Moment::Rented),
            RunEvent::SegmentStarted { .. } => Some(Moment::Started),
            RunEvent::Released { .. } => Some(Moment::Released),
            RunEvent::Progress { .. } => {
                self.progress += 1;
                Some(Moment::Progress(self.progress))
            }
            RunEvent::Reported { .. } => Some(Moment::Reported),
            RunEvent::Ending => Some(Moment::Ending),
            _ => None,
        }
    }
}
