//! What protection costs, measured on one allocation: the same MLP trained raw and protected, in an order that cancels
//! drift. Seals a package, rents an allocation, attests it, releases the key, trains, zeroizes, sees the allocation
//! gone, and signs a record.
//!
//! ```text
//! cargo run --release --example overhead_mlp
//! cargo run --release --example overhead_mlp -- --shape wide --duration 20s --order raw-first
//! cargo run --release --example overhead_mlp -- --provider slurm
//! cargo run --release --example overhead_mlp -- --provider runpod --gpu a4000 --measurement measurement.json --dry-run
//! ```
//!
//! Exit status 0 when the row counts, 1 when it is excluded or the run failed, 2 for a bad command line.

use std::process::ExitCode;

use glasshouse_core::host_memory::ZeroOnFree;
use glasshouse_provider::serve_if_launched;

#[global_allocator]
static ALLOCATOR: ZeroOnFree = ZeroOnFree::new();

fn main() -> ExitCode {
    serve_if_launched(examples::registry());
    examples::overhead_mlp()
}
