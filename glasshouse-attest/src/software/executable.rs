//! SHA-256 of the running executable.
//!
//! `/proc/self/exe` names the inode that was mapped at exec, whatever has since happened to its path, and a process may
//! always follow its own link, also after it made itself undumpable (`ptrace_may_access` lets a thread group see itself).
//! The kernel refuses writes to a running executable (`ETXTBSY`), so the digest is computed once per process. Kernels
//! and network file systems without that refusal exist; the inode's identity, size and times are therefore read at each
//! call, and a file that was touched is read again.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::AttestError;
use sha2::{Digest as _, Sha256};

/// Read in pieces that stay in the cache between reading and hashing.
const PIECE: usize = 256 * 1024;

static MEASURED: Mutex<Option<(Stamp, Digest32)>> = Mutex::new(None);

/// What changes when a file is written: device, inode, size, and change time in seconds and nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp(u64, u64, u64, i64, i64);

/// SHA-256 of the executable that this process runs.
///
/// # Errors
/// [`AttestError::Unreadable`], where `/proc` is not mounted or the executable may be run but not read.
pub fn running_executable() -> Result<Digest32, AttestError> {
    let unreadable =
        |error: io::Error| AttestError::Unreadable { what: "the running executable", why: error.to_string() };
    let mut file = File::open("/proc/self/exe").map_err(unreadable)?;
    let stamp = stamp(&file.metadata().map_err(unreadable)?);
    let mut measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((then, digest)) = *measured
        && then == stamp
    {
        return Ok(digest);
    }
    let digest = sha256_of(&mut file).map_err(unreadable)?;
    *measured = Some((stamp, digest));
    Ok(digest)
}

/// SHA-256 of any file: what an owner takes as the reference value for a program it is about to launch.
///
/// # Errors
/// [`AttestError::Unreadable`] when the file cannot be read.
pub fn executable_digest(path: &Path) -> Result<Digest32, AttestError> {
    File::open(path)
        .and_then(|mut file| sha256_of(&mut file))
        .map_err(|error| AttestError::Unreadable { what: "an executable", why: format!("{}: {error}", path.display()) })
}

fn sha256_of(file: &mut File) -> io::Result<Digest32> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; PIECE];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(Digest32::from(<[u8; 32]>::from(hash.finalize()))),
            Ok(read) => hash.update(piece.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn stamp(meta: &Metadata) -> Stamp {
    Stamp(meta.dev(), meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_this_very_program() {
        let path = std::env::current_exe().unwrap();
        let whole = glasshouse_core::transcript::sha256(std::fs::read(&path).unwrap());
        assert_eq!(running_executable().unwrap(), whole);
        assert_eq!(running_executable().unwrap(), whole, "and again");
        assert_eq!(executable_digest(&path).unwrap(), whole);
        let missing = executable_digest(Path::new("/nowhere")).unwrap_err();
        assert!(missing.to_string().contains("/nowhere"), "{missing}");
    }
}
