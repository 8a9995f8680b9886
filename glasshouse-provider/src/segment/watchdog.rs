//! What ends a segment that does not end itself: a workload that hangs, a device that keeps a call for ever.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};

use crate::clock;
use crate::roles::note;

/// Ends this process when a limit is over. Handles are to the same one.
#[derive(Clone)]
pub(super) struct Watchdog(Arc<Shared>);

#[derive(Default)]
struct Shared {
    limits: Mutex<Limits>,
    changed: Condvar,
}

/// On the boot clock, which goes on while the machine sleeps.
#[derive(Default)]
struct Limits {
    work: Option<Duration>,
    life: Option<Duration>,
}

impl Watchdog {
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start() -> io::Result<Self> {
        Self::with(|| {
            note(format_args!("the segment did not end in time; the kernel takes its memory, which was not zeroized"));
            // Not `exit`: its handlers, a driver's among them, may wait for the very thing that hangs.
            let _ = kill_process(getpid(), Signal::KILL);
        })
    }

    fn with(end: impl Fn() + Send + 'static) -> io::Result<Self> {
        let watchdog = Self(Arc::default());
        let shared = watchdog.0.clone();
        std::thread::Builder::new().spawn(move || shared.watch(&end))?;
        Ok(watchdog)
    }

    /// What holds secrets is over `within` this, or within what was said before, until [`Self::wiped`].
    pub(super) fn limit_work(&self, within: Duration) {
        let at = clock::boot().saturating_add(within);
        self.0.set(|limits| limits.work = Some(limits.work.map_or(at, |before| before.min(at))));
    }

    /// The process is gone `within` this, whatever else happens.
    pub(super) fn limit_life(&self, within: Duration) {
        let at = clock::boot().saturating_add(within);
        self.0.set(|limits| limits.life = Some(limits.life.map_or(at, |before| before.min(at))));
    }

    /// Nothing secret is left that a hanging process would keep.
    pub(super) fn wiped(&self) {
        self.0.set(|limits| limits.work = None);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut Limits)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn watch(&self, end: &impl Fn()) {
        let mut limits = self.lock();
        loop {
            let next = limits.work.into_iter().chain(limits.life).min();
            limits = match next.map(|at| at.saturating_sub(clock::boot())) {
                None => self.changed.wait(limits).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return end(),
                // Looked at again each second: the clock that waiting goes by stands still while the machine sleeps.
                Some(left) => {
                    let left = left.min(Duration::from_secs(1));
                    self.changed.wait_timeout(limits, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(3600);

    fn watched() -> (Watchdog, Receiver<()>) {
        let (ended, end) = channel();
        (Watchdog::with(move || ended.send(()).unwrap()).unwrap(), end)
    }

    #[test]
    fn each_limit_ends_it_and_a_later_one_does_not_lengthen_it() {
        for limit in [Watchdog::limit_work, Watchdog::limit_life] {
            let ((watchdog, end), began) = (watched(), clock::boot());
            watchdog.limit_work(LATE);
            watchdog.limit_life(LATE);
            limit(&watchdog, SOON);
            limit(&watchdog, LATE);
            end.recv_timeout(Duration::from_secs(20)).unwrap();
            assert!(clock::boot() - began >= SOON);
        }
    }

    #[test]
    fn what_is_wiped_may_go_on_but_not_beyond_its_life() {
        let (watchdog, end) = watched();
        watchdog.limit_work(SOON * 4);
        watchdog.wiped();
        assert!(end.recv_timeout(SOON * 8).is_err());
        watchdog.limit_life(SOON);
        watchdog.wiped();
        end.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}
