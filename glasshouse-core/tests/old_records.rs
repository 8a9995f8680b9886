//! Records of earlier versions, as they were measured and committed: a fact that has moved since must not make them refused.
#![allow(clippy::unwrap_used)] // a test

use std::path::{Path, PathBuf};

use glasshouse_core::fixed::{Fixed, PublicKey32};
use glasshouse_core::record::{self, RecordError};

#[test]
fn records_in_the_notes_verify() {
    let notes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../notes");
    let mut folders = Vec::new();
    find(&notes, &mut folders);
    assert!(folders.len() >= 6, "{folders:?}");
    for folder in folders {
        let bytes = std::fs::read(folder.join("evidence.json")).unwrap();
        let gate = std::fs::read_to_string(folder.join("gate.pub")).unwrap();
        let gate = PublicKey32::from_hex(gate.trim()).unwrap();
        let verified = record::verify(&bytes, Some(gate), None).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        assert!(!verified.sessions.is_empty() || !verified.record.rows.is_empty(), "{folder:?} says nothing");
        let other = record::verify(&bytes, Some(Fixed([7; 32])), None);
        assert!(matches!(other, Err(RecordError::UntrustedSigner { .. })), "{folder:?}: {:?}", other.err());
    }
}

/// Folders that hold a record, however deep.
fn find(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.join("evidence.json").exists() {
        found.push(folder.to_owned());
    }
    let inner = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    inner.filter(|path| path.is_dir()).for_each(|path| find(&path, found));
}
