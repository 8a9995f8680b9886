//! How the owner gets to an agent.

use async_trait::async_trait;
use glasshouse_core::secret::Secret;
use glasshouse_core::traits::{Endpoint, Observation};

use crate::client::{AgentClient, ClientError};

/// Gets to the agent at an endpoint: over the network, unless a tool has tunnels of its own.
#[async_trait]
pub trait Dial: Send + Sync {
    /// A client whose agent has answered, and the allocation's name as that agent gives it.
    async fn dial(&self, at: &Endpoint, launch_secret: &Secret<32>) -> Result<(AgentClient, String), ClientError>;
}

/// Straight over the network.
pub(super) struct Network;

#[async_trait]
impl Dial for Network {
    async fn dial(&self, at: &Endpoint, launch_secret: &Secret<32>) -> Result<(AgentClient, String), ClientError> {
        let client = AgentClient::new(at, launch_secret)?;
        let hello = client.try_hello().await?;
        Ok((client, hello.name))
    }
}

/// Why there is no client.
pub(super) enum Unreached {
    NotYet(String),
    /// Something answers that will never be this agent.
    Foreign(ClientError),
}

/// The first endpoint behind which this allocation's agent answers.
pub(super) async fn reach(
    dial: &dyn Dial,
    seen: &Observation,
    secret: &Secret<32>,
    name: &str,
) -> Result<AgentClient, Unreached> {
    let mut why = "it has no address yet".to_owned();
    for endpoint in &seen.endpoints {
        match dial.dial(endpoint, secret).await {
            Ok((client, answered)) if answered == name => return Ok(client),
            Ok((_, other)) => why = format!("{other} answers instead"),
            Err(error @ ClientError::Unreachable { .. }) => why = error.to_string(),
            // A proxy shows pages of its own while the agent behind it starts.
            Err(error @ ClientError::Nonsense { .. }) if matches!(endpoint, Endpoint::Proxy(_)) => {
                why = error.to_string();
            }
            Err(error) => return Err(Unreached::Foreign(error)),
        }
    }
    Err(Unreached::NotYet(why))
}
