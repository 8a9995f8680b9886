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
    let folder = beside(out);
    for file in journals(&folder) {
        // The run's own is the supervisor's to see to.
        if file.path.parent().is_some_and(|of| same_folder(of, out)) {
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
                "warning: nobody saw the end of {} on {}, of {}; it may still run, and cost money: `providers reap --provider {} --out {}`",
                entry.name,
                entry.provider,
                file.path.display(),
                entry.provider,
                quoted(&folder)
            );
        }
    }
}

/// The folder that a run's folder is in. That of a mere name is the one that the program runs in.
fn beside(out: &Path) -> PathBuf {
    match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Whether two paths lead to one folder, which is there.
pub fn same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+=:,@%".contains(&byte);
    if text.bytes().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_neighbours_are_beside_its_folder() {
        for (out, folder) in [("NAME", "."), ("NAME/", "."), ("./NAME", "."), ("a/b", "a"), ("/a/b", "/a"), ("/a", "/")]
        {
            assert_eq!(beside(Path::new(out)), Path::new(folder), "{out}");
        }
        assert!(same_folder(Path::new("."), &std::env::current_dir().unwrap()));
        assert!(!same_folder(Path::new("not there"), Path::new("not there")));
    }

    #[test]
    fn a_hint_can_be_pasted() {
        assert_eq!(quoted(Path::new("glasshouse-out")), "glasshouse-out");
        assert_eq!(quoted(Path::new("my runs/it's")), r"'my runs/it'\''s'");
    }
}
