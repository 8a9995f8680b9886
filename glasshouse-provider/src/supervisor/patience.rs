//! How long each phase of an allocation may take, for each provider.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

/// A phase on the way from `create` to a runtime that has attested. Each has a deadline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum BootPhase {
    /// Until there is a machine for it.
    Schedule,
    /// Until the image is there.
    Pull,
    /// Until the program runs.
    Start,
    /// Until its agent answers.
    Reachable,
    /// Until every GPU that is paid for is there.
    GpuReady,
    /// From a challenge to its evidence.
    Attest,
}

impl BootPhase {
    const COUNT: usize = 6;

    const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for BootPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Schedule => "schedule",
            Self::Pull => "pull",
            Self::Start => "start",
            Self::Reachable => "reachable",
            Self::GpuReady => "GPU ready",
            Self::Attest => "attest",
        })
    }
}

/// The budget of each [`BootPhase`]. Time counts towards the phase that the allocation was last seen in, and what a
/// phase has used up it does not get back: an allocation that falls back and forth is ended all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootBudgets {
    /// Waiting for a machine.
    pub schedule: Duration,
    /// Fetching the image.
    pub pull: Duration,
    /// Starting the program.
    pub start: Duration,
    /// Running, and the agent does not answer.
    pub reachable: Duration,
    /// Running, with fewer GPUs than are paid for.
    pub gpu_ready: Duration,
    /// Making evidence.
    pub attest: Duration,
}

impl BootBudgets {
    /// The same for each phase.
    pub const fn each(budget: Duration) -> Self {
        Self { schedule: budget, pull: budget, start: budget, reachable: budget, gpu_ready: budget, attest: budget }
    }

    /// The budget of one phase.
    pub const fn of(&self, phase: BootPhase) -> Duration {
        match phase {
            BootPhase::Schedule => self.schedule,
            BootPhase::Pull => self.pull,
            BootPhase::Start => self.start,
            BootPhase::Reachable => self.reachable,
            BootPhase::GpuReady => self.gpu_ready,
            BootPhase::Attest => self.attest,
        }
    }
}

/// How patient the supervisor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From `create` until the agent answers, phase by phase, and until it has attested.
    pub boot: BootBudgets,
    /// How long a fresh allocation may be unknown to its own provider.
    pub settle: Duration,
    /// How long after its owner's death a `create` that was under way may still be carried out: as long as its provider works
    /// on a request of which the connection is gone.
    pub late: Duration,
    /// Between two looks; half of it by chance.
    pub poll: Duration,
    /// Between two looks at what runs: at its price, for the most part.
    pub watch: Duration,
    /// Between the two sightings of absence.
    pub absence_spacing: Duration,
    /// From the request to end until absence must have been seen.
    pub end: Duration,
}

impl Patience {
    /// How long `create` may take: the phases that some providers are through with before they answer.
    pub(super) const fn create(&self) -> Duration {
        self.boot.schedule.saturating_add(self.boot.pull).saturating_add(self.boot.start)
    }

    /// For a provider on the network that this version does not know, and for RunPod.
    pub const REMOTE: Self = Self {
        boot: BootBudgets {
            schedule: minutes(3),
            pull: minutes(15),
            start: minutes(3),
            reachable: minutes(3),
            gpu_ready: minutes(2),
            attest: minutes(3),
        },
        settle: minutes(1),
        late: minutes(1),
        poll: Duration::from_secs(3),
        watch: Duration::from_secs(30),
        absence_spacing: Duration::from_secs(10),
        end: minutes(5),
    };

    /// For Vast.ai: its hosts fetch images over lines of their own, and map ports late.
    pub const VAST: Self = Self {
        boot: BootBudgets {
            schedule: minutes(5),
            pull: minutes(25),
            start: minutes(5),
            reachable: minutes(5),
            ..Self::REMOTE.boot
        },
        poll: Duration::from_secs(5),
        ..Self::REMOTE
    };

    /// For Slurm: a queue is what a scheduler is for, and nothing is fetched.
    pub const SLURM: Self =
        Self { boot: BootBudgets { schedule: minutes(60), pull: minutes(5), ..Self::REMOTE.boot }, ..Self::REMOTE };

    /// For processes of this machine.
    pub const LOCAL: Self = Self {
        boot: BootBudgets {
            schedule: Duration::from_secs(5),
            pull: Duration::from_secs(5),
            start: Duration::from_secs(15),
            reachable: Duration::from_secs(15),
            gpu_ready: Duration::from_secs(5),
            attest: minutes(1),
        },
        settle: Duration::from_secs(1),
        // The owner's own process makes them.
        late: Duration::ZERO,
        poll: Duration::from_millis(50),
        watch: Duration::from_secs(5),
        absence_spacing: Duration::from_millis(200),
        end: Duration::from_secs(15),
    };

    /// The default for a provider, by its stable name.
    pub fn of(provider: &str) -> Self {
        match provider {
            "local" => Self::LOCAL,
            "slurm" => Self::SLURM,
            "vast" => Self::VAST,
            _ => Self::REMOTE,
        }
    }
}

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

/// What each phase has used up.
pub(super) struct PhaseClock {
    budgets: BootBudgets,
    used: [Duration; BootPhase::COUNT],
    phase: BootPhase,
    since: Instant,
}

impl PhaseClock {
    pub(super) fn start(budgets: BootBudgets) -> Self {
        Self { budgets, used: [Duration::ZERO; BootPhase::COUNT], phase: BootPhase::Schedule, since: Instant::now() }
    }

    pub(super) const fn phase(&self) -> BootPhase {
        self.phase
    }

    pub(super) fn enter(&mut self, phase: BootPhase) {
        let now = Instant::now();
        if let Some(used) = self.used.get_mut(self.phase.index()) {
            *used = used.saturating_add(now.duration_since(self.since));
        }
        (self.phase, self.since) = (phase, now);
    }

    /// What is left of the present phase's budget.
    pub(super) fn left(&self) -> Duration {
        let used = self.used.get(self.phase.index()).copied().unwrap_or_default();
        self.budgets.of(self.phase).saturating_sub(used).saturating_sub(self.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_phase_gets_nothing_back() {
        let second = Duration::from_secs(1);
        let mut clock = PhaseClock::start(BootBudgets::each(10 * second));
        for _ in 0..3 {
            clock.enter(BootPhase::Pull);
            tokio::time::advance(3 * second).await;
            clock.enter(BootPhase::Start);
            tokio::time::advance(second).await;
        }
        assert_eq!((clock.phase(), clock.left()), (BootPhase::Start, 7 * second));
        clock.enter(BootPhase::Pull);
        assert_eq!(clock.left(), second);
        tokio::time::advance(2 * second).await;
        assert_eq!(clock.left(), Duration::ZERO);
    }

    #[test]
    fn a_queue_is_waited_in_and_this_machine_is_not() {
        assert!(Patience::of("slurm").boot.schedule > 10 * Patience::of("runpod").boot.schedule);
        assert!(Patience::of("vast").boot.pull > Patience::of("runpod").boot.pull);
        assert!(Patience::of("local").boot.schedule < Duration::from_secs(10));
        assert_eq!(Patience::of("another"), Patience::REMOTE);
    }
}
