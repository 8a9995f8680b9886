//! The tamper suite, in a process that is hardened like a runtime.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::collections::BTreeSet;

use glasshouse_attest::software::harden;
use glasshouse_attest::tamper::{Outcome, SuiteError, run, run_with, scenarios};
use glasshouse_core::claims::AntiDebugLevel;

fn main() {
    assert!(matches!(run(), Err(SuiteError::NotHardened)), "it measures its own process");
    harden(AntiDebugLevel::Basic).expect("hardened");
    let hardware = glasshouse_attest_gen::tamper::scenarios();
    let report = run_with(&hardware).expect("the suite runs");
    println!("{report}");
    assert!(report.is_clean(), "{report}");

    let count = report.scenarios.len();
    assert_eq!(count, scenarios().len() + hardware.len());
    let distinct = |of: fn(&Outcome) -> String| report.scenarios.iter().map(of).collect::<BTreeSet<_>>().len();
    assert_eq!(distinct(|scenario| scenario.expected.to_string()), count, "each has a code of its own");
    assert_eq!(distinct(|scenario| scenario.name.to_owned()), count);
    assert!(count >= 42, "the nine, twenty more, and the hardware's thirteen, not {count}");
}
