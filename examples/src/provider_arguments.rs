//! The flags that say where an example runs, shared by every example.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use glasshouse_attest::hardware::HardwareRoots;
use glasshouse_attest::software::{ContainerSource, container_id};
use glasshouse_core::fixed::{Digest32, Fixed};
use glasshouse_core::traits::{Device, OfferFilter};
use glasshouse_provider::Measurement;
use glasshouse_provider::supervisor::OwnerTag;

use crate::rental::{Backend, Rental};
use crate::{DeviceName, HardwareArguments};

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
    /// Name and digest, as engines take it.
    pub reference: String,
    /// The digest in it.
    pub digest: Digest32,
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
    /// runpod, vast, slurm: disk, GiB; 20 on runpod and vast when not given.
    #[arg(long, value_name = "GIB")]
    pub disk: Option<u32>,
    /// The run ends its allocation after this; an hour and twice the training on runpod and vast when not given.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub time_limit: Option<Duration>,
    /// Where the agent listens: any free port on local and slurm, 9443 on runpod and vast when not given.
    #[arg(long)]
    pub port: Option<u16>,
    /// Whose allocations these are, in their names: 1 to 20 of a-z and 0-9; what ~/.glasshouse/owner says when not given.
    #[arg(long, value_name = "TAG")]
    pub owner: Option<OwnerTag>,
    /// Shows every request that the run would make of the provider and the most that it can cost, and rents nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Evidence of hardware instead of the runtime's own word.
    #[command(flatten)]
    pub hardware: HardwareArguments,
    /// Where the newest bundle of collateral that was ever seen is remembered, so that an older one is refused.
    #[arg(long, value_name = "DIR", default_value = "glasshouse-out/collateral")]
    pub collateral: PathBuf,
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
            min_disk_gib: self.disk,
            cloud: self.cloud.map(|cloud| cloud.text().to_owned()),
            ..OfferFilter::default()
        };
        let local = self.provider == ProviderName::Local;
        let kernel = || container_id(ContainerSource::Kernel).map_err(|e| e.to_string());
        let hardware = self.hardware.for_a_run(HardwareRoots::vendors(), &self.collateral, crate::time("now")?);
        Ok(Rental {
            name: self.provider.text(),
            device,
            hardware: hardware.map_err(|e| e.to_string())?,
            filter,
            time_limit: self.time_limit,
            budget: self.budget,
            owner: self.owner.clone(),
            disk_gib: self.disk,
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

impl ProviderName {
    /// As it stands in rows.
    pub const fn text(self) -> &'static str {
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
