//! After the release: records on the wire, and the chain of signed events that outlives it.

use glasshouse_core::channel::{ChainVerifier, EventBody, EventHeader, Outcome, SealedRecord};
use glasshouse_core::fixed::Digest48;
use glasshouse_core::gate::{GateError, OwnerSession};
use glasshouse_core::protocol::{Signed, SigningSecret, encode, seal_artifact};
use glasshouse_core::refusal::Code;
use glasshouse_core::transcript::sha384;

use super::world::{World, at, no_randomness, random_digest};
use super::{Attempt, RefusedBy, Scenario, SuiteError};

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "exporter record replayed",
        attacker: "a proxy that stored the sealed records sends one again",
        refused_by: RefusedBy::Channel,
        expected: Code::RECORD_REPLAYED,
        run: |world| {
            on_the_wire(world, |owner, records| {
                owner.records(&records)?;
                owner.records(records.get(..1).unwrap_or_default())
            })
        },
    },
    &Scenario {
        name: "exporter record reordered",
        attacker: "a proxy holds one sealed record back and lets the next pass",
        refused_by: RefusedBy::Channel,
        expected: Code::RECORD_REORDERED,
        run: |world| on_the_wire(world, |owner, records| owner.records(records.get(1..).unwrap_or_default())),
    },
    &Scenario {
        name: "exporter record forged",
        attacker: "a proxy gives a later record an earlier number",
        refused_by: RefusedBy::Channel,
        expected: Code::RECORD_FORGED,
        run: |world| {
            on_the_wire(world, |owner, records| {
                let renumbered: Vec<_> =
                    records.into_iter().skip(1).map(|record| SealedRecord { seq: 0, ..record }).collect();
                owner.records(&renumbered)
            })
        },
    },
    &Scenario {
        name: "artifact under another name",
        attacker: "a proxy hands out one sealed artifact as another of the same session",
        refused_by: RefusedBy::Channel,
        expected: Code::ARTIFACT_UNOPENABLE,
        run: |world| {
            let (owner, grant) = world.granted()?;
            let sealed = seal_artifact(&grant.result_key, &world.session, "adapter.safetensors", b"weights")?;
            owner.open_artifact("adapter.safetensors", &sealed)?;
            Attempt::of(owner.open_artifact("adapter_config.json", &sealed))
        },
    },
    &Scenario {
        name: "event chain with a gap",
        attacker: "whoever stores the signed events leaves one out",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_GAP,
        run: |world| {
            let chain = Forge::new(world)?;
            let events = chain.events(3);
            let mut verifier = chain.verifier();
            verifier.accept_header(&events[0])?;
            Attempt::of(verifier.accept_header(&events[2]))
        },
    },
    &Scenario {
        name: "event chain with a fork",
        attacker: "a runtime that holds its event key signs a second history from the same place",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_FORK,
        run: |world| {
            let chain = Forge::new(world)?;
            let events = chain.events(3);
            let mut verifier = chain.verifier();
            verifier.accept_header(&events[0])?;
            let other = chain.event(0, chain.genesis, &failed("another history"));
            Attempt::of(verifier.accept_header(&chain.event(1, other.digest(), &failed("and its next event"))))
        },
    },
    &Scenario {
        name: "event with a forged signature",
        attacker: "whoever stores the events adds one in the right place, signed with another key",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_SIGNATURE,
        run: |world| {
            let chain = Forge::new(world)?;
            let mut forger = Forge::new(world)?;
            forger.genesis = chain.genesis;
            Attempt::of(chain.verifier().accept_header(&forger.events(1)[0]))
        },
    },
    &Scenario {
        name: "event with another body",
        attacker: "whoever stores the events keeps a signed header and puts another body under it",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_BODY,
        run: |world| {
            let chain = Forge::new(world)?;
            let lie = encode(&EventBody::End { outcome: Outcome::Completed, reason: None });
            Attempt::of(chain.verifier().accept(&chain.events(1)[0], &lie))
        },
    },
    &Scenario {
        name: "missing terminal event",
        attacker: "a host kills the runtime before it zeroizes, and shows the chain up to there",
        refused_by: RefusedBy::Record,
        expected: Code::TERMINAL_EVENT_MISSING,
        run: |world| {
            let chain = Forge::new(world)?;
            let mut verifier = chain.verifier();
            for event in chain.events(3) {
                verifier.accept_header(&event)?;
            }
            Attempt::of(verifier.finish())
        },
    },
    &Scenario {
        name: "event after the terminal one",
        attacker: "a runtime that kept its event key goes on after it said that it was wiped",
        refused_by: RefusedBy::Record,
        expected: Code::EVENT_AFTER_TERMINAL,
        run: |world| {
            let chain = Forge::new(world)?;
            let end = chain.event(0, chain.genesis, &EventBody::End { outcome: Outcome::Completed, reason: None });
            let mut verifier = chain.verifier();
            verifier.accept_header(&end)?;
            Attempt::of(verifier.accept_header(&chain.event(1, end.digest(), &failed("still here"))))
        },
    },
];

/// Three records of an honest, released session, and an owner who has seen none of them.
fn on_the_wire<T>(
    world: &World,
    tamper: impl FnOnce(&mut OwnerSession, Vec<SealedRecord>) -> Result<T, GateError>,
) -> Result<Attempt, SuiteError> {
    let (mut owner, mut grant) = world.granted()?;
    let emit = |_| grant.channel.emit(&failed("a step"), at(1));
    let records = (0..3).map(emit).collect::<Result<Vec<_>, _>>()?;
    Attempt::of(tamper(&mut owner, records))
}

fn failed(message: &str) -> EventBody {
    EventBody::Failed { step: "training".to_owned(), message: message.to_owned() }
}

/// A runtime that holds its event key and can sign any event with it.
struct Forge<'a> {
    world: &'a World,
    key: SigningSecret,
    genesis: Digest48,
}

impl<'a> Forge<'a> {
    fn new(world: &'a World) -> Result<Self, SuiteError> {
        Ok(Self { world, key: SigningSecret::random().map_err(no_randomness)?, genesis: random_digest()? })
    }

    fn verifier(&self) -> ChainVerifier {
        ChainVerifier::new(self.world.session, self.key.public(), self.genesis)
    }

    fn event(&self, seq: u64, previous: Digest48, body: &EventBody) -> Signed<EventHeader> {
        let header = EventHeader {
            session: self.world.session,
            seq,
            previous,
            body: sha384(encode(body)),
            terminal: body.is_terminal(),
            at: at(seq).wall,
            boot_micros: seq,
        };
        Signed::sign(&header, &self.key)
    }

    /// The first `count` events of an honest chain that has not ended.
    fn events(&self, count: u64) -> Vec<Signed<EventHeader>> {
        let mut previous = self.genesis;
        let next = |seq| {
            let event = self.event(seq, previous, &failed("a step"));
            previous = event.digest();
            event
        };
        (0..count).map(next).collect()
    }
}
