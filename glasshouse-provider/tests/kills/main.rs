//! SIGKILL of segment, agent and owner at each step of the protocol, over real processes. This executable is the table,
//! the owner of each case, its agent and its segment.
//!
//! A case stops one process at a named step and kills one of the three. `cargo test -p glasshouse-provider --test kills`
//! runs them all, six at a time; an argument picks those whose names contain it.

// Without the usual harness this is no `cfg(test)` code to clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::indexing_slicing)]

mod case;
mod check;
mod hooks;
mod owner;
mod relay;
#[allow(dead_code)] // shared with the other runs
#[path = "../runs/support.rs"]
mod support;
mod table;
mod tap;
mod tapped;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use glasshouse_provider::serve_if_launched;

/// Cases wait for most of their time, so more of them run at once than there are processors.
const AT_ONCE: usize = 6;

fn main() {
    hooks::log_to_folder();
    serve_if_launched(hooks::registry());
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == owner::ARGUMENT) {
        return owner::main(arguments[at + 1].as_ref());
    }
    let cases = table::cases();
    if arguments.iter().any(|argument| argument == "--list") {
        return cases.iter().for_each(|case| println!("{}: test", case.name()));
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let cases: Vec<_> = cases.iter().filter(|c| filter.is_none_or(|f| c.name().contains(f.as_str()))).collect();
    let (began, next, good, worst) =
        (Instant::now(), AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new((Duration::ZERO, String::new())));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let began = Instant::now();
                    let seen = catch_unwind(AssertUnwindSafe(|| case.run()));
                    let took = began.elapsed();
                    let Ok(seen) = seen else {
                        println!("case {:<28} FAILED ({took:.1?})", case.name());
                        continue;
                    };
                    println!("case {:<28} ok ({took:.1?}): {}", case.name(), seen.what);
                    good.fetch_add(1, Ordering::Relaxed);
                    let mut worst = worst.lock().unwrap();
                    if seen.outlived.is_some_and(|outlived| outlived > worst.0) {
                        *worst = (seen.outlived.unwrap(), case.name());
                    }
                }
            });
        }
    });
    let (worst, whose) = worst.into_inner().unwrap();
    println!("longest life of a process after who started it was killed: {worst:.2?} ({whose}), of 5 s allowed");
    println!("{:.1?} for all of them", began.elapsed());
    let good = good.into_inner();
    println!("{} cases, {good} as expected", cases.len());
    std::process::exit(i32::from(good != cases.len()))
}
