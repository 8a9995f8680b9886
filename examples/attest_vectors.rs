//! Runs a corpus of attestation evidence: `cargo run --example attest_vectors -- CASES.json`.
//!
//! Prints each case with what it expects, what the verifier decided, and the check that decided it; the last line is
//! `N cases, N as expected`. The exit status is 0 only then: 1 where a case is not as expected, 2 where the file is no corpus.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use glasshouse_attest::corpus::Corpus;

/// Verifies every case of a corpus offline, each at its own clock.
#[derive(Parser)]
struct Arguments {
    /// The corpus, a file of the form of cases.json; paths in it are relative to it.
    cases: PathBuf,
}

fn main() -> ExitCode {
    let corpus = match Corpus::read(&Arguments::parse().cases) {
        Ok(corpus) => corpus,
        Err(error) => {
            let _ = writeln!(io::stderr(), "attest_vectors: {error}");
            return ExitCode::from(2);
        }
    };
    let report = corpus.run();
    let told = writeln!(io::stdout(), "{report}");
    if told.is_ok() && report.all_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
