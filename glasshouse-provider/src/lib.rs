//! Where Glasshouse runs: providers, the agent on an allocation, the owner's client, and whole runs over them.
//!
//! A tool calls [`serve_if_launched`] first thing in `main`, then composes a run. Nothing in this crate holds tensors
//! or knows a concrete attestor.

mod agent;
mod artifact_name;
pub mod client;
mod clock;
#[cfg(any(doc, feature = "contract-tests"))]
pub mod contract;
mod frames;
mod gpu_models;
mod grace;
#[cfg(feature = "hub")]
pub mod hub;
mod image;
pub mod local;
mod measurement;
pub mod memory;
mod plan;
mod progress;
mod raw;
mod rest;
pub mod roles;
pub mod run;
pub mod runpod;
mod segment;
pub mod slurm;
pub mod supervisor;
pub mod vast;
pub mod wire;

pub use local::LocalProvider;
pub use measurement::{Measurement, MeasurementError};
pub use memory::MemoryProvider;
pub use plan::{Plan, PlannedRequest};
pub use rest::{ConfigError, Pacing};
pub use roles::{DeviceFacts, InsideRole, Registry, SegmentContext, serve_if_launched};
pub use run::{OverheadRun, ProtectedRun, RawRun};
pub use runpod::RunPodProvider;
pub use segment::PUBLIC_INPUTS_VARIABLE;
pub use slurm::SlurmProvider;
pub use vast::VastProvider;
