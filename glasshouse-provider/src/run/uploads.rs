//! What goes up to an allocation before its segments start.

use std::io::{Cursor, Read, Seek};
use std::path::{Path, PathBuf};

use glasshouse_core::fixed::{Digest48, Fixed};
use glasshouse_core::overhead::Mode;
use glasshouse_core::package::open_file;
use sha2::{Digest as _, Sha384};

use super::execute::Teller;
use super::setup::Setup;
use super::{RunError, RunEvent};
use crate::bundle;
use crate::supervisor::Rented;

/// What goes up: the sealed package, and for raw segments the same entries in the clear.
pub(super) struct Uploads {
    pub(super) sealed: Option<(PathBuf, Digest48, u64)>,
    pub(super) raw: Option<(Vec<u8>, Digest48)>,
}

impl Uploads {
    pub(super) fn prepare(setup: &Setup, plan: &[Mode]) -> Result<Self, RunError> {
        let sealed = match plan.contains(&Mode::Protected) {
            true => Some(digest_of(&setup.package.path)?),
            false => None,
        };
        let raw = match plan.contains(&Mode::Raw) {
            true => Some(raw_bundle(setup)?),
            false => None,
        };
        Ok(Self { sealed, raw })
    }

    pub(super) async fn send(&self, rented: &Rented, tell: &mut Teller<'_>) -> Result<(), RunError> {
        if let Some((path, digest, length)) = &self.sealed {
            let mut file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
            send(rented, digest, *length, &mut file, tell).await?;
        }
        if let Some((bytes, digest)) = &self.raw {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            send(rented, digest, length, &mut Cursor::new(bytes), tell).await?;
        }
        Ok(())
    }
}

async fn send<R: Read + Seek + Send>(
    rented: &Rented,
    digest: &Digest48,
    total: u64,
    source: &mut R,
    tell: &mut Teller<'_>,
) -> Result<(), RunError> {
    let told = |done| tell.event(RunEvent::Uploading { done, total });
    Ok(rented.client.upload(digest, total, source, told).await?)
}

fn raw_bundle(setup: &Setup) -> Result<(Vec<u8>, Digest48), RunError> {
    let (provider, sealed) = (setup.provider.name(), &setup.package.sealed);
    if provider != "local" && !sealed.manifest.public_data && !setup.allow_cleartext {
        return Err(RunError::CleartextData { provider });
    }
    let opened = open_file(&setup.package.path, &sealed.data_key, &sealed.digests)?;
    let mut bytes = Vec::new();
    bundle::write(&opened.entries, &opened.manifest.public_inputs, &mut bytes).map_err(|e| RunError::File {
        path: setup.package.path.clone(),
        what: "bundled for raw segments",
        why: e.to_string(),
    })?;
    let digest = Fixed(Sha384::digest(&bytes).into());
    Ok((bytes, digest))
}

fn unreadable(path: &Path, error: &std::io::Error) -> RunError {
    RunError::File { path: path.to_owned(), what: "read", why: error.to_string() }
}

fn digest_of(path: &Path) -> Result<(PathBuf, Digest48, u64), RunError> {
    let mut file = std::fs::File::open(path).map_err(|e| unreadable(path, &e))?;
    let (mut hash, mut total, mut buffer) = (Sha384::new(), 0_u64, vec![0; 1 << 20]);
    loop {
        let count = file.read(&mut buffer).map_err(|e| unreadable(path, &e))?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
        hash.update(piece);
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
    Ok((path.to_owned(), Fixed(hash.finalize().into()), total))
}
