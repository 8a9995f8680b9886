//! The canary of glasshouse-provider's tests where a tool's own data goes: through the data path of the real workloads into
//! candle's CPU tensors and a tokenizer's buffers. This executable is the owner, the agent and every segment.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

#[path = "../../../glasshouse-provider/tests/canary/allocator.rs"]
mod allocator;
#[path = "../../../glasshouse-provider/tests/canary/barrier.rs"]
mod barrier;
#[path = "../../../glasshouse-provider/tests/canary/large.rs"]
mod large;
mod planted;
#[path = "../../../glasshouse-provider/tests/canary/scan.rs"]
mod scan;
#[allow(dead_code, unreachable_pub)] // shared with the runs of glasshouse-provider
#[path = "../../../glasshouse-provider/tests/runs/support.rs"]
mod support;
#[path = "../../../glasshouse-provider/tests/canary/ways.rs"]
mod ways;

use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::traits::Device;
use glasshouse_provider::{Registry, SegmentContext, serve_if_launched};

fn main() {
    let registry = Registry::new()
        .workload(planted::Planted::default)
        .attestor(EvidenceKind::Software, |_: &SegmentContext| Ok(support::Parrot))
        .zeroizer(|device| (device == Device::Cpu).then(barrier::Halting::new));
    serve_if_launched(registry);
    support::main(&[
        ("the_allocator_is_in_place", ways::the_allocator_is_in_place),
        ("each_way_out", || ways::wiped_two_at_a_time(ways::QUICK)),
        ("each_slow_way_out", each_slow_way_out),
        ("without_wiping_it_is_found", ways::without_wiping_it_is_found),
    ]);
}

/// A busy machine uses up the seconds that are left then, where what trains is real.
fn each_slow_way_out() {
    if std::env::var("GLASSHOUSE_SLOW_TESTS").is_ok_and(|tests| tests == "canary" || tests == "all") {
        return ways::wiped_two_at_a_time(ways::WAITING);
    }
    println!("SKIPPED: set GLASSHOUSE_SLOW_TESTS=canary to see the end of a lease and an owner who is gone (a minute)");
}
