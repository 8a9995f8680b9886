//! Attestation without a TEE: the runtime measures itself and signs what it found, the owner checks that it was made for
//! this session and says what the policy asks for.
//!
//! [`harden`] first, then a [`SoftwareAttestor`] on a [`RuntimeStateCell`]; at the owner a [`SoftwareVerifier`] with a
//! [`SoftwarePolicy`]. The outcome is `SelfReported` and nothing above it: the signing key is the runtime's own, so a
//! malicious host can run another program that signs the same words. What it does stop is in the transcript around it:
//! an attacker on the network, a replay, a wrong build, a runtime started without its protections by accident.

mod attestor;
mod container;
mod executable;
mod harden;
mod policy;
mod state;
mod token;
mod verifier;

pub use attestor::{Clock, SoftwareAttestor, system_clock};
pub use container::{ContainerSource, container_id, parse as parse_container_id};
pub use executable::{executable_digest, running_executable};
pub use harden::{harden, level_of, read_back};
pub use policy::{MinimumAntiDebug, SoftwarePolicy};
pub use state::RuntimeStateCell;
pub use token::PROFILE;
pub(crate) use token::Token;
pub use verifier::SoftwareVerifier;
