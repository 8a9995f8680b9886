//! After the release: records and artifacts on the wire. The chain of signed events that outlives it is in `chain`.

use glasshouse_core::channel::{EventBody, SealedRecord};
use glasshouse_core::gate::{GateError, OwnerSession};
use glasshouse_core::protocol::seal_artifact;
use glasshouse_core::refusal::Code;

use super::world::{World, at};
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
];

/// Three records of an honest, released session, and an owner who has seen none of them.
fn on_the_wire<T>(
    world: &World,
    tamper: impl FnOnce(&mut OwnerSession, Vec<SealedRecord>) -> Result<T, GateError>,
) -> Result<Attempt, SuiteError> {
    let (mut owner, mut grant) = world.granted()?;
    let step = EventBody::Failed { step: "training".to_owned(), message: "a step".to_owned() };
    let emit = |_| grant.channel.emit(&step, at(1));
    let records = (0..3).map(emit).collect::<Result<Vec<_>, _>>()?;
    Attempt::of(tamper(&mut owner, records))
}
