//! The lease as the runtime holds itself to it.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(test, allow(clippy::arithmetic_side_effects))]

use std::time::Duration;

use crate::clock::{Now, UnixMillis};
use crate::protocol::Lease;
use crate::refusal::{Code, Refusal};

/// Says whether the key may be used. Checked before the release is opened, before the package is, and before every stretch
/// of work.
///
/// Its clocks start when the runtime attested, not when the release came: whoever carries the release cannot lengthen the
/// lease by holding it back, nor by setting the wall clock back meanwhile.
#[derive(Clone, Debug)]
pub struct LeaseGuard {
    lease: Lease,
    began: Duration,
    latest_wall: UnixMillis,
}

impl LeaseGuard {
    /// `attested` is the runtime's own time of the evidence that the release answers.
    pub(super) fn new(lease: Lease, attested: Now) -> Self {
        Self { lease, began: attested.boot, latest_wall: attested.wall }
    }

    /// The lease.
    pub const fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How many of `wanted` more units the lease still allows after `done`.
    pub fn allowance(&self, done: u64, wanted: u64) -> u64 {
        self.lease.max_units.map_or(wanted, |max| wanted.min(max.saturating_sub(done)))
    }

    /// How much of it is left, by the clock that is through with it first. The wall clock may be changed later on.
    pub fn left(&self, now: Now) -> Duration {
        let by_boot = Duration::from_millis(self.lease.ttl_millis).saturating_sub(now.boot.saturating_sub(self.began));
        by_boot.min(Duration::from_millis(self.lease.not_after.0.saturating_sub(now.wall.0)))
    }

    /// Checks the lease with `done` units of training behind it.
    ///
    /// # Errors
    /// `lease-expired` by TTL on the boot clock or by `not_after` on the wall clock; `lease-steps-exhausted`;
    /// `clock-set-back` when the wall clock went back by more than time daemons do.
    pub fn check(&mut self, done: u64, now: Now) -> Result<(), Refusal> {
        let lease = &self.lease;
        let age = now.boot.saturating_sub(self.began);
        if age > Duration::from_millis(lease.ttl_millis) {
            let expected = format!("at most {} s since the evidence", lease.ttl_millis / 1000);
            return Err(Refusal::new(Code::LEASE_EXPIRED, expected, format!("{} s", age.as_secs())));
        }
        if now.wall.is_set_back_from(self.latest_wall) {
            let expected = format!("a clock not before {}", self.latest_wall);
            return Err(Refusal::new(Code::CLOCK_SET_BACK, expected, now.wall));
        }
        self.latest_wall = self.latest_wall.max(now.wall);
        if now.wall > lease.not_after {
            return Err(Refusal::new(Code::LEASE_EXPIRED, format!("a time up to {}", lease.not_after), now.wall));
        }
        if let Some(max) = lease.max_units.filter(|max| done >= *max) {
            return Err(Refusal::new(Code::LEASE_STEPS, format!("fewer than {max} units"), done));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixed::Digest48;

    fn at(wall_s: u64, boot_s: u64) -> Now {
        Now { wall: UnixMillis(wall_s * 1000), boot: Duration::from_secs(boot_s) }
    }

    fn guard(ttl_s: u64, max: Option<u64>) -> LeaseGuard {
        let lease = Lease::new(Digest48::from([0; 48]), UnixMillis(1_000_000), Duration::from_secs(ttl_s), max);
        LeaseGuard::new(lease, at(1000, 50))
    }

    fn code(result: Result<(), Refusal>) -> Code {
        result.unwrap_err().code
    }

    #[test]
    fn both_clocks_end_it() {
        let mut lease = guard(60, None);
        assert!(lease.check(5, at(1060, 110)).is_ok());
        assert_eq!(code(lease.check(5, at(1000, 111))), Code::LEASE_EXPIRED);
        assert_eq!(code(lease.check(5, at(1061, 60))), Code::LEASE_EXPIRED);
    }

    #[test]
    fn what_is_left_is_what_the_first_clock_leaves() {
        let lease = guard(60, None);
        assert_eq!(lease.left(at(1000, 50)), Duration::from_secs(60));
        assert_eq!(lease.left(at(1000, 70)), Duration::from_secs(40));
        assert_eq!(lease.left(at(1050, 70)), Duration::from_secs(10));
        assert_eq!(lease.left(at(2000, 50)), Duration::ZERO);
        assert_eq!(lease.left(at(1000, 500)), Duration::ZERO);
    }

    #[test]
    fn a_clock_set_back_does_not_lengthen_it() {
        let mut lease = guard(600, None);
        assert!(lease.check(0, at(1500, 100)).is_ok());
        assert!(lease.check(0, at(1400, 101)).is_ok());
        assert_eq!(code(lease.check(0, at(1379, 102))), Code::CLOCK_SET_BACK);
    }

    #[test]
    fn steps_end_it() {
        let mut lease = guard(60, Some(10));
        assert_eq!(lease.allowance(8, 5), 2);
        assert!(lease.check(9, at(1000, 50)).is_ok());
        assert_eq!(code(lease.check(10, at(1000, 50))), Code::LEASE_STEPS);
    }
}
