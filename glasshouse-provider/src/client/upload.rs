//! Packages go up in pieces and go on where they stopped.

use std::io::{Read, Seek, SeekFrom};

use glasshouse_core::fixed::Digest48;
use reqwest::Method;

use super::transport::Call;
use super::{AgentClient, ClientError};
use crate::wire::{MAX_PIECE, PackageStatus, WireCode};

/// How often an upload may find itself elsewhere than it thought before it gives up.
const MAX_SURPRISES: u32 = 16;
const STEP: &str = "upload";

impl AgentClient {
    /// Uploads a sealed package of `length` bytes whose SHA-384 is `digest`, from where an earlier upload stopped.
    /// `progress` is told how many bytes are there.
    ///
    /// # Errors
    /// [`ClientError::File`] when `source` cannot be read or is shorter; otherwise as [`Self::hello`].
    pub async fn upload<R: Read + Seek + Send>(
        &self,
        digest: &Digest48,
        length: u64,
        source: &mut R,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<(), ClientError> {
        let mut status = self.package_status(digest).await?;
        let mut surprises = 0_u32;
        while status.size < length && !status.complete {
            progress(status.size);
            let piece = read_piece(source, status.size, length)?;
            let path = format!("/v1/packages/{digest}");
            let call = Call::new(STEP, Method::PUT, &path).query("offset", status.size.to_string()).body(piece);
            status = match self.transport.json(call).await {
                Ok(status) => status,
                Err(ClientError::Refused { error, .. })
                    if error.code == WireCode::OffsetMismatch && surprises < MAX_SURPRISES =>
                {
                    surprises = surprises.saturating_add(1);
                    self.package_status(digest).await?
                }
                Err(e) => return Err(e),
            };
        }
        let path = format!("/v1/packages/{digest}/complete");
        let done: PackageStatus = self.transport.json(Call::new(STEP, Method::POST, &path)).await?;
        progress(done.size);
        Ok(())
    }

    async fn package_status(&self, digest: &Digest48) -> Result<PackageStatus, ClientError> {
        self.transport.json(Call::new(STEP, Method::GET, &format!("/v1/packages/{digest}"))).await
    }
}

fn read_piece(source: &mut (impl Read + Seek), offset: u64, length: u64) -> Result<Vec<u8>, ClientError> {
    let unreadable = |why: String| ClientError::File { step: STEP, what: "the package".to_owned(), why };
    let wanted = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX).min(MAX_PIECE);
    let mut piece = vec![0; wanted];
    source
        .seek(SeekFrom::Start(offset))
        .and_then(|_| source.read_exact(&mut piece))
        .map_err(|e| unreadable(e.to_string()))?;
    Ok(piece)
}
