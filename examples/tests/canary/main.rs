//! The canary of glasshouse-provider's tests where a tool's own data goes: through the data path of the real workloads into
//! candle's CPU tensors and a tokenizer's buffers. This executable is the owner, the agent and every segment.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test")]

#[path = "../../../glasshouse-provider/tests/canary/allocator.rs"]
mod allocator;
#[path = "../../../glasshouse-provider/tests/canary/barrier.rs"]
mod barrier;
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
use rustix::process::Signal;

use ways::{Way, wiped};

fn main() {
    let registry = Registry::new()
        .workload(planted::Planted::default)
        .attestor(EvidenceKind::Software, |_: &SegmentContext| Ok(support::Parrot))
        .zeroizer(|device| (device == Device::Cpu).then(barrier::Halting::new));
    serve_if_launched(registry);
    support::main(&[
        ("the_allocator_is_in_place", ways::the_allocator_is_in_place),
        ("return", || wiped("return", Way::default())),
        ("error", || wiped("error", Way::default())),
        ("panic", || wiped("panic", Way::default())),
        ("sigterm", || wiped("sigterm", Way { signal: Some(Signal::TERM), ..Way::default() })),
        ("without_wiping_it_is_found", ways::without_wiping_it_is_found),
    ]);
}
