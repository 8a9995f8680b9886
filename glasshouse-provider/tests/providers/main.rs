//! The backends against fakes that speak their providers' documented HTTP, and against a real Slurm.

// Helpers outside of `#[test]` functions are no tests to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing)]

#[path = "../fakes/mod.rs"]
mod fakes;
mod killed;
mod memory;
mod owner;
mod runpod;
mod supervised;
mod vast;

use std::collections::BTreeMap;
use std::time::Duration;

use glasshouse_core::contract::ProviderCase;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{LaunchSpec, OfferFilter};
use glasshouse_provider::Pacing;

/// Quick enough for tests, with every rule still in force.
const PACING: Pacing = Pacing {
    spacing: Duration::from_millis(2),
    tries: 4,
    first_pause: Duration::from_millis(4),
    longest_wait: Duration::from_secs(2),
    timeout: Duration::from_secs(5),
};

fn spec(name: &str) -> LaunchSpec {
    LaunchSpec {
        name: name.to_owned(),
        image: Some("example/trainer:1".to_owned()),
        image_digest: Some(Fixed([7; 32])),
        launch_secret: Secret::take(&mut [9; 32]),
        gate_key: Fixed([1; 32]),
        linger: Duration::from_secs(60),
        env: BTreeMap::from([("MODE".to_owned(), "it's \"quoted\"".to_owned())]),
        disk_gib: Some(30),
        time_limit: Some(Duration::from_secs(3600)),
    }
}

fn case(name: &str, filter: OfferFilter) -> ProviderCase {
    ProviderCase { filter, launch: spec(name), poll: Duration::from_millis(10), patience: Duration::from_secs(5) }
}
