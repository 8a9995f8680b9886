//! Time as an argument: nothing in this crate reads a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far a wall clock may go back within one session before it is taken to be under attack, or the session beyond
/// telling. Time daemons step by less.
pub(crate) const WALL_TOLERANCE: Duration = Duration::from_secs(120);

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// The distance to another instant, in either direction.
    pub fn abs_diff(self, other: Self) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// Whether a clock that said `earlier` before has gone back by more than time daemons do.
    pub(crate) fn is_set_back_from(self, earlier: Self) -> bool {
        self.after(WALL_TOLERANCE) < earlier
    }

    /// The time so long after 1970, stopping at the end of time.
    pub fn since_epoch(time: Duration) -> Self {
        Self(0).after(time)
    }

    /// Later by `by`, stopping at the end of time.
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl fmt::Display for UnixMillis {
    /// RFC 3339 with seconds, UTC. Days to civil date as in Howard Hinnant's `civil_from_days`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1000;
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let z = days.saturating_add(719_468);
        let era = z / 146_097;
        let doe = z % 146_097;
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let (h, m, s) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}Z")
    }
}

/// What a session is told of time on every call.
///
/// `boot` must never run backwards and must go on counting while the machine sleeps (`CLOCK_BOOTTIME`): deadlines and
/// lease TTLs rest on it. `wall` may jump; it is compared only with stated skew and `not_after`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Wall clock.
    pub wall: UnixMillis,
    /// Time since boot, or since any fixed origin.
    pub boot: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_minutes_back_is_a_step_and_more_is_not() {
        let earlier = UnixMillis(1_000_000);
        for (later, set_back) in [(1_000_000, false), (2_000_000, false), (880_000, false), (879_999, true), (0, true)]
        {
            assert_eq!(UnixMillis(later).is_set_back_from(earlier), set_back, "{later}");
        }
    }

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_417_080, "2026-11-23T06:58:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
        ] {
            assert_eq!(UnixMillis(seconds * 1000).to_string(), text);
        }
    }
}
