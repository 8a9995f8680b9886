//! What the providers have, what is running in your name, and the end of what a run left behind.
//!
//! ```text
//! cargo run --release --example providers -- offers --provider vast --gpu h200 --max-price 4
//! cargo run --release --example providers -- owned --provider runpod
//! cargo run --release --example providers -- journal
//! cargo run --release --example providers -- reap --provider runpod [--strays]
//! ```
//!
//! Exit status 0 when it did what was asked (for `reap`: everything was seen to be gone), 1 otherwise, 2 for a bad
//! command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    glasshouse_provider::serve_if_launched(examples::registry());
    examples::providers()
}
