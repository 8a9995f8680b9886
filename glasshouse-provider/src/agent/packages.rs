//! Packages as they arrive: ciphertext only, in pieces, in a private directory.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use glasshouse_core::fixed::{Digest48, Fixed};
use sha2::{Digest as _, Sha384};
use tokio::fs::File;
use tokio::io::{AsyncSeekExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;

use crate::wire::{PackageStatus, WireCode, WireError};

pub(super) struct Packages {
    folder: PathBuf,
    uploads: std::sync::Mutex<BTreeMap<Digest48, Arc<Mutex<Upload>>>>,
}

struct Upload {
    path: PathBuf,
    size: u64,
    /// Over everything that is there, so that the final check costs no second reading.
    hash: Sha384,
    complete: bool,
}

impl Packages {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, uploads: std::sync::Mutex::default() }
    }

    /// How much of a package is there.
    pub(super) async fn status(&self, digest: &Digest48) -> PackageStatus {
        match self.lookup(digest) {
            Some(upload) => status(&*upload.lock().await),
            None => PackageStatus { size: 0, complete: false },
        }
    }

    /// Appends a piece that begins where the last one ended. The same piece again changes nothing.
    pub(super) async fn append(&self, digest: Digest48, offset: u64, piece: &[u8]) -> Result<PackageStatus, WireError> {
        let upload = self.entry(digest);
        let mut upload = upload.lock().await;
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if offset.saturating_add(length) <= upload.size {
            return Ok(status(&upload));
        }
        if offset != upload.size || upload.complete {
            let message = format!("the next piece begins at {}, not at {offset}", upload.size);
            return Err(WireError::new(WireCode::OffsetMismatch, message));
        }
        write_at(&upload.path, offset, piece).await.map_err(|e| {
            WireError::new(
                WireCode::Machine,
                format_args!("cannot store the package: {e}; give the allocation more disk"),
            )
        })?;
        upload.hash.update(piece);
        upload.size = offset.saturating_add(length);
        Ok(status(&upload))
    }

    /// Checks the digest of all bytes. A package that has another one is dropped, so that it can be sent anew.
    pub(super) async fn complete(&self, digest: &Digest48) -> Result<PackageStatus, WireError> {
        let upload = self.lookup(digest).ok_or_else(missing)?;
        let mut upload = upload.lock().await;
        let seen: Digest48 = Fixed(upload.hash.clone().finalize().into());
        if seen != *digest {
            self.uploads.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
            let _ = tokio::fs::remove_file(&upload.path).await;
            let message = format!("{} bytes arrived with digest {}, not {}", upload.size, seen.short(), digest.short());
            return Err(WireError::new(WireCode::PackageDigestMismatch, message));
        }
        upload.complete = true;
        Ok(status(&upload))
    }

    /// The file of a package that was completed.
    pub(super) async fn file(&self, digest: &Digest48) -> Result<PathBuf, WireError> {
        let upload = self.lookup(digest).ok_or_else(missing)?;
        let upload = upload.lock().await;
        if upload.complete { Ok(upload.path.clone()) } else { Err(missing()) }
    }

    fn lookup(&self, digest: &Digest48) -> Option<Arc<Mutex<Upload>>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
    }

    fn entry(&self, digest: Digest48) -> Arc<Mutex<Upload>> {
        let mut uploads = self.uploads.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Upload {
            path: self.folder.join(format!("{digest}.package")),
            size: 0,
            hash: Sha384::new(),
            complete: false,
        };
        uploads.entry(digest).or_insert_with(|| Arc::new(Mutex::new(fresh()))).clone()
    }
}

fn missing() -> WireError {
    WireError::new(WireCode::NoSuchPackage, "upload the whole package first")
}

fn status(upload: &Upload) -> PackageStatus {
    PackageStatus { size: upload.size, complete: upload.complete }
}

/// Cuts off what an interrupted write may have left, then appends.
async fn write_at(path: &PathBuf, offset: u64, piece: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().create(true).truncate(false).write(true).open(path).await?;
    file.set_len(offset).await?;
    file.seek(std::io::SeekFrom::Start(offset)).await?;
    file.write_all(piece).await?;
    file.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use glasshouse_core::transcript::sha384;

    #[tokio::test]
    async fn pieces_in_order_resume_and_are_checked() {
        let folder = tempfile::tempdir().unwrap();
        let packages = Packages::new(folder.path().to_owned());
        let digest = sha384(b"abcdef");
        assert_eq!(packages.append(digest, 0, b"abc").await.unwrap().size, 3);
        assert_eq!(packages.append(digest, 0, b"abc").await.unwrap().size, 3);
        assert_eq!(packages.append(digest, 4, b"ef").await.unwrap_err().code, WireCode::OffsetMismatch);
        assert_eq!(packages.append(digest, 2, b"cd").await.unwrap_err().code, WireCode::OffsetMismatch);
        assert_eq!(packages.file(&digest).await.unwrap_err().code, WireCode::NoSuchPackage);
        packages.append(digest, 3, b"def").await.unwrap();
        assert!(packages.complete(&digest).await.unwrap().complete);
        assert_eq!(std::fs::read(packages.file(&digest).await.unwrap()).unwrap(), b"abcdef");
    }

    #[tokio::test]
    async fn a_changed_package_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let packages = Packages::new(folder.path().to_owned());
        let digest = sha384(b"abcdef");
        packages.append(digest, 0, b"abcdeg").await.unwrap();
        assert_eq!(packages.complete(&digest).await.unwrap_err().code, WireCode::PackageDigestMismatch);
        assert_eq!(packages.status(&digest).await, PackageStatus { size: 0, complete: false });
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
