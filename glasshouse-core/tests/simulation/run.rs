//! One run: a loop of half seconds in which frames arrive, both sides act, and things go wrong.

use std::collections::BTreeMap;
use std::path::Path;

use crate::allocation::Allocation;
use crate::check;
use crate::common::World;
use crate::entropy::{Rng, seeded};
use crate::hostile::{Hostile, foreign_gate};
use crate::net::{Frame, Network, Side};
use crate::owner::{End, Owner};
use crate::plan::{Fault, Plan};
use crate::world::{Clock, Setting, Truth};

const TICK: u64 = 500;
/// No run may take longer, whatever happens in it.
const HORIZON: u64 = 900_000;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) end: Option<End>,
    /// Whether a key was released at all.
    pub(crate) released: bool,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) frames: u64,
    pub(crate) clock_jumps: u64,
    pub(crate) owner_starts: u64,
    pub(crate) runtime_restarts: u64,
    /// Evidence of an impostor on its way to the owner.
    pub(crate) impostures: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
}

pub(crate) fn run(plan: &Plan, folder: &Path) -> Report {
    let _seeded = seeded(plan.seed);
    let rng = &mut Rng::new(plan.seed);
    let path = folder.join(format!("gate-{:x}", plan.seed));
    let _ = std::fs::remove_file(&path);
    let setting = Setting { world: World::new(), plan: plan.clone(), path };
    let (mut here, mut there) = (Clock::new(rng), Clock::new(rng));
    let (mut owner, mut allocation) = (Owner::default(), Allocation::new(&setting, there.now()));
    let mut hostile = plan.impostor.map(|kind| Hostile::new(&setting, kind));
    let mut foreign = plan.foreign_gate.then(|| foreign_gate(&setting));
    let (mut net, mut truth) = (Network::default(), Truth::default());
    let (mut clock_jumps, mut impostures, mut at) = (0, 0, 0);

    while at < HORIZON && (owner.ended.is_none() || allocation.is_alive()) {
        at += TICK;
        here.advance(TICK);
        there.advance(TICK);
        for (clock, name) in [(&mut here, "owner"), (&mut there, "allocation")] {
            if rng.chance(plan.clock_jumps) {
                clock_jumps += 1;
                let what = clock.jump(rng, plan.boot_runs_back);
                net.trace.push(format!("{at:>7} {name}: {what}"));
            }
        }
        if owner.is_up() && (rng.chance(plan.owner_crashes) || plan.owner_dies_at == Some(at)) {
            net.trace.push(format!("{at:>7} owner dies"));
            owner.crash(at, rng);
        }
        let agent_too = rng.chance(plan.agent_crashes);
        if agent_too || rng.chance(plan.segment_crashes) {
            net.trace.push(format!("{at:>7} {} dies", if agent_too { "agent" } else { "segment" }));
            allocation.crash(at, rng, agent_too);
        }
        if at % 10_000 == TICK
            && let Some(challenge) = foreign.as_mut().and_then(|gate| gate.challenge(here.now()).ok())
        {
            let sent = allocation.tick(&setting, (at, there.now()), &[Frame::Challenge(challenge)], &mut truth);
            if sent.iter().any(|frame| matches!(frame, Frame::Evidence(_))) {
                truth.violations.push("a foreign gate was given evidence".into());
            }
        }

        let arrived = frames(&mut net, at, Side::Allocation);
        for frame in allocation.tick(&setting, (at, there.now()), &arrived, &mut truth) {
            net.send(plan, rng, at, Side::Owner, &frame);
        }
        if let Some(over) = allocation.key_overdue(there.now()).filter(|over| over.as_millis() > u128::from(2 * TICK))
            && !there.ran_back
        {
            truth.violations.push(format!("a key is alive {over:?} after its lease"));
        }
        if let Some(hostile) = &mut hostile {
            for frame in arrived.iter().filter_map(|frame| hostile.hear(frame, there.now(), &mut truth)) {
                impostures += 1;
                net.send(plan, rng, at, Side::Owner, &frame);
            }
        }
        let mut arrived = frames(&mut net, at, Side::Owner);
        if let Some(hostile) = &hostile {
            arrived = arrived.into_iter().map(|frame| hostile.intercept(rng, frame)).collect();
        }
        for frame in owner.tick(&setting, rng, (at, here.now()), &arrived, &mut truth) {
            net.send(plan, rng, at, Side::Allocation, &frame);
        }
    }
    let no_clock_ran_back = !here.ran_back && !there.ran_back;
    let violations = check::all(&setting, &mut owner, &allocation, truth, no_clock_ran_back);
    let _ = std::fs::remove_file(&setting.path);
    net.trace.push(format!("{at:>7} ended {:?}", owner.ended));
    Report {
        end: owner.ended,
        released: !owner.releases.is_empty(),
        faults: net.faults,
        frames: net.sent,
        clock_jumps,
        owner_starts: owner.starts,
        runtime_restarts: allocation.restarts,
        impostures,
        violations,
        trace: net.trace,
    }
}

/// What arrived and still is a frame at all.
fn frames(net: &mut Network, at: u64, to: Side) -> Vec<Frame> {
    net.due(at, to).iter().filter_map(|bytes| Frame::from_bytes(bytes)).collect()
}
