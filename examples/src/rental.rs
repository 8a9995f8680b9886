//! Where an example runs: the flags that every example shares, and the provider that they come to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use glasshouse_attest::software::{ContainerSource, container_id};
use glasshouse_core::claims::ContainerId;
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::traits::{Device, LaunchSpec, Offer, OfferFilter, Provider, ProviderError};
use glasshouse_provider::run::RunBuilder;
use glasshouse_provider::runpod::RunPodBuilder;
use glasshouse_provider::vast::VastBuilder;
use glasshouse_provider::{ConfigError, LocalProvider, Measurement, Plan, RunPodProvider, SlurmProvider, VastProvider};

use crate::DeviceName;

/// Nothing is rented above this unless it is said, US dollars per hour.
const PRICE_CAP: f64 = 1.0;
/// What the image's kernels need (container/README.md): capability 8.0, and a driver for CUDA 12.4.
const LEAST_CAPABILITY: u32 = 80;
const LEAST_CUDA: u32 = 124;

/// Which provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProviderName {
    /// Processes of this machine.
    Local,
    /// Jobs of a Slurm cluster.
    Slurm,
    /// RunPod pods; the key in RUNPOD_API_KEY.
    Runpod,
    /// Vast.ai instances; the key in VAST_API_KEY.
    Vast,
}

/// A class of a provider's machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CloudName {
    /// Data centres.
    Secure,
    /// Other people's machines.
    Community,
}

/// An image reference with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedImage {
    reference: String,
    digest: Digest32,
}

/// The flags.
#[derive(clap::Args, Clone, Debug)]
pub struct ProviderArguments {
    /// Where to run.
    #[arg(long, value_enum, default_value = "local")]
    pub provider: ProviderName,
    /// GPU model, or a part of its name, such as a4000 or h100.
    #[arg(long)]
    pub gpu: Option<String>,
    /// How many GPUs; one where the provider has GPUs and the device is not cpu.
    #[arg(long, value_name = "COUNT")]
    pub gpus: Option<u32>,
    /// Highest price of the whole allocation, US dollars per hour; 1 on runpod and vast when not given.
    #[arg(long, value_name = "DOLLARS", value_parser = price)]
    pub max_price: Option<f64>,
    /// The most that the whole run may come to, US dollars, offers that come to nothing included; the highest price for the
    /// time limit when not given.
    #[arg(long, value_name = "DOLLARS", value_parser = price)]
    pub budget: Option<f64>,
    /// runpod, vast: only this class of machines.
    #[arg(long, value_enum)]
    pub cloud: Option<CloudName>,
    /// runpod, vast: the container image, pinned as NAME@sha256:DIGEST; the measurement's when not given.
    #[arg(long, value_name = "NAME@sha256:DIGEST", value_parser = image)]
    pub image: Option<PinnedImage>,
    /// runpod, vast: measurement.json of the image's build (container/README.md).
    #[arg(long, value_name = "FILE")]
    pub measurement: Option<PathBuf>,
    /// The run ends its allocation after this; an hour and twice the training on runpod and vast when not given.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time_limit: Option<Duration>,
    /// Where the agent listens: any free port on local and slurm, 9443 on runpod and vast when not given.
    #[arg(long)]
    pub port: Option<u16>,
    /// Shows every request that the run would make of the provider and the most that it can cost, and rents nothing.
    #[arg(long)]
    pub dry_run: bool,
}

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
    budget: Option<f64>,
    backend: Backend,
    image: Option<PinnedImage>,
    /// SHA-256 of the executable that must run there; absent on this machine, and in dry runs that were not told it.
    runtime: Option<Digest32>,
    /// On this machine: what the kernel says. Elsewhere the provider does.
    container: Option<ContainerId>,
}

/// The provider as what it is: how it would rent is each one's own.
#[derive(Clone)]
enum Backend {
    Local(Arc<LocalProvider>),
    Slurm(Arc<SlurmProvider>),
    RunPod(Arc<RunPodProvider>),
    Vast(Arc<VastProvider>),
}

impl ProviderArguments {
    /// Makes the provider. Asks nothing of it.
    ///
    /// # Errors
    /// One sentence about the flag, the variable or the file that is wrong.
    pub fn open(&self, device: Option<DeviceName>) -> Result<Rental, String> {
        let rents = matches!(self.provider, ProviderName::Runpod | ProviderName::Vast);
        self.refuse_what_means_nothing(rents)?;
        let backend = Backend::open(self.provider, self.port)?;
        let device = match device {
            None if rents => Device::Cuda,
            None | Some(DeviceName::Cpu) => Device::Cpu,
            // Elsewhere another build runs, which has it.
            Some(DeviceName::Cuda) if rents || cfg!(feature = "cuda") => Device::Cuda,
            Some(DeviceName::Cuda) => {
                return Err("this program was built without CUDA; build it with --features cuda where nvcc is".into());
            }
        };
        let measurement = match &self.measurement {
            Some(path) => Some(Measurement::read(path).map_err(|e| e.to_string())?),
            None if self.provider == ProviderName::Slurm => {
                Some(Measurement::of_this_executable().map_err(|e| e.to_string())?)
            }
            None => None,
        };
        let image = if rents { Some(self.pinned(measurement.as_ref())?) } else { None };
        if rents && measurement.is_none() && !self.dry_run {
            return Err(
                "--measurement is missing: the measurement.json that the image's build wrote, so that the gate \
                        knows what must run there (container/README.md)"
                    .into(),
            );
        }
        let on_gpu = rents && device == Device::Cuda;
        let filter = OfferFilter {
            gpu: self.gpu.clone(),
            // A job that computes on the CPU takes no GPU from others.
            gpu_count: self
                .gpus
                .or((self.provider == ProviderName::Slurm && device == Device::Cpu && self.gpu.is_none()).then_some(0)),
            max_price_per_hour: self.max_price.or(rents.then_some(PRICE_CAP)),
            min_compute_capability: on_gpu.then_some(LEAST_CAPABILITY),
            min_cuda: on_gpu.then_some(LEAST_CUDA),
            cloud: self.cloud.map(|cloud| cloud.text().to_owned()),
            ..OfferFilter::default()
        };
        let local = self.provider == ProviderName::Local;
        let kernel = || container_id(ContainerSource::Kernel).map_err(|e| e.to_string());
        Ok(Rental {
            name: self.provider.text(),
            device,
            filter,
            time_limit: self.time_limit,
            budget: self.budget,
            backend,
            image,
            runtime: measurement.map(|measurement| measurement.sha256),
            container: if local { Some(kernel()?) } else { None },
        })
    }

    /// A flag that is silently ignored is one that somebody relied on.
    fn refuse_what_means_nothing(&self, rents: bool) -> Result<(), String> {
        let name = self.provider.text();
        let of_images = [("--image", self.image.is_some()), ("--measurement", self.measurement.is_some())];
        for (flag, given) in of_images.into_iter().chain([("--cloud", self.cloud.is_some())]) {
            if given && !rents {
                let why = if flag == "--cloud" { "it has no clouds" } else { "it runs this very executable, no image" };
                return Err(format!("{flag} means nothing with --provider {name}: {why}; leave it out"));
            }
        }
        for (flag, given) in [("--gpu", self.gpu.is_some()), ("--gpus", self.gpus.is_some())] {
            if given && self.provider == ProviderName::Local {
                return Err(format!(
                    "{flag} means nothing with --provider local: it is this machine; choose another provider, or take \
                     --device cuda"
                ));
            }
        }
        Ok(())
    }

    fn pinned(&self, measurement: Option<&Measurement>) -> Result<PinnedImage, String> {
        let measured =
            measurement.and_then(|m| Some(PinnedImage { reference: m.image.clone()?, digest: m.image_digest? }));
        match (&self.image, measured) {
            (Some(image), Some(measured)) if image.digest != measured.digest => Err(format!(
                "--image is sha256:{}, and --measurement is of sha256:{}; give the two of one build",
                image.digest, measured.digest
            )),
            (Some(image), _) => Ok(image.clone()),
            (None, Some(measured)) => Ok(measured),
            (None, None) => Err(format!(
                "--provider {} runs a container image; give --image NAME@sha256:DIGEST (container/README.md has the steps)",
                self.provider.text()
            )),
        }
    }
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

    /// The most that a run may come to, US dollars: its supervisor asks for nothing that could go beyond. Absent where
    /// nothing is paid for.
    pub fn worst_case(&self) -> Option<f64> {
        const HOUR: Duration = Duration::from_secs(3600);
        let limit = self.time_limit.filter(|_| self.is_paid())?;
        let highest = self.filter.max_price_per_hour? * limit.div_duration_f64(HOUR);
        Some(self.budget.map_or(highest, |budget| budget.min(highest)))
    }

    /// Gives a run its provider and everything that goes with it.
    pub fn compose<K>(&self, run: RunBuilder<K>) -> RunBuilder<K> {
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
        if let Some(dollars) = self.worst_case() {
            run = run.supervise(move |supervisor| supervisor.budget(dollars));
        }
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
    fn open(name: ProviderName, port: Option<u16>) -> Result<Self, String> {
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

    const fn text(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Slurm => "slurm",
            Self::Runpod => "runpod",
            Self::Vast => "vast",
        }
    }
}

impl CloudName {
    /// As filters have it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Secure => "secure",
            Self::Community => "community",
        }
    }
}

fn image(text: &str) -> Result<PinnedImage, String> {
    let Some((name, digest)) = text.split_once("@sha256:") else {
        return Err("it is not pinned, and a tag can be moved; add @sha256:DIGEST as the push printed it".to_owned());
    };
    let digest = Fixed::from_hex(digest).ok_or("a SHA-256 digest has 64 lower-case hex digits")?;
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err("there is no image name before the digest".to_owned());
    }
    Ok(PinnedImage { reference: text.to_owned(), digest })
}

/// A price on a command line.
///
/// # Errors
/// What is wrong with it.
pub fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(dollars) if dollars.is_finite() && dollars > 0.0 => Ok(dollars),
        _ => Err("US dollars per hour, such as 0.40".to_owned()),
    }
}
