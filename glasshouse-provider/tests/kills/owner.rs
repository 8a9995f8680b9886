//! The owner of a case: a protected run in a process of its own.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::gate::FileGateStore;
use glasshouse_core::job::Budget;
use glasshouse_core::overhead::Order;
use glasshouse_core::protocol::{ResultKey, SigningSecret};
use glasshouse_core::secret::Secret;
use glasshouse_provider::LocalProvider;
use glasshouse_provider::client::ClientError;
use glasshouse_provider::run::{Gate, OverheadRun, ProtectedRun, RunBuilder, RunError, RunEvent, RunFailure};
use glasshouse_provider::supervisor::SupervisorError;
use glasshouse_provider::wire::WireCode;
use serde::{Deserialize, Serialize};

use crate::hooks::{STOP, StagedStore, stop_at};
use crate::support::{FIXED_MEASUREMENT, Listener, block_on, container, seal};
use crate::tap::{self, tap};
use crate::tapped::Tapped;

/// Makes this executable the owner of the case in the folder that follows.
pub(crate) const ARGUMENT: &str = "--owner";
pub(crate) const WARM_UP: u64 = 4;
pub(crate) const UNITS: u64 = 40;
/// What every process of a case says that it measured: hashing this executable for each would be most of the time.
pub(crate) const MEASUREMENT: Digest32 = Fixed(FIXED_MEASUREMENT);

/// How the owner's run ended, as it tells the table.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ended {
    pub(crate) kind: String,
    pub(crate) says: String,
}

pub(crate) fn main(folder: &Path) {
    let ended = match std::env::var(STOP).is_ok_and(|step| step.starts_with("raw-")) {
        true => ended(block_on(composed(OverheadRun::builder(), folder).order(Order::RawFirst).repeats(1).run())),
        false => ended(block_on(composed(ProtectedRun::builder(), folder).run())),
    };
    std::fs::write(folder.join("ended.json"), serde_json::to_vec(&ended).unwrap()).unwrap();
}

fn composed<K>(builder: RunBuilder<K>, folder: &Path) -> RunBuilder<K> {
    let (path, sealed) = seal(folder, "");
    builder
        .on_event(|event| {
            if matches!(event, RunEvent::Reported { .. }) {
                tap::REPORTED.store(true, Ordering::SeqCst);
            }
        })
        .provider(Tapped::new(LocalProvider::new().container(container()).port(port()), tap, || stop_at("shutdown")))
        .verifier(Listener { refuse: false })
        .gate(staged_gate(&folder.join("gate")))
        .package(path, sealed)
        .out_dir(folder.join("out"))
        .runtime_measurement(MEASUREMENT)
        .warmup_units(WARM_UP)
        .budget(Budget::Units(UNITS))
        .progress_every(Duration::from_millis(5))
}

/// A port of this case's own, below those that the kernel gives out: after the agent is killed nobody else's agent has it.
fn port() -> u16 {
    let mut ports = (std::process::id()..).map(|number| 23_000 + (number % 8_000) as u16);
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

fn ended<R: std::fmt::Debug>(result: Result<R, RunFailure<R>>) -> Ended {
    match result {
        Ok(_) => Ended { kind: "ok".to_owned(), says: String::new() },
        Err(failure) => Ended { kind: kind(&failure.error).to_owned(), says: failure.error.to_string() },
    }
}

/// What a tool would match on.
fn kind(error: &RunError) -> &'static str {
    match error {
        RunError::SegmentLost { .. } => "segment-lost",
        RunError::AgentLost { .. } | RunError::Client(ClientError::Unreachable { .. }) => "unreachable",
        RunError::Client(ClientError::Refused { error, .. }) if error.code == WireCode::SegmentEnded => "segment-ended",
        RunError::Supervisor(SupervisorError::EndedEarly { .. }) => "ended-early",
        _ => "another",
    }
}

/// The gate of a folder, with a memory that stops where it is told to.
fn staged_gate(folder: &Path) -> Gate {
    // Makes the keys; the store is locked by one owner at a time, so this one goes first.
    drop(Gate::open(folder).unwrap());
    let (signing, result) = keys(folder);
    let store = FileGateStore::open(folder.join("gate.store")).unwrap();
    Gate::from_parts(signing, result, Arc::new(StagedStore(store)))
}

/// The keys in a gate's folder.
pub(crate) fn keys(folder: &Path) -> (SigningSecret, ResultKey) {
    let read = |name: &str| {
        let mut bytes: [u8; 32] = std::fs::read(folder.join(name)).unwrap().try_into().unwrap();
        Secret::take(&mut bytes)
    };
    (SigningSecret::from_seed(read("gate.key")), ResultKey::from_private(read("result.key")).unwrap())
}
