//! What must survive a crash: an append-only log of JSON lines that one process has open at a time. The gate's store and
//! the supervisor's journal are both one of these.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a log cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LineLogError {
    /// Another process has it open.
    #[error("{path} is in use by another process; end it, or use another file")]
    InUse {
        /// Its path.
        path: String,
    },
    /// It cannot be read or written.
    #[error("{path} cannot be {what}: {why}")]
    Io {
        /// Its path.
        path: String,
        /// What was tried.
        what: &'static str,
        /// What happened.
        why: String,
    },
    /// It holds something that this version did not write.
    #[error("{path} is damaged at line {line}: {why}")]
    Damaged {
        /// Its path.
        path: String,
        /// Line, from 1.
        line: usize,
        /// What is wrong there.
        why: String,
    },
}

/// An append-only file of JSON lines, locked for this process. An entry counts once [`append`](Self::append) returned:
/// then it survives a crash of the process and of the machine.
///
/// A line that a crash cut short at the end of the file was never acted on, so opening drops it; damage anywhere else is
/// an error. After a write or sync that failed, a full disk say, nothing more is written until the file is opened again,
/// because what is on disk is not known: what did not get there whole is cut off, now or when it is opened.
pub struct LineLog {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines that were synced.
    end: u64,
    failed: bool,
}

impl LineLog {
    /// Opens a log or creates it, readable by its owner alone, and gives every entry to `take` in order.
    ///
    /// # Errors
    /// [`LineLogError`]; what `take` refuses is [`LineLogError::Damaged`] with its words.
    pub fn open<T: DeserializeOwned>(
        path: impl Into<PathBuf>,
        mut take: impl FnMut(T) -> Result<(), String>,
    ) -> Result<Self, LineLogError> {
        let path = path.into();
        let failed = |what| move |e: io::Error| (what, e);
        let told = |(what, e): (&'static str, io::Error)| io_error(&path, what, &e);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed("opened")).map_err(told)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LineLogError::InUse { path: path.display().to_string() }),
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "locked", &e)),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read")).map_err(told)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last.saturating_add(1));
        let lines = bytes.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n');
        for (index, line) in lines.enumerate() {
            let entry = serde_json::from_slice(line).map_err(|e| e.to_string());
            entry.and_then(&mut take).map_err(|why| LineLogError::Damaged {
                path: path.display().to_string(),
                line: index.saturating_add(1),
                why,
            })?;
        }
        let end = u64::try_from(whole).unwrap_or(u64::MAX);
        if whole < bytes.len() {
            file.set_len(end).map_err(failed("mended")).map_err(told)?;
        }
        // A new file's name is durable only once its folder is.
        file.sync_all().and_then(|()| sync_folder(parent(&path))).map_err(failed("synced")).map_err(told)?;
        Ok(Self { path, file, end, failed: false })
    }

    /// Appends an entry and makes it durable.
    ///
    /// # Errors
    /// [`LineLogError::Io`]; the entry does not count, and nor does any later one.
    pub fn append(&mut self, entry: &impl Serialize) -> Result<(), LineLogError> {
        self.usable()?;
        let mut line = serde_json::to_vec(entry).map_err(|e| io_error(&self.path, "written", &e.into()))?;
        line.push(b'\n');
        if let Err(error) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            self.failed = true;
            // Half of a line may be there. Should cutting it off fail too, opening does it.
            let _ = self.file.set_len(self.end);
            return Err(io_error(&self.path, "written", &error));
        }
        self.end = self.end.saturating_add(u64::try_from(line.len()).unwrap_or(u64::MAX));
        Ok(())
    }

    /// Whether what was appended is what is on disk.
    ///
    /// # Errors
    /// [`LineLogError::Io`] after a write that failed.
    pub fn usable(&self) -> Result<(), LineLogError> {
        match self.failed {
            false => Ok(()),
            true => Err(io_error(&self.path, "used", &io::Error::other("an earlier write failed; open it again"))),
        }
    }

    /// Whether it has no entry.
    pub const fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Makes the names in a folder durable.
///
/// # Errors
/// As the operating system says.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Makes a folder with everything above it, each durable under its name.
///
/// # Errors
/// As the operating system says.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let missing: Vec<_> =
        folder.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
    std::fs::create_dir_all(folder)?;
    missing.into_iter().try_for_each(|made| sync_folder(parent(made)))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn io_error(path: &Path, what: &'static str, error: &io::Error) -> LineLogError {
    LineLogError::Io { path: path.display().to_string(), what, why: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<(LineLog, Vec<u32>), LineLogError> {
        let mut entries = Vec::new();
        let log = LineLog::open(path, |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok((log, entries))
    }

    #[test]
    fn every_cut_of_the_file_keeps_what_was_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut log, _) = open(&path).unwrap();
        assert!(log.is_empty());
        for entry in [7, 88, 999] {
            log.append(&entry).unwrap();
        }
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (mut log, entries) = open(&path).unwrap();
            let expected = whole[..cut].iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(entries, [7, 88, 999][..expected], "cut at {cut}");
            // What is written after mending is read back.
            log.append(&5_u32).unwrap();
            drop(log);
            let (log, entries) = open(&path).unwrap();
            assert_eq!((entries.len(), entries.last()), (expected + 1, Some(&5)), "cut at {cut}");
            assert!(!log.is_empty());
        }
    }

    #[test]
    fn damage_and_a_second_process_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "1\n{}\n2\n").unwrap();
        assert!(matches!(open(&path), Err(LineLogError::Damaged { line: 2, .. })));
        let refused = LineLog::open(&path, |_: serde_json::Value| Err("not now".to_owned()));
        assert!(matches!(refused, Err(LineLogError::Damaged { line: 1, why, .. }) if why == "not now"));
        std::fs::write(&path, "1\n").unwrap();
        let first = open(&path).unwrap();
        assert!(matches!(open(&path), Err(LineLogError::InUse { .. })));
        drop(first);
        open(&path).unwrap();
    }

    #[test]
    fn folders_are_made_with_what_is_above_them() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        make_folder(&deep).unwrap();
        make_folder(&deep).unwrap();
        assert!(deep.is_dir());
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(make_folder(&folder.path().join("file/x")).is_err());
    }
}
