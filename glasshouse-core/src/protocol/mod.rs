//! The messages of the protocol and what binds them: strict wire format, T, the launch secret's keys, HPKE release.

mod binding;
mod keys;
mod messages;
mod release;
mod wire;

pub use binding::{TranscriptFields, transcript_hash};
pub(crate) use keys::verify_signature;
pub use keys::{LaunchKeys, ResultKey, RuntimeKey, SigningSecret};
pub use messages::{Challenge, EvidenceMessage, Lease, Release, Verdict};
pub(crate) use release::{ReleaseContext, ReleaseKeys, open_release, seal_release};
pub use release::{SealedArtifact, open_artifact, seal_artifact};
pub use wire::{Message, Signed, decode, encode};

/// The algorithms in use, as they stand in the challenge and in T. One suite; a second would be a second name.
pub const SUITES: &str = "DHKEM(X25519,HKDF-SHA256)/HKDF-SHA256/AES-256-GCM+PSK;Ed25519;SHA-384";

/// The protocol's version, first field of every challenge.
pub const VERSION: &str = "glasshouse/1";
