//! The chain of signed events, as the record keeps it: in the hands of a store, and of a runtime that kept its event key.
//! Each attack is a whole record that the gate's key signed, shown to an auditor who trusts that key.

use glasshouse_core::channel::{EventBody, EventHeader, Outcome, genesis};
use glasshouse_core::fixed::{Blob, Digest48};
use glasshouse_core::protocol::{Signed, SigningSecret, encode};
use glasshouse_core::record::{EvidenceRecord, RecordedEvent, SessionRecord, VERSION};
use glasshouse_core::refusal::Code;
use glasshouse_core::transcript::sha384;

use super::liar::Liar;
use super::record::{empty_receipt, judge, signed};
use super::world::{World, at, no_randomness, random};
use super::{Attempt, RefusedBy, Scenario, SuiteError};

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "event chain with a gap",
        attacker: "whoever stores the signed events leaves one out",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_GAP,
        run: |world| recorded(world, |_, events| drop(events.remove(1))),
    },
    &Scenario {
        name: "event chain with a fork",
        attacker: "a runtime that holds its event key signs a second history from the same place",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_FORK,
        run: |world| {
            recorded(world, |runtime, events| {
                let other = runtime.event(0, runtime.genesis, &failed("another history"));
                events.truncate(1);
                runtime.go_on(events, other.header.digest(), &ending());
            })
        },
    },
    &Scenario {
        name: "event with a forged signature",
        attacker: "whoever stores the events adds one in the right place, signed with another key",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_SIGNATURE,
        run: |world| {
            let his = SigningSecret::random().map_err(no_randomness)?;
            recorded(world, |runtime, events| {
                let previous = events.first().map_or(runtime.genesis, |event| event.header.digest());
                let forger = Runtime { key: &his, ..*runtime };
                events.truncate(1);
                forger.go_on(events, previous, &ending());
            })
        },
    },
    &Scenario {
        name: "event with another body",
        attacker: "whoever stores the events keeps a signed header and puts another body under it",
        refused_by: RefusedBy::Record,
        expected: Code::CHAIN_BODY,
        run: |world| {
            recorded(world, |_, events| {
                if let Some(first) = events.first_mut() {
                    first.body = Some(Blob(encode(&failed("another step"))));
                }
            })
        },
    },
    &Scenario {
        name: "missing terminal event",
        attacker: "a host kills the runtime before it ends, and the record shows the chain up to there",
        refused_by: RefusedBy::Record,
        expected: Code::TERMINAL_EVENT_MISSING,
        run: |world| recorded(world, |_, events| drop(events.pop())),
    },
    &Scenario {
        name: "event after the terminal one",
        attacker: "a runtime that kept its event key goes on after it said that it was wiped",
        refused_by: RefusedBy::Record,
        expected: Code::EVENT_AFTER_TERMINAL,
        run: |world| {
            recorded(world, |runtime, events| {
                let end = events.last().map_or(runtime.genesis, |event| event.header.digest());
                runtime.go_on(events, end, &[failed("still here")]);
            })
        },
    },
];

/// A runtime that holds its event key and can sign any event with it.
struct Runtime<'a> {
    world: &'a World,
    key: &'a SigningSecret,
    genesis: Digest48,
}

impl Runtime<'_> {
    fn event(&self, seq: u64, previous: Digest48, body: &EventBody) -> RecordedEvent {
        let bytes = encode(body);
        let header = EventHeader {
            session: self.world.session,
            seq,
            previous,
            body: sha384(&bytes),
            terminal: body.is_terminal(),
            at: at(seq).wall,
            boot_micros: seq,
        };
        RecordedEvent { header: Signed::sign(&header, self.key), body: Some(Blob(bytes)) }
    }

    /// Signs further events, the first of them after `previous`.
    fn go_on(&self, events: &mut Vec<RecordedEvent>, mut previous: Digest48, bodies: &[EventBody]) {
        for body in bodies {
            let event = self.event(events.len() as u64, previous, body);
            previous = event.header.digest();
            events.push(event);
        }
    }
}

/// A session whose chain is changed before the record is signed. Unchanged, the record holds.
fn recorded(world: &World, change: impl FnOnce(&Runtime<'_>, &mut Vec<RecordedEvent>)) -> Result<Attempt, SuiteError> {
    let liar = Liar::new(world)?;
    let mut owner = world.owner()?;
    let message = liar.message(&liar.truth(&owner.challenge(at(0))?)?)?;
    owner.evidence(&liar.sign(&message), at(0))?;
    let parts = owner.record_parts().ok_or(SuiteError::Unfit("a released session has parts for its record"))?;
    let mut session = SessionRecord::from_parts(&parts, world.reference.clone())?;
    let runtime = Runtime { world, key: &liar.event_key, genesis: genesis(&message.t, &session.verdict) };
    runtime.go_on(&mut session.events, runtime.genesis, &[failed("a step")]);
    let first = session.events.first().map_or(runtime.genesis, |event| event.header.digest());
    runtime.go_on(&mut session.events, first, &ending());
    match judge(world, &record(world, session.clone())?)? {
        Attempt::Accepted => {}
        Attempt::Refused { refusal, .. } => return Err(SuiteError::Refused(refusal)),
    }
    change(&runtime, &mut session.events);
    judge(world, &record(world, session)?)
}

fn record(world: &World, session: SessionRecord) -> Result<Vec<u8>, SuiteError> {
    let record = EvidenceRecord {
        version: VERSION.to_owned(),
        run: random()?,
        signer: world.gate_key.public(),
        created_at: at(100).wall,
        sessions: vec![session],
        refused: Vec::new(),
        raw_segments: Vec::new(),
        rows: Vec::new(),
        cleanup: None,
        timeline: Vec::new(),
        claims: Vec::new(),
    };
    signed(world, record)
}

fn failed(message: &str) -> EventBody {
    EventBody::Failed { step: "training".to_owned(), message: message.to_owned() }
}

/// From the second event to the last.
fn ending() -> [EventBody; 3] {
    let end = EventBody::End { outcome: Outcome::Failed, reason: None };
    [failed("another step"), EventBody::Zeroized { receipt: empty_receipt() }, end]
}
