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
//! not hold, 2 for a bad command line.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use examples::{fail, say, time};
use glasshouse_attest::collateral::Bundle;
use glasshouse_attest::hardware::{HardwarePolicy, HardwareRoots, HardwareVerifier};
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
    #[arg(long, value_parser = trust)]
    trust: Option<PublicKey32>,
    /// The time to check at, RFC 3339 or "now"; the verdict's own time when not given.
    #[arg(long, value_parser = time)]
    at: Option<UnixMillis>,
    /// The policy that evidence of hardware is to be appraised by again, JSON as policy.schema.json describes it.
    #[arg(long, requires = "bundle")]
    policy: Option<PathBuf>,
    /// The bundle of the vendors' collateral of that time.
    #[arg(long, requires = "bundle_key")]
    bundle: Option<PathBuf>,
    /// The public key of whoever signed the bundle: 64 hex digits, or a file that holds them.
    #[arg(long, value_parser = trust)]
    bundle_key: Option<PublicKey32>,
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
    let verifier = verifier(arguments, &bytes)?;
    let verified = verify_with(&bytes, arguments.trust, arguments.at, Some(&*verifier))?;
    if arguments.json {
        say(serde_json::to_string_pretty(&verified.public_view())?);
    } else {
        say(explain(&verified).trim_end());
    }
    Ok(if matches!(verified.signer, Signer::Unknown(_)) { ExitCode::from(3) } else { ExitCode::SUCCESS })
}

/// Who appraises again what the record's bytes alone cannot show.
fn verifier(arguments: &Arguments, record: &[u8]) -> Result<Box<dyn Verifier>, Box<dyn std::error::Error>> {
    let (Some(policy), Some(bundle), Some(key)) = (&arguments.policy, &arguments.bundle, &arguments.bundle_key) else {
        return Ok(Box::new(SoftwareVerifier::new(SoftwarePolicy::default())));
    };
    let file = |path: &Path| std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()));
    let policy: HardwarePolicy =
        serde_json::from_slice(&file(policy)?).map_err(|e| format!("{} is no policy: {e}", policy.display()))?;
    // An audit looks back: the bundle must be of the record's time, not the newest.
    let time = verify_with(record, arguments.trust, arguments.at, None)?.time.time();
    let collateral = Bundle::open(&file(bundle)?, key, time)?.collateral()?;
    Ok(Box::new(HardwareVerifier::new(policy, HardwareRoots::vendors(), collateral)?))
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
