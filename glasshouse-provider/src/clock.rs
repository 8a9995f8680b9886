//! The one place where this crate reads clocks: sessions take time as an argument.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use glasshouse_core::clock::{Now, UnixMillis};
use rustix::time::{ClockId, clock_gettime};

/// The wall clock and `CLOCK_BOOTTIME`, which goes on while the machine sleeps.
pub(crate) fn now() -> Now {
    Now { wall: wall(), boot: boot() }
}

/// Time since boot.
pub(crate) fn boot() -> Duration {
    let at = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(at.tv_sec).unwrap_or(0), u32::try_from(at.tv_nsec).unwrap_or(0))
}

/// What tells this boot of this machine from any other; absent where the kernel does not say.
pub(crate) fn boot_id() -> Option<&'static str> {
    static ID: OnceLock<Option<String>> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|id| id.trim().to_owned());
    ID.get_or_init(read).as_deref()
}

/// Time since boot, microseconds.
pub(crate) fn boot_micros() -> u64 {
    u64::try_from(boot().as_micros()).unwrap_or(u64::MAX)
}

/// The wall clock; zero on a machine set before 1970, which every staleness check then refuses.
pub(crate) fn wall() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::since_epoch(since)
}

/// The wall clock as it stood once, and the boot clock since: times that are compared with each other are told by one of
/// these, so that nobody who sets the machine's clock meanwhile puts them in another order.
pub(crate) struct Steady {
    wall: UnixMillis,
    boot: Duration,
}

impl Steady {
    /// From now on.
    pub(crate) fn new() -> Self {
        Self { wall: wall(), boot: boot() }
    }

    pub(crate) fn wall(&self) -> UnixMillis {
        self.wall.after(boot().saturating_sub(self.boot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_clock_goes_on_from_where_it_began() {
        let an_hour_ago = Steady { wall: UnixMillis(5_000), boot: boot().saturating_sub(Duration::from_secs(3600)) };
        let now = an_hour_ago.wall().0;
        assert!((3_605_000..3_665_000).contains(&now), "{now}");
        assert!(Steady::new().wall().abs_diff(wall()) < Duration::from_secs(60));
    }

    #[test]
    fn boot_goes_on() {
        let before = boot();
        std::thread::sleep(Duration::from_millis(3));
        assert!(boot() >= before + Duration::from_millis(3));
    }
}
