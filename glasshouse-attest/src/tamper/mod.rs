//! The tamper suite: attackers against the real gate, runtime, channel, package and record, each refused by its own code
//! before any key leaves.
//!
//! Each scenario gives its attacker as much as it can have and still must be refused. Mostly that is a malicious runtime
//! which knows the launch secret and holds keys of its own: it tells its lie everywhere at once, computes T over it,
//! makes the launch secret's MACs and signs. What it cannot do is change what the owner already knows.
//!
//! The suite runs on real measurements, so the process that runs it must be hardened
//! ([`harden`](crate::software::harden)) like a runtime.

mod chain;
mod channel;
mod evidence;
mod liar;
mod messages;
mod package;
mod published;
mod record;
mod release;
mod report;
mod tokens;
mod world;

use std::time::Instant;

use glasshouse_core::gate::GateError;
use glasshouse_core::refusal::{Code, Refusal};
use glasshouse_core::segment::SegmentError;
use glasshouse_core::traits::AttestError;

pub use report::{Control, Outcome, Report};
use world::World;

/// Who refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RefusedBy {
    /// The owner's gate, before it releases.
    Gate,
    /// The runtime, before it opens a key or while it holds one.
    Runtime,
    /// The owner's end of the channel.
    Channel,
    /// Whoever opens the sealed package, before any plaintext of the part is used.
    Package,
    /// Whoever verifies the record.
    Record,
}

impl RefusedBy {
    /// The name as it is printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gate => "gate",
            Self::Runtime => "runtime",
            Self::Channel => "channel",
            Self::Package => "package",
            Self::Record => "record",
        }
    }
}

/// One attack.
pub struct Scenario {
    /// What it is called.
    pub name: &'static str,
    /// What the attacker has and does.
    pub attacker: &'static str,
    /// Who must refuse it.
    pub refused_by: RefusedBy,
    /// The code that it must be refused with. No two scenarios share one.
    pub expected: Code,
    run: fn(&World) -> Result<Attempt, SuiteError>,
}

/// An attack on a world that it brings itself: for suites with evidence that this crate cannot make.
pub struct OwnWorld {
    /// What it is called.
    pub name: &'static str,
    /// What the attacker has and does.
    pub attacker: &'static str,
    /// Who must refuse it.
    pub refused_by: RefusedBy,
    /// The code that it must be refused with.
    pub expected: Code,
    /// The attack.
    pub run: fn() -> Result<Attempt, SuiteError>,
}

/// What became of an attack.
pub enum Attempt {
    /// It was refused, and this tells whether a key left all the same.
    Refused {
        /// Why.
        refusal: Refusal,
        /// Whether a key left.
        key_left: bool,
    },
    /// It was not refused.
    Accepted,
}

impl Attempt {
    /// The same attack at every place where it can be made, each refused with `code`; the first one that is not is what
    /// counts.
    fn everywhere<const N: usize>(code: &Code, attempts: [Self; N]) -> Self {
        let held = |attempt: &Self| matches!(attempt, Self::Refused { refusal, .. } if refusal.code == *code);
        let mut last = Self::Accepted;
        for attempt in attempts {
            if !held(&attempt) {
                return attempt;
            }
            last = attempt;
        }
        last
    }

    /// An attack that no key could leave by, as the result of the call that should refuse it.
    ///
    /// # Errors
    /// The call's, where it is no refusal.
    pub fn of<T, E: Into<SuiteError>>(result: Result<T, E>) -> Result<Self, SuiteError> {
        match result.map_err(Into::into) {
            Ok(_) => Ok(Self::Accepted),
            Err(SuiteError::Refused(refusal)) => Ok(Self::Refused { refusal, key_left: false }),
            Err(other) => Err(other),
        }
    }
}

/// Why the suite could not be run. Nothing is concluded then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuiteError {
    /// The process is not hardened, so that its own measurements would be refused.
    #[error("the tamper suite measures this process, which is not hardened; call harden(basic) first")]
    NotHardened,
    /// A scenario's preparation, which no one tampered with, was refused.
    #[error("an honest step was refused: {0}")]
    Refused(#[from] Refusal),
    /// The process could not be measured.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The gate failed otherwise.
    #[error(transparent)]
    Gate(GateError),
    /// The runtime failed otherwise.
    #[error(transparent)]
    Segment(SegmentError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    NoRandomness,
    /// The package could not be sealed, or could not be opened untampered.
    #[error("the untampered package failed: {0}")]
    Package(String),
    /// A scenario did not find what it was to tamper with.
    #[error("the scenario does not fit the code that it attacks: {0}")]
    Unfit(&'static str),
}

impl From<GateError> for SuiteError {
    fn from(error: GateError) -> Self {
        match error {
            GateError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Gate(other),
        }
    }
}

impl From<SegmentError> for SuiteError {
    fn from(error: SegmentError) -> Self {
        match error {
            SegmentError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Segment(other),
        }
    }
}

/// Every scenario: the nine published ones first.
pub fn scenarios() -> Vec<&'static Scenario> {
    [
        published::ALL,
        evidence::ALL,
        tokens::ALL,
        messages::ALL,
        release::ALL,
        package::ALL,
        channel::ALL,
        chain::ALL,
        record::ALL,
    ]
    .concat()
}

/// Runs one untampered control and every scenario, each in a world of its own.
///
/// # Errors
/// [`SuiteError`] when the suite itself could not be run; an attack that gets through is in the report, not here.
pub fn run() -> Result<Report, SuiteError> {
    run_with(&[])
}

/// The same, and after this crate's own scenarios those that others bring.
///
/// # Errors
/// As [`run`].
pub fn run_with(more: &[OwnWorld]) -> Result<Report, SuiteError> {
    let control = world::control()?;
    let own = scenarios().into_iter().map(outcome);
    let outcomes = own.chain(more.iter().map(outcome_of_own)).collect::<Result<Vec<_>, _>>()?;
    Ok(Report::new(outcomes, control))
}

fn outcome(scenario: &'static Scenario) -> Result<Outcome, SuiteError> {
    let Scenario { name, attacker, refused_by, expected, run } = scenario;
    let world = World::new()?;
    timed((*name, *attacker), (*refused_by, expected), || run(&world))
}

fn outcome_of_own(scenario: &OwnWorld) -> Result<Outcome, SuiteError> {
    let OwnWorld { name, attacker, refused_by, expected, run } = scenario;
    timed((*name, *attacker), (*refused_by, expected), run)
}

fn timed(
    told: (&'static str, &'static str),
    expected: (RefusedBy, &Code),
    attack: impl FnOnce() -> Result<Attempt, SuiteError>,
) -> Result<Outcome, SuiteError> {
    let start = Instant::now();
    let attempt = attack()?;
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    Ok(Outcome::new(told, expected, attempt, micros))
}
