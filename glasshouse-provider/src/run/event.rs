use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use glasshouse_core::channel::{Interval, Outcome, Phase};
use glasshouse_core::overhead::{Cleanup, Mode};
use glasshouse_core::record::CleanupProof;
use glasshouse_core::traits::{AllocationId, Progress};

use crate::supervisor::OpenEntry;

/// What happens in a run, for whoever shows it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RunEvent {
    /// An allocation of an earlier run that nobody has seen to be gone, and that may still be billed.
    Unconfirmed {
        /// What the journal has of it.
        entry: OpenEntry,
    },
    /// An allocation of an earlier run, or of this one when it was interrupted while it rented, was ended.
    Recovered {
        /// How its end was seen, if it was.
        proof: CleanupProof,
    },
    /// An allocation is being rented.
    Renting,
    /// Its agent answers.
    Rented {
        /// Which one.
        id: AllocationId,
    },
    /// A package is going up.
    Uploading {
        /// Bytes that are there.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A segment starts.
    SegmentStarted {
        /// Its place in the plan, from 0.
        position: usize,
        /// Segments in the plan.
        of: usize,
        /// Raw or protected.
        mode: Mode,
    },
    /// A segment's evidence was accepted and its key released.
    Released {
        /// Its place in the plan.
        position: usize,
    },
    /// A segment entered a phase.
    Phase {
        /// Its place in the plan.
        position: usize,
        /// The phase.
        phase: Phase,
    },
    /// Training goes on.
    Progress {
        /// Its place in the plan.
        position: usize,
        /// Where it stands.
        progress: Progress,
        /// The last stretch.
        interval: Interval,
    },
    /// A segment said how it ended, as the last thing in its chain. What it holds is fetched and acknowledged next.
    Reported {
        /// Its place in the plan.
        position: usize,
        /// As it says.
        outcome: Outcome,
    },
    /// A segment ended.
    SegmentEnded {
        /// Its place in the plan.
        position: usize,
        /// Whether it did all that was asked.
        completed: bool,
    },
    /// The allocation is being ended.
    Ending,
    /// What was seen of its end.
    Ended {
        /// The outcome.
        cleanup: Cleanup,
    },
}

/// Asks a run to stop in good order: the segment stops training, exports, zeroizes, and the allocation ends.
#[derive(Clone, Debug, Default)]
pub struct StopHandle(Arc<AtomicBool>);

impl StopHandle {
    /// A handle that has not been used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for the stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked for.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
