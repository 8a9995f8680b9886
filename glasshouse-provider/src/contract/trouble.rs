use std::time::Duration;

use crate::supervisor::{BootBudgets, BootPhase};

/// Something that providers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Trouble {
    /// Nothing: a calm day.
    None,
    /// `create` answers with a 5xx, and made it.
    CreateFailsButHappens,
    /// `create` answers with an error that names what it made.
    CreateErrorNamesIt,
    /// The connection breaks in the middle of `create`'s answer.
    CreateBreaksOff,
    /// `create` is never answered, and made it.
    CreateNeverAnswers,
    /// The first offer is refused.
    FirstOfferRefused,
    /// Every offer is taken by the time that it is asked for.
    EveryOfferTaken,
    /// It never gets a machine.
    StuckInSchedule,
    /// Its image never comes.
    StuckInPull,
    /// It never starts.
    StuckInStart,
    /// It runs, and has no address.
    WithoutPorts,
    /// It runs, and has none of its GPUs.
    WithoutGpus,
    /// It is in a state that nobody knows.
    UnknownState,
    /// It ends before its agent answers.
    ExitsEarly,
    /// It costs more than the cap, which its offer did not.
    PriceAboveCap,
    /// It is unknown for a moment after `create`.
    HiddenAfterCreate,
    /// Its end is answered with a 404, and it runs on; then with a 500; then it is taken.
    EndSaysNotFound,
    /// Looks are answered with 429, with this `Retry-After` or none.
    TooManyLooks(Option<Duration>),
    /// `create` is answered with 429, with this `Retry-After` or none.
    TooManyCreates(Option<Duration>),
    /// Its clock is hours ahead of the owner's, and so was the clock of an owner before.
    ClockAhead,
    /// Its clock is hours behind the owner's, and so was the clock of an owner before.
    ClockBehind,
    /// Its owner is killed, before and after each of its calls.
    OwnerKilled,
    /// Two segments run on it, a raw and a protected one.
    TwoSegments,
    /// It exits in the middle of a segment, with records that nobody has acknowledged.
    ExitsUnacknowledged,
    /// Readings of its log break off while it grows.
    LogBreaksOff,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::None,
        Self::CreateFailsButHappens,
        Self::CreateErrorNamesIt,
        Self::CreateBreaksOff,
        Self::CreateNeverAnswers,
        Self::FirstOfferRefused,
        Self::EveryOfferTaken,
        Self::StuckInSchedule,
        Self::StuckInPull,
        Self::StuckInStart,
        Self::WithoutPorts,
        Self::WithoutGpus,
        Self::UnknownState,
        Self::ExitsEarly,
        Self::PriceAboveCap,
        Self::HiddenAfterCreate,
        Self::EndSaysNotFound,
        Self::TooManyLooks(None),
        Self::TooManyLooks(Some(SECOND)),
        Self::TooManyCreates(None),
        Self::TooManyCreates(Some(SECOND)),
        Self::ClockAhead,
        Self::ClockBehind,
        Self::OwnerKilled,
        Self::TwoSegments,
        Self::ExitsUnacknowledged,
        Self::LogBreaksOff,
    ];

    /// Whether it takes allocations that are agents of the suite: whose executable calls
    /// [`serve_if_launched`](super::serve_if_launched) first thing in `main`.
    pub const fn needs_agent(self) -> bool {
        matches!(self, Self::TwoSegments | Self::ExitsUnacknowledged | Self::LogBreaksOff)
    }

    /// Hours that the clocks differ by.
    pub(super) const fn hours_off(self) -> i64 {
        match self {
            Self::ClockAhead => 6,
            Self::ClockBehind => -6,
            _ => 0,
        }
    }

    /// Offers that are tried.
    pub(super) const fn attempts(self) -> usize {
        match self {
            Self::CreateErrorNamesIt | Self::FirstOfferRefused | Self::EveryOfferTaken | Self::TooManyCreates(_) => 2,
            _ => 1,
        }
    }

    /// Less of the one phase that never ends, so that nobody waits for nothing; the others keep what slow machines need.
    pub(super) fn shorten(self, boot: BootBudgets) -> BootBudgets {
        let short = |budget: Duration| budget / 8;
        match self {
            Self::StuckInSchedule | Self::UnknownState => BootBudgets { schedule: short(boot.schedule), ..boot },
            Self::StuckInPull => BootBudgets { pull: short(boot.pull), ..boot },
            Self::StuckInStart => BootBudgets { start: short(boot.start), ..boot },
            Self::WithoutPorts => BootBudgets { reachable: short(boot.reachable), ..boot },
            Self::WithoutGpus => BootBudgets { gpu_ready: short(boot.gpu_ready), ..boot },
            // Until then nobody gives a create up.
            Self::CreateNeverAnswers => BootBudgets::each(boot.start / 4),
            _ => boot,
        }
    }

    /// The phase that it never leaves.
    pub(super) const fn last_phase(self) -> Option<BootPhase> {
        match self {
            Self::StuckInSchedule | Self::UnknownState => Some(BootPhase::Schedule),
            Self::StuckInPull => Some(BootPhase::Pull),
            Self::StuckInStart => Some(BootPhase::Start),
            Self::WithoutPorts => Some(BootPhase::Reachable),
            Self::WithoutGpus => Some(BootPhase::GpuReady),
            _ => None,
        }
    }

    /// For how long it is told to wait.
    pub(super) const fn asked_wait(self) -> Option<Duration> {
        match self {
            Self::TooManyLooks(wait) | Self::TooManyCreates(wait) => wait,
            _ => None,
        }
    }

    /// Creates that this comes to.
    pub(super) const fn creates(self) -> usize {
        self.attempts()
    }
}

const SECOND: Duration = Duration::from_secs(1);
