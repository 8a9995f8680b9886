//! The journals of earlier runs: each run keeps one in its output folder, and what it could not see the end of stays there.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glasshouse_provider::supervisor::{Journal, JournalError};

/// A journal of a run.
pub struct JournalFile {
    /// Where it is.
    pub path: PathBuf,
    /// Open in this process now; or why it cannot be, which is so while its run goes on.
    pub journal: Result<Arc<Journal>, JournalError>,
}

/// Every journal in a folder of runs, in the runs' order: `journal.jsonl` in it, and in each folder right under it.
pub fn journals(folder: &Path) -> Vec<JournalFile> {
    let under = std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut folders: Vec<PathBuf> = under.filter(|path| path.is_dir()).collect();
    folders.sort();
    folders.push(folder.to_owned());
    let files = folders.into_iter().map(|folder| folder.join("journal.jsonl")).filter(|path| path.is_file());
    files.map(|path| JournalFile { journal: Journal::open(&path).map(Arc::new), path }).collect()
}

/// Says aloud, on standard error, what earlier runs beside `out` left that nobody saw the end of.
pub fn mention_unconfirmed(out: &Path) {
    let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return };
    for file in journals(folder) {
        // The run's own is the supervisor's to see to.
        if file.path.parent() == Some(out) {
            continue;
        }
        let entries = match &file.journal {
            Ok(journal) => journal.open_entries(),
            // Its run goes on.
            Err(JournalError::InUse { .. }) => continue,
            Err(error) => {
                let _ = writeln!(io::stderr().lock(), "warning: {error}");
                continue;
            }
        };
        for entry in entries {
            let _ = writeln!(
                io::stderr().lock(),
                "warning: nobody saw the end of {} on {}, of {}; it may still run, and cost money: `providers reap --provider {}`",
                entry.name,
                entry.provider,
                file.path.display(),
                entry.provider
            );
        }
    }
}
