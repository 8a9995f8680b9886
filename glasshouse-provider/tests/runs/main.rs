//! Whole runs over real processes and sockets. This executable is the owner, the agent and every segment.

// Without the usual harness this is no `cfg(test)` code to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod agent;
mod kills;
mod local;
mod supervisor;
mod support;
mod whole;

use glasshouse_provider::serve_if_launched;

fn main() {
    serve_if_launched(support::registry());
    if let Some(folder) = std::env::args().skip_while(|argument| argument != kills::OWNER).nth(1) {
        return kills::owner(folder.as_ref());
    }
    let tests = [whole::TESTS, local::TESTS, agent::TESTS, supervisor::TESTS, kills::TESTS].concat();
    support::main(&tests);
}
