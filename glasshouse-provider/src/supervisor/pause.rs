//! Waiting between two looks: by chance, so that owners who failed together do not come back together, and never shorter
//! than the provider asks for.

use std::time::Duration;

use glasshouse_core::fixed::Fixed;
use glasshouse_core::traits::ProviderError;
use tokio::time::Instant;

/// Waits about `base`, or as long as `error` asks for, and not beyond `until`.
pub(super) async fn pause(base: Duration, error: Option<&ProviderError>, until: Instant) {
    let wait = jittered(base).max(error.and_then(asked_wait).unwrap_or_default());
    let wake = Instant::now().checked_add(wait).map_or(until, |wake| wake.min(until));
    tokio::time::sleep_until(wake).await;
}

/// So far from now; very far, where that is more than clocks hold.
pub(super) fn from_now(wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
    let now = Instant::now();
    now.checked_add(wait).or_else(|| now.checked_add(FAR)).unwrap_or(now)
}

/// What `Retry-After` said.
pub(super) const fn asked_wait(error: &ProviderError) -> Option<Duration> {
    match error {
        ProviderError::RateLimited { retry_after, .. } => *retry_after,
        _ => None,
    }
}

/// From three quarters to five quarters of it.
fn jittered(base: Duration) -> Duration {
    let chance = Fixed::<2>::random().map_or(u16::MAX, |bytes| u16::from_be_bytes(bytes.0));
    base.mul_f64(0.75 + 0.5 * f64::from(chance) / f64::from(u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn as_asked_as_set_and_not_beyond_the_end() {
        let second = Duration::from_secs(1);
        let took = async |error: Option<ProviderError>, limit: Duration| {
            let began = Instant::now();
            pause(second, error.as_ref(), began + limit).await;
            began.elapsed()
        };
        let limited = |retry_after| ProviderError::RateLimited { provider: "p", call: "observe", retry_after };
        let usual = took(None, 60 * second).await;
        assert!(usual >= second * 3 / 4 && usual <= second * 5 / 4 + Duration::from_millis(1), "{usual:?}");
        assert!(took(Some(limited(Some(7 * second))), 60 * second).await >= 7 * second);
        assert!(took(Some(limited(None)), 60 * second).await < 2 * second);
        let cut = took(Some(limited(Some(70 * second))), 60 * second).await;
        assert!(cut <= 60 * second + Duration::from_millis(1), "{cut:?}");
    }
}
