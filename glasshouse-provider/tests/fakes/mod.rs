//! Providers that speak the documented HTTP on loopback, with state and with faults.

// Each test executable uses its part of them.
#![allow(dead_code)]

pub(crate) mod machines;
pub(crate) mod openapi;
pub(crate) mod runpod;
pub(crate) mod server;
pub(crate) mod vast;
mod yaml;
