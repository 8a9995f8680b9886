//! The four invariants, after a run: seen from outside, against what is on the owner's disk.

use std::sync::Arc;

use glasshouse_core::channel::Outcome;
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::gate::{FileGateStore, GateStore, StoredSession};
use glasshouse_core::protocol::{EvidenceMessage, Signed};
use glasshouse_core::record::{EvidenceRecord, RecordError, SessionRecord, VERSION, VerifiedRecord, verify};
use glasshouse_core::refusal::Code;

use crate::allocation::Allocation;
use crate::owner::{End, Owner};
use crate::world::{Setting, Truth};

/// Everything that is wrong, a sentence each.
pub(crate) fn all(
    setting: &Setting,
    owner: &mut Owner,
    allocation: &Allocation,
    truth: Truth,
    clocks_are_clocks: bool,
) -> Vec<String> {
    let mut wrong = truth.violations.clone();
    owner.crash(0, &mut crate::entropy::Rng::new(0)); // lets go of the store
    let store: Arc<dyn GateStore> = match FileGateStore::open(&setting.path) {
        Ok(store) => Arc::new(store),
        Err(error) => {
            wrong.push(format!("the store does not open after the run: {error}"));
            return wrong;
        }
    };
    let world = &setting.world;
    let stored = StoredSession::open(&*store, &world.session, &world.gate_key.public(), &world.result_key);
    let stored = match stored {
        Ok(stored) => stored,
        Err(error) => {
            wrong.push(format!("the session does not open after the run: {error}"));
            return wrong;
        }
    };
    no_key_but_to_an_attested_runtime(setting, owner, &truth, stored.as_ref(), &mut wrong);
    no_acknowledged_result_is_lost(owner, &truth, stored.as_ref(), &mut wrong);
    no_run_is_done_that_is_not(setting, owner, &truth, stored.as_ref(), clocks_are_clocks, &mut wrong);
    nobody_is_stuck(owner, allocation, clocks_are_clocks, &mut wrong);
    wrong
}

fn no_key_but_to_an_attested_runtime(
    setting: &Setting,
    owner: &Owner,
    truth: &Truth,
    stored: Option<&StoredSession>,
    wrong: &mut Vec<String>,
) {
    if truth.impostor_opened {
        wrong.push("an impostor opened a release".into());
    }
    if truth.grants > 1 || owner.releases.len() > 1 {
        wrong.push(format!("{} releases were sent and {} opened", owner.releases.len(), truth.grants));
    }
    match stored.map(|stored| stored.record_parts()) {
        Some(parts) => {
            let message = Signed::<EvidenceMessage>::from_bytes(&parts.evidence.0).unwrap().peek().unwrap();
            if !truth.attested_keys.contains(&message.hpke_key) || message.claims != setting.world.attestor.claims {
                wrong.push("a key was released to a runtime that is not attested".into());
            }
            if owner.releases.iter().any(|sent| *sent != parts.release.0) {
                wrong.push("what was sent is not what the store has".into());
            }
        }
        None if !owner.releases.is_empty() => wrong.push("a release was sent that the store does not have".into()),
        None => {}
    }
}

fn no_acknowledged_result_is_lost(
    owner: &Owner,
    truth: &Truth,
    stored: Option<&StoredSession>,
    wrong: &mut Vec<String>,
) {
    let events = stored.map(|stored| stored.record_parts().channel.events().to_vec()).unwrap_or_default();
    if owner.acknowledged > events.len() as u64 {
        wrong.push(format!("{} records were acknowledged, {} are there", owner.acknowledged, events.len()));
    }
    let same = events.iter().zip(&truth.emitted).all(|(event, body)| event.body.0 == *body);
    if !same || events.len() > truth.emitted.len() {
        wrong.push("the store has events that the runtime did not emit".into());
    }
    let ended = stored.is_some_and(|stored| stored.record_parts().channel.chain().is_ended());
    let told = ended && owner.acknowledged == events.len() as u64;
    if told && truth.completed.as_ref().is_some_and(|completed| owner.artifact.as_ref() != Some(&completed.artifact)) {
        wrong.push("the end was acknowledged, and the artifact is not there".into());
    }
}

fn no_run_is_done_that_is_not(
    setting: &Setting,
    owner: &Owner,
    truth: &Truth,
    stored: Option<&StoredSession>,
    clocks_are_clocks: bool,
    wrong: &mut Vec<String>,
) {
    let done = owner.ended == Some(End::Done);
    if done && truth.completed.is_none() {
        wrong.push("a run is reported as done that was not".into());
    }
    let Some(stored) = stored else { return };
    let record = match record_of(setting, stored) {
        Ok(record) => record,
        // A clock that ran back in the chain is refused by the record: nothing is reported then.
        Err(error) if error.contains(Code::CLOCK_SET_BACK.as_str()) && !clocks_are_clocks => return,
        // A chain without its end is a record that says so, and nothing may be reported from it.
        Err(error) if error.contains("the terminal event is missing") => {
            let ended = stored.record_parts().channel.chain().is_ended();
            if ended || done {
                wrong.push(format!("a run is reported as done whose record does not say so: {error}"));
            }
            return;
        }
        Err(error) => return wrong.push(format!("the record does not verify: {error}")),
    };
    let said = &record.sessions[0].events;
    if said.outcome == Some(Outcome::Completed) {
        let Some(completed) = &truth.completed else {
            return wrong.push("the record says that a run completed that did not".into());
        };
        let measured = said.measured.map(|(interval, weights)| (interval.units, weights));
        if measured != Some((completed.units, completed.weights)) || said.receipt.is_none() {
            wrong.push("the record's figures are not the runtime's".into());
        }
    } else if done {
        wrong.push("a run is reported as done whose record does not say so".into());
    }
}

/// As a third party would read it.
fn record_of(setting: &Setting, stored: &StoredSession) -> Result<VerifiedRecord, String> {
    let world = &setting.world;
    let session = SessionRecord::from_parts(&stored.record_parts(), world.reference.clone());
    let record = EvidenceRecord {
        version: VERSION.to_owned(),
        run: Nonce32::from([6; 32]),
        signer: world.gate_key.public(),
        created_at: UnixMillis(stored.verdict().at.0),
        sessions: vec![session.map_err(|e| e.to_string())?],
        refused: Vec::new(),
        raw_segments: Vec::new(),
        rows: Vec::new(),
        cleanup: None,
        timeline: Vec::new(),
        claims: Vec::new(),
    };
    let text = |e: RecordError| e.to_string();
    let bytes = record.sign(&world.gate_key).map_err(text)?;
    verify(&bytes, Some(world.gate_key.public()), None).map_err(text)
}

fn nobody_is_stuck(owner: &Owner, allocation: &Allocation, clocks_are_clocks: bool, wrong: &mut Vec<String>) {
    if owner.ended.is_none() && clocks_are_clocks {
        wrong.push("the owner is stuck past its deadline".into());
    }
    if allocation.is_alive() && clocks_are_clocks {
        wrong.push("the runtime is stuck past its deadlines".into());
    }
}
