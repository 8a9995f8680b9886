//! The write-ahead journal: what was asked for stands in it before it is asked for, and leaves it when its absence was
//! seen. Each line is durable before the call that it announces.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use glasshouse_core::clock::UnixMillis;
use glasshouse_core::durable::{LineLog, LineLogError};
use glasshouse_core::traits::{AllocationId, Provider};
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

impl From<LineLogError> for JournalError {
    fn from(error: LineLogError) -> Self {
        match error {
            LineLogError::InUse { path } => Self::InUse { path },
            LineLogError::Damaged { path, line, .. } => Self::Damaged { path, line },
            LineLogError::Io { path, what, why } => Self::Io { path, what, why },
            // An error of a later version of the log's.
            other => Self::Io { path: "file".to_owned(), what: "used", why: other.to_string() },
        }
    }
}

/// An allocation that was asked for and that nobody has seen to be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEntry {
    /// The provider's stable name.
    pub provider: String,
    /// Which of the provider's accounts or clusters it was asked of, as [`Provider::account`] says it.
    ///
    /// [`Provider::account`]: glasshouse_core::traits::Provider::account
    pub account: Option<String>,
    /// The name that it was asked for under.
    pub name: String,
    /// Its id, once the provider told one.
    pub id: Option<AllocationId>,
    /// When it was asked for, by the wall clock of then.
    pub asked_at: UnixMillis,
    /// The same by a clock that nobody sets; absent in journals of before.
    pub(super) boot: Option<BootMoment>,
}

/// A moment of one boot of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BootMoment {
    id: String,
    millis: u64,
}

impl OpenEntry {
    /// Something that is asked for now.
    pub(super) fn new(provider: &dyn Provider, name: &str) -> Self {
        let (account, asked_at) = (provider.account(), clock::wall());
        let boot = clock::boot_id().map(|id| BootMoment { id: id.to_owned(), millis: boot_millis() });
        Self { provider: provider.name().to_owned(), account, name: name.to_owned(), id: None, asked_at, boot }
    }

    /// How much longer it may be hidden, after an owner who may have died just now. What that one asked for is made `within`
    /// so long of the asking, and no later than `late` after nobody waits for it any more; a fresh one is hidden for no
    /// longer than `settle`. After another boot, on another machine, and by a clock that anybody may set, nobody knows how
    /// long ago it was asked for.
    pub(super) fn hidden(&self, settle: Duration, within: Duration, late: Duration) -> Duration {
        let age = match &self.boot {
            Some(boot) if clock::boot_id() == Some(&boot.id) => boot_millis().checked_sub(boot.millis),
            _ => None,
        };
        let age = age.map_or(Duration::ZERO, Duration::from_millis);
        match age >= within.saturating_add(settle) {
            true => Duration::ZERO,
            false => settle.saturating_add(late.min(within.saturating_sub(age))),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Asking {
        provider: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        account: Option<String>,
        name: String,
        at: UnixMillis,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        boot: Option<BootMoment>,
    },
    Created {
        name: String,
        id: AllocationId,
        at: UnixMillis,
    },
    Gone {
        name: String,
        at: UnixMillis,
    },
}

/// The journal. One owner has it open at a time. After a line that could not be written, on a full disk say, it takes
/// no more until it is opened again.
pub struct Journal {
    inner: Mutex<Inner>,
}

struct Inner {
    /// None for a journal of this process alone.
    log: Option<LineLog>,
    open: BTreeMap<String, OpenEntry>,
}

impl Journal {
    /// A journal that does not survive this process: for tests, and providers whose allocations do not either.
    pub fn memory() -> Self {
        Self { inner: Mutex::new(Inner { log: None, open: BTreeMap::new() }) }
    }

    /// Opens or creates a journal file.
    ///
    /// # Errors
    /// [`JournalError`]. A line cut short by a crash is the last one and is dropped: its call was never made.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, JournalError> {
        let mut open = BTreeMap::new();
        let log = LineLog::open(path, |line| {
            apply(&mut open, line);
            Ok(())
        })?;
        Ok(Self { inner: Mutex::new(Inner { log: Some(log), open }) })
    }

    /// Everything that was asked for and that nobody has seen to be gone.
    pub fn open_entries(&self) -> Vec<OpenEntry> {
        self.lock().open.values().cloned().collect()
    }

    pub(super) fn asking(&self, entry: &OpenEntry) -> Result<(), JournalError> {
        let OpenEntry { provider, account, name, asked_at: at, boot, .. } = entry.clone();
        self.write(Line::Asking { provider, account, name, at, boot })
    }

    pub(super) fn created(&self, name: &str, id: &AllocationId) -> Result<(), JournalError> {
        self.write(Line::Created { name: name.to_owned(), id: id.clone(), at: clock::wall() })
    }

    pub(super) fn gone(&self, name: &str) -> Result<(), JournalError> {
        self.write(Line::Gone { name: name.to_owned(), at: clock::wall() })
    }

    fn write(&self, line: Line) -> Result<(), JournalError> {
        let mut inner = self.lock();
        if let Some(log) = &mut inner.log {
            log.append(&line)?;
        }
        apply(&mut inner.open, line);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn boot_millis() -> u64 {
    u64::try_from(clock::boot().as_millis()).unwrap_or(u64::MAX)
}

fn apply(open: &mut BTreeMap<String, OpenEntry>, line: Line) {
    match line {
        Line::Asking { provider, account, name, at: asked_at, boot } => {
            open.insert(name.clone(), OpenEntry { provider, account, name, id: None, asked_at, boot });
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
    use crate::MemoryProvider;

    fn asked(name: &str) -> OpenEntry {
        OpenEntry::new(&MemoryProvider::new(), name)
    }

    #[test]
    fn what_nobody_saw_gone_is_there_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::InUse { .. })));
        journal.asking(&asked("gh-a")).unwrap();
        journal.asking(&asked("gh-b")).unwrap();
        journal.created("gh-b", &AllocationId("7".into())).unwrap();
        journal.asking(&asked("gh-c")).unwrap();
        journal.gone("gh-c").unwrap();
        drop(journal);
        // A crash in the middle of a line.
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"event\":\"gone\",\"na");
        std::fs::write(&path, bytes).unwrap();
        let open = Journal::open(&path).unwrap().open_entries();
        let ids: Vec<_> = open.iter().map(|e| (e.name.as_str(), e.id.clone())).collect();
        assert_eq!(ids, [("gh-a", None), ("gh-b", Some(AllocationId("7".into())))]);
    }

    #[test]
    fn a_clock_that_was_set_shortens_nothing() {
        let (now, settle, within) = (clock::wall().0, Duration::from_secs(60), Duration::from_secs(600));
        let late = Duration::from_secs(30);
        let fresh = asked("gh-a");
        // Whatever the wall says: it was asked for just now.
        for at in [0, now - 3_600_000, now, now + 3_600_000, u64::MAX] {
            let set = OpenEntry { asked_at: UnixMillis(at), ..fresh.clone() };
            assert_eq!(set.hidden(settle, within, late), settle + late);
        }
        let booted = |id: &str, ago| {
            let millis = boot_millis() - ago;
            OpenEntry { boot: Some(BootMoment { id: id.to_owned(), millis }), ..fresh.clone() }
                .hidden(settle, within, late)
        };
        let id = clock::boot_id().unwrap();
        // As long as its create may be under way, and then as long as it may be hidden.
        assert_eq!([booted(id, 0), booted(id, 560_000), booted("another", 0)], [settle + late; 3]);
        let rest = booted(id, 580_000);
        assert!(rest > settle + late / 2 && rest <= settle + 2 * late / 3, "{rest:?}");
        assert_eq!([booted(id, 600_000), booted(id, 659_000)], [settle; 2]);
        assert_eq!(booted(id, 660_000), Duration::ZERO);
        // A journal of before has the wall's time alone, which decides nothing.
        let walled =
            |at| OpenEntry { asked_at: UnixMillis(at), boot: None, ..fresh.clone() }.hidden(settle, within, late);
        assert_eq!([walled(now - 20_000), walled(now + 9_000), walled(0)], [settle + late; 3]);
    }

    #[test]
    fn damage_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        std::fs::write(&path, "{}\n").unwrap();
        assert!(matches!(Journal::open(&path), Err(JournalError::Damaged { line: 1, .. })));
    }
}
