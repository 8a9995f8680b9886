//! How long zeroization takes without a GPU: what a workload held is let go of and wiped, what was handed over is wiped and
//! read back, and the receipt is made.
//!
//! ```text
//! cargo test --release -p glasshouse-core --test zeroize_time -- --nocapture    # the figures of notes/zeroization.md
//! ```
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test
#![allow(unsafe_code)] // the thread's own clock

use std::time::{Duration, Instant};

use glasshouse_core::host_memory::{HostZeroizer, ZeroOnFree};
use glasshouse_core::secret::{Secret, SecretBuffer};
use glasshouse_core::traits::{SecretRegion, Zeroizer as _};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

const RUNS: usize = 21;
/// What the issue allows. Held against this thread's time of the processor, in the middle of all runs, and against the wall, in
/// the best one: what else passes there is a matter of what the machine does, but no run is quicker than what sleeps, or lets
/// other threads work.
const LIMIT: Duration = Duration::from_millis(100);

/// Lets go of so much plaintext as package bytes, as much in tensors of the program's own and as much that was handed
/// over, with its data key. Gives the times on the wall and of the processor, from the best to the worst.
fn times(bytes: usize) -> [Vec<Duration>; 2] {
    let times: Vec<_> = (0..RUNS)
        .map(|_| {
            let package = SecretBuffer::new(vec![0xa5; bytes]);
            let tensors: Vec<Vec<f32>> = (0..16).map(|_| vec![1.5; bytes / 64]).collect();
            let mut zeroizer = HostZeroizer::new();
            zeroizer.track_key("data key", Secret::<32>::random().unwrap());
            let region = vec![1.5_f32; bytes / 4].into_boxed_slice();
            zeroizer.track(SecretRegion { label: "optimizer".to_owned(), target: Box::new(region) });
            let (began, used) = (Instant::now(), processor_time());
            drop((package, tensors));
            let receipt = zeroizer.zeroize().unwrap();
            let took = (began.elapsed(), processor_time() - used);
            assert_eq!(receipt.regions.len(), 2);
            took
        })
        .collect();
    let (wall, processor): (Vec<_>, Vec<_>) = times.into_iter().unzip();
    [wall, processor].map(|mut times| {
        times.sort_unstable();
        times
    })
}

/// What this thread has used of it.
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place to write to.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

#[test]
fn zeroization_takes_less_than_a_tenth_of_a_second() {
    // As in a protected segment.
    ZeroOnFree::guard();
    // Unoptimized code of this crate takes several times as long.
    let sizes: &[usize] = if cfg!(debug_assertions) { &[64, 1024] } else { &[64, 1024, 16 << 10, 64 << 10] };
    for kib in sizes {
        let [walls, processor] = times(kib << 10);
        let (best, wall, processor) = (walls[0], walls[RUNS / 2], processor[RUNS / 2]);
        println!("{kib} KiB in each of three places: {wall:.2?}, {processor:.2?} of a processor (medians of {RUNS})");
        assert!(processor < LIMIT, "{kib} KiB: {processor:?} of a processor");
        assert!(best < LIMIT, "{kib} KiB: {best:?} on the wall at the best");
    }
}
