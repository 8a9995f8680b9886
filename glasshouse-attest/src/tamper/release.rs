//! What is sent to the honest runtime by someone who is not its gate, and what ends a lease that a host would lengthen.

use glasshouse_core::clock::Now;
use glasshouse_core::protocol::{Challenge, Release, Signed, SigningSecret, Verdict, decode, encode};
use glasshouse_core::refusal::Code;

use super::world::{LEASE_SECONDS, LEASE_UNITS, World, at, no_randomness};
use super::{Attempt, RefusedBy, Scenario, SuiteError};

pub(super) const ALL: &[&Scenario] = &[
    &Scenario {
        name: "foreign gate key",
        attacker: "another owner, who can reach the agent, challenges it with a gate of its own",
        refused_by: RefusedBy::Runtime,
        expected: Code::GATE_KEY_FOREIGN,
        run: |world| {
            let mut foreign = World::new()?;
            foreign.session = world.session;
            let challenge = foreign.owner()?.challenge(at(0))?;
            Attempt::of(world.runtime().challenge(&challenge, &world.attestor, at(0)))
        },
    },
    &Scenario {
        name: "challenge changed on the way",
        attacker: "a man in the middle puts his result key into the challenge, names the right gate and signs as he can",
        refused_by: RefusedBy::Runtime,
        expected: Code::SIGNATURE_INVALID,
        run: |world| {
            let his = SigningSecret::random().map_err(no_randomness)?;
            let bytes = world.owner()?.challenge(at(0))?;
            let mut challenge = Signed::<Challenge>::from_bytes(&bytes)?.peek()?;
            challenge.result_key = his.public();
            let changed = Signed::sign(&challenge, &his).to_bytes();
            Attempt::of(world.runtime().challenge(&changed, &world.attestor, at(0)))
        },
    },
    &Scenario {
        name: "verdict forged",
        attacker: "a man in the middle who holds the true release lengthens its lease and signs the verdict with his key",
        refused_by: RefusedBy::Runtime,
        expected: Code::VERDICT_FORGED,
        run: |world| {
            let his = SigningSecret::random().map_err(no_randomness)?;
            intercepted(world, |release| {
                let mut verdict: Verdict = release.verdict.peek()?;
                verdict.lease.ttl_millis = u64::MAX;
                release.verdict = Signed::sign(&verdict, &his);
                Ok(())
            })
        },
    },
    &Scenario {
        name: "release replayed to another session",
        attacker: "a host presents one session's release to the same owner's next session, same gate and launch secret",
        refused_by: RefusedBy::Runtime,
        expected: Code::RELEASE_FOREIGN,
        run: |world| {
            let other = world.another_session()?;
            let release = released(&other)?;
            intercepted(world, |mine| {
                *mine = decode("release", &release, Release::LIMIT)?;
                Ok(())
            })
        },
    },
    &Scenario {
        name: "release with another ciphertext",
        attacker: "a man in the middle keeps the signed verdict and replaces the sealed key beside it",
        refused_by: RefusedBy::Runtime,
        expected: Code::RELEASE_UNOPENABLE,
        run: |world| {
            intercepted(world, |release| {
                release.ciphertext.0.iter_mut().for_each(|byte| *byte ^= 1);
                Ok(())
            })
        },
    },
    &Scenario {
        name: "release before evidence",
        attacker: "a host presents a stored release to a runtime of the same session that was started again",
        refused_by: RefusedBy::Runtime,
        expected: Code::OUT_OF_ORDER,
        run: |world| {
            let release = released(world)?;
            Attempt::of(world.runtime().release(&release, at(0)))
        },
    },
    &Scenario {
        name: "lease expired by time",
        attacker: "a host stops its wall clock when the lease begins, and trains on; or first holds the release back",
        refused_by: RefusedBy::Runtime,
        expected: Code::LEASE_EXPIRED,
        run: |world| {
            let mut late = at(LEASE_SECONDS.saturating_add(1));
            late.wall = at(0).wall;
            let (_, mut grant) = world.granted()?;
            let in_training = Attempt::of(grant.lease.check(0, late))?;
            Ok(Attempt::everywhere(&Code::LEASE_EXPIRED, [in_training, held_back(world, late)?]))
        },
    },
    &Scenario {
        name: "lease expired by steps",
        attacker: "a host trains on, within the lease's time, beyond its number of units",
        refused_by: RefusedBy::Runtime,
        expected: Code::LEASE_STEPS,
        run: |world| {
            let (_, mut grant) = world.granted()?;
            grant.lease.check(LEASE_UNITS.saturating_sub(1), at(10))?;
            Attempt::of(grant.lease.check(LEASE_UNITS, at(10)))
        },
    },
    &Scenario {
        name: "host clock set back",
        attacker: "a host sets its wall clock back by half an hour while the runtime trains; or waits for its release",
        refused_by: RefusedBy::Runtime,
        expected: Code::CLOCK_SET_BACK,
        run: |world| {
            let half_an_hour_before = |mut now: Now| {
                now.wall.0 = now.wall.0.saturating_sub(1_800_000);
                now
            };
            let (_, mut grant) = world.granted()?;
            grant.lease.check(0, at(2000))?;
            let in_training = Attempt::of(grant.lease.check(0, half_an_hour_before(at(2001))))?;
            let waiting = held_back(world, half_an_hour_before(at(1)))?;
            Ok(Attempt::everywhere(&Code::CLOCK_SET_BACK, [in_training, waiting]))
        },
    },
];

/// An honest session whose release comes to the runtime only at this time.
fn held_back(world: &World, come: Now) -> Result<Attempt, SuiteError> {
    let world = world.another_session()?;
    let (mut owner, mut runtime) = (world.owner()?, world.runtime());
    let challenge = owner.challenge(at(0))?;
    let evidence = runtime.challenge(&challenge, &world.attestor, at(0))?;
    Attempt::of(runtime.release(&owner.evidence(&evidence, at(0))?, come))
}

/// The release of an honest session.
fn released(world: &World) -> Result<Vec<u8>, SuiteError> {
    let mut owner = world.owner()?;
    let challenge = owner.challenge(at(0))?;
    let evidence = world.runtime().challenge(&challenge, &world.attestor, at(0))?;
    Ok(owner.evidence(&evidence, at(0))?)
}

/// An honest session whose release is changed on its way to the runtime.
fn intercepted(
    world: &World,
    change: impl FnOnce(&mut Release) -> Result<(), SuiteError>,
) -> Result<Attempt, SuiteError> {
    let (mut owner, mut runtime) = (world.owner()?, world.runtime());
    let challenge = owner.challenge(at(0))?;
    let evidence = runtime.challenge(&challenge, &world.attestor, at(0))?;
    let bytes = owner.evidence(&evidence, at(0))?;
    let mut release: Release = decode("release", &bytes, Release::LIMIT)?;
    change(&mut release)?;
    Attempt::of(runtime.release(&encode(&release), at(0)))
}
