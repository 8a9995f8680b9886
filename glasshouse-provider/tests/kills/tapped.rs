//! The local provider, with a relay before each agent that stops where the case wants it to.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;

use async_trait::async_trait;
use glasshouse_core::traits::{
    Allocation, AllocationId, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer, OfferFilter, Provider,
    ProviderError, Spend,
};
use glasshouse_provider::LocalProvider;

use crate::hooks::stop_at;
use crate::relay::{self, Request};

pub(crate) struct Tapped {
    inner: LocalProvider,
    relays: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
}

impl Tapped {
    pub(crate) fn new(inner: LocalProvider) -> Self {
        Self { inner, relays: Mutex::default() }
    }
}

fn tap(upstream: SocketAddr, request: &Request, client: &mut TcpStream) -> bool {
    let line = request.line.as_str();
    let answer = match line {
        "GET /v1/hello" => {
            stop_at("hello");
            relay::forward(upstream, &request.bytes)
        }
        _ if line.starts_with("PUT /v1/packages/") => {
            relay::forward_with(upstream, &request.bytes, || stop_at("upload"))
        }
        _ if line.ends_with("/challenge") => {
            stop_at("await-challenge");
            let evidence = relay::forward(upstream, &request.bytes);
            stop_at("evidence-sent");
            evidence
        }
        _ if line.ends_with("/release") => {
            let released = relay::forward(upstream, &request.bytes);
            stop_at("release-sent");
            released
        }
        _ if line.ends_with("/ack") => {
            stop_at("await-ack");
            let acknowledged = relay::forward(upstream, &request.bytes);
            stop_at("acknowledged");
            acknowledged
        }
        _ => relay::forward(upstream, &request.bytes),
    };
    answer.is_ok_and(|answer| client.write_all(&answer).is_ok())
}

#[async_trait]
impl Provider for Tapped {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    async fn offers(&self, filter: &OfferFilter) -> Result<Vec<Offer>, ProviderError> {
        self.inner.offers(filter).await
    }

    async fn create(&self, offer: &Offer, spec: &LaunchSpec) -> Result<CreateOutcome, ProviderError> {
        self.inner.create(offer, spec).await
    }

    async fn find(&self, name: &str) -> Result<Vec<Allocation>, ProviderError> {
        self.inner.find(name).await
    }

    async fn observe(&self, id: &AllocationId) -> Result<Observation, ProviderError> {
        let mut seen = self.inner.observe(id).await?;
        let mut relays = self.relays.lock().unwrap();
        for endpoint in &mut seen.endpoints {
            if let Endpoint::Direct(address) = endpoint {
                let upstream = *address;
                let serve = move |request: &Request, client: &mut TcpStream| tap(upstream, request, client);
                *address = *relays.entry(upstream).or_insert_with(|| relay::start(serve));
            }
        }
        Ok(seen)
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.inner.logs(id, after).await
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        stop_at("shutdown");
        self.inner.request_terminate(id).await
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        self.inner.list_owned().await
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.inner.spend(id).await
    }
}
