//! Fetches what the vendors publish about a machine, and signs it as a bundle for `--bundle` of the other examples.
//!
//! ```text
//! cargo run --release -p examples --features fetch --example collateral -- --tdx quote.bin --gpus evidence_list.json \
//!     --version 3 --key bundle.key --out bundle.json
//! ```
//!
//! The machine is known by evidence of it, fresh or not: nothing of it is verified here, and everything that is fetched is
//! verified when a run is appraised. Exit status 0 when the bundle was written, 1 otherwise, 2 for a bad command line.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use examples::{fail, say, time, warn};
use glasshouse_attest::collateral::{Fetcher, Services};
use glasshouse_attest::corpus::{binary, document};
use glasshouse_attest::nvidia::ListedEvidence;
use glasshouse_core::evidence::{CpuEvidence, GpuEvidence};
use glasshouse_core::fixed::{Blob, Digest32};
use glasshouse_core::protocol::SigningSecret;
use glasshouse_core::secret::Secret;

type Failure = Box<dyn std::error::Error>;

/// Fetches collateral and signs it as a bundle.
#[derive(Parser)]
struct Arguments {
    /// A TDX quote of the machine: raw, hex or base64.
    #[arg(long, required_unless_present = "sev_snp", conflicts_with = "sev_snp")]
    tdx: Option<PathBuf>,
    /// An SEV-SNP report of the machine: raw, hex or base64.
    #[arg(long)]
    sev_snp: Option<PathBuf>,
    /// Evidence of its GPUs and switches, the list that NVIDIA's tools write.
    #[arg(long)]
    gpus: Option<PathBuf>,
    /// NVIDIA's OCSP responder too; its answers count for about a day.
    #[arg(long)]
    ocsp: bool,
    /// One more than that of the last bundle: verifiers refuse less than they have seen.
    #[arg(long)]
    version: u64,
    /// How long the bundle counts at most: until the first revocation list or OCSP answer in it runs out.
    #[arg(long, default_value = "7days", value_parser = humantime::parse_duration)]
    valid_for: Duration,
    /// The secret key that signs, 64 hex digits in a file; made where there is none.
    #[arg(long)]
    key: PathBuf,
    /// The bundle.
    #[arg(long)]
    out: PathBuf,
}

fn main() -> ExitCode {
    match fetch(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("collateral", error),
    }
}

fn fetch(arguments: &Arguments) -> Result<(), Failure> {
    let key = signing_key(&arguments.key)?;
    let cpu = match (&arguments.tdx, &arguments.sev_snp) {
        (Some(quote), _) => CpuEvidence::Tdx { quote: Blob(binary(&read(quote)?)) },
        (None, Some(report)) => CpuEvidence::SevSnp { report: Blob(binary(&read(report)?)), certificates: None },
        (None, None) => return Err("--tdx or --sev-snp is missing".into()),
    };
    let gpus = match &arguments.gpus {
        Some(list) => ListedEvidence::parse(&document(&read(list)?))?.iter().map(ListedEvidence::evidence).collect(),
        None => Vec::new(),
    };
    let services = if arguments.ocsp { Services::with_ocsp() } else { Services::default() };
    let now = time("now")?;
    let window = (now, now.after(arguments.valid_for));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fetcher = Fetcher::new(services)?;
    let bundle = runtime.block_on(fetcher.bundle((&cpu, &GpuEvidence(gpus)), arguments.version, window))?;
    if bundle.not_after < window.1 {
        warn(format_args!(
            "the bundle counts until {} only, when the first revocation list or OCSP answer in it runs out, and not until {}",
            bundle.not_after, window.1
        ));
    }
    std::fs::write(&arguments.out, bundle.sign(&key))
        .map_err(|e| format!("{} cannot be written: {e}", arguments.out.display()))?;
    say(format_args!(
        "{}: version {}, until {}; use it with --bundle {} --bundle-key {}",
        arguments.out.display(),
        bundle.version,
        bundle.not_after,
        arguments.out.display(),
        key.public()
    ));
    Ok(())
}

/// The key in a file, or a new one, which only its owner can read.
fn signing_key(path: &Path) -> Result<SigningSecret, Failure> {
    let wrong = || format!("{} holds no key: it must be 64 hex digits and nothing else", path.display());
    let mut seed = match std::fs::read_to_string(path) {
        Ok(text) => Digest32::from_hex(text.trim()).ok_or_else(wrong)?.0,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let seed = Digest32::random().map_err(|_| "the operating system gives no randomness")?;
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(format!("{seed}\n").as_bytes())?;
            seed.0
        }
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display()).into()),
    };
    Ok(SigningSecret::from_seed(Secret::take(&mut seed)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
}
