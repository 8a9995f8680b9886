//! Allocations that are processes of this machine: real processes, real sockets, no isolation and no bill.

mod child;
mod process;

pub(crate) use child::AgentReport;
pub use process::ProcessId;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::claims::ContainerId;
use glasshouse_core::traits::{
    Allocation, AllocationId, AllocationState, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer,
    OfferFilter, Provider, ProviderError, Spend,
};

use crate::{clock, grace};
use child::{AgentChild, Program};

const NAME: &str = "local";
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A [`Provider`] whose allocations are agent processes on this machine, each in a session of its own.
///
/// `/proc` is its register, so `find`, `list_owned` and `observe` tell what really runs, also after the owner was
/// killed and started again. Agents end when this provider is dropped or its process dies.
pub struct LocalProvider {
    program: Program,
    port: u16,
    container: Option<ContainerId>,
    gpu: Option<String>,
    tag: String,
    children: Arc<Mutex<BTreeMap<AllocationId, AgentChild>>>,
}

impl Default for LocalProvider {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalProvider {
    /// Runs this very executable as the agent, on any free port of 127.0.0.1.
    pub fn new() -> Self {
        Self {
            program: Program::Own,
            port: 0,
            container: None,
            gpu: None,
            tag: "gh-".to_owned(),
            children: Arc::default(),
        }
    }

    /// Runs another executable, which calls [`serve_if_launched`](crate::roles::serve_if_launched) in its `main`.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Program::Other(path.into());
        self
    }

    /// Listens on this port; 0 is any free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// The container id that evidence from this machine must name, as the owner's own attestor reads it here.
    #[must_use]
    pub fn container(mut self, container: ContainerId) -> Self {
        self.container = Some(container);
        self
    }

    /// The GPU model that the offer names.
    #[must_use]
    pub fn gpu(mut self, model: impl Into<String>) -> Self {
        self.gpu = Some(model.into());
        self
    }

    /// Prefix of the names that `list_owned` counts as this owner's; `gh-` when not given.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tag = tag.into();
        self
    }

    /// The agent's process, for tests that kill it.
    pub fn process(&self, id: &AllocationId) -> Option<ProcessId> {
        parse_id(id)
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<AllocationId, AgentChild>> {
        // Each change is one insert or one field: a panic elsewhere leaves no half state behind.
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(id: &AllocationId) -> ProviderError {
        ProviderError::NotFound { provider: NAME, id: id.clone() }
    }
}

#[async_trait]
impl Provider for LocalProvider {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        let gpu = self.gpu.as_ref().map(|gpu| gpu.to_lowercase());
        let fits = filter.gpu.as_ref().is_none_or(|want| gpu.is_some_and(|gpu| gpu.contains(&want.to_lowercase())))
            && filter.gpu_count.is_none_or(|count| count <= u32::from(self.gpu.is_some()));
        let offer = Offer {
            id: NAME.to_owned(),
            gpu: self.gpu.clone(),
            gpu_count: u32::from(self.gpu.is_some()),
            price_per_hour: 0.0,
            location: Some("this machine".to_owned()),
            traffic: None,
        };
        Ok(if fits { vec![offer] } else { Vec::new() })
    }

    async fn create(&self, _offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        let bind = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port);
        let refused = |why: String| ProviderError::Refused { provider: NAME, call: "create", why };
        let (child, hello) = AgentChild::spawn(&self.program, spec, bind).map_err(refused)?;
        let id = format_id(child.process());
        // From here on the agent is in the register: whoever drops this future still finds and ends it.
        self.children().insert(id.clone(), child);
        let told = tokio::time::timeout(START_DEADLINE, hello).await;
        let why = match told {
            Ok(Ok(Ok(address))) => {
                if let Some(child) = self.children().get_mut(&id) {
                    child.address = Some(address);
                }
                return Ok(CreateOutcome::Created(allocation(id, spec.name.clone())));
            }
            Ok(Ok(Err(why))) => why,
            Ok(Err(_)) => "the agent ended before it listened".to_owned(),
            Err(_) => format!("the agent did not listen within {} s", START_DEADLINE.as_secs()),
        };
        let child = self.children().remove(&id);
        if let Some(child) = child {
            child.end(Duration::ZERO);
        }
        Err(refused(why))
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        Ok(self.living().into_iter().filter(|allocation| allocation.name == name).collect())
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let process = parse_id(id).ok_or_else(|| Self::gone(id))?;
        let known = self.children().get(id).map(|child| child.look());
        let alive = process.is_alive() || !process::session_members(process.pid).is_empty();
        let (state, name, address) = match known {
            Some(look) if alive && look.ending => (AllocationState::Terminating, look.name, None),
            Some(look) if alive && look.address.is_none() => (AllocationState::Starting, look.name, None),
            Some(look) if alive => (AllocationState::Running, look.name, look.address),
            // It ended by itself: it stays to be seen, with its log, until its end is asked for.
            Some(look) if !look.ending => (AllocationState::Exited(look.code), look.name, None),
            None if process.is_alive() => {
                let name = process::agent_name(process.pid).ok_or_else(|| Self::gone(id))?;
                (AllocationState::Running, name, None)
            }
            _ => return Err(Self::gone(id)),
        };
        Ok(Observation {
            allocation: allocation(id.clone(), name),
            state,
            endpoints: address.map(Endpoint::Direct).into_iter().collect(),
            container: self.container.clone(),
            gpu_count: self.gpu.is_some().then_some(1),
        })
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        let children = self.children();
        let child = children.get(id).ok_or_else(|| Self::gone(id))?;
        Ok(child.log(after.and_then(|after| after.parse().ok()).unwrap_or(0)))
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        if let Some(child) = self.children().get_mut(id) {
            child.request_end(grace::ALLOCATION);
            return Ok(());
        }
        match parse_id(id) {
            Some(process) if process::agent_name(process.pid).is_some() && process.is_alive() => {
                child::end_in_background(process, grace::ALLOCATION);
                Ok(())
            }
            // Idempotent: what is gone need not be ended.
            _ => Ok(()),
        }
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        Ok(self.living().into_iter().filter(|allocation| allocation.name.starts_with(&self.tag)).collect())
    }

    async fn spend(&self, _id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        Ok(Some(Spend { dollars: 0.0, read_at: clock::wall(), is_final: true }))
    }
}

impl LocalProvider {
    /// Agents that run, and agents of this provider that ended by themselves.
    fn living(&self) -> Vec<Allocation> {
        let mut found: BTreeMap<AllocationId, String> =
            process::agents().into_iter().map(|(process, name)| (format_id(process), name)).collect();
        for (id, child) in self.children().iter() {
            let look = child.look();
            if !look.ending || !process::session_members(child.process().pid).is_empty() {
                found.insert(id.clone(), look.name);
            }
        }
        found.into_iter().map(|(id, name)| allocation(id, name)).collect()
    }
}

fn allocation(id: AllocationId, name: String) -> Allocation {
    Allocation { id, name, price_per_hour: 0.0 }
}

fn format_id(process: ProcessId) -> AllocationId {
    AllocationId(format!("local-{}-{}", process.pid, process.start))
}

fn parse_id(id: &AllocationId) -> Option<ProcessId> {
    let (pid, start) = id.0.strip_prefix("local-")?.split_once('-')?;
    Some(ProcessId { pid: pid.parse().ok()?, start: start.parse().ok()? })
}
