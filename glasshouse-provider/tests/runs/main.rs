//! Whole runs over real processes and sockets. This executable is the owner, the agent and every segment.

// Without the usual harness this is no `cfg(test)` code to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod agent;
mod faults;
mod interrupt;
mod local;
#[path = "../kills/relay.rs"]
mod relay;
mod supervisor;
mod support;
mod whole;

use glasshouse_provider::serve_if_launched;

fn main() {
    serve_if_launched(support::registry());
    if let Some(folder) = std::env::args().skip_while(|argument| argument != interrupt::OWNER).nth(1) {
        return interrupt::owner(folder.as_ref());
    }
    let tests = [whole::TESTS, local::TESTS, agent::TESTS, faults::TESTS, supervisor::TESTS, interrupt::TESTS].concat();
    support::main(&tests);
}
