//! The owner's keys and the gate's memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use glasshouse_core::fixed::PublicKey32;
use glasshouse_core::gate::{FileGateStore, GateError, GateStore, MemoryGateStore, StoredSession};
use glasshouse_core::protocol::{ResultKey, SigningSecret};

use super::RunError;
use super::gate_keys::{load_or_make, remove_unfinished};

/// Name of a gate's folder in a run's output folder.
pub(super) const GATE_FOLDER: &str = "gate";

/// Who releases keys: the signing key, the key that results are sealed to, and the memory of what was released.
#[derive(Clone)]
pub struct Gate {
    pub(super) signing: Arc<SigningSecret>,
    pub(super) result: Arc<ResultKey>,
    pub(super) store: Arc<dyn GateStore>,
}

impl Gate {
    /// Fresh keys and a memory that does not survive this process.
    ///
    /// # Errors
    /// [`RunError::NoRandomness`].
    pub fn ephemeral() -> Result<Self, RunError> {
        Ok(Self {
            signing: Arc::new(SigningSecret::random().map_err(|_| RunError::NoRandomness)?),
            result: Arc::new(ResultKey::random().map_err(|_| RunError::NoRandomness)?),
            store: Arc::new(MemoryGateStore::default()),
        })
    }

    /// Keys and a durable memory in a folder, made at the first use: `gate.key` and `result.key` (32 bytes each, read
    /// by their owner alone) and `gate.store`. A crash at any point leaves a folder that opens again.
    ///
    /// # Errors
    /// [`RunError::File`] when a key is missing or broken that the store depends on; [`RunError::Gate`] when the store
    /// is damaged or in use.
    pub fn open(folder: &Path) -> Result<Self, RunError> {
        super::files::prepare_folder(folder)?;
        // First for its lock. It stays empty until both keys are durable: what is in it depends on them.
        let store = FileGateStore::open(folder.join("gate.store")).map_err(GateError::from)?;
        let fresh = store.is_empty().map_err(GateError::from)?;
        let unremovable = |e: std::io::Error| {
            let (path, what) = (folder.to_owned(), "cleared of unfinished keys");
            RunError::File { path, what, why: e.to_string() }
        };
        remove_unfinished(folder).map_err(unremovable)?;
        let result = load_or_make(folder, "result.key", fresh)?;
        let bad_key = || RunError::File {
            path: folder.join("result.key"),
            what: "used",
            why: "it holds no X25519 private key".to_owned(),
        };
        Ok(Self {
            signing: Arc::new(SigningSecret::from_seed(load_or_make(folder, "gate.key", fresh)?)),
            result: Arc::new(ResultKey::from_private(result).ok_or_else(bad_key)?),
            store: Arc::new(store),
        })
    }

    /// Where a run that was given no gate keeps its own: `gate` in its output folder. [`Gate::open`] opens it again, for
    /// [`ProtectedRun::recover`](super::ProtectedRun::recover) after a crash.
    pub fn folder_in(out: &Path) -> PathBuf {
        out.join(GATE_FOLDER)
    }

    /// Keys and a memory that the tool keeps in its own way, in a database say.
    pub fn from_parts(signing: SigningSecret, result: ResultKey, store: Arc<dyn GateStore>) -> Self {
        Self { signing: Arc::new(signing), result: Arc::new(result), store }
    }

    /// Every session that this gate released a key to, oldest first, with what came home of it: what a restarted owner
    /// still has of a run that was killed. [`ProtectedRun::recover`](super::ProtectedRun::recover) makes a record of
    /// them.
    ///
    /// # Errors
    /// [`RunError::Gate`] when the store cannot be read, or does not fit the keys.
    pub fn sessions(&self) -> Result<Vec<StoredSession>, RunError> {
        let sessions = self.store.sessions().map_err(GateError::from)?;
        let mut all = Vec::with_capacity(sessions.len());
        for session in &sessions {
            all.extend(StoredSession::open(&*self.store, session, &self.public(), &self.result)?);
        }
        all.sort_by_key(|stored| stored.verdict().at);
        Ok(all)
    }

    /// The key that verifies this gate's challenges, verdicts and records.
    pub fn public(&self) -> PublicKey32 {
        self.signing.public()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::fixed::Fixed;
    use std::os::unix::fs::PermissionsExt as _;

    /// The gate's key, and what its folder holds.
    fn opened(folder: &Path) -> (PublicKey32, Vec<String>) {
        let key = Gate::open(folder).unwrap().public();
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (key, names)
    }

    const WHOLE: [&str; 3] = ["gate.key", "gate.store", "result.key"];

    #[test]
    fn keys_are_made_once_and_stay() {
        let folder = tempfile::tempdir().unwrap();
        let (key, names) = opened(folder.path());
        assert_eq!(names, WHOLE);
        for name in WHOLE {
            let mode = std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(opened(folder.path()), (key, names));
    }

    #[test]
    fn every_crash_of_the_first_use_is_recovered_from() {
        // What lies there after a SIGKILL, now and when keys were still written in place: `name` with so many bytes.
        let whole = [3; 32].as_slice();
        let left: [&[(&str, &[u8])]; 7] = [
            &[("gate.store", b"")],
            &[("gate.store", b""), (".unfinished-key-x", b"")],
            &[("gate.store", b""), (".unfinished-key-x", &[9; 32])],
            &[("gate.store", b""), ("result.key", whole), (".unfinished-key-y", &[9; 7])],
            &[("gate.store", b""), ("result.key", b"")],
            &[("gate.store", b""), ("result.key", whole), ("gate.key", b"")],
            &[("gate.store", b"{\"entry\":\"iss"), ("result.key", whole)],
        ];
        for files in left {
            let folder = tempfile::tempdir().unwrap();
            files.iter().for_each(|(name, bytes)| std::fs::write(folder.path().join(name), bytes).unwrap());
            let (key, names) = opened(folder.path());
            assert_eq!(names, WHOLE, "after {files:?}");
            assert_eq!(opened(folder.path()).0, key, "after {files:?}");
            let kept = std::fs::read(folder.path().join("result.key")).unwrap();
            assert_eq!(kept == whole, files.contains(&("result.key", whole)), "after {files:?}");
        }
    }

    #[test]
    fn a_key_that_the_store_depends_on_is_never_made_anew() {
        for name in ["gate.key", "result.key"] {
            let folder = tempfile::tempdir().unwrap();
            let gate = Gate::open(folder.path()).unwrap();
            gate.store.issue(&Fixed([1; 32]), &Fixed([2; 32])).unwrap();
            drop(gate);
            let path = folder.path().join(name);
            let key = std::fs::read(&path).unwrap();
            for broken in [None, Some(&key[..0]), Some(&key[..31])] {
                match broken {
                    Some(bytes) => std::fs::write(&path, bytes).unwrap(),
                    None => std::fs::remove_file(&path).unwrap(),
                }
                let error = Gate::open(folder.path()).err().unwrap();
                assert!(matches!(&error, RunError::File { path: named, .. } if *named == path), "{error}");
                assert_eq!(std::fs::read(&path).ok().as_deref(), broken, "{name} was changed");
            }
            // The owner puts it back.
            std::fs::write(&path, &key).unwrap();
            Gate::open(folder.path()).unwrap();
        }
    }

    #[test]
    fn two_first_uses_at_once_make_one_pair_of_keys() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Gate::open(folder.path()).map(|gate| gate.public()).ok();
        let keys: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        let stays = opened(folder.path()).0;
        assert!(!keys.is_empty() && keys.iter().all(|key| *key == stays));
    }
}
