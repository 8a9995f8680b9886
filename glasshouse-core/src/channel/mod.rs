//! The sealed, chained channel between a runtime and its owner: events one way, commands the other.

mod chain;
mod event;
mod fit;
mod owner;
mod record;
mod runtime;

pub use chain::{ChainVerifier, check_body, genesis, raw_genesis};
pub use event::{Event, EventBody, EventHeader, Interval, Outcome, Phase};
pub use owner::OwnerChannel;
pub use record::{Command, Direction, SealedRecord};
pub use runtime::RuntimeChannel;
