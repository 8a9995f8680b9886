//! Whole runs over real processes and sockets. This executable is the owner, the agent and every segment.

// Without the usual harness this is no `cfg(test)` code to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod agent;
mod faults;
mod hostile;
mod interrupt;
mod local;
#[path = "../kills/relay.rs"]
mod relay;
mod strangers;
mod supervisor;
mod support;
#[path = "../kills/tapped.rs"]
mod tapped;
mod whole;

use glasshouse_provider::serve_if_launched;

fn main() {
    serve_if_launched(support::registry());
    if let Some(folder) = std::env::args().skip_while(|argument| argument != interrupt::OWNER).nth(1) {
        return interrupt::owner(folder.as_ref());
    }
    let agents = [local::TESTS, agent::TESTS, faults::TESTS, strangers::TESTS].concat();
    let runs = [whole::TESTS, hostile::TESTS, supervisor::TESTS, interrupt::TESTS].concat();
    let tests = [agents, runs].concat();
    support::main(&tests);
}
