//! Whether this process still has its device, and what may be done with the driver's things once it has not.
#![allow(unsafe_code)] // dropping, or not dropping, what a `ManuallyDrop` holds

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// Set once: no call of the zeroizer's goes to the driver any more.
pub(super) static LET_GO: AtomicBool = AtomicBool::new(false);

/// # Errors
/// In a sentence, once this process has let go of the device.
pub(super) fn is_held() -> Result<(), String> {
    if LET_GO.load(Ordering::SeqCst) { Err("this process has let go of the device".to_owned()) } else { Ok(()) }
}

/// Something whose end calls the driver. A thread that was left behind with it, and comes back after the device was let go
/// of, leaves it as it is: the driver's library works on ordinary memory by then.
pub(super) struct WhileHeld<T> {
    value: ManuallyDrop<T>,
    let_go: &'static AtomicBool,
}

impl<T> WhileHeld<T> {
    /// Of this process's device.
    pub(super) const fn new(value: T) -> Self {
        Self::unless(value, &LET_GO)
    }

    const fn unless(value: T, let_go: &'static AtomicBool) -> Self {
        Self { value: ManuallyDrop::new(value), let_go }
    }
}

impl<T> Deref for WhileHeld<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for WhileHeld<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T> Drop for WhileHeld<T> {
    fn drop(&mut self) {
        if !self.let_go.load(Ordering::SeqCst) {
            // SAFETY: dropped here alone, once, and not used after it.
            unsafe { ManuallyDrop::drop(&mut self.value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_the_driver_made_ends_while_the_device_is_held_and_not_after_it() {
        static LET_GO: AtomicBool = AtomicBool::new(false);
        let seen = Arc::new(());
        drop(WhileHeld::unless(Arc::clone(&seen), &LET_GO));
        assert_eq!(Arc::strong_count(&seen), 1);
        let left = WhileHeld::unless(Arc::clone(&seen), &LET_GO);
        LET_GO.store(true, Ordering::SeqCst);
        drop(left);
        assert_eq!(Arc::strong_count(&seen), 2, "it was dropped");
    }
}
