//! Every committed input through its target, with the stable toolchain: what the fuzzer found once stays found. So does
//! what it has found since, under `found/`, which is not committed.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::{fs, io};

use glasshouse_fuzz::targets;

fn all(target: &str, run: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let committed = files(&folder.join("corpus").join(target)).unwrap();
    assert!(!committed.is_empty(), "no corpus of {target}");
    let found = files(&folder.join("found").join(target)).unwrap_or_default();
    for file in committed.into_iter().chain(found) {
        eprintln!("{}", file.display()); // shown with the failure
        run(&fs::read(&file).unwrap());
    }
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

macro_rules! targets {
    ($($target:ident),*) => { $(#[test] fn $target() { all(stringify!($target), targets::$target::run); })* };
}

targets!(
    agent, appraisal, bundle, chain, container, dcap, jwt, manifest, nvidia, overhead, package, record, rim, session,
    snp, tokens, wire, x509
);
