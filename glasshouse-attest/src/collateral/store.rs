use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::fixed::{Digest48, PublicKey32};
use glasshouse_core::refusal::Refusal;
use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use super::codes::{self, refuse};
use crate::hardware::HardwareCollateral;

/// Why a bundle was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollateralError {
    /// Refused, with a code.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store's files failed; nothing is concluded.
    #[error("the collateral store {path} cannot be {what}: {why}; mend it or choose another folder, and fetch again")]
    Store {
        /// Its file.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What happened.
        why: String,
    },
    /// Another process holds the store.
    #[error("the collateral store {path} is in use by another process; wait for it, or choose another folder")]
    InUse {
        /// Its file.
        path: String,
    },
}

/// The newest bundle seen under one key, in a folder: its version durably, so that no older one is ever taken again, and
/// its bytes as a cache.
///
/// `seen.jsonl` has a line for each version, synced before the version counts; a line that a crash cut short was never
/// acted on and is dropped. Damage anywhere else is an error, and nothing is taken then.
#[derive(Debug)]
pub struct CollateralStore {
    folder: PathBuf,
    key: PublicKey32,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    newest: Option<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    key: PublicKey32,
    version: u64,
    /// Of what was signed, not of the file: others can write the same in another spelling.
    bundle: Digest48,
}

const SEEN: &str = "seen.jsonl";
const BUNDLE: &str = "bundle.json";

impl CollateralStore {
    /// Opens or makes the store of bundles that `key` signs, and holds it for this process.
    ///
    /// # Errors
    /// [`CollateralError::InUse`] or [`CollateralError::Store`].
    pub fn open(folder: impl Into<PathBuf>, key: PublicKey32) -> Result<Self, CollateralError> {
        let folder = folder.into();
        fs::create_dir_all(&folder).map_err(|e| failed(&folder, "made", &e))?;
        let path = folder.join(SEEN);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = options.open(&path).map_err(|e| failed(&path, "opened", &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CollateralError::InUse { path: path.display().to_string() }),
            Err(TryLockError::Error(e)) => return Err(failed(&path, "locked", &e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| failed(&path, "read", &e))?;
        let good = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last.saturating_add(1));
        let newest = newest(bytes.get(..good).unwrap_or_default(), &key).map_err(|e| failed(&path, "read", &e))?;
        if good < bytes.len() {
            let good = u64::try_from(good).unwrap_or(u64::MAX);
            file.set_len(good).map_err(|e| failed(&path, "mended", &e))?;
        }
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(&folder, "synced", &e))?;
        Ok(Self { folder, key, inner: Mutex::new(Inner { file, newest }) })
    }

    /// The newest version seen.
    pub fn newest(&self) -> Option<u64> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).newest.as_ref().map(|seen| seen.version)
    }

    /// Verifies a bundle, remembers its version durably and keeps its bytes. The same bundle may come again.
    ///
    /// # Errors
    /// A refusal of [`Bundle::open`] or of a part of it; [`codes::ROLLBACK`], [`codes::FORK`]; [`CollateralError::Store`].
    pub fn accept(&self, file: &[u8], at: UnixMillis) -> Result<HardwareCollateral, CollateralError> {
        let (bundle, signed) = Bundle::open_signed(file, &self.key, at)?;
        let collateral = bundle.collateral()?;
        let seen = Seen { key: self.key, version: bundle.version, bundle: signed };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &inner.newest {
            Some(newest) if seen.version < newest.version => {
                let expected = format!("version {} or newer", newest.version);
                return Err(refuse(codes::ROLLBACK, expected, format_args!("version {}", seen.version)).into());
            }
            Some(newest) if seen.version == newest.version && seen != *newest => {
                let expected = format!("the bundle {} of version {}", newest.bundle.short(), newest.version);
                return Err(refuse(codes::FORK, expected, seen.bundle.short()).into());
            }
            // The bytes may not have come to be kept the first time.
            Some(newest) if seen == *newest => {
                if fs::read(self.folder.join(BUNDLE)).ok().as_deref() != Some(file) {
                    self.keep(file)?;
                }
                return Ok(collateral);
            }
            _ => {}
        }
        let path = self.folder.join(SEEN);
        let mut line = serde_json::to_vec(&seen).unwrap_or_default();
        line.push(b'\n');
        let before = inner.file.metadata().map_err(|e| failed(&path, "read", &e))?.len();
        let written = inner.file.write_all(&line).and_then(|()| inner.file.sync_all());
        if let Err(error) = written {
            // Half a line before the next one would be damage; where this fails too, opening mends it or says so.
            let _ = inner.file.set_len(before);
            return Err(failed(&path, "written", &error));
        }
        inner.newest = Some(seen);
        self.keep(file)?;
        Ok(collateral)
    }

    /// The bundle that was kept last, verified again. Nothing where there is none.
    ///
    /// # Errors
    /// As [`Self::accept`]; [`codes::ROLLBACK`] also where a newer version was seen than came to be kept.
    pub fn cached(&self, at: UnixMillis) -> Result<Option<HardwareCollateral>, CollateralError> {
        let path = self.folder.join(BUNDLE);
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path, "read", &error)),
        };
        self.accept(&file, at).map(Some)
    }

    /// Whole or not at all: written beside, synced, renamed.
    fn keep(&self, file: &[u8]) -> Result<(), CollateralError> {
        let (path, beside) = (self.folder.join(BUNDLE), self.folder.join("bundle.json.new"));
        let write = || {
            let mut new = File::create(&beside)?;
            new.write_all(file)?;
            new.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        write().map_err(|e| failed(&path, "written", &e))
    }
}

/// The newest entry under a key. Versions under one key must grow.
fn newest(lines: &[u8], key: &PublicKey32) -> io::Result<Option<Seen>> {
    let mut newest: Option<Seen> = None;
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let seen: Seen = serde_json::from_slice(line).map_err(|_| io::Error::other("a line that is no entry"))?;
        if seen.key != *key {
            continue;
        }
        if newest.as_ref().is_some_and(|newest| newest.version >= seen.version) {
            return Err(io::Error::other("versions that do not grow"));
        }
        newest = Some(seen);
    }
    Ok(newest)
}

fn failed(path: &Path, what: &'static str, error: &io::Error) -> CollateralError {
    CollateralError::Store { path: path.display().to_string(), what, why: error.to_string() }
}
