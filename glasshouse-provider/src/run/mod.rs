//! Whole runs: rent, attest, release, train, fetch, end, prove. [`ProtectedRun`] trains once; [`OverheadRun`] measures
//! what protection costs, with raw and protected segments on one allocation.

mod artifacts;
mod builder;
mod drive;
mod error;
mod event;
mod execute;
mod files;
mod gate;
mod gate_keys;
mod limits;
mod machine;
mod overhead;
mod protected;
mod record;
mod recover;
mod result;
mod setup;
mod uploads;

pub use builder::RunBuilder;
pub use error::{RunError, RunFailure};
pub use event::{RunEvent, StopHandle};
pub use gate::Gate;
pub use overhead::{OverheadReport, OverheadRun};
pub use protected::{ProtectedRun, RawRun, RunReport};
pub use recover::Recovered;
pub use result::{Timeline, TrainedArtifact};
