//! Artifacts on their way out: sealed to the owner's result key, those of a raw segment to a key out of the launch secret.

use glasshouse_core::channel::EventBody;
use glasshouse_core::fixed::{Blob, Nonce32, PublicKey32};
use glasshouse_core::protocol::{encode, seal_artifact};
use glasshouse_core::traits::{ArtifactSink, WorkloadError};
use glasshouse_core::transcript::sha256;

use super::run::Segment;
use crate::artifact_name;
use crate::frames::{ARTIFACT_PIECE, FromSegment};

/// Whom artifacts are sealed to.
#[derive(Clone, Copy)]
pub(super) struct SealTo {
    pub(super) owner: PublicKey32,
    pub(super) session: Nonce32,
}

pub(super) struct Exports<'a, 'b> {
    pub(super) segment: &'a mut Segment<'b>,
    pub(super) seal_to: SealTo,
}

impl ArtifactSink for Exports<'_, '_> {
    fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), WorkloadError> {
        let failed = |why: String| WorkloadError::Artifact { name: name.to_owned(), why };
        artifact_name::check(name).map_err(|why| failed(why.to_owned()))?;
        let SealTo { owner, session } = &self.seal_to;
        let sealed = encode(&seal_artifact(owner, session, name, bytes).map_err(|e| failed(e.to_string()))?);
        let mut pieces = sealed.chunks(ARTIFACT_PIECE).peekable();
        loop {
            // An artifact without a byte still is one piece, the last.
            let piece = pieces.next().unwrap_or_default();
            let last = pieces.peek().is_none();
            let message = FromSegment::Artifact { name: name.to_owned(), piece: Blob(piece.to_vec()), last };
            self.segment.port.send(&message).map_err(|e| failed(e.to_string()))?;
            if last {
                break;
            }
        }
        self.segment.emit(&EventBody::Artifact {
            name: name.to_owned(),
            sha256: sha256(bytes),
            bytes: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            sealed_sha256: Some(sha256(&sealed)),
        });
        Ok(())
    }
}
