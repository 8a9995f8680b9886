//! Real evidence through the targets of hardware's evidence, where it lies beside the repository: what it holds is
//! under other roots and of other sessions, and so is refused, but it is parsed as far as the generator's is. It is never
//! committed, and the fuzzer never sees it, so that nothing of it gets into the corpora.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs;
use std::path::{Path, PathBuf};

use glasshouse_fuzz::targets::{dcap, nvidia, rim, snp, tokens, x509};

/// A target and the letters that choose what an input is read as.
type Target = (fn(&[u8]), &'static [&'static str]);

const TARGETS: [Target; 6] = [
    (dcap::run, &["a", "b", "d", "e", "f", "g"]),
    (nvidia::run, &["a", "b", "c", "d", "e", "g"]),
    (rim::run, &["a", "b"]),
    (snp::run, &["0a", "1b", "2b", "0c", "1d", "2e"]),
    (tokens::run, &["a", "c", "d", "e"]),
    (x509::run, &["a", "b", "d"]),
];

#[test]
fn every_vector_as_everything() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/attestation-vectors");
    if !folder.is_dir() {
        println!("SKIPPED: no vectors at {}", folder.display());
        return;
    }
    let mut files = Vec::new();
    collect(&folder, &mut files);
    assert!(files.len() > 20, "{}", files.len());
    for file in files {
        eprintln!("{}", file.display()); // shown with the failure
        let bytes = fs::read(&file).unwrap();
        let text = bytes.trim_ascii();
        let decoded = hex::decode(text).unwrap_or_default();
        for bytes in forms(&bytes, &decoded) {
            for (run, modes) in TARGETS {
                modes.iter().for_each(|mode| run(&[mode.as_bytes(), bytes].concat()));
            }
        }
    }
}

/// A file as it is, its hex decoded, and of a report the part that is signed.
fn forms<'a>(bytes: &'a [u8], decoded: &'a [u8]) -> Vec<&'a [u8]> {
    let signed = |report: &'a [u8]| match report {
        [0x11, 0xe0, ..] => report.get(..report.len() - 96),
        _ if report.len() == 0x4a0 => report.get(..0x2a0),
        _ => report.get(..632).filter(|_| report.len() > 4000),
    };
    let all = [Some(bytes), signed(bytes), Some(decoded).filter(|hex| !hex.is_empty()), signed(decoded)];
    all.into_iter().flatten().collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect(&path, files) } else { files.push(path) }
    }
}
