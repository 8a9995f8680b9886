//! The gate's memory in a file: one JSON line per change, synced before the change counts, one owner at a time.

#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::memory_store::State;
use super::store::{BurnOutcome, CommittedRelease, GateStore, StoreError};
use crate::channel::SealedRecord;
use crate::durable::{LineLog, LineLogError};
use crate::fixed::Nonce32;

#[derive(Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case", deny_unknown_fields)]
enum Entry {
    Issued { session: Nonce32, nonce: Nonce32 },
    Burned { session: Nonce32, nonce: Nonce32 },
    Released { release: CommittedRelease },
    Kept { session: Nonce32, record: SealedRecord },
}

/// A durable [`GateStore`], kept in a [`LineLog`].
///
/// After a write or sync that failed the store refuses everything until it is opened again, because what is on disk is
/// not known.
pub struct FileGateStore {
    path: PathBuf,
    inner: Mutex<Inner>,
}

struct Inner {
    log: LineLog,
    state: State,
}

impl FileGateStore {
    /// Opens or creates the store and locks it for this process.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Io`], [`StoreError::Damaged`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        let mut state = State::default();
        let log = LineLog::open(&path, |entry| replay(&mut state, entry))?;
        Ok(Self { path, inner: Mutex::new(Inner { log, state }) })
    }

    /// Whether nothing was ever issued from it, so that no key was ever used with it.
    ///
    /// # Errors
    /// [`StoreError::Io`] after a write that failed.
    pub fn is_empty(&self) -> Result<bool, StoreError> {
        Ok(self.inner()?.log.is_empty())
    }

    /// Takes the lock. A panic while it was held, or a failed write, closes the store for good.
    fn inner(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.inner.lock().map_err(|_| StoreError::Io {
            path: self.path.display().to_string(),
            what: "used",
            why: "a thread panicked in it; open it again".to_owned(),
        })?;
        inner.log.usable()?;
        Ok(inner)
    }
}

impl From<LineLogError> for StoreError {
    fn from(error: LineLogError) -> Self {
        match error {
            LineLogError::InUse { path } => Self::InUse { path },
            LineLogError::Io { path, what, why } => Self::Io { path, what, why },
            LineLogError::Damaged { path, line, why } => Self::Damaged { path, line, why },
        }
    }
}

impl GateStore for FileGateStore {
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError> {
        let mut inner = self.inner()?;
        inner.log.append(&Entry::Issued { session: *session, nonce: *nonce })?;
        Ok(inner.state.issue(*session, *nonce))
    }

    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError> {
        let mut inner = self.inner()?;
        let outcome = inner.state.outcome_of_burning(session, nonce);
        if outcome == BurnOutcome::Fresh {
            inner.log.append(&Entry::Burned { session: *session, nonce: *nonce })?;
            inner.state.burn(*session, *nonce);
        }
        Ok(outcome)
    }

    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError> {
        let mut inner = self.inner()?;
        inner.state.may_commit(&release.session)?;
        inner.log.append(&Entry::Released { release: release.clone() })?;
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
        inner.log.append(&Entry::Kept { session: *session, record: record.clone() })?;
        inner.state.keep(*session, record.clone());
        Ok(())
    }

    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError> {
        Ok(self.inner()?.state.kept(session))
    }
}

/// Does again what an entry says was done.
fn replay(state: &mut State, entry: Entry) -> Result<(), String> {
    match entry {
        Entry::Issued { session, nonce } => {
            state.issue(session, nonce);
        }
        Entry::Burned { session, nonce } => state.burn(session, nonce),
        Entry::Released { release } => {
            state.may_commit(&release.session).map_err(|e| e.to_string())?;
            state.commit(release);
        }
        Entry::Kept { session, record } => state.keep(session, record),
    }
    Ok(())
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
        assert!(store.is_empty().unwrap());
        store.commit(&release(session)).unwrap();
        assert!(!store.is_empty().unwrap());
        assert!(matches!(store.commit(&release(session)), Err(StoreError::AlreadyReleased { .. })));
        assert_eq!(store.sessions().unwrap(), [session]);
    }
}
