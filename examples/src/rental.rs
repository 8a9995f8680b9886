//! What the flags of a provider come to: the provider, and what is wanted of it.

use std::sync::Arc;
use std::time::Duration;

use glasshouse_attest::hardware::HardwareVerifier;
use glasshouse_attest::software::{ContainerSource, SoftwarePolicy, SoftwareVerifier, container_id};
use glasshouse_core::claims::{Assurance, ContainerId};
use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::{Device, LaunchSpec, Offer, OfferFilter, Provider, ProviderError};
use glasshouse_provider::run::RunBuilder;
use glasshouse_provider::runpod::RunPodBuilder;
use glasshouse_provider::supervisor::{OwnerTag, Supervisor, dollars_for};
use glasshouse_provider::vast::VastBuilder;
use glasshouse_provider::{ConfigError, LocalProvider, Plan, RunPodProvider, SlurmProvider, VastProvider};

use crate::{PinnedImage, ProviderName};

/// What the flags come to: a provider, and what is wanted of it.
pub struct Rental {
    /// As it stands in rows.
    pub name: &'static str,
    /// Where the workload computes.
    pub device: Device,
    /// What fits.
    pub filter: OfferFilter,
    /// What the launch is ended after.
    pub time_limit: Option<Duration>,
    pub(crate) budget: Option<f64>,
    pub(crate) owner: Option<OwnerTag>,
    pub(crate) disk_gib: Option<u32>,
    pub(crate) backend: Backend,
    pub(crate) image: Option<PinnedImage>,
    /// SHA-256 of the executable that must run there; absent on this machine, and in dry runs that were not told it.
    pub(crate) runtime: Option<Digest32>,
    /// On this machine: what the kernel says. Elsewhere the provider does.
    pub(crate) container: Option<ContainerId>,
    /// Who appraises evidence of hardware, where a policy was given.
    pub(crate) hardware: Option<HardwareVerifier>,
}

/// The provider as what it is: how it would rent is each one's own.
#[derive(Clone)]
pub(crate) enum Backend {
    Local(Arc<LocalProvider>),
    Slurm(Arc<SlurmProvider>),
    RunPod(Arc<RunPodProvider>),
    Vast(Arc<VastProvider>),
}

impl Rental {
    /// The provider for a run or a supervisor.
    pub fn provider(&self) -> Arc<dyn Provider> {
        self.backend.provider()
    }

    /// Whether it runs on machines of others, for money.
    pub fn is_paid(&self) -> bool {
        matches!(self.backend, Backend::RunPod(_) | Backend::Vast(_))
    }

    /// Whether it runs somewhere else.
    pub fn is_remote(&self) -> bool {
        !matches!(self.backend, Backend::Local(_))
    }

    /// With a time limit fit for this much training, where it costs money and none was given.
    #[must_use]
    pub fn training(mut self, planned: Duration) -> Self {
        if self.is_paid() {
            let enough = Duration::from_secs(3600).saturating_add(planned.saturating_mul(2));
            self.time_limit = self.time_limit.or(Some(enough));
        }
        self
    }

    /// The most that a run may come to by the hour, US dollars: its supervisor asks for nothing that could go beyond. What is
    /// billed by volume comes on top. Absent where nothing is paid for.
    pub fn worst_case(&self) -> Option<f64> {
        let limit = self.time_limit.filter(|_| self.is_paid())?;
        let highest = dollars_for(self.filter.max_price_per_hour?, limit);
        Some(self.budget.map_or(highest, |budget| budget.min(highest)))
    }

    /// What packages ask for: what the policy of hardware reaches, or the runtime's own word where there is none.
    pub fn minimum_assurance(&self) -> Assurance {
        let asked = self.hardware.as_ref().map(|verifier| verifier.policy().minimum_assurance.level());
        asked.unwrap_or(Assurance::SelfReported)
    }

    /// Gives a run its provider, its verifier and everything that goes with them.
    pub fn compose<K>(&self, run: RunBuilder<K>) -> RunBuilder<K> {
        let run = match &self.hardware {
            Some(verifier) => run.verifier(verifier.clone()),
            None => run.verifier(SoftwareVerifier::new(SoftwarePolicy::default())),
        };
        let mut run = run.shared_provider(self.provider()).offers(self.filter.clone()).device(self.device);
        if let Some(image) = &self.image {
            run = run.image(image.reference.clone(), image.digest);
        }
        if let Some(runtime) = self.runtime {
            run = run.runtime_measurement(runtime);
        }
        if let Some(container) = &self.container {
            run = run.container(container.clone());
        }
        if let Some(gib) = self.disk_gib {
            run = run.disk_gib(gib);
        }
        let (dollars, owner) = (self.worst_case(), self.owner.clone());
        run = run.supervise(move |supervisor| {
            let supervisor = dollars.into_iter().fold(supervisor, Supervisor::budget);
            owner.iter().cloned().fold(supervisor, Supervisor::owner)
        });
        match self.time_limit {
            Some(limit) => run.time_limit(limit),
            None => run,
        }
    }

    /// The requests of renting this offer, none of which is made. Empty on this machine, which needs none.
    ///
    /// # Errors
    /// What the provider's own create would refuse.
    pub fn plan(&self, offer: &Offer, spec: &LaunchSpec) -> Result<Option<Plan>, ProviderError> {
        match &self.backend {
            Backend::Local(_) => Ok(None),
            Backend::Slurm(provider) => provider.plan(offer, spec).map(Some),
            Backend::RunPod(provider) => provider.plan(&self.filter, offer, spec).map(Some),
            Backend::Vast(provider) => provider.plan(&self.filter, offer, spec).map(Some),
        }
    }
}

impl Backend {
    pub(crate) fn open(name: ProviderName, port: Option<u16>) -> Result<Self, String> {
        let said = |e: ConfigError| match e {
            ConfigError::NoKey { variable } => {
                format!("--provider {} needs the account's API key; set {variable}", name.text())
            }
            other => format!("--provider {}: {other}", name.text()),
        };
        Ok(match name {
            ProviderName::Local => {
                let container = container_id(ContainerSource::Kernel).map_err(|e| e.to_string())?;
                Self::Local(Arc::new(LocalProvider::new().port(port.unwrap_or(0)).container(container)))
            }
            ProviderName::Slurm => {
                let builder = SlurmProvider::builder().port(port.unwrap_or(0));
                Self::Slurm(Arc::new(builder.build().map_err(said)?))
            }
            ProviderName::Runpod => {
                let builder = port.into_iter().fold(RunPodBuilder::from_env(), RunPodBuilder::port);
                Self::RunPod(Arc::new(builder.build().map_err(said)?))
            }
            ProviderName::Vast => {
                let builder = port.into_iter().fold(VastBuilder::from_env(), VastBuilder::port);
                Self::Vast(Arc::new(builder.build().map_err(said)?))
            }
        })
    }

    fn provider(&self) -> Arc<dyn Provider> {
        match self {
            Self::Local(provider) => provider.clone(),
            Self::Slurm(provider) => provider.clone(),
            Self::RunPod(provider) => provider.clone(),
            Self::Vast(provider) => provider.clone(),
        }
    }
}

impl ProviderName {
    /// The provider, with its key out of the environment and every setting at its default. Asks nothing of it.
    ///
    /// # Errors
    /// One sentence about what is missing.
    pub fn connect(self) -> Result<Arc<dyn Provider>, String> {
        Ok(Backend::open(self, None)?.provider())
    }
}
