//! The gate's real store on a disk that fills up, tears writes and fails to sync.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use glasshouse_core::channel::SealedRecord;
use glasshouse_core::fixed::Nonce32;
use glasshouse_core::gate::{BurnOutcome, CommittedRelease, FileGateStore, GateStore, StoreError};

use crate::entropy::Rng;
use crate::plan::Sabotage;

pub(crate) struct FaultyStore {
    path: PathBuf,
    inner: FileGateStore,
    rng: Mutex<Rng>,
    per_mille: u64,
    broken: AtomicBool,
    sabotage: Option<Sabotage>,
}

/// How often a disk failed, over all stores of this process.
pub(crate) static FAILED: AtomicU64 = AtomicU64::new(0);

impl FaultyStore {
    pub(crate) fn open(path: &Path, seed: u64, per_mille: u64, sabotage: Option<Sabotage>) -> Result<Self, StoreError> {
        let inner = FileGateStore::open(path)?;
        let rng = Mutex::new(Rng::new(seed));
        Ok(Self { path: path.to_owned(), inner, rng, per_mille, broken: AtomicBool::new(false), sabotage })
    }

    fn length(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().len()
    }

    fn no_space(&self) -> StoreError {
        StoreError::Io { path: "simulated".into(), what: "written", why: "no space left on device".into() }
    }

    /// A change: done, or failed in one of the ways of disks. After a failure nothing works until it is opened again,
    /// as with the store itself.
    fn change<T>(&self, change: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        if self.broken.load(Relaxed) {
            return Err(self.no_space());
        }
        let rng = &mut *self.rng.lock().unwrap();
        if !rng.chance(self.per_mille) {
            return change();
        }
        FAILED.fetch_add(1, Relaxed);
        self.broken.store(true, Relaxed);
        let before = self.length();
        match rng.below(3) {
            0 => {}
            // The first bytes of a line are on the disk.
            1 => {
                change()?;
                let written = self.length() - before;
                let file = OpenOptions::new().write(true).open(&self.path).unwrap();
                file.set_len(before + rng.below(written.max(1))).unwrap();
            }
            // All of it is, but nobody knows.
            _ => {
                change()?;
            }
        }
        Err(self.no_space())
    }
}

impl GateStore for FaultyStore {
    fn issue(&self, session: &Nonce32, nonce: &Nonce32) -> Result<u32, StoreError> {
        self.change(|| self.inner.issue(session, nonce))
    }

    fn burn(&self, session: &Nonce32, nonce: &Nonce32) -> Result<BurnOutcome, StoreError> {
        self.change(|| self.inner.burn(session, nonce))
    }

    fn commit(&self, release: &CommittedRelease) -> Result<(), StoreError> {
        if self.sabotage == Some(Sabotage::StoreForgetsReleases) {
            return Ok(());
        }
        self.change(|| self.inner.commit(release))
    }

    fn sessions(&self) -> Result<Vec<Nonce32>, StoreError> {
        self.inner.sessions()
    }

    fn committed(&self, session: &Nonce32) -> Result<Option<CommittedRelease>, StoreError> {
        self.inner.committed(session)
    }

    fn keep(&self, session: &Nonce32, record: &SealedRecord) -> Result<(), StoreError> {
        if self.sabotage == Some(Sabotage::StoreForgetsRecords) {
            return Ok(());
        }
        self.change(|| self.inner.keep(session, record))
    }

    fn kept(&self, session: &Nonce32) -> Result<Vec<SealedRecord>, StoreError> {
        self.inner.kept(session)
    }
}
