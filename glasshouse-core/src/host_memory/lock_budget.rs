//! How much of what a process may lock one part of it takes.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::reserved::Reserved;

/// Bytes that may still be locked; nothing where there is no limit.
pub(super) struct LockBudget(Option<AtomicUsize>);

impl LockBudget {
    /// One of so many parts of the limit.
    pub(super) fn part(reserved: &Reserved, parts: usize) -> Self {
        Self(reserved.lock_limit().map(|limit| AtomicUsize::new(limit.checked_div(parts).unwrap_or(0))))
    }

    /// Locks pages as they are touched. What the kernel refuses stays in the budget.
    pub(super) fn lock(&self, reserved: &Reserved, offset: usize, bytes: usize) -> bool {
        let allotted = |left: &AtomicUsize| left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(bytes)).is_ok();
        if !self.0.as_ref().is_none_or(allotted) {
            return false;
        }
        let locked = reserved.lock(offset, bytes);
        if !locked {
            self.give_back(bytes);
        }
        locked
    }

    /// Where there is no limit, closing pages unlocks them, and nothing else does.
    pub(super) fn unlock(&self, reserved: &Reserved, offset: usize, bytes: usize) {
        if self.0.is_some() {
            reserved.unlock(offset, bytes);
            self.give_back(bytes);
        }
    }

    /// What is left; all there can be where there is no limit.
    pub(super) fn left(&self) -> usize {
        self.0.as_ref().map_or(usize::MAX, |left| left.load(Relaxed))
    }

    fn give_back(&self, bytes: usize) {
        if let Some(left) = &self.0 {
            left.fetch_add(bytes, Relaxed);
        }
    }
}
