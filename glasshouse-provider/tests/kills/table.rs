//! Every step, and what must be seen when a process dies in it.

use crate::case::{Case, Victim, Where};

/// How far the gate has come when the step is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Gate {
    /// Nothing of the session is durable, or a nonce at most.
    Nothing,
    /// The evidence arrives: an owner that lives on commits a release.
    Deciding,
    /// The release is durable.
    Committed,
    /// Every event is durable.
    Everything,
}

/// One step: its name, the process that stops in it, how far the gate is, the segment's own step then, and the step
/// that a living owner names when its agent is gone.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) stops: Where,
    pub(crate) gate: Gate,
    /// Nothing when no segment lives in this step.
    pub(crate) segment: Option<&'static str>,
    /// The kind of error that the owner ends with, and what it says.
    pub(crate) owner: (&'static str, &'static str),
}

impl Step {
    /// Whether it is a step of the raw segment of an overhead run.
    pub(crate) fn is_raw(&self) -> bool {
        self.name.starts_with("raw-")
    }
}

const fn step(
    name: &'static str,
    stops: Where,
    gate: Gate,
    segment: Option<&'static str>,
    owner: (&'static str, &'static str),
) -> Step {
    Step { name, stops, gate, segment, owner }
}

const UNREACHABLE: &str = "unreachable";

const STEPS: [Step; 21] = [
    step("hello", Where::Owner, Gate::Nothing, None, ("ended-early", "ended before its agent answered")),
    step("upload", Where::Owner, Gate::Nothing, None, (UNREACHABLE, "upload: ")),
    step("start", Where::Segment, Gate::Nothing, Some("start"), (UNREACHABLE, "challenge: ")),
    step("harden", Where::Segment, Gate::Nothing, Some("harden"), (UNREACHABLE, "challenge: ")),
    step("await-challenge", Where::Owner, Gate::Nothing, Some("await-challenge"), (UNREACHABLE, "challenge: ")),
    step("attest", Where::Segment, Gate::Nothing, Some("attest"), (UNREACHABLE, "challenge: ")),
    step("evidence-sent", Where::Owner, Gate::Deciding, Some("await-release"), (UNREACHABLE, "release: ")),
    step("nonce-burned", Where::Owner, Gate::Deciding, Some("await-release"), (UNREACHABLE, "release: ")),
    step("verdict-committed", Where::Owner, Gate::Committed, Some("await-release"), (UNREACHABLE, "release: ")),
    step("release-sent", Where::Owner, Gate::Committed, Some("await-release"), (UNREACHABLE, "records: ")),
    step("record-kept", Where::Owner, Gate::Committed, Some("train"), (UNREACHABLE, "records: ")),
    step("open-package", Where::Segment, Gate::Committed, Some("open-package"), (UNREACHABLE, "records: ")),
    step("prepare", Where::Segment, Gate::Committed, Some("prepare"), (UNREACHABLE, "records: ")),
    step("warm-up", Where::Segment, Gate::Committed, Some("warm-up"), (UNREACHABLE, "records: ")),
    step("train", Where::Segment, Gate::Committed, Some("train"), (UNREACHABLE, "records: ")),
    step("export", Where::Segment, Gate::Committed, Some("export"), (UNREACHABLE, "records: ")),
    step("zeroize", Where::Segment, Gate::Committed, Some("zeroize"), (UNREACHABLE, "records: ")),
    step("await-ack", Where::Owner, Gate::Everything, Some("await-ack"), (UNREACHABLE, "acknowledge: ")),
    step("acknowledged", Where::Owner, Gate::Everything, None, (UNREACHABLE, "records: ")),
    step("shutdown", Where::Owner, Gate::Everything, None, ("ok", "")),
    step("raw-train", Where::Segment, Gate::Nothing, Some("train"), (UNREACHABLE, "records: ")),
];

/// Every step with every process that lives in it.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for step in &STEPS {
        for victim in [Victim::Segment, Victim::Agent, Victim::Owner] {
            if victim != Victim::Segment || step.segment.is_some() {
                cases.push(Case { step, victim });
            }
        }
    }
    cases
}
