//! A canary planted in a package, looked for in the segment's process while it trains and after it was zeroized, for each
//! way out. This executable is the owner, the agent and every segment.
#![cfg(target_os = "linux")]
// Without the usual harness this is no `cfg(test)` code to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod allocator;
mod barrier;
mod large;
mod planted;
mod scan;
#[allow(dead_code, unreachable_pub)] // shared with the runs
#[path = "../runs/support.rs"]
mod support;
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
    support::main(ways::TESTS);
}
