//! The header of a safetensors file, checked against the file's size.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::path::Path;

use safetensors::tensor::Metadata;

use super::error::QwenError;
use super::weights::Content;

/// What the safetensors format takes as a header at most.
const LIMIT: u64 = 100_000_000;
/// The header's own length, before it.
const PREFIX: u64 = 8;

/// Where tensors begin, and what there is. The crate's own reader wants the whole file in memory; its check of offsets,
/// shapes and types against each other is the one that is used here.
pub(super) fn header(path: &Path, content: &Content) -> Result<(u64, Metadata), QwenError> {
    let failed = |why: &str| QwenError::Header { path: path.to_owned(), why: why.to_owned() };
    let size = content.bytes();
    let truncated = |needed| Err(QwenError::Truncated { path: path.to_owned(), size, needed });
    if size < PREFIX {
        return truncated(PREFIX);
    }
    let prefix = content.range(path, 0..PREFIX)?;
    let length = prefix.first_chunk::<8>().map_or(u64::MAX, |length| u64::from_le_bytes(*length));
    let data = length.checked_add(PREFIX).filter(|_| length <= LIMIT).ok_or_else(|| failed("it is too long"))?;
    if data > size {
        return truncated(data);
    }
    let metadata: Metadata =
        serde_json::from_slice(&content.range(path, PREFIX..data)?).map_err(|error| failed(&error.to_string()))?;
    let end = u64::try_from(metadata.data_len()).ok().and_then(|length| length.checked_add(data));
    match end.ok_or_else(|| failed("its tensors lie outside any file"))? {
        end if end > size => truncated(end),
        end if end < size => Err(failed("bytes follow that no tensor has")),
        _ => Ok((data, metadata)),
    }
}
