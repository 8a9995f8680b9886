use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::claims::ContainerId;
use crate::clock::UnixMillis;
use crate::fixed::{Digest32, PublicKey32};
use crate::secret::Secret;

/// The provider's own name for an allocation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AllocationId(pub String);

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wanted of an offer. Absent fields do not filter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferFilter {
    /// GPU model, as a case-insensitive part of the provider's name for it.
    pub gpu: Option<String>,
    /// Number of GPUs.
    pub gpu_count: Option<u32>,
    /// Highest price per hour, US dollars.
    pub max_price_per_hour: Option<f64>,
    /// Least memory of each GPU, GiB.
    pub min_memory_gib: Option<u32>,
    /// Least disk, GiB.
    pub min_disk_gib: Option<u32>,
    /// Least CUDA compute capability, as major * 10 + minor.
    pub min_compute_capability: Option<u32>,
    /// Least CUDA version of the driver, as major * 10 + minor.
    pub min_cuda: Option<u32>,
    /// Whether a direct TCP port is needed.
    pub direct_port: bool,
    /// The provider's class of cloud, such as `secure` or `community`.
    pub cloud: Option<String>,
}

/// Something that could be rented.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The provider's handle.
    pub id: String,
    /// GPU model; absent for a machine without one.
    pub gpu: Option<String>,
    /// Number of GPUs.
    pub gpu_count: u32,
    /// Price per hour, US dollars; zero for what is not billed.
    pub price_per_hour: f64,
    /// Where it is, as the provider says.
    pub location: Option<String>,
    /// What its traffic costs beside the time, where the provider tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<TrafficPrice>,
}

/// What traffic costs, US dollars a gigabyte (10^9 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrafficPrice {
    /// Into the allocation: its image, the package, base weights.
    pub into: f64,
    /// Out of it: artifacts and events.
    pub out: f64,
}

/// What to start on an allocation.
pub struct LaunchSpec {
    /// Unique, owner-tagged name; a create that went wrong is looked up by it.
    pub name: String,
    /// Container image pinned by digest; absent where the provider runs a program directly.
    pub image: Option<String>,
    /// Digest out of `image`.
    pub image_digest: Option<Digest32>,
    /// 32 fresh bytes for this allocation.
    pub launch_secret: Secret<32>,
    /// The only gate that the runtime obeys.
    pub gate_key: PublicKey32,
    /// How long the agent goes on without its owner.
    pub linger: Duration,
    /// Further environment; never a secret.
    pub env: BTreeMap<String, String>,
    /// Disk wanted, GiB.
    pub disk_gib: Option<u32>,
    /// Wall-clock limit after which the provider may end the allocation by itself.
    pub time_limit: Option<Duration>,
}

/// Where the agent can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Endpoint {
    /// A TCP address.
    Direct(SocketAddr),
    /// An HTTPS base URL of the provider's proxy.
    Proxy(String),
}

/// Where an allocation stands, in the words of all providers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllocationState {
    /// Waiting for a machine.
    Scheduling,
    /// Fetching the image.
    Pulling,
    /// Starting the program.
    Starting,
    /// The program runs.
    Running,
    /// It ended, with an exit code where the provider tells one.
    Exited(Option<i32>),
    /// It is being ended.
    Terminating,
    /// A state this version does not know, as the provider spells it.
    Unknown(String),
}

/// An allocation as the provider created it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allocation {
    /// Its id.
    pub id: AllocationId,
    /// Its name.
    pub name: String,
    /// Price per hour that it really has, US dollars.
    pub price_per_hour: f64,
}

/// What `create` can say short of an error.
#[derive(Clone, Debug, PartialEq)]
pub enum CreateOutcome {
    /// It exists.
    Created(Allocation),
    /// There is none to be had of this offer now.
    NoCapacity,
}

/// One look at an allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The allocation.
    pub allocation: Allocation,
    /// Its state.
    pub state: AllocationState,
    /// Where its agent listens, once it does; direct ones first.
    pub endpoints: Vec<Endpoint>,
    /// The container id that evidence from there must name, as this provider knows it.
    pub container: Option<ContainerId>,
    /// GPUs that are really there, when the provider tells.
    pub gpu_count: Option<u32>,
}

/// Log output since a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Lines, oldest first.
    pub lines: Vec<String>,
    /// Position to go on from.
    pub next: String,
}

/// What was billed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spend {
    /// US dollars.
    pub dollars: f64,
    /// When the provider's figure was read.
    pub read_at: UnixMillis,
    /// Whether the provider may still add to it.
    pub is_final: bool,
}

/// Why a provider did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProviderError {
    /// The request never made sense to the provider; repeating it will not help.
    #[error("{provider} refused {call}: {why}")]
    Refused {
        /// Which provider.
        provider: &'static str,
        /// Which call.
        call: &'static str,
        /// What it said.
        why: String,
    },
    /// The credentials do not work.
    #[error("{provider} does not accept the credentials: {why}; set {variable}")]
    Unauthorized {
        /// Which provider.
        provider: &'static str,
        /// What it said.
        why: String,
        /// The environment variable that holds them.
        variable: &'static str,
    },
    /// The account has no money for it; no other offer will fare better.
    #[error("the account on {provider} has not enough money for {call}: {why}; add credit there, and run again")]
    OutOfFunds {
        /// Which provider.
        provider: &'static str,
        /// Which call.
        call: &'static str,
        /// What it said.
        why: String,
    },
    /// Too many requests.
    #[error("{provider} asks to wait before {call}")]
    RateLimited {
        /// Which provider.
        provider: &'static str,
        /// Which call.
        call: &'static str,
        /// How long, when it says.
        retry_after: Option<Duration>,
    },
    /// It may or may not have happened: a time-out, a broken connection, a 5xx.
    #[error("{provider} did not answer {call}: {why}")]
    Ambiguous {
        /// Which provider.
        provider: &'static str,
        /// Which call.
        call: &'static str,
        /// What happened.
        why: String,
        /// An allocation that exists all the same, when the answer named one.
        allocation: Option<AllocationId>,
    },
    /// The provider says that there is no such allocation. Right after a create this is not proof of absence.
    #[error("{provider} knows no allocation {id}")]
    NotFound {
        /// Which provider.
        provider: &'static str,
        /// Which one.
        id: AllocationId,
    },
    /// The answer could not be understood.
    #[error("{provider} answered {call} with something else: {why}")]
    Unintelligible {
        /// Which provider.
        provider: &'static str,
        /// Which call.
        call: &'static str,
        /// What was wrong with it.
        why: String,
    },
}

/// A place that rents out machines. Small on purpose: deadlines, adoption, journal, price cap and the proof that an
/// allocation is gone live above it, once for all backends.
///
/// # Contract
/// - `create` never returns an error while silently keeping an allocation: when it cannot tell, it says
///   [`ProviderError::Ambiguous`], with the id if the answer named one.
/// - `find` looks a name up and gives every allocation of that name, so that a create in doubt can be adopted.
/// - `observe` of an allocation that is gone is [`ProviderError::NotFound`]; so may it be for a moment after `create`.
/// - `request_terminate` is idempotent; its success is a request, not a proof.
/// - `list_owned` gives everything that exists under this owner's tag.
/// - Unknown states and fields are tolerated; nothing that a provider answers can panic.
///
/// [`contract::provider`](crate::contract::provider) checks an implementation.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Stable name, as it stands in rows.
    fn name(&self) -> &'static str;

    /// Tells the accounts, or clusters, of one provider apart: a word that is the same every time and no secret. What one of
    /// them does not know says nothing about another's. `None` where there is only one.
    fn account(&self) -> Option<String> {
        None
    }

    /// What could be rented now.
    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError>;

    /// Rents one.
    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError>;

    /// Every allocation of this name.
    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError>;

    /// Looks at one.
    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError>;

    /// Its log since `after`, or from the start.
    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError>;

    /// Asks for its end.
    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError>;

    /// Everything of this owner that exists.
    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError>;

    /// What it cost.
    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError>;
}
