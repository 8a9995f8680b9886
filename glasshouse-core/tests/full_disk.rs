//! A disk that is full in the middle of a line, as the kernel says it: this test starts itself under a limit on the size
//! of files, with the signal that comes with it ignored.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

use glasshouse_core::durable::{LineLog, LineLogError};
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::gate::{BurnOutcome, FileGateStore, GateStore as _, StoreError};

const FOLDER: &str = "GLASSHOUSE_TEST_FULL_DISK";

#[test]
fn what_did_not_fit_was_not_done() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return fill(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "trap '' XFSZ; ulimit -f 1; exec \"$0\" --exact what_did_not_fit_was_not_done --nocapture";
    let arguments = ["-c".into(), script.into(), std::env::current_exe().unwrap().into_os_string()];
    // Through pipes: the limit holds for a file that this test's own output goes to as well.
    let child = Command::new("sh").args(arguments).env(FOLDER, folder.path()).output().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&child.stdout), String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success(), "under the limit: {}\n{said}{wrong}", child.status);

    // Opened with room again: every line that counted and no part of one that did not.
    let store = FileGateStore::open(folder.path().join("gate.store")).unwrap();
    let counted = std::fs::read_to_string(folder.path().join("counted")).unwrap().parse().unwrap();
    for n in 0..=counted {
        let expected = if n < counted { BurnOutcome::Fresh } else { BurnOutcome::Unknown };
        assert_eq!(store.burn(&session(), &nonce(n)).unwrap(), expected, "{n} of {counted}");
    }
    drop(store);
    // A log whose half line could not be cut off is mended when it is opened.
    let path = folder.path().join("gate.store");
    let mut bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.last(), Some(&b'\n'));
    bytes.extend_from_slice(b"{\"entry\":\"bur");
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(FileGateStore::open(&path).unwrap().burn(&session(), &nonce(0)).unwrap(), BurnOutcome::Replayed);
}

/// In the child: writes until nothing fits any more, and then finds the store closed.
fn fill(folder: PathBuf) {
    let path = folder.join("gate.store");
    let store = FileGateStore::open(&path).unwrap();
    let mut counted = 0;
    let error = loop {
        match store.issue(&session(), &nonce(counted)) {
            Ok(_) => counted += 1,
            Err(error) => break error,
        }
    };
    assert!(counted > 1, "{counted}");
    assert!(matches!(error, StoreError::Io { what: "written", .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap().last(), Some(&b'\n'), "half a line stayed");
    // A line that would fit again must not stand behind one of which nobody knows what became.
    assert!(matches!(store.burn(&session(), &nonce(0)), Err(StoreError::Io { what: "used", .. })));
    assert!(store.kept(&session()).is_err() && store.sessions().is_err());
    std::fs::write(folder.join("counted"), counted.to_string()).unwrap();

    let mut log = LineLog::open(folder.join("log"), |_: String| Ok(())).unwrap();
    assert!(matches!(log.append(&"x".repeat(1 << 20)), Err(LineLogError::Io { what: "written", .. })));
    assert!(log.append(&"x").is_err() && log.is_empty());
}

fn session() -> Nonce32 {
    Nonce32::from([1; 32])
}

fn nonce(n: u8) -> Nonce32 {
    Nonce32::from([n; 32])
}
