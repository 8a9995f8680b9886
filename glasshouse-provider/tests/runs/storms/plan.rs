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
/// in turn; from the sixteenth seed on the others may be there too.
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
    /// One of them has the launch secret.
    pub(super) one_knows: bool,
    /// The agent is killed, and started again under the same id.
    pub(super) restart: Option<Moment>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let rng = Rng::new(seed ^ 0x6d61_6368);
        let [clocks, full, others, restart] =
            [0, 1, 2, 3].map(|trouble| seed % 4 == trouble || (rng.chance(15) && seed >= 16));
        let progress = Moment::Progress(1 + rng.below(6) as u64);
        // In turn too, so that a few seeds have all of them.
        let turn = seed as usize / 4;
        let disk = full.then(|| {
            let room = match turn % 4 {
                0 => Room::Artifact(rng.below(1_600_000) as u64),
                1 => Room::Nothing,
                _ => Room::Lines(rng.below([60_000, 6_000][turn % 2]) as u64),
            };
            // An artifact comes home before the end is reported.
            let moments = match room {
                Room::Artifact(_) => [Moment::Started, Moment::Released, progress],
                _ => [Moment::Released, [Moment::Rented, Moment::Reported][rng.below(2)], Moment::Ending],
            };
            FullDisk { at: moments[rng.below(3)], room, lasts: rng.chance(30).then(|| rng.millis(20, 400)) }
        });
        let moments = [progress, Moment::Reported, Moment::Released, Moment::Started];
        Self {
            rate: [0, 0, 20, 60][rng.below(4)],
            attested: seed % 5 != 4,
            clocks: if clocks { 10 + rng.below(40) } else { 0 },
            disk,
            others,
            one_knows: turn % 2 == 1,
            restart: restart.then(|| moments[turn % 4]),
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
