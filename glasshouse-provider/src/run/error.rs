use std::path::PathBuf;

use glasshouse_core::gate::GateError;
use glasshouse_core::package::PackageError;
use glasshouse_core::record::RecordError;
use glasshouse_core::refusal::Refusal;

use crate::client::ClientError;
use crate::roles::InsideRole;
use crate::supervisor::{JournalError, SupervisorError};
use crate::wire::SegmentExit;

/// Why a run did not come to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Runs are started by owners, not by agents or segments.
    #[error(transparent)]
    InsideRole(#[from] InsideRole),
    /// Something that a run needs was not given.
    #[error("a run needs {what}; call {call} on the builder")]
    Missing {
        /// What.
        what: &'static str,
        /// The builder's method that gives it.
        call: &'static str,
    },
    /// The package is for another workload, or cannot be read.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Raw segments would show private data to a machine that is not the owner's.
    #[error(
        "raw segments on {provider} would expose this package's data; mark it public when sealing, or allow cleartext data"
    )]
    CleartextData {
        /// The provider.
        provider: &'static str,
    },
    /// A file of the owner's cannot be read or written.
    #[error("{} cannot be {what}: {why}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What happened.
        why: String,
    },
    /// There is no allocation, or no journal.
    #[error(transparent)]
    Supervisor(#[from] SupervisorError),
    /// The agent did not do what it was asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The gate released nothing, or took no more records.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// What the runtime sent does not hold.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The segment's process ended before its terminal event.
    #[error("segment {segment} was lost {}, {exit}", after(*last))]
    SegmentLost {
        /// Its id.
        segment: String,
        /// Sequence number of the last record that came home.
        last: Option<u64>,
        /// What the agent saw.
        exit: Box<SegmentExit>,
    },
    /// The agent, and with it whatever the segment had not handed over, is out of reach: its allocation ended, or the
    /// network did.
    #[error("segment {segment} was lost {}, and its agent with it: {error}", after(*last))]
    AgentLost {
        /// The segment's id.
        segment: String,
        /// Sequence number of the last record that came home.
        last: Option<u64>,
        /// What happened last.
        #[source]
        error: Box<ClientError>,
    },
    /// The segment ended and says that it failed.
    #[error("segment {segment} failed: {reason}")]
    SegmentFailed {
        /// Its id.
        segment: String,
        /// What it said.
        reason: String,
    },
    /// The segment ended before its work was done.
    #[error("segment {segment} stopped before its end: {reason}")]
    SegmentStopped {
        /// Its id.
        segment: String,
        /// Why.
        reason: String,
    },
    /// The segment says nothing more.
    #[error("segment {segment} did not end within {seconds} s; its allocation is being ended")]
    Overdue {
        /// Its id.
        segment: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// An artifact is missing, or is not what the runtime signed.
    #[error("artifact {name}: {why}")]
    Artifact {
        /// Its name.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A signal came.
    #[error("interrupted; the allocation was ended")]
    Interrupted,
    /// Nobody saw the allocation end.
    #[error(
        "{allocation} was asked to end, but its absence was not seen; it stays in the journal, look at the provider"
    )]
    CleanupUnconfirmed {
        /// The allocation.
        allocation: String,
    },
    /// The record cannot be made.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    NoRandomness,
    /// One record cannot hold so many segments.
    #[error("a run of {segments} segments does not fit into one record, which has room for {most}; repeat less often")]
    TooManySegments {
        /// How many were planned.
        segments: usize,
        /// How many fit.
        most: usize,
    },
    /// The segment says more than the run's record holds.
    #[error(
        "segment {segment} sent {events} events, more than its share of the record holds; its allocation is being ended"
    )]
    TooManyEvents {
        /// Its id.
        segment: String,
        /// How many.
        events: usize,
    },
}

fn after(last: Option<u64>) -> String {
    last.map_or_else(|| "before its first record".to_owned(), |last| format!("after record {last}"))
}

impl From<JournalError> for RunError {
    fn from(error: JournalError) -> Self {
        Self::Supervisor(error.into())
    }
}

/// A run that did not come to its end, and what is left of it: results that were acknowledged before are in its record.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", further.iter().map(|next| format!("; then: {next}")).collect::<String>())]
pub struct RunFailure<R: std::fmt::Debug> {
    /// What went wrong first.
    #[source]
    pub error: RunError,
    /// What went wrong after it: an end that was not seen or not journalled, a record that could not be written.
    #[allow(clippy::box_collection)] // so that the whole stays a small `Err`
    pub further: Box<Vec<RunError>>,
    /// The report, once there was anything to report.
    pub report: Option<Box<R>>,
}

impl<R: std::fmt::Debug> RunFailure<R> {
    /// A run's outcome out of what went wrong in it, in order, and its report.
    pub(super) fn outcome(errors: Vec<RunError>, report: Result<R, RunError>) -> Result<R, Self> {
        let mut errors = errors.into_iter();
        match (errors.next(), report) {
            (None, Ok(report)) => Ok(report),
            (None, Err(error)) => Err(error.into()),
            (Some(error), report) => {
                let (report, last) = match report {
                    Ok(report) => (Some(Box::new(report)), None),
                    Err(error) => (None, Some(error)),
                };
                Err(Self { error, further: Box::new(errors.chain(last).collect()), report })
            }
        }
    }
}

impl<R: std::fmt::Debug> From<RunError> for RunFailure<R> {
    fn from(error: RunError) -> Self {
        Self { error, further: Box::default(), report: None }
    }
}
