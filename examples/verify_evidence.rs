//! Checks an evidence record offline and says what it proves and what it does not.
//!
//! ```text
//! cargo run --release --example verify_evidence -- glasshouse-out/TIME/evidence.json --trust HEX_OR_FILE
//! ```
//!
//! Self-reported evidence is appraised again under the default policy. Evidence of hardware is where `--policy` names the
//! owner's policy; what the vendors published comes from a signed bundle (`--bundle`, `--bundle-key`).
//!
//! Exit status 0 when the record holds under the key given, 3 when it holds but nobody's key was given, 1 when it does
//! not hold or was not released by the policy given, 2 for a bad command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use examples::{HardwareArguments, fail, public_key, say, time};
use glasshouse_attest::hardware::HardwareRoots;
use glasshouse_attest::software::{SoftwarePolicy, SoftwareVerifier};
use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::record::{MAX_RECORD_BYTES, Signer, explain, verify_with};
use glasshouse_core::traits::Verifier;

/// Checks an evidence record offline.
#[derive(Parser)]
struct Arguments {
    /// The record, evidence.json.
    file: PathBuf,
    /// The gate's public key: 64 hex digits, or a file that holds them. Get it from the owner, not from beside the record.
    #[arg(long, value_parser = public_key)]
    trust: Option<PublicKey32>,
    /// The time to check at, RFC 3339 or "now"; the verdict's own time when not given.
    #[arg(long, value_parser = time)]
    at: Option<UnixMillis>,
    #[command(flatten)]
    hardware: HardwareArguments,
    /// Print the public view as JSON: only what may be published.
    #[arg(long)]
    json: bool,
}

// Tests run it as it is.
pub(crate) fn main() -> ExitCode {
    match check(&Arguments::parse()) {
        Ok(code) => code,
        Err(error) => fail("verify_evidence", error),
    }
}

fn check(arguments: &Arguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let bytes = read(&arguments.file)?;
    let hardware = match arguments.hardware.policy {
        None => None,
        Some(_) => {
            // An audit looks back: to the time that the record is checked at.
            let at = verify_with(&bytes, arguments.trust, arguments.at, None)?.time.time();
            arguments.hardware.for_an_audit(HardwareRoots::vendors(), at)?
        }
    };
    let by_policy = hardware.is_some();
    let verifier: Box<dyn Verifier> = match hardware {
        Some(verifier) => Box::new(verifier),
        None => Box::new(SoftwareVerifier::new(SoftwarePolicy::default())),
    };
    let verified = verify_with(&bytes, arguments.trust, arguments.at, Some(&*verifier))?;
    if by_policy && (verified.sessions.is_empty() || verified.sessions.iter().any(|s| !s.appraised_again)) {
        return Err("the record is of other evidence than the policy given is about, or was released by another policy or \
                    under other roots than the vendors': it was not appraised again; pass the policy of its owner, with the --dangerous-at \
                    of the run where it had one, or none"
            .into());
    }
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
