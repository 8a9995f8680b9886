//! A segment: a fresh process that attests, trains and zeroizes, and talks to its agent over its pipes alone.
//!
//! Raw and protected segments run the same set-up, open a sealed package in the same way, and run the same training loop
//! and the same channel; a raw one leaves out attestation, the release and zeroization, and nothing else.

mod attest;
mod exports;
mod finish;
mod inputs;
mod port;
mod run;
mod stop;
mod training;
mod watchdog;

pub use inputs::PUBLIC_INPUTS_VARIABLE;
pub(crate) use run::main;
