//! Every committed input through its target, with the stable toolchain: what the fuzzer found once stays found.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use glasshouse_fuzz::targets;

fn all(target: &str, run: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    for file in files {
        eprintln!("{}", file.display()); // shown with the failure
        run(&fs::read(&file).unwrap());
    }
}

macro_rules! targets {
    ($($target:ident),*) => { $(#[test] fn $target() { all(stringify!($target), targets::$target::run); })* };
}

targets!(agent, chain, container, jwt, manifest, overhead, package, record, wire);
