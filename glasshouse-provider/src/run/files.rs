//! The owner's files: each appears whole or not at all.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::RunError;

/// Makes the output folder before anything else is done, and finds out whether it takes files.
pub(super) fn prepare_folder(folder: &Path) -> Result<(), RunError> {
    let failed = |what, e: std::io::Error| RunError::File { path: folder.to_owned(), what, why: e.to_string() };
    std::fs::create_dir_all(folder).map_err(|e| failed("made", e))?;
    // Dropped at once: only that it can be made counts.
    tempfile::NamedTempFile::new_in(folder).map(drop).map_err(|e| failed("written into", e))
}

/// Writes a file that appears whole and synced, or not at all.
pub(super) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, RunError> {
    let path = folder.join(name);
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|e| e.error).map(drop)
    };
    write().map_err(|e| RunError::File { path: path.clone(), what: "written", why: e.to_string() })?;
    Ok(path)
}
