//! The runtime's state, shared between the session runner that moves it and the attestor that reports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use glasshouse_core::claims::RuntimeState;

/// A shared handle on the state. It only ever moves forward: a runtime that has held a key can never say `ready` again.
#[derive(Clone, Debug)]
pub struct RuntimeStateCell(Arc<AtomicU8>);

impl RuntimeStateCell {
    /// A fresh runtime, `ready`.
    pub fn new() -> Self {
        Self(Arc::new(AtomicU8::new(rank(RuntimeState::Ready))))
    }

    /// Moves to a later state; an earlier one changes nothing. Returns the state that now holds.
    pub fn enter(&self, state: RuntimeState) -> RuntimeState {
        self.0.fetch_max(rank(state), Ordering::SeqCst);
        self.current()
    }

    /// The state now.
    pub fn current(&self) -> RuntimeState {
        match self.0.load(Ordering::SeqCst) {
            0 => RuntimeState::Ready,
            1 => RuntimeState::Training,
            2 => RuntimeState::Zeroizing,
            3 => RuntimeState::Zeroized,
            _ => RuntimeState::Failed,
        }
    }
}

impl Default for RuntimeStateCell {
    fn default() -> Self {
        Self::new()
    }
}

/// `Failed` comes last: what happens after a failure does not undo it, and whether it wiped is in the receipt.
const fn rank(state: RuntimeState) -> u8 {
    match state {
        RuntimeState::Ready => 0,
        RuntimeState::Training => 1,
        RuntimeState::Zeroizing => 2,
        RuntimeState::Zeroized => 3,
        RuntimeState::Failed => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use RuntimeState::{Failed, Ready, Training, Zeroized, Zeroizing};

    #[test]
    fn forward_only() {
        let cell = RuntimeStateCell::new();
        let other = cell.clone();
        assert_eq!(cell.current(), Ready);
        for (to, then) in [(Training, Training), (Ready, Training), (Zeroizing, Zeroizing), (Zeroized, Zeroized)] {
            assert_eq!(cell.enter(to), then);
            assert_eq!(other.current(), then);
        }
        assert_eq!(cell.enter(Failed), Failed);
        assert_eq!(cell.enter(Ready), Failed);
    }
}
