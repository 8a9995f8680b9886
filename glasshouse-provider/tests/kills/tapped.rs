//! The local provider, with a relay before each agent that does with requests what it is told.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use glasshouse_core::traits::{
    Allocation, AllocationId, CreateOutcome, Endpoint, LaunchSpec, LogChunk, Observation, Offer, OfferFilter, Provider,
    ProviderError, Spend,
};
use glasshouse_provider::LocalProvider;

use crate::relay::{self, Request};

/// What happens to a request to an agent: it answers on the stream, or closes it by giving `false`.
#[allow(dead_code)] // not in every test that shares this file
pub(crate) type Tap = fn(SocketAddr, &Request, &mut TcpStream) -> bool;

type AnyTap = dyn Fn(SocketAddr, &Request, &mut TcpStream) -> bool + Send + Sync;

pub(crate) struct Tapped {
    inner: LocalProvider,
    tap: Arc<AnyTap>,
    pause: Duration,
    terminating: fn(),
    relays: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
}

impl Tapped {
    /// `terminating` is called before an allocation is ended.
    pub(crate) fn new(
        inner: LocalProvider,
        tap: impl Fn(SocketAddr, &Request, &mut TcpStream) -> bool + Send + Sync + 'static,
        terminating: fn(),
    ) -> Self {
        Self { inner, tap: Arc::new(tap), pause: Duration::ZERO, terminating, relays: Mutex::default() }
    }

    /// Relays rest after every few bytes that they read of a request.
    #[allow(dead_code)] // not in every test that shares this file
    pub(crate) fn slow(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }
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
                let (upstream, tap) = (*address, Arc::clone(&self.tap));
                let serve = move |request: &Request, client: &mut TcpStream| tap(upstream, request, client);
                *address = *relays.entry(upstream).or_insert_with(|| relay::start_slow(self.pause, serve));
            }
        }
        Ok(seen)
    }

    async fn logs(&self, id: &AllocationId, after: Option<&str>) -> Result<LogChunk, ProviderError> {
        self.inner.logs(id, after).await
    }

    async fn request_terminate(&self, id: &AllocationId) -> Result<(), ProviderError> {
        (self.terminating)();
        self.inner.request_terminate(id).await
    }

    async fn list_owned(&self) -> Result<Vec<Allocation>, ProviderError> {
        self.inner.list_owned().await
    }

    async fn spend(&self, id: &AllocationId) -> Result<Option<Spend>, ProviderError> {
        self.inner.spend(id).await
    }
}
