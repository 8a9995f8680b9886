//! What owner and agent say to each other over HTTP: paths, bodies, error codes, and the MAC on every request.
//!
//! Nothing here is secret: bodies carry signed or sealed bytes that the agent relays and cannot read.

mod error;
mod mac;
mod messages;

pub use error::{WireCode, WireError};
pub(crate) use mac::{MacKey, RequestHead, ResponseHead};
pub use messages::{
    AckRequest, ArtifactEntry, Hello, OutboxRecord, PackageStatus, RecordsPage, SegmentExit, SegmentId, SegmentMode,
    SegmentStatus, SegmentStep, StartSegment, StepMark,
};

/// Version of this protocol; it stands in every path.
pub const PROTOCOL: &str = "v1";
/// Largest piece of a package upload.
pub const MAX_PIECE: usize = 8 << 20;
/// Largest body of any other message.
pub const MAX_MESSAGE: usize = 4 << 20;
/// Longest that a request for records may wait for one.
pub const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(30);

/// Header with the id of the agent's process that a request is for.
pub(crate) const BOOT_HEADER: &str = "gh-boot";
/// Header with the SHA-384 of the request's body.
pub(crate) const BODY_HEADER: &str = "gh-body";
/// Header with the request's counter.
pub(crate) const COUNTER_HEADER: &str = "gh-counter";
/// Header with the MAC, in requests and in answers.
pub(crate) const MAC_HEADER: &str = "gh-mac";
