//! Runs a corpus of attestation evidence: `cargo run --example attest_vectors -- CASES.json`.
//!
//! Prints each case with what it expects, what the verifier decided, and the check that decided it; the last line is
//! `N cases, N as expected`. The exit status is 0 only then: 1 where a case is not as expected, 2 where the file is no corpus.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use examples::time;
use glasshouse_attest::corpus::{Corpus, CorpusReport};
use glasshouse_core::clock::UnixMillis;

/// Verifies every case of a corpus offline, each at its own clock.
#[derive(Parser)]
struct Arguments {
    /// The corpus, a file of the form of cases.json; paths in it are relative to it.
    cases: PathBuf,
    /// Verify every case at this time instead of its own, RFC 3339 or "now".
    #[arg(long, value_parser = time)]
    at: Option<UnixMillis>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let corpus = match Corpus::read(&arguments.cases) {
        Ok(corpus) => corpus,
        Err(error) => {
            let _ = writeln!(io::stderr(), "attest_vectors: {error}");
            return ExitCode::from(2);
        }
    };
    let corpus = match arguments.at {
        Some(at) => corpus.at(at),
        None => corpus,
    };
    // Line by line as it goes: what comes later takes nothing back.
    let mut report = CorpusReport { cases: Vec::new() };
    let mut told = true;
    for case in corpus.cases() {
        let case = corpus.run_case(case);
        told &= writeln!(io::stdout(), "{case}").is_ok();
        report.cases.push(case);
    }
    told &= writeln!(io::stdout(), "{}", report.summary()).is_ok();
    if told && report.all_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
