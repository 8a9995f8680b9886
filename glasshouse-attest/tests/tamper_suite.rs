//! The tamper suite, in a process that is hardened like a runtime.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::collections::BTreeSet;

use glasshouse_attest::software::harden;
use glasshouse_attest::tamper::{SuiteError, run, scenarios};
use glasshouse_core::claims::AntiDebugLevel;

fn main() {
    assert!(matches!(run(), Err(SuiteError::NotHardened)), "it measures its own process");
    harden(AntiDebugLevel::Basic).expect("hardened");
    let report = run().expect("the suite runs");
    println!("{report}");
    assert!(report.is_clean(), "{report}");

    let count = scenarios().len();
    let distinct = |of: fn(&'static glasshouse_attest::tamper::Scenario) -> String| {
        scenarios().into_iter().map(of).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(distinct(|scenario| scenario.expected.to_string()), count, "each has a code of its own");
    assert_eq!(distinct(|scenario| scenario.name.to_owned()), count);
    assert!(count >= 29, "the nine and twenty more, not {count}");
}
