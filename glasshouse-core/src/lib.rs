//! Traits, protocol, gate, sealed packages, evidence and overhead statistics of Glasshouse.
//!
//! Sans-I/O: sessions take and give messages and take the clock as an argument. No HTTP, no async runtime, no tensors.

pub mod anti_debug;
pub mod channel;
pub mod claims;
pub mod clock;
#[cfg(any(test, doc, feature = "contract-tests"))]
pub mod contract;
pub mod durable;
pub mod evidence;
pub mod fixed;
pub mod gate;
pub mod host_memory;
pub mod job;
pub mod manifest;
pub mod overhead;
pub mod package;
pub mod protocol;
pub mod public_file;
pub mod record;
pub mod refusal;
pub mod secret;
pub mod segment;
pub mod traits;
pub mod transcript;

pub use traits::{Attestor, Provider, Verifier, Workload, Zeroizer};
