//! Why a segment must stop, told by whoever notices first.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use glasshouse_core::refusal::Refusal;

/// Why a segment ends before its work is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The owner asked; results are exported.
    Asked,
    /// A signal came.
    Signal(i32),
    /// The agent, and with it the owner, is gone.
    OwnerLost,
    /// The lease does not allow more.
    Lease(Refusal),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked => f.write_str("the owner asked for it"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::OwnerLost => f.write_str("the owner is gone"),
            Self::Lease(refusal) => fmt::Display::fmt(refusal, f),
        }
    }
}

/// Set once, from any thread; cheap to look at between two batches.
#[derive(Clone, Default)]
pub(super) struct StopFlag {
    set: Arc<AtomicBool>,
    why: Arc<Mutex<Option<Stop>>>,
}

impl StopFlag {
    /// The first reason stays, unless a later one leaves no time for what the first would allow.
    pub(super) fn set(&self, stop: Stop) {
        let mut why = self.why.lock().unwrap_or_else(PoisonError::into_inner);
        if why.is_none() || *why == Some(Stop::Asked) {
            *why = Some(stop);
        }
        self.set.store(true, Ordering::Release);
    }

    pub(super) fn get(&self) -> Option<Stop> {
        if !self.set.load(Ordering::Acquire) {
            return None;
        }
        self.why.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the process must be gone soon: nothing but zeroization is left to do.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self.get(), Some(Stop::Signal(_) | Stop::OwnerLost))
    }
}
