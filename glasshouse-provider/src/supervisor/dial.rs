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
    /// At every address something answers that will never be this agent.
    Foreign(ClientError),
}

/// The first endpoint behind which this allocation's agent answers. All of them are tried: what answers at one address may
/// be a box on the way to it, while another address leads there.
pub(super) async fn reach(
    dial: &dyn Dial,
    seen: &Observation,
    secret: &Secret<32>,
    name: &str,
) -> Result<AgentClient, Unreached> {
    let (mut not_yet, mut foreign) = (Vec::new(), None);
    for endpoint in &seen.endpoints {
        match dial.dial(endpoint, secret).await {
            Ok((client, answered)) if answered == name => return Ok(client),
            Ok((_, other)) => not_yet.push(format!("{other} answers instead")),
            Err(error @ ClientError::Unreachable { .. }) => not_yet.push(error.to_string()),
            // A proxy shows pages of its own while the agent behind it starts.
            Err(error @ ClientError::Nonsense { .. }) if matches!(endpoint, Endpoint::Proxy(_)) => {
                not_yet.push(error.to_string());
            }
            Err(error) => foreign = foreign.or(Some(error)),
        }
    }
    match foreign {
        Some(error) if not_yet.is_empty() => Err(Unreached::Foreign(error)),
        None if not_yet.is_empty() => Err(Unreached::NotYet("it has no address yet".to_owned())),
        foreign => {
            not_yet.extend(foreign.map(|error| error.to_string()));
            Err(Unreached::NotYet(not_yet.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use glasshouse_core::traits::{Allocation, AllocationId, AllocationState};

    use super::*;

    type Answer = Result<&'static str, fn() -> ClientError>;

    /// Answers of the direct address and of the proxy: an agent's name, or an error.
    struct Two {
        direct: Answer,
        proxy: Answer,
        dialled: Mutex<usize>,
    }

    #[async_trait]
    impl Dial for Two {
        async fn dial(&self, at: &Endpoint, secret: &Secret<32>) -> Result<(AgentClient, String), ClientError> {
            *self.dialled.lock().unwrap() += 1;
            let name = match at {
                Endpoint::Direct(_) => self.direct.map_err(|error| error())?,
                Endpoint::Proxy(_) => self.proxy.map_err(|error| error())?,
            };
            // It is not used; one of a proxy would read the machine's certificates.
            let client = AgentClient::new(&Endpoint::Direct(([127, 0, 0, 1], 1).into()), secret)?;
            Ok((client, name.to_owned()))
        }
    }

    fn foreign() -> ClientError {
        ClientError::Nonsense { step: "hello", why: "status 403".to_owned() }
    }

    fn refused() -> ClientError {
        ClientError::Endpoint { endpoint: "x".to_owned(), why: "no address".to_owned() }
    }

    fn away() -> ClientError {
        ClientError::Unreachable { step: "hello", at: "x".to_owned(), why: "refused".to_owned() }
    }

    async fn reached(direct: Answer, proxy: Answer) -> (Result<AgentClient, Unreached>, usize) {
        let two = Two { direct, proxy, dialled: Mutex::new(0) };
        let endpoints =
            vec![Endpoint::Direct(([203, 0, 113, 1], 9443).into()), Endpoint::Proxy("https://a.example".to_owned())];
        let allocation = Allocation { id: AllocationId("1".into()), name: "gh-a".into(), price_per_hour: 0.0 };
        let seen =
            Observation { allocation, state: AllocationState::Running, container: None, gpu_count: None, endpoints };
        let client = reach(&two, &seen, &Secret::take(&mut [1; 32]), "gh-a").await;
        let dialled = *two.dialled.lock().unwrap();
        (client, dialled)
    }

    #[tokio::test]
    async fn what_answers_at_one_address_is_not_the_last_word() {
        assert!(reached(Err(foreign), Ok("gh-a")).await.0.is_ok(), "the proxy leads to the agent");
        assert!(matches!(reached(Ok("gh-a"), Err(foreign)).await, (Ok(_), 1)));
        let (waiting, dialled) = reached(Err(foreign), Err(away)).await;
        let Err(Unreached::NotYet(why)) = waiting else { panic!("the proxy may come up") };
        assert!(why.contains("403") && why.contains("does not answer") && dialled == 2, "{why}");
        assert!(matches!(reached(Err(foreign), Err(foreign)).await.0, Err(Unreached::NotYet(_))), "a proxy's page");
        assert!(matches!(reached(Err(foreign), Ok("gh-b")).await.0, Err(Unreached::NotYet(_))));
        let (over, dialled) = reached(Err(foreign), Err(refused)).await;
        assert!(matches!(over, Err(Unreached::Foreign(ClientError::Nonsense { .. }))) && dialled == 2);
    }
}
