//! The gate's memory in a file: one JSON line per change, synced before the change counts, one owner at a time.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::memory_store::State;
use super::store::{BurnOutcome, CommittedRelease, GateStore, StoreError};
use crate::channel::SealedRecord;
use crate::fixed::Nonce32;
use crate::protocol::encode;

#[derive(Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case", deny_unknown_fields)]
enum Entry {
    Issued { session: Nonce32, nonce: Nonce32 },
    Burned { session: Nonce32, nonce: Nonce32 },
    Released { release: CommittedRelease },
    Kept { session: Nonce32, record: SealedRecord },
}

/// A durable [`GateStore`].
///
/// A line that a crash cut short at the end of the file was never acted on, so it is dropped; damage anywhere else is
/// an error. After a write or sync that failed the store refuses everything, because what is on disk is not known.
pub struct FileGateStore {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    file: File,
    state: State,
    failed: bool,
}

impl FileGateStore {
    /// Opens or creates the store and locks it for this process.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(|e| io(&path, "opened", &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.display().to_string() }),
            Err(TryLockError::Error(e)) => return Err(io(&path, "locked", &e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| io(&path, "read", &e))?;
        let (state, good) = replay(&path, &bytes)?;
        if good < bytes.len() {
            let good = u64::try_from(good).unwrap_or(u64::MAX);
            file.set_len(good).map_err(|e| io(&path, "mended", &e))?;
            file.seek(SeekFrom::End(0)).map_err(|e| io(&path, "mended", &e))?;
        }
        file.sync_all().map_err(|e| io(&path, "synced", &e))?;
        sync_directory(&path)?;
        Ok(Self { path, inner: Mutex::new(Inner { file, state, failed: false }) })
    }

    /// Takes the lock. A panic while it was held, or a failed write, closes the store for good.
    fn inner(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        match self.inner.lock() {
            Ok(inner) if !inner.failed => Ok(inner),
            _ => Err(StoreError::Io {
                path: self.path.display().to_string(),
                what: "used",
                why: "an earlier write to it failed; open it again".to_owned(),
            }),
        }
    }

    fn append(&self, inner: &mut Inner, entry: &Entry) -> Result<(), StoreError> {
        let mut line = encode(entry);
        line.push(b'\n');
        let written = inner.file.write_all(&line).and_then(|()| inner.file.sync_data());
        written.map_err(|e| {
            inner.failed = true;
            io(&self.path, "written", &e)
        })
    }
}

impl GateStore for FileGateStore {
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError> {
        let mut inner = self.inner()?;
        self.append(&mut inner, &Entry::Issued { session: *session, nonce: *nonce })?;
        Ok(inner.state.issue(*session, *nonce))
    }

    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError> {
        let mut inner = self.inner()?;
        let outcome = inner.state.outcome_of_burning(session, nonce);
        if outcome == BurnOutcome::Fresh {
            self.append(&mut inner, &Entry::Burned { session: *session, nonce: *nonce })?;
            inner.state.burn(*session, *nonce);
        }
        Ok(outcome)
    }

    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError> {
        let mut inner = self.inner()?;
        inner.state.may_commit(&release.session)?;
        self.append(&mut inner, &Entry::Released { release: release.clone() })?;
        inner.state.commit(release.clone());
        Ok(())
    }

    fn sessions(&self) -> Result<Vec<Nonce32>, StoreError> {
        Ok(self.inner()?.state.sessions())
    }

    fn committed(&self, session: &Nonce32) -> Result<Option<CommittedRelease>, StoreError> {
        Ok(self.inner()?.state.committed(session))
    }

    fn keep(&self, session: &Nonce32, record: &SealedRecord) -> Result<(), StoreError> {
        let mut inner = self.inner()?;
        self.append(&mut inner, &Entry::Kept { session: *session, record: record.clone() })?;
        inner.state.keep(*session, record.clone());
        Ok(())
    }

    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError> {
        Ok(self.inner()?.state.kept(session))
    }
}

/// Reads the journal. Gives the state and how many bytes of it are whole lines.
fn replay(path: &Path, bytes: &[u8]) -> Result<(State, usize), StoreError> {
    let mut state = State::default();
    let good = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |last| last.saturating_add(1));
    let lines = bytes.get(..good).unwrap_or_default().split_inclusive(|b| *b == b'\n');
    for (index, line) in lines.enumerate() {
        let damaged =
            |why: String| StoreError::Damaged { path: path.display().to_string(), line: index.saturating_add(1), why };
        match serde_json::from_slice(line).map_err(|e| damaged(e.to_string()))? {
            Entry::Issued { session, nonce } => {
                state.issue(session, nonce);
            }
            Entry::Burned { session, nonce } => state.burn(session, nonce),
            Entry::Released { release } => {
                state.may_commit(&release.session).map_err(|e| damaged(e.to_string()))?;
                state.commit(release);
            }
            Entry::Kept { session, record } => state.keep(session, record),
        }
    }
    Ok((state, good))
}

/// A new file's name is durable only once its directory is.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(|e| io(path, "synced", &e))
}

fn io(path: &Path, what: &'static str, error: &std::io::Error) -> StoreError {
    StoreError::Io { path: path.display().to_string(), what, why: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn release(session: Nonce32) -> CommittedRelease {
        use crate::fixed::Blob;
        let blob = |n| Blob(vec![n; 3]);
        CommittedRelease { session, challenge: blob(1), evidence: blob(2), release: blob(3), channel: blob(4) }
    }

    #[test]
    fn a_second_owner_is_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate");
        let first = FileGateStore::open(&path).unwrap();
        assert!(matches!(FileGateStore::open(&path), Err(StoreError::InUse { .. })));
        drop(first);
        FileGateStore::open(&path).unwrap();
    }

    #[test]
    fn every_cut_of_the_file_keeps_what_was_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate");
        let (session, nonce) = (Nonce32::from([1; 32]), Nonce32::from([2; 32]));
        let mut ends = vec![0];
        let length = || std::fs::metadata(&path).unwrap().len();
        {
            let store = FileGateStore::open(&path).unwrap();
            assert_eq!(store.issue(&session, &nonce).unwrap(), 1);
            ends.push(length());
            assert_eq!(store.burn(&session, &nonce).unwrap(), BurnOutcome::Fresh);
            ends.push(length());
            store.commit(&release(session)).unwrap();
            ends.push(length());
        }
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let done = ends.iter().filter(|end| **end > 0 && **end <= cut as u64).count();
            let store = FileGateStore::open(&path).unwrap();
            assert_eq!(store.committed(&session).unwrap().is_some(), done == 3, "cut at {cut}");
            let burned = store.burn(&session, &nonce).unwrap();
            let expected = [BurnOutcome::Unknown, BurnOutcome::Fresh, BurnOutcome::Replayed, BurnOutcome::Replayed];
            assert_eq!(burned, expected[done], "cut at {cut}");
            // What is written after mending is read back.
            drop(store);
            FileGateStore::open(&path).unwrap();
        }
    }

    #[test]
    fn damage_in_the_middle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(matches!(FileGateStore::open(&path), Err(StoreError::Damaged { line: 1, .. })));
    }

    #[test]
    fn one_release_per_session() {
        let dir = tempfile::tempdir().unwrap();
        let store = FileGateStore::open(dir.path().join("gate")).unwrap();
        let session = Nonce32::from([1; 32]);
        store.commit(&release(session)).unwrap();
        assert!(matches!(store.commit(&release(session)), Err(StoreError::AlreadyReleased { .. })));
        assert_eq!(store.sessions().unwrap(), [session]);
    }
}
