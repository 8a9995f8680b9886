//! The owner's key files: each there whole, or not at all.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use glasshouse_core::durable::sync_folder;
use glasshouse_core::secret::Secret;

use super::RunError;

const KEY_BYTES: u64 = 32;
/// Keys in the making carry this name until they are durable; what a crash left under it was never used.
const UNFINISHED: &str = ".unfinished-key-";

/// Loads a key, or makes it when `fresh` says that nothing can depend on one yet.
///
/// The caller holds the lock of the folder's store, so that no two processes make one at a time.
pub(super) fn load_or_make(folder: &Path, name: &str, fresh: bool) -> Result<Secret<32>, RunError> {
    let path = folder.join(name);
    let failed = |what, why: String| RunError::File { path: path.clone(), what, why };
    match OpenOptions::new().read(true).open(&path) {
        Ok(mut file) => {
            let length = file.metadata().map_err(|e| failed("read", e.to_string()))?.len();
            match length {
                KEY_BYTES => {
                    Secret::fill_with(|bytes| file.read_exact(bytes)).map_err(|e| failed("read", e.to_string()))
                }
                // What an owner that was killed left behind who wrote keys in place. Nothing was ever sealed to it.
                0 if fresh => {
                    std::fs::remove_file(&path).map_err(|e| failed("replaced", e.to_string()))?;
                    make(folder, &path)
                }
                0 => Err(failed("used", "it is empty, and the store beside it is not; put the key back".to_owned())),
                _ => Err(failed("used", format!("a key has {KEY_BYTES} bytes, not {length}"))),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound && fresh => make(folder, &path),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let why = "it is missing, and the store beside it is not empty; put the key back, or move the store away";
            Err(failed("read", why.to_owned()))
        }
        Err(e) => Err(failed("read", e.to_string())),
    }
}

/// Removes what a crash left of keys in the making.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A fresh key, durable under its name before anybody gets it.
fn make(folder: &Path, path: &Path) -> Result<Secret<32>, RunError> {
    let secret = Secret::<32>::random().map_err(|_| RunError::NoRandomness)?;
    let write = || {
        let private = Permissions::from_mode(0o600);
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).permissions(private).tempfile_in(folder)?;
        file.write_all(secret.expose())?;
        file.as_file().sync_all()?;
        let _: File = file.persist_noclobber(path).map_err(|e| e.error)?;
        sync_folder(folder)
    };
    write().map_err(|e| RunError::File { path: path.to_owned(), what: "made", why: e.to_string() })?;
    Ok(secret)
}
