//! Where Glasshouse runs: providers, the agent on an allocation, the owner's client, and whole runs over them.
//!
//! A tool calls [`serve_if_launched`] first thing in `main`, then composes a run. Nothing in this crate holds tensors
//! or knows a concrete attestor.

mod agent;
mod artifact_name;
pub mod client;
mod clock;
mod frames;
#[cfg(feature = "hub")]
pub mod hub;
pub mod local;
pub mod memory;
mod progress;
mod raw;
pub mod roles;
pub mod run;
mod segment;
pub mod supervisor;
pub mod wire;

pub use local::LocalProvider;
pub use memory::MemoryProvider;
pub use roles::{DeviceFacts, InsideRole, Registry, SegmentContext, serve_if_launched};
pub use run::{OverheadRun, ProtectedRun, RawRun};
pub use segment::PUBLIC_INPUTS_VARIABLE;
