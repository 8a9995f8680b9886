//! What an agent and its segment say over the segment's standard input and output: a length (u32, big-endian), then
//! JSON. Both ends are this executable; the limit guards against a workload that writes where it should not.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use std::io::{self, Read};

use glasshouse_core::claims::EvidenceKind;
use glasshouse_core::fixed::{Blob, Digest32, Nonce32, PublicKey32};
use glasshouse_core::refusal::Refusal;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::wire::{SegmentId, SegmentMode, StepMark};

/// Largest frame: an artifact's piece or an evidence with many certificates, in base64.
const MAX_FRAME: u32 = 24 << 20;
/// Bytes of an artifact in one frame.
pub(crate) const ARTIFACT_PIECE: usize = 1 << 20;

/// From the agent to its segment. The launch secret goes ahead of the first one, as 32 bytes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum ToSegment {
    Start(SegmentStart),
    /// Questions have numbers, and answers say which one they are for.
    Challenge {
        question: u64,
        challenge: Blob,
    },
    Release {
        question: u64,
        release: Blob,
    },
    Command(Blob),
    Ack {
        through: u64,
    },
    /// The owner asked for something that the agent has: a download may take longer than the linger time.
    OwnerIsThere,
}

/// What a segment is told at its start.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SegmentStart {
    pub(crate) id: SegmentId,
    pub(crate) mode: SegmentMode,
    pub(crate) session: Nonce32,
    pub(crate) boot: Nonce32,
    pub(crate) attestor: EvidenceKind,
    pub(crate) gate_key: PublicKey32,
    pub(crate) image_digest: Option<Digest32>,
    pub(crate) linger_millis: u64,
    pub(crate) package: std::path::PathBuf,
    pub(crate) job: Option<Blob>,
}

/// From a segment to its agent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum FromSegment {
    Step(StepMark),
    Answer {
        question: u64,
        answer: Answer,
    },
    Record {
        seq: u64,
        record: Blob,
    },
    Artifact {
        name: String,
        piece: Blob,
        last: bool,
    },
    /// Why it ends, for people.
    Ending(String),
}

/// What a segment answers to a challenge or a release.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Answer {
    Evidence(Blob),
    Released,
    Refused(Refusal),
}

/// One message as it is written.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len().saturating_sub(4)).ok().filter(|length| *length <= MAX_FRAME);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "message too large for the pipe"))?;
    if let Some(head) = frame.first_chunk_mut::<4>() {
        *head = length.to_be_bytes();
    }
    Ok(frame)
}

/// The next message, or `None` at the end.
pub(crate) fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0; checked_length(head)?];
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// The next message, or `None` at the end.
pub(crate) async fn read_async<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let mut body = vec![0; checked_length(head)?];
    from.read_exact(&mut body).await?;
    decode(&body).map(Some)
}

fn checked_length(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head);
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame claims {length} bytes")));
    }
    usize::try_from(length).map_err(io::Error::other)
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::SegmentStep;

    #[test]
    fn frames_follow_each_other() {
        let mut bytes = encode(&FromSegment::Step(StepMark { step: SegmentStep::Train, boot_micros: 7 })).unwrap();
        bytes.extend(encode(&FromSegment::Record { seq: 3, record: Blob(vec![1, 2]) }).unwrap());
        let mut from = bytes.as_slice();
        assert!(matches!(read(&mut from), Ok(Some(FromSegment::Step(mark))) if mark.boot_micros == 7));
        assert!(matches!(read(&mut from), Ok(Some(FromSegment::Record { seq: 3, .. }))));
        assert!(matches!(read::<FromSegment>(&mut from), Ok(None)));
    }

    #[test]
    fn text_on_the_channel_is_an_error() {
        assert!(read::<FromSegment>(b"epoch 1 loss 0.3\n".as_slice()).is_err());
        assert!(read::<FromSegment>([0, 0, 0, 9, b'{'].as_slice()).is_err());
    }
}
