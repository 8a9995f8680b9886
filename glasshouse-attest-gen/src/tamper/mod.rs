//! Attacks with evidence of hardware, for [`glasshouse_attest::tamper::run_with`]: each on a real gate whose verifier
//! trusts this crate's roots, each refused by a code of its own before any key leaves.
//!
//! The attacker is a runtime with the launch secret and keys of its own, which tells its story consistently: T, MACs and
//! signatures are made for it, and where the scenario does not say otherwise so is the CPU's quote. What differs from an
//! honest machine is the one thing that the scenario names.

mod scenarios;
mod world;

pub use scenarios::scenarios;
