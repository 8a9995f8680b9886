//! The nine published tampers. In each the attacker is a malicious runtime with the launch secret (see [`Liar`]).

use std::time::Duration;

use glasshouse_core::claims::{AntiDebugLevel, RuntimeState};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::refusal::Code;

use super::liar::Liar;
use super::world::{World, at, random_digest, random_digest32};
use super::{Attempt, RefusedBy, Scenario, SuiteError};

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "composite hash mismatch",
        attacker: "a runtime computes T over weaker algorithms, makes the MAC and the token for that T, and signs",
        refused_by: RefusedBy::Gate,
        expected: Code::COMPOSITE_HASH_MISMATCH,
        run: composite_hash,
    },
    &Scenario {
        name: "manifest hash mismatch",
        attacker: "a runtime was given another manifest and attests to it consistently",
        refused_by: RefusedBy::Gate,
        expected: Code::MANIFEST_HASH_MISMATCH,
        run: manifest_hash,
    },
    &Scenario {
        name: "container ID mismatch",
        attacker: "a runtime in another container, with the same program and the launch secret, attests to where it is",
        refused_by: RefusedBy::Gate,
        expected: Code::CONTAINER_ID_MISMATCH,
        run: container_id,
    },
    &Scenario {
        name: "stale timestamp",
        attacker: "a runtime attests with its clock ten minutes behind, so that the lease would end later than it should",
        refused_by: RefusedBy::Gate,
        expected: Code::TIMESTAMP_STALE,
        run: stale_timestamp,
    },
    &Scenario {
        name: "anti-debug disabled",
        attacker: "a runtime that was started with anti-debug off attests to that consistently",
        refused_by: RefusedBy::Gate,
        expected: Code::ANTI_DEBUG_DISABLED,
        run: anti_debug_disabled,
    },
    &Scenario {
        name: "runtime state spoofed",
        attacker: "a runtime that is training already, on what it was given before, attests again for a second key",
        refused_by: RefusedBy::Gate,
        expected: Code::RUNTIME_STATE_INVALID,
        run: runtime_state,
    },
    &Scenario {
        name: "anti-debug profile downgrade",
        attacker: "a runtime applies an older profile with fewer checks and attests to it under the same level",
        refused_by: RefusedBy::Gate,
        expected: Code::ANTI_DEBUG_DOWNGRADE,
        run: anti_debug_downgrade,
    },
    &Scenario {
        name: "nonce replay",
        attacker: "a runtime whose first answer was refused sends a flawless one, newly signed, for the same nonce",
        refused_by: RefusedBy::Gate,
        expected: Code::NONCE_REPLAYED,
        run: nonce_replay,
    },
    &Scenario {
        name: "JWT claim mismatch",
        attacker: "a runtime signs a token that names another program than the evidence beside it",
        refused_by: RefusedBy::Gate,
        expected: Code::JWT_CLAIM_MISMATCH,
        run: jwt_claim,
    },
];

fn composite_hash(world: &World) -> Result<Attempt, SuiteError> {
    Liar::tells(world, |story| story.suites = "DHKEM(X25519,HKDF-SHA256)/HKDF-SHA256/AES-128-GCM;Ed25519;SHA-256")
}

fn manifest_hash(world: &World) -> Result<Attempt, SuiteError> {
    let other = random_digest()?;
    Liar::tells(world, |story| story.manifest_digest = other)
}

fn container_id(world: &World) -> Result<Attempt, SuiteError> {
    let other = random_digest32()?.to_string();
    Liar::tells(world, |story| story.claims.container.value = other)
}

fn stale_timestamp(world: &World) -> Result<Attempt, SuiteError> {
    let behind = u64::try_from(Duration::from_secs(600).as_millis()).unwrap_or(u64::MAX);
    Liar::tells(world, |story| story.timestamp = UnixMillis(at(0).wall.0.saturating_sub(behind)))
}

fn anti_debug_disabled(world: &World) -> Result<Attempt, SuiteError> {
    Liar::tells(world, |story| {
        story.claims.anti_debug.level = AntiDebugLevel::Off;
        story.claims.anti_debug.not_dumpable = false;
        story.claims.anti_debug.no_core_files = false;
    })
}

fn runtime_state(world: &World) -> Result<Attempt, SuiteError> {
    Liar::tells(world, |story| story.claims.state = RuntimeState::Training)
}

fn anti_debug_downgrade(world: &World) -> Result<Attempt, SuiteError> {
    Liar::tells(world, |story| story.claims.anti_debug.profile = "glasshouse-anti-debug/0".to_owned())
}

fn nonce_replay(world: &World) -> Result<Attempt, SuiteError> {
    let liar = Liar::new(world)?;
    let mut owner = world.owner()?;
    let mut story = liar.truth(&owner.challenge(at(0))?)?;
    story.claims.state = RuntimeState::Training;
    let first = owner.evidence(&liar.sign(&liar.message(&story)?), at(0));
    if first.is_ok() {
        return Ok(Attempt::Accepted);
    }
    story.claims.state = RuntimeState::Ready;
    let result = owner.evidence(&liar.sign(&liar.message(&story)?), at(0));
    world.judge(&owner, result, 0)
}

fn jwt_claim(world: &World) -> Result<Attempt, SuiteError> {
    let other = random_digest32()?;
    Liar::tells(world, |story| {
        let mut claims = story.claims.clone();
        claims.runtime_measurement = other;
        story.token_claims = Some(claims);
    })
}
