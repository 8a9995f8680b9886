//! What the workload is given: a package's entries, opened into memory, and public inputs checked by digest.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use glasshouse_core::manifest::PublicInput;
use glasshouse_core::package::{PackageDigests, open_file};
use glasshouse_core::public_file::{PublicFile, PublicFileError};
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::Inputs;

use super::run::SegmentFailure;

/// Environment variable of an allocation: the folder that holds public inputs under their names.
pub const PUBLIC_INPUTS_VARIABLE: &str = "GLASSHOUSE_PUBLIC_INPUTS";

/// Opens a sealed package into memory.
pub(super) fn from_package(
    path: &Path,
    data_key: &Secret<32>,
    expected: &PackageDigests,
) -> Result<Inputs, SegmentFailure> {
    let opened = open_file(path, data_key, expected).map_err(|e| SegmentFailure::Package(e.to_string()))?;
    Ok(Inputs { sealed: opened.entries, public: public_inputs(&opened.manifest.public_inputs)? })
}

fn public_inputs(wanted: &[PublicInput]) -> Result<BTreeMap<String, Arc<PublicFile>>, SegmentFailure> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let failure = |name: &str, why: String| SegmentFailure::PublicInput { name: name.to_owned(), why };
    let folder = std::env::var_os(PUBLIC_INPUTS_VARIABLE).map(PathBuf::from);
    wanted
        .iter()
        .map(|input| {
            let folder =
                folder.as_ref().ok_or_else(|| failure(&input.name, format!("set {PUBLIC_INPUTS_VARIABLE}")))?;
            provide(input, folder)?;
            let path = folder.join(&input.name);
            let file = PublicFile::pinned(&path, input).map_err(|error| match error {
                PublicFileError::Digest { .. } | PublicFileError::Length { .. } => {
                    failure(&input.name, format!("{}: {error}; put the pinned file there", path.display()))
                }
                other => failure(&input.name, other.to_string()),
            })?;
            Ok((input.name.clone(), Arc::new(file)))
        })
        .collect()
}

/// Fetches what is not there, where this build can; what cannot be had is found missing in a moment.
#[cfg(feature = "hub")]
fn provide(input: &PublicInput, folder: &Path) -> Result<(), SegmentFailure> {
    if folder.join(&input.name).is_file() || !input.source.starts_with("http") {
        return Ok(());
    }
    let failure = |why: String| SegmentFailure::PublicInput { name: input.name.clone(), why };
    crate::roles::note(format_args!("fetching {}, {} bytes, from {}", input.name, input.bytes, input.source));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|e| failure(e.to_string()))?;
    runtime.block_on(crate::hub::fetch_public(input, folder)).map_err(|e| failure(e.to_string()))
}

#[cfg(not(feature = "hub"))]
fn provide(_: &PublicInput, _: &Path) -> Result<(), SegmentFailure> {
    Ok(())
}
