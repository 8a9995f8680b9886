//! What goes up to an allocation before its segments start.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

use glasshouse_core::claims::Assurance;
use glasshouse_core::fixed::{Digest48, Fixed};
use glasshouse_core::overhead::Mode;
use glasshouse_core::package::{PackageBuilder, PackageDigests, Source, open_file};
use glasshouse_core::secret::Secret;
use sha2::{Digest as _, Sha384};

use super::execute::Teller;
use super::setup::Setup;
use super::{RunError, RunEvent};
use crate::supervisor::Rented;

/// What goes up: the sealed package, and for raw segments the same entries in a package of their own. Both are
/// ciphertext, on the way and on the allocation's disk.
pub(super) struct Uploads {
    pub(super) sealed: Option<Upload>,
    pub(super) raw: Option<RawUpload>,
}

/// A file as it goes up.
pub(super) struct Upload {
    file: File,
    length: u64,
    /// SHA-384 of the file, by which the agent knows it.
    pub(super) digest: Digest48,
}

/// The package of raw segments, whose key each of them gets under the launch secret.
pub(super) struct RawUpload {
    pub(super) upload: Upload,
    pub(super) data_key: Secret<32>,
    pub(super) digests: PackageDigests,
}

impl Uploads {
    pub(super) fn prepare(setup: &Setup, plan: &[Mode]) -> Result<Self, RunError> {
        let path = &setup.package.path;
        let sealed = match plan.contains(&Mode::Protected) {
            true => Some(File::open(path).and_then(Upload::new).map_err(|e| unusable(path, "read", &e))?),
            false => None,
        };
        let raw = match plan.contains(&Mode::Raw) {
            true => Some(raw_package(setup)?),
            false => None,
        };
        Ok(Self { sealed, raw })
    }

    pub(super) async fn send(&mut self, rented: &Rented, tell: &mut Teller<'_>) -> Result<(), RunError> {
        let raw = self.raw.as_mut().map(|raw| &mut raw.upload);
        for Upload { file, length, digest } in self.sealed.as_mut().into_iter().chain(raw) {
            send(rented, digest, *length, file, tell).await?;
        }
        Ok(())
    }
}

impl Upload {
    fn new(mut file: File) -> std::io::Result<Self> {
        let (mut hash, mut length, mut buffer) = (Sha384::new(), 0_u64, vec![0; 1 << 20]);
        file.rewind()?;
        loop {
            let count = file.read(&mut buffer)?;
            let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
            hash.update(piece);
            length = length.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
        }
        Ok(Self { file, length, digest: Fixed(hash.finalize().into()) })
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

/// Seals the package's entries once more, in chunks of the same size, under a key that the gate has no part in: what a raw
/// segment is shown must open nothing else.
fn raw_package(setup: &Setup) -> Result<RawUpload, RunError> {
    let (provider, sealed) = (setup.provider.name(), &setup.package.sealed);
    if provider != "local" && !sealed.manifest.public_data && !setup.allow_cleartext {
        return Err(RunError::CleartextData { provider });
    }
    let opened = open_file(&setup.package.path, &sealed.data_key, &sealed.digests)?;
    let manifest = opened.manifest;
    let mut builder = PackageBuilder::new(manifest.workload)
        .chunk_bytes(manifest.chunk_bytes)
        .minimum_assurance(Assurance::SelfReported);
    for (name, content) in &opened.entries {
        builder = builder.entry(name.clone(), Source::Slice(content));
    }
    builder = manifest.public_inputs.into_iter().fold(builder, PackageBuilder::public_input);
    // Without a name from the start: nothing of it stays, however this process ends.
    let unwritable = |e: std::io::Error| unusable(&setup.out, "written into", &e);
    let mut file = tempfile::tempfile_in(&setup.out).map_err(unwritable)?;
    let again = builder.seal_to(&mut file)?;
    let upload = Upload::new(file).map_err(unwritable)?;
    Ok(RawUpload { upload, data_key: again.data_key, digests: again.digests })
}

fn unusable(path: &Path, what: &'static str, error: &std::io::Error) -> RunError {
    RunError::File { path: path.to_owned(), what, why: error.to_string() }
}
