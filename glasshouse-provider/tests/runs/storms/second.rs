//! Others who take themselves for the owner of a run: a second process of the same tool in the same folder, someone at the
//! agent's door with another secret, and someone there with the right one.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::fixed::Fixed;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::Endpoint;
use glasshouse_core::transcript::sha384;
use glasshouse_provider::client::AgentClient;
use glasshouse_provider::run::{Gate, ProtectedRun};
use glasshouse_provider::wire::{SegmentId, SegmentMode, StartSegment, WireCode};
use glasshouse_provider::{MemoryProvider, memory};

use super::net::{Rng, Storm};
use crate::support::block_on;
use crate::whole::composed;

/// Makes this executable a second owner in the folder that follows.
pub(crate) const SECOND: &str = "--second-owner";

/// Says what it is refused with, gate and run.
pub(crate) fn second(folder: &Path) {
    let out = folder.join("out");
    let gate = Gate::open(&Gate::folder_in(&out)).map(drop).map_err(|error| error.to_string());
    // Where it gets through, the first owner is gone: nothing may run then.
    let nothing_left = MemoryProvider::new().fault(memory::Call::Create, vec![memory::Fault::NoCapacity; 9]);
    let own = tempfile::tempdir().unwrap();
    let run = composed(ProtectedRun::builder(), own.path(), "").provider(nothing_left).out_dir(&out);
    let run = run.runtime_measurement(Fixed([7; 32])).leave_signals();
    let run = block_on(run.run()).map(drop).map_err(|failure| failure.to_string());
    println!("{}", serde_json::to_string(&[gate.err(), run.err()]).unwrap());
}

/// How others fared at the agent's door.
#[derive(Default)]
pub(super) struct Knocks {
    /// Refused, without the launch secret.
    pub(super) refused: AtomicU64,
    /// Answered, with it.
    pub(super) known: AtomicU64,
}

/// Knocks until it is let go of. Whoever has another secret gets nothing at all. Whoever has the right one takes the
/// agent's ear, as the newest owner, and so spoils the run, but gets no key and no result.
pub(super) async fn knock(rng: Rng, agent: SocketAddr, secret: Option<Secret<32>>, storm: &Storm, knocks: &Knocks) {
    let id = SegmentId::new("protected-0").unwrap();
    let endpoint = Endpoint::Direct(agent);
    let stranger = AgentClient::new(&endpoint, &Secret::take(&mut [8; 32])).unwrap();
    tokio::time::sleep(rng.millis(0, 900)).await;
    let knowing = secret.map(|secret| AgentClient::new(&endpoint, &secret).unwrap());
    loop {
        tokio::time::sleep(rng.millis(10, 120)).await;
        let mut overheard = storm.overheard.lock().unwrap().clone();
        let again = (!overheard.is_empty()).then(|| overheard.swap_remove(rng.below(overheard.len())));
        let (who, knowing) = knowing.as_ref().map_or((0, &stranger), |knowing| (rng.below(8), knowing));
        let error = match who {
            0 => stranger.try_hello().await.err(),
            1 => knowing.try_hello().await.err(),
            2 => knowing.start(&another(&id)).await.err(),
            3 => match again {
                Some(("challenge", body)) => knowing.challenge(&id, body).await.err(),
                Some((_, body)) => knowing.release(&id, body).await.err(),
                None => knowing.challenge(&id, b"{}".to_vec()).await.err(),
            },
            4 => knowing.command(&id, b"{}".to_vec()).await.err(),
            5 if rng.chance(20) => knowing.acknowledge(&id, rng.below(4) as u64).await.err(),
            _ => knowing.records(&id, None, Duration::ZERO).await.err(),
        };
        let code = error.as_ref().and_then(|error| error.refused()).map(|refused| refused.code);
        let refused = u64::from(code.is_some_and(|code| code != WireCode::NoSuchSegment));
        match who {
            0 => knocks.refused.fetch_add(refused, SeqCst),
            _ => knocks.known.fetch_add(u64::from(error.is_none() || code.is_some()), SeqCst),
        };
    }
}

/// A segment of the same id for another session.
fn another(id: &SegmentId) -> StartSegment {
    StartSegment {
        id: id.clone(),
        mode: SegmentMode::Protected,
        session: Fixed([5; 32]),
        attestor: EvidenceKind::Software,
        package: sha384(b"another package"),
        job: None,
    }
}
