//! The runtime's side of one protected session, sans-I/O: it proves itself to one gate and takes a release from it.

mod lease;
mod session;

pub use lease::LeaseGuard;
pub use session::{Grant, SegmentConfig, SegmentError, SegmentSession};
