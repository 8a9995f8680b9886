//! What the suite found, for people and for programs.

use std::fmt;

use glasshouse_core::claims::Assurance;
use glasshouse_core::refusal::Code;
use serde::Serialize;

use super::{Attempt, RefusedBy};

/// What became of one attack.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The scenario's name.
    pub name: &'static str,
    /// What the attacker has and does.
    pub attacker: &'static str,
    /// Who refused, when it was rejected.
    pub refused_by: RefusedBy,
    /// The code that was expected.
    pub expected: Code,
    /// The code that it was refused with; absent when it was not refused.
    pub seen: Option<Code>,
    /// Whether it was refused with the expected code and no key left.
    pub rejected: bool,
    /// Whether the attacker got what it was after, or a key left the gate.
    pub released: bool,
    /// The refusal in one sentence.
    pub detail: Option<String>,
    /// How long it took, microseconds.
    pub micros: u64,
}

impl Outcome {
    pub(super) fn new(
        (name, attacker): (&'static str, &'static str),
        (refused_by, expected): (RefusedBy, &Code),
        attempt: Attempt,
        micros: u64,
    ) -> Self {
        let (seen, detail, released) = match attempt {
            Attempt::Accepted => (None, None, true),
            Attempt::Refused { refusal, key_left } => (Some(refusal.code.clone()), Some(refusal.to_string()), key_left),
        };
        let rejected = seen.as_ref() == Some(expected) && !released;
        Self { name, attacker, refused_by, expected: expected.clone(), seen, rejected, released, detail, micros }
    }
}

/// What became of the session that no one tampered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Control {
    /// Whether its key was released once, opened, and was the right one.
    pub released: bool,
    /// The assurance that its verdict states.
    pub assurance: Assurance,
}

impl Control {
    pub(super) const fn new(released: bool, assurance: Assurance) -> Self {
        Self { released, assurance }
    }
}

/// The whole suite's result. [`Display`](fmt::Display) is the table; JSON is the same for programs.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `glasshouse-tamper-suite/1`.
    pub schema: &'static str,
    /// Attack by attack.
    pub scenarios: Vec<Outcome>,
    /// The untampered session.
    pub control: Control,
    /// The last line of the table.
    pub summary: String,
}

impl Report {
    pub(super) fn new(scenarios: Vec<Outcome>, control: Control) -> Self {
        let count = |of: fn(&Outcome) -> bool| scenarios.iter().filter(|outcome| of(outcome)).count();
        let summary = format!(
            "{} scenarios, {} rejected, {} released; control {}",
            scenarios.len(),
            count(|outcome| outcome.rejected),
            count(|outcome| outcome.released),
            if control.released { "released" } else { "not released" },
        );
        Self { schema: "glasshouse-tamper-suite/1", scenarios, control, summary }
    }

    /// Whether every attack was rejected with its own code, no key left, and the control was released.
    pub fn is_clean(&self) -> bool {
        self.control.released && self.scenarios.iter().all(|outcome| outcome.rejected && !outcome.released)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |of: fn(&Outcome) -> usize| self.scenarios.iter().map(of).max().unwrap_or_default();
        let (name, code) = (widest(|o| o.name.len()), widest(|o| o.expected.as_str().len()));
        writeln!(f, "{:name$}  {:8}  {:code$}  result", "scenario", "by", "expected")?;
        for outcome in &self.scenarios {
            let result = match &outcome.seen {
                _ if outcome.rejected => "rejected".to_owned(),
                _ if outcome.released => "RELEASED".to_owned(),
                Some(seen) => format!("REFUSED WITH {seen}"),
                None => "NOT REFUSED".to_owned(),
            };
            let (by, expected) = (outcome.refused_by.as_str(), outcome.expected.as_str());
            writeln!(f, "{:name$}  {by:8}  {expected:code$}  {result}", outcome.name)?;
        }
        let released = if self.control.released { "released" } else { "NOT RELEASED" };
        writeln!(
            f,
            "{:name$}  {:8}  {:code$}  {released} ({})",
            "control, untampered", "", "", self.control.assurance
        )?;
        write!(f, "{}", self.summary)
    }
}
