//! How long zeroization takes without a GPU: what a workload held is let go of and wiped, what was handed over is wiped and
//! read back, and the receipt is made.
//!
//! ```text
//! cargo test --release -p glasshouse-core --test zeroize_time -- --nocapture    # the figures of notes/zeroization.md
//! ```
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test

use std::time::{Duration, Instant};

use glasshouse_core::host_memory::{HostZeroizer, ZeroOnFree};
use glasshouse_core::secret::{Secret, SecretBuffer};
use glasshouse_core::traits::{SecretRegion, Zeroizer as _};

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

const RUNS: usize = 21;
/// What the issue allows.
const LIMIT: Duration = Duration::from_millis(100);

/// Lets go of so much plaintext as package bytes, as much in tensors of the program's own and as much that was handed
/// over, with its data key. Gives the median time.
fn median(bytes: usize) -> Duration {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let package = SecretBuffer::new(vec![0xa5; bytes]);
            let tensors: Vec<Vec<f32>> = (0..16).map(|_| vec![1.5; bytes / 64]).collect();
            let mut zeroizer = HostZeroizer::new();
            zeroizer.track_key("data key", Secret::<32>::random().unwrap());
            let region = vec![1.5_f32; bytes / 4].into_boxed_slice();
            zeroizer.track(SecretRegion { label: "optimizer".to_owned(), target: Box::new(region) });
            let began = Instant::now();
            drop((package, tensors));
            let receipt = zeroizer.zeroize().unwrap();
            let took = began.elapsed();
            assert_eq!(receipt.regions.len(), 2);
            took
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2]
}

#[test]
fn zeroization_takes_less_than_a_tenth_of_a_second() {
    // Unoptimized code of this crate takes several times as long.
    let sizes: &[usize] = if cfg!(debug_assertions) { &[64, 1024] } else { &[64, 1024, 16 << 10, 64 << 10] };
    for kib in sizes {
        let took = median(kib << 10);
        println!("{kib} KiB in each of three places: {took:.2?} (median of {RUNS})");
        // The largest is for the notes: on a machine that does much else it is a matter of that.
        assert!(took < LIMIT || *kib > 16 << 10, "{kib} KiB: {took:?}");
    }
}
