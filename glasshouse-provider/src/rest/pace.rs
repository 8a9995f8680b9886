use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// When each endpoint may be asked next. Shared by everything that uses one provider, so that a `Retry-After` that one
/// task is told holds the others back too.
#[derive(Default)]
pub(super) struct Pace(Mutex<BTreeMap<&'static str, Instant>>);

impl Pace {
    /// Waits for this endpoint's turn and takes it; or says how far off it is, when that is further than `longest`.
    pub(super) async fn turn(
        &self,
        endpoint: &'static str,
        spacing: Duration,
        longest: Duration,
    ) -> Result<(), Duration> {
        let at = {
            let mut next = self.lock();
            let now = Instant::now();
            let slot = next.entry(endpoint).or_insert(now);
            let at = (*slot).max(now);
            let wait = at.saturating_duration_since(now);
            if wait > longest {
                return Err(wait);
            }
            *slot = at.checked_add(spacing).unwrap_or(at);
            at
        };
        sleep_until(at).await;
        Ok(())
    }

    /// Nobody asks this endpoint before `wait` is over.
    pub(super) fn hold(&self, endpoint: &'static str, wait: Duration) {
        let mut next = self.lock();
        let now = Instant::now();
        let until = now.checked_add(wait).unwrap_or(now);
        let slot = next.entry(endpoint).or_insert(until);
        *slot = (*slot).max(until);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Instant>> {
        // One insert at a time: a panic elsewhere leaves no half state behind.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn turns_are_spaced_and_held() {
        let pace = Pace::default();
        let began = Instant::now();
        for _ in 0..3 {
            pace.turn("a", Duration::from_millis(20), SECOND).await.unwrap();
        }
        assert!(began.elapsed() >= Duration::from_millis(40));
        pace.hold("b", Duration::from_millis(30));
        let began = Instant::now();
        pace.turn("c", Duration::ZERO, SECOND).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(25), "another endpoint was held back");
        pace.turn("b", Duration::ZERO, SECOND).await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(29));
        // A provider that asks for two hours must not hold up what has an end of its own.
        pace.hold("d", 7200 * SECOND);
        assert!(pace.turn("d", Duration::ZERO, SECOND).await.unwrap_err() > 7000 * SECOND);
    }
}
