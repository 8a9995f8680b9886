//! The owner's files: each appears whole, or not at all.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use glasshouse_core::durable::{make_folder, sync_folder};

use super::RunError;

/// Who may read a file.
#[derive(Clone, Copy)]
pub(super) enum Readers {
    /// Whoever the umask lets: records, reports and public keys are made to be shown.
    Everyone,
    /// Its owner: what was trained on private data is private.
    Owner,
}

/// Makes the output folder before anything else is done, and finds out whether it takes files.
pub(super) fn prepare_folder(folder: &Path) -> Result<(), RunError> {
    let failed = |what, e: std::io::Error| RunError::File { path: folder.to_owned(), what, why: e.to_string() };
    make_folder(folder).map_err(|e| failed("made", e))?;
    // Only that it can be made counts. It has no name: a kill here leaves nothing behind.
    tempfile::tempfile_in(folder).map(drop).map_err(|e| failed("written into", e))
}

/// Writes a file that appears whole, and is durable under its name when this returns, or does not appear.
pub(super) fn write_whole(folder: &Path, name: &str, bytes: &[u8], readers: Readers) -> Result<PathBuf, RunError> {
    let path = folder.join(name);
    let mode = match readers {
        Readers::Everyone => 0o666, // less the umask, as for any file
        Readers::Owner => 0o600,
    };
    let write = || {
        let mut file = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|e| e.error)?;
        sync_folder(folder)
    };
    write().map_err(|e| RunError::File { path: path.clone(), what: "written", why: e.to_string() })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn records_can_be_read_by_others_and_artifacts_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |name: &str| std::fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        // What the umask makes of a file that was asked for without any restriction.
        File::create(folder.path().join("plain")).unwrap();
        write_whole(folder.path(), "evidence.json", b"{}", Readers::Everyone).unwrap();
        write_whole(folder.path(), "adapter", b"w", Readers::Owner).unwrap();
        assert_eq!(mode("evidence.json"), mode("plain"));
        assert_eq!(mode("adapter"), 0o600);
    }
}
