//! How often progress is sent. Every event's signed header stays in the record, which has a largest size: so the longer a
//! segment trains, the less often it speaks, and the owner asks for no more than its record holds.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::time::Duration;

/// So many events come at the interval that was asked for; later ones at this fraction of the time that went by.
const STEADY: u32 = 2048;

/// Time between two events of a segment that has trained for so long: 500 ms stay 500 ms for 17 minutes, and are 42 s
/// after a day.
pub(crate) fn interval(every: Duration, elapsed: Duration) -> Duration {
    every.max(elapsed.checked_div(STEADY).unwrap_or(elapsed))
}

/// The shortest interval to ask for when a segment may train for `longest` and send `most` events.
///
/// [`interval`] makes `n = STEADY * (1 + ln(longest / (STEADY * every)))` of them once `longest` is beyond
/// `STEADY * every`, and `longest / every` before.
pub(crate) fn shortest(longest: Duration, most: usize) -> Duration {
    let (most, steady) = (u32::try_from(most).unwrap_or(u32::MAX).max(1), f64::from(STEADY));
    let least = match most <= STEADY {
        true => longest.as_secs_f64() / f64::from(most),
        false => longest.as_secs_f64() / (steady * (f64::from(most) / steady - 1.0).exp()),
    };
    Duration::try_from_secs_f64(least).unwrap_or(longest)
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    /// As a segment sends it.
    fn events(every: Duration, longest: Duration) -> usize {
        let (mut at, mut events) = (Duration::ZERO, 0);
        while at < longest {
            at += interval(every, at);
            events += 1;
        }
        events
    }

    #[test]
    fn the_longest_run_sends_what_was_allowed() {
        let hour = Duration::from_secs(3600);
        for (longest, most) in [(hour, 500), (hour, 2048), (24 * hour, 4600), (90 * 24 * hour, 36_000), (hour, 36_000)]
        {
            let every = shortest(longest, most).max(Duration::from_micros(100));
            let sent = events(every, longest);
            assert!(sent <= most + most / 100 + 2, "{sent} of {most} in {longest:?} every {every:?}");
        }
    }

    #[test]
    fn what_people_run_is_told_as_often_as_they_asked() {
        let (every, hour) = (Duration::from_millis(500), Duration::from_secs(3600));
        assert!(shortest(30 * 24 * hour, 36_000) < every && shortest(hour, 5000) <= every);
        assert_eq!(interval(every, Duration::from_secs(1000)), every);
        assert!(events(every, 24 * hour) < 12_000 && events(every, 365 * 24 * hour) < 25_000);
        assert_eq!(shortest(Duration::MAX, 0), Duration::MAX);
    }
}
