//! The owner's client of an agent. The owner dials and pulls; nothing depends on a callback.
#![deny(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

mod error;
mod transport;
mod upload;

#[cfg(test)]
mod tests;

pub use error::ClientError;

use std::time::Duration;

use glasshouse_core::fixed::Nonce32;
use glasshouse_core::refusal::one_line;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::Endpoint;
use reqwest::Method;

use crate::wire::{AckRequest, ArtifactEntry, Hello, MAX_WAIT, RecordsPage, SegmentId, SegmentStatus, StartSegment};
use transport::{Call, Transport};

/// Talks to one process of one agent. Every request carries a MAC of the launch secret and every answer is checked for
/// one, so that whoever stands between can drop messages but not change, repeat or make them.
pub struct AgentClient {
    transport: Transport,
}

impl AgentClient {
    /// A client of the agent at `endpoint`. Connects only when it is used.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] when the endpoint is no address.
    pub fn new(endpoint: &Endpoint, launch_secret: &Secret<32>) -> Result<Self, ClientError> {
        Ok(Self { transport: Transport::new(endpoint, launch_secret)? })
    }

    /// Who is there.
    ///
    /// # Errors
    /// As every call here: [`ClientError`], which names the step.
    pub async fn hello(&self) -> Result<Hello, ClientError> {
        self.transport.hello(Call::hello("hello")).await
    }

    /// Who is there, asked once and without patience: for waiting until an agent can be reached.
    ///
    /// # Errors
    /// As [`Self::hello`].
    pub async fn try_hello(&self) -> Result<Hello, ClientError> {
        self.transport.hello(Call { tries: 1, timeout: Duration::from_secs(5), ..Call::hello("hello") }).await
    }

    /// The id of the agent's process that this client talks to, once it has answered: the first one that did. When the
    /// agent is started anew, every call is refused with [`WireCode::Restarted`](crate::wire::WireCode::Restarted).
    pub fn boot(&self) -> Option<Nonce32> {
        self.transport.boot()
    }

    /// Starts a segment. Its package must have been uploaded.
    ///
    /// # Errors
    /// As [`Self::hello`].
    pub async fn start(&self, start: &StartSegment) -> Result<SegmentStatus, ClientError> {
        self.transport.json(Call::new("start segment", Method::POST, "/v1/segments").json(start)).await
    }

    /// Hands a challenge over and gives the evidence.
    ///
    /// # Errors
    /// As [`Self::hello`]; the segment's own refusal is in [`ClientError::Refused`].
    pub async fn challenge(&self, id: &SegmentId, challenge: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/segments/{id}/challenge");
        self.transport.bytes(Call::new("challenge", Method::POST, &path).body(challenge)).await
    }

    /// Hands the release over; the segment has opened it when this returns. The same bytes may be sent again.
    ///
    /// # Errors
    /// As [`Self::challenge`].
    pub async fn release(&self, id: &SegmentId, release: Vec<u8>) -> Result<SegmentStatus, ClientError> {
        let path = format!("/v1/segments/{id}/release");
        self.transport.json(Call::new("release", Method::POST, &path).body(release)).await
    }

    /// Records after `after`, waiting at most `wait` (30 s at most) for one.
    ///
    /// # Errors
    /// As [`Self::hello`].
    pub async fn records(
        &self,
        id: &SegmentId,
        after: Option<u64>,
        wait: Duration,
    ) -> Result<RecordsPage, ClientError> {
        let path = format!("/v1/segments/{id}/records");
        let mut call =
            Call::new("records", Method::GET, &path).query("wait_millis", wait.min(MAX_WAIT).as_millis().to_string());
        if let Some(after) = after {
            call = call.query("after", after.to_string());
        }
        self.transport.json(call).await
    }

    /// Tells the segment that everything up to `through` is durable here.
    ///
    /// # Errors
    /// As [`Self::hello`].
    pub async fn acknowledge(&self, id: &SegmentId, through: u64) -> Result<SegmentStatus, ClientError> {
        let path = format!("/v1/segments/{id}/ack");
        self.transport.json(Call::new("acknowledge", Method::POST, &path).json(&AckRequest { through })).await
    }

    /// Hands a sealed command over.
    ///
    /// # Errors
    /// As [`Self::hello`].
    pub async fn command(&self, id: &SegmentId, record: Vec<u8>) -> Result<SegmentStatus, ClientError> {
        let path = format!("/v1/segments/{id}/command");
        self.transport.json(Call::new("command", Method::POST, &path).body(record)).await
    }

    /// Downloads an artifact as it is kept there: sealed in a protected run. `entry.size` bytes are held in memory: check it
    /// against the signed event, where its digest is too.
    ///
    /// # Errors
    /// As [`Self::hello`]; [`ClientError::Nonsense`] when it is shorter or longer than its size, or does not fit.
    pub async fn artifact(&self, id: &SegmentId, entry: &ArtifactEntry) -> Result<Vec<u8>, ClientError> {
        let path = format!("/v1/segments/{id}/artifacts");
        let nonsense = |why: String| ClientError::Nonsense { step: "artifact", why };
        let mut artifact: Vec<u8> = Vec::new();
        let size = usize::try_from(entry.size).ok().filter(|size| artifact.try_reserve_exact(*size).is_ok());
        let size = size.ok_or_else(|| nonsense(format!("{} bytes do not fit into memory", entry.size)))?;
        loop {
            let have = artifact.len();
            if have >= size {
                return Ok(artifact);
            }
            let call = Call::new("artifact", Method::GET, &path)
                .query("name", entry.name.clone())
                .query("offset", have.to_string());
            let piece = self.transport.bytes(call).await?;
            if piece.is_empty() {
                return Err(nonsense(format!("artifact {} ends at {have} of {size} bytes", one_line(&entry.name))));
            }
            if piece.len() > size.saturating_sub(have) {
                return Err(nonsense(format!("artifact {} is longer than {size} bytes", one_line(&entry.name))));
            }
            artifact.extend_from_slice(&piece);
        }
    }

    /// Asks the agent to end its segments and itself.
    ///
    /// # Errors
    /// As [`Self::hello`].
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        let call = Call::new("shutdown", Method::POST, "/v1/shutdown");
        self.transport.json::<serde_json::Value>(call).await.map(drop)
    }
}
