//! Checks an evidence record offline and says what it proves and what it does not.
//!
//! ```text
//! cargo run --release --example verify_evidence -- glasshouse-out/TIME/evidence.json --trust HEX_OR_FILE
//! ```
//!
//! Exit status 0 when the record holds under the key given, 3 when it holds but nobody's key was given, 1 when it does
//! not hold, 2 for a bad command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use examples::{fail, say};
use glasshouse_attest::software::{SoftwarePolicy, SoftwareVerifier};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::record::{MAX_RECORD_BYTES, Signer, explain, verify_with};

/// Checks an evidence record offline.
#[derive(Parser)]
struct Arguments {
    /// The record, evidence.json.
    file: PathBuf,
    /// The gate's public key: 64 hex digits, or a file that holds them. Get it from the owner, not from beside the record.
    #[arg(long, value_parser = trust)]
    trust: Option<PublicKey32>,
    /// The time to check at, RFC 3339 or "now"; the verdict's own time when not given.
    #[arg(long, value_parser = time)]
    at: Option<UnixMillis>,
    /// Print the public view as JSON: only what may be published.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match check(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => fail("verify_evidence", error),
    }
}

fn check(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let bytes = read(&arguments.file)?;
    // Self-reported evidence is appraised again under the default policy; the bytes alone would not do that.
    let verifier = SoftwareVerifier::new(SoftwarePolicy::default());
    let verified = verify_with(&bytes, arguments.trust, arguments.at, Some(&verifier))?;
    if arguments.json {
        say(serde_json::to_string_pretty(&verified.public_view())?);
    } else {
        say(explain(&verified).trim_end());
    }
    Ok(if matches!(verified.signer, Signer::Unknown(_)) { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let length = std::fs::metadata(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?.len();
    if usize::try_from(length).map_or(true, |length| length > MAX_RECORD_BYTES) {
        return Err(format!("{} has {length} bytes; a record has at most {MAX_RECORD_BYTES}", path.display()));
    }
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

fn trust(text: &str) -> Result<PublicKey32, String> {
    let from_file;
    let digits = if text.len() == 64 && !Path::new(text).exists() {
        text
    } else {
        from_file = std::fs::read_to_string(text).map_err(|e| format!("neither 64 hex digits nor a file: {e}"))?;
        from_file.trim()
    };
    PublicKey32::from_hex(digits).ok_or_else(|| "a key has 64 lower-case hex digits".to_owned())
}

fn time(text: &str) -> Result<UnixMillis, String> {
    let time = if text == "now" {
        SystemTime::now()
    } else {
        humantime::parse_rfc3339_weak(text).map_err(|e| format!("{e}; write it like 2026-11-23T12:00:00Z"))?
    };
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "it lies before 1970".to_owned())?;
    u64::try_from(since.as_millis()).map(UnixMillis).map_err(|_| "it lies too far ahead".to_owned())
}
