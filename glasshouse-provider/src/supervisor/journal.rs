//! The write-ahead journal: what was asked for stands in it before it is asked for, and leaves it when its absence was
//! seen. JSON lines, each synced before the call it announces.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::traits::AllocationId;
use serde::{Deserialize, Serialize};

use crate::clock;

/// Why the journal cannot be used. Nothing is rented without one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Another owner has it open.
    #[error("the journal {path} is in use by another process; wait for its end, or use another journal")]
    InUse {
        /// Its path.
        path: String,
    },
    /// It cannot be read or written.
    #[error("the journal {path} cannot be {what}: {why}")]
    Io {
        /// Its path.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What happened.
        why: String,
    },
    /// It holds something that this version did not write.
    #[error(
        "the journal {path} is damaged at line {line}; look there for allocations to end by hand, then move it away"
    )]
    Damaged {
        /// Its path.
        path: String,
        /// Line, from 1.
        line: usize,
    },
}

/// An allocation that was asked for and that nobody has seen to be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEntry {
    /// The provider's stable name.
    pub provider: String,
    /// The name that it was asked for under.
    pub name: String,
    /// Its id, once the provider told one.
    pub id: Option<AllocationId>,
    /// When it was asked for.
    pub asked_at: UnixMillis,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Asking { provider: String, name: String, at: UnixMillis },
    Created { name: String, id: AllocationId, at: UnixMillis },
    Gone { name: String, at: UnixMillis },
}

/// The journal. One owner has it open at a time.
pub struct Journal {
    inner: Mutex<Inner>,
}

struct Inner {
    file: Option<(PathBuf, File)>,
    open: BTreeMap<String, OpenEntry>,
}

impl Journal {
    /// A journal that does not survive this process: for tests, and providers whose allocations do not either.
    pub fn memory() -> Self {
        Self { inner: Mutex::new(Inner { file: None, open: BTreeMap::new() }) }
    }

    /// Opens or creates a journal file.
    ///
    /// # Errors
    /// [`JournalError`]. A line cut short by a crash is the last one and is dropped: its call was never made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let path = path.into();
        let io =
            |what, e: std::io::Error| JournalError::Io { path: path.display().to_string(), what, why: e.to_string() };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| io("opened", e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(JournalError::InUse { path: path.display().to_string() });
            }
            Err(std::fs::TryLockError::Error(e)) => return Err(io("locked", e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| io("read", e))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end.saturating_add(1));
        let mut open = BTreeMap::new();
        for (index, line) in bytes.get(..whole).unwrap_or_default().split(|b| *b == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let damaged = |_| JournalError::Damaged { path: path.display().to_string(), line: index.saturating_add(1) };
            apply(&mut open, serde_json::from_slice(line).map_err(damaged)?);
        }
        let end = u64::try_from(whole).unwrap_or(u64::MAX);
        file.set_len(end).and_then(|()| file.seek(SeekFrom::End(0))).map_err(|e| io("written", e))?;
        Ok(Self { inner: Mutex::new(Inner { file: Some((path, file)), open }) })
    }

    /// Everything that was asked for and that nobody has seen to be gone.
    pub fn open_entries(&self) -> Vec<OpenEntry> {
        self.lock().open.values().cloned().collect()
    }

    pub(super) fn asking(&self, provider: &str, name: &str) -> Result<OpenEntry, JournalError> {
        let at = clock::wall();
        self.write(Line::Asking { provider: provider.to_owned(), name: name.to_owned(), at })?;
        Ok(OpenEntry { provider: provider.to_owned(), name: name.to_owned(), id: None, asked_at: at })
    }

    pub(super) fn created(&self, name: &str, id: &AllocationId) -> Result<(), JournalError> {
        self.write(Line::Created { name: name.to_owned(), id: id.clone(), at: clock::wall() })
    }

    pub(super) fn gone(&self, name: &str) -> Result<(), JournalError> {
        self.write(Line::Gone { name: name.to_owned(), at: clock::wall() })
    }

    fn write(&self, line: Line) -> Result<(), JournalError> {
        let mut inner = self.lock();
        if let Some((path, file)) = &mut inner.file {
            let io = |e: std::io::Error| JournalError::Io {
                path: path.display().to_string(),
                what: "written",
                why: e.to_string(),
            };
            let mut bytes = serde_json::to_vec(&line).map_err(|e| io(e.into()))?;
            bytes.push(b'\n');
            file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(io)?;
        }
        apply(&mut inner.open, line);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(open: &mut BTreeMap<String, OpenEntry>, line: Line) {
    match line {
        Line::Asking { provider, name, at } => {
            open.insert(name.clone(), OpenEntry { provider, name, id: None, asked_at: at });
        }
        Line::Created { name, id, .. } => {
            if let Some(entry) = open.get_mut(&name) {
                entry.id = Some(id);
            }
        }
        Line::Gone { name, .. } => {
            open.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_saw_gone_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse { .. })));
        journal.asking("local", "gh-a").unwrap();
        journal.asking("local", "gh-b").unwrap();
        journal.created("gh-b", &AllocationId("7".into())).unwrap();
        journal.asking("local", "gh-c").unwrap();
        journal.gone("gh-c").unwrap();
        drop(journal);
        // A crash in the middle of a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"event\":\"gone\",\"na").unwrap();
        let open = Journal::open(&path).unwrap().open_entries();
        let ids: Vec<_> = open.iter().map(|e| (e.name.as_str(), e.id.clone())).collect();
        assert_eq!(ids, [("gh-a", None), ("gh-b", Some(AllocationId("7".into())))]);
    }

    #[test]
    fn damage_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Damaged { line: 1, .. })));
    }
}
