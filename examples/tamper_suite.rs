//! Attacks on the real gate, runtime, channel, package and record, each refused by its own code before any key leaves.
//!
//! ```text
//! cargo run --release --example tamper_suite            a table; the last line is the result
//! cargo run --release --example tamper_suite -- --json  the same for programs
//! ```
//!
//! Exit status 0 only when every attack was rejected with the code expected of it, no key left, and the untampered
//! control was released; 1 otherwise.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser;
use glasshouse_attest::software::harden;
use glasshouse_attest::tamper;
use glasshouse_core::claims::AntiDebugLevel;

/// Lets attackers loose on Glasshouse and says what became of each.
#[derive(Parser)]
struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// With the table, print what each attacker has and does, and the refusal it met.
    #[arg(long, conflicts_with = "json")]
    explain: bool,
}

fn main() -> ExitCode {
    match suite(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tamper_suite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn suite(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    // The suite's control measures this very process, so it has to be what a runtime is.
    harden(AntiDebugLevel::Basic)?;
    // Evidence of hardware is made by a crate that only examples and tests may name.
    let report = tamper::run_with(&glasshouse_attest_gen::tamper::scenarios())?;
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(report.is_clean());
    }
    if arguments.explain {
        for outcome in &report.scenarios {
            writeln!(out, "{}\n  attacker: {}", outcome.name, outcome.attacker)?;
            writeln!(
                out,
                "  {}: {}\n",
                outcome.refused_by.as_str(),
                outcome.detail.as_deref().unwrap_or("no refusal")
            )?;
        }
    }
    writeln!(out, "{report}")?;
    Ok(report.is_clean())
}
