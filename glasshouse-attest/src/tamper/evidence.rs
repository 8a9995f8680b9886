//! Evidence that is whole and well signed, and does not describe this session.

use std::time::Duration;

use glasshouse_core::claims::{AntiDebugLevel, Assurance, ReferenceValues};
use glasshouse_core::evidence::{DeviceEvidence, DeviceKind};
use glasshouse_core::fixed::Blob;
use glasshouse_core::refusal::Code;
use glasshouse_core::secret::Secret;

use super::liar::Liar;
use super::world::{World, at, no_randomness, random, random_digest, random_digest32};
use super::{Attempt, RefusedBy, Scenario, SuiteError};
use crate::software::SoftwarePolicy;

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "package digest mismatch",
        attacker: "a runtime was given another package under the same manifest and attests to it consistently",
        refused_by: RefusedBy::Gate,
        expected: Code::PACKAGE_DIGEST_MISMATCH,
        run: |world| {
            let other = random_digest()?;
            Liar::tells(world, |story| story.package_digest = other)
        },
    },
    &Scenario {
        name: "image digest mismatch",
        attacker: "a runtime in another image than the one that was launched attests to its own",
        refused_by: RefusedBy::Gate,
        expected: Code::IMAGE_DIGEST_MISMATCH,
        run: |world| {
            let other = random_digest32()?;
            Liar::tells(world, |story| story.claims.image_digest = Some(other))
        },
    },
    &Scenario {
        name: "runtime measurement mismatch",
        attacker: "another program took over the allocation with its launch secret and attests to itself",
        refused_by: RefusedBy::Gate,
        expected: Code::RUNTIME_MEASUREMENT_MISMATCH,
        run: |world| {
            let other = random_digest32()?;
            Liar::tells(world, |story| story.claims.runtime_measurement = other)
        },
    },
    &Scenario {
        name: "anti-debug level changed",
        attacker: "a runtime claims a level above the one that it was launched with, backed by every check",
        refused_by: RefusedBy::Gate,
        expected: Code::ANTI_DEBUG_MISMATCH,
        run: |world| {
            Liar::tells(world, |story| {
                story.claims.anti_debug.level = AntiDebugLevel::Strict;
                story.claims.anti_debug.ptrace_scope = Some(2);
            })
        },
    },
    &Scenario {
        name: "future timestamp",
        attacker: "a runtime attests with its clock ten minutes ahead, to have evidence in stock",
        refused_by: RefusedBy::Gate,
        expected: Code::TIMESTAMP_FUTURE,
        run: |world| Liar::tells(world, |story| story.timestamp = story.timestamp.after(Duration::from_secs(600))),
    },
    &Scenario {
        name: "late answer",
        attacker: "a runtime keeps a challenge for 31 s, to use its machine for something else first, then answers well",
        refused_by: RefusedBy::Gate,
        expected: Code::CHALLENGE_EXPIRED,
        run: late_answer,
    },
    &Scenario {
        name: "invented nonce",
        attacker: "a runtime answers a challenge that it thought up itself, in the right session, under a nonce of its own",
        refused_by: RefusedBy::Gate,
        expected: Code::NONCE_UNKNOWN,
        run: |world| {
            let nonce = random()?;
            Liar::tells(world, |story| story.nonce = nonce)
        },
    },
    &Scenario {
        name: "endless guesses",
        attacker: "a runtime answers one challenge after the other wrongly, hoping for a gate that gives in",
        refused_by: RefusedBy::Gate,
        expected: Code::RETRIES_EXHAUSTED,
        run: endless_guesses,
    },
    &Scenario {
        name: "sessions mixed up",
        attacker: "the same owner's other runtime answers, truthfully, in its own session; its evidence is sent to this one",
        refused_by: RefusedBy::Gate,
        expected: Code::SESSION_MISMATCH,
        run: sessions_mixed_up,
    },
    &Scenario {
        name: "wrong launch secret",
        attacker: "the right program on another allocation, launched with another secret, answers flawlessly",
        refused_by: RefusedBy::Gate,
        expected: Code::LAUNCH_SECRET_WRONG,
        run: wrong_launch_secret,
    },
    &Scenario {
        name: "HPKE key swapped on the way",
        attacker: "a man in the middle, without the launch secret, replaces both keys with his and signs the message anew",
        refused_by: RefusedBy::Gate,
        expected: Code::KEYS_SWAPPED,
        run: keys_swapped,
    },
    &Scenario {
        name: "policy digest mismatch",
        attacker: "a runtime answers to a laxer policy than the owner's",
        refused_by: RefusedBy::Gate,
        expected: Code::POLICY_DIGEST_MISMATCH,
        run: |world| {
            let lax = SoftwarePolicy { dangerous_allow_anti_debug_off: true, ..SoftwarePolicy::default() };
            Liar::tells(world, |story| story.policy_digest = lax.digest())
        },
    },
    &Scenario {
        name: "assurance below the minimum",
        attacker: "a machine without a TEE attests truthfully where the package asks for one",
        refused_by: RefusedBy::Gate,
        expected: Code::ASSURANCE_TOO_LOW,
        run: assurance_too_low,
    },
    &Scenario {
        name: "GPU evidence without a CPU quote",
        attacker: "a host relays another machine's GPU report, bound into its own software token",
        refused_by: RefusedBy::Gate,
        expected: Code::EVIDENCE_KIND_UNSUPPORTED,
        run: |world| {
            let report = DeviceEvidence {
                kind: DeviceKind::NvidiaGpu,
                serial: Blob(vec![1]),
                report: Blob(vec![0; 64]),
                chain: Blob(Vec::new()),
            };
            Liar::tells(world, |story| story.gpus.0.push(report))
        },
    },
    &Scenario {
        name: "second key for one session",
        attacker: "a runtime with the launch secret attests flawlessly after the honest one had its release",
        refused_by: RefusedBy::Gate,
        expected: Code::ALREADY_RELEASED,
        run: second_key,
    },
];

fn late_answer(world: &World) -> Result<Attempt, SuiteError> {
    let liar = Liar::new(world)?;
    let mut owner = world.owner()?;
    let mut story = liar.truth(&owner.challenge(at(0))?)?;
    story.timestamp = at(31).wall;
    let result = owner.evidence(&liar.sign(&liar.message(&story)?), at(31));
    world.judge(&owner, result, 0)
}

fn endless_guesses(world: &World) -> Result<Attempt, SuiteError> {
    let liar = Liar::new(world)?;
    let mut owner = world.owner()?;
    for _ in 0..1000 {
        let challenge = match owner.challenge(at(0)) {
            Ok(challenge) => challenge,
            refused => return world.judge(&owner, refused, 0),
        };
        let mut story = liar.truth(&challenge)?;
        story.claims.runtime_measurement = random_digest32()?;
        if owner.evidence(&liar.sign(&liar.message(&story)?), at(0)).is_ok() {
            break;
        }
    }
    Ok(Attempt::Accepted)
}

fn sessions_mixed_up(world: &World) -> Result<Attempt, SuiteError> {
    let other = world.another_session()?;
    let challenge = other.owner()?.challenge(at(0))?;
    let evidence = other.runtime().challenge(&challenge, &other.attestor, at(0))?;
    let mut owner = world.owner()?;
    owner.challenge(at(0))?;
    let result = owner.evidence(&evidence, at(0));
    world.judge(&owner, result, 0)
}

fn wrong_launch_secret(world: &World) -> Result<Attempt, SuiteError> {
    let other = Secret::random().map_err(no_randomness)?;
    let stranger = Liar::with_launch_secret(world, &other)?;
    let mut owner = world.owner()?;
    let story = stranger.truth(&owner.challenge(at(0))?)?;
    let result = owner.evidence(&stranger.sign(&stranger.message(&story)?), at(0));
    world.judge(&owner, result, 0)
}

fn keys_swapped(world: &World) -> Result<Attempt, SuiteError> {
    let mut owner = world.owner()?;
    let challenge = owner.challenge(at(0))?;
    // The honest runtime's own message, as the man in the middle sees it.
    let honest = Liar::new(world)?;
    let mut message = honest.message(&honest.truth(&challenge)?)?;
    let other = Secret::random().map_err(no_randomness)?;
    let middle = Liar::with_launch_secret(world, &other)?;
    let his = middle.message(&middle.truth(&challenge)?)?;
    (message.hpke_key, message.event_key) = (his.hpke_key, his.event_key);
    let result = owner.evidence(&middle.sign(&message), at(0));
    world.judge(&owner, result, 0)
}

fn assurance_too_low(world: &World) -> Result<Attempt, SuiteError> {
    let reference = ReferenceValues { minimum_assurance: Assurance::CpuTee, ..world.reference.clone() };
    let mut owner = world.owner_expecting(reference)?;
    let challenge = owner.challenge(at(0))?;
    let evidence = world.runtime().challenge(&challenge, &world.attestor, at(0))?;
    let result = owner.evidence(&evidence, at(0));
    world.judge(&owner, result, 0)
}

fn second_key(world: &World) -> Result<Attempt, SuiteError> {
    let liar = Liar::new(world)?;
    let mut owner = world.owner()?;
    let first = owner.challenge(at(0))?;
    let evidence = world.runtime().challenge(&first, &world.attestor, at(0))?;
    owner.evidence(&evidence, at(0))?;
    let story = liar.truth(&first)?;
    let result = owner.evidence(&liar.sign(&liar.message(&story)?), at(0));
    world.judge(&owner, result, 1)
}
