//! Whole runs over real processes and sockets. This executable is the owner, the agent and every segment.

// Without the usual harness this is no `cfg(test)` code to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod agent;
mod cleartext;
mod contract;
mod durable;
#[path = "../fakes/mod.rs"]
mod fakes;
mod faults;
mod grant;
mod hostile;
mod interrupt;
mod local;
#[path = "../kills/relay.rs"]
mod relay;
mod rented;
mod storms;
mod strangers;
mod supervisor;
mod support;
#[path = "../kills/tapped.rs"]
mod tapped;
mod whole;

use glasshouse_provider::serve_if_launched;

fn main() {
    glasshouse_provider::contract::serve_if_launched();
    serve_if_launched(local::helpers(support::registry()));
    let told = |role| std::env::args().skip_while(move |argument| argument != role).nth(1);
    if let Some(folder) = told(interrupt::OWNER) {
        return interrupt::owner(folder.as_ref());
    }
    if let Some(folder) = told(storms::machine::OWNER) {
        return storms::machine::owner(folder.as_ref());
    }
    if let Some(folder) = told(storms::SECOND) {
        return storms::second(folder.as_ref());
    }
    if let Some(folder) = told(durable::GATES) {
        return durable::gates(folder.as_ref());
    }
    let agents = [local::TESTS, agent::TESTS, faults::TESTS, strangers::TESTS].concat();
    let runs = [whole::TESTS, cleartext::TESTS, grant::TESTS, durable::TESTS, hostile::TESTS, storms::TESTS].concat();
    let rentals = [supervisor::TESTS, rented::TESTS, contract::TESTS, interrupt::TESTS].concat();
    let tests = [agents, runs, rentals].concat();
    support::main(&tests);
}
