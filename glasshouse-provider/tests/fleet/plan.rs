//! What goes wrong in one run, drawn from its seed.

use std::time::Duration;

use crate::entropy::Rng;

/// A defect put in on purpose: the simulation has to see every one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// The provider shows a fresh allocation later than the supervisor is patient.
    ShowsTooLate,
    /// The provider hides what was ended, and lets it run.
    HidesInsteadOfEnding,
    /// The journal is emptied between two owners, and nothing lists what there is.
    JournalIsLost,
    /// A create is sent twice.
    CreatesTwice,
}

impl Sabotage {
    pub(crate) const ALL: [Self; 4] =
        [Self::ShowsTooLate, Self::HidesInsteadOfEnding, Self::JournalIsLost, Self::CreatesTwice];

    /// What is said of it.
    pub(crate) const fn violates(self) -> &'static str {
        match self {
            Self::ShowsTooLate | Self::HidesInsteadOfEnding => "runs and nobody knows",
            Self::JournalIsLost => "is not in the journal",
            Self::CreatesTwice => "was created twice",
        }
    }
}

/// Rates are per thousand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) jobs: usize,
    /// How often the owner is killed.
    pub(crate) kills: usize,
    /// Calls between two kills, at most.
    pub(crate) between_kills: u64,
    /// Calls that fail without an effect: no answer, nonsense, too many requests.
    pub(crate) fails: u64,
    /// Creates and ends that happen although the answer is an error.
    pub(crate) happens_all_the_same: u64,
    /// Creates that the provider turns away: no capacity, refused.
    pub(crate) turned_away: u64,
    /// Ends that are accepted and forgotten.
    pub(crate) forgotten: u64,
    /// Allocations that never come to run: stuck, without GPUs, dead, overpriced.
    pub(crate) bad: u64,
    /// A fresh allocation is hidden for up to this long.
    pub(crate) hidden: Duration,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Plan {
    pub(crate) fn calm(seed: u64) -> Self {
        Self {
            seed,
            jobs: 1,
            kills: 0,
            between_kills: 6000,
            fails: 0,
            happens_all_the_same: 0,
            turned_away: 0,
            forgotten: 0,
            bad: 0,
            hidden: Duration::ZERO,
            sabotage: None,
        }
    }

    pub(crate) fn storm(seed: u64) -> Self {
        let rng = &mut Rng::new(seed ^ 0x666c_6565_7400);
        Self {
            fails: rng.between(20, 150),
            happens_all_the_same: rng.between(20, 150),
            turned_away: rng.between(10, 100),
            forgotten: rng.between(10, 200),
            bad: rng.between(50, 250),
            hidden: Duration::from_secs(rng.between(0, 50)),
            ..Self::calm(seed)
        }
    }
}
