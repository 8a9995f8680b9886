//! Times on command lines.

use std::time::{SystemTime, UNIX_EPOCH};

use glasshouse_core::clock::UnixMillis;

/// RFC 3339, or `now`.
///
/// # Errors
/// What is wrong with it, for the command line's message.
pub fn time(text: &str) -> Result<UnixMillis, String> {
    let time = if text == "now" {
        SystemTime::now()
    } else {
        humantime::parse_rfc3339_weak(text).map_err(|e| format!("{e}; write it like 2026-11-23T12:00:00Z"))?
    };
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "it lies before 1970".to_owned())?;
    u64::try_from(since.as_millis()).map(UnixMillis).map_err(|_| "it lies too far ahead".to_owned())
}
