use std::fmt;

use candle_core::Device as CandleDevice;
use glasshouse_core::traits::{Device, WorkloadError};

use super::autograd::Autograd;
use super::config::{MlpConfig, Tuning};
#[cfg(feature = "cuda")]
use super::cuda::{CudaTrainer, candle_device, empty_pool};
use super::data::{Floats, MlpData};
use super::step::CpuTrainer;

/// How epochs are computed. It belongs in every row, so that figures are never compared across methods unseen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Method {
    /// Hand-written epoch on the CPU.
    CpuFused,
    /// candle's autograd on the CPU.
    CpuAutograd,
    /// Hand-written epoch on a CUDA device, many of them in one graph launch.
    CudaGraph,
    /// The same operations on a CUDA device, each launched by itself.
    CudaStream,
    /// candle's autograd on a CUDA device.
    CudaAutograd,
}

impl Method {
    /// Where it computes.
    pub fn device(self) -> Device {
        match self {
            Self::CpuFused | Self::CpuAutograd => Device::Cpu,
            Self::CudaGraph | Self::CudaStream | Self::CudaAutograd => Device::Cuda,
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CpuFused => "cpu-fused",
            Self::CpuAutograd => "cpu-autograd",
            Self::CudaGraph => "cuda-graph",
            Self::CudaStream => "cuda-stream",
            Self::CudaAutograd => "cuda-autograd",
        })
    }
}

/// Weights, optimizer and data on a device, by one of the methods.
pub(crate) enum Trainer {
    Cpu(CpuTrainer),
    Autograd(Box<Autograd>),
    #[cfg(feature = "cuda")]
    Cuda(Box<CudaTrainer>),
}

impl Trainer {
    pub(crate) fn new(
        config: &MlpConfig,
        data: MlpData,
        method: Method,
        tuning: Tuning,
    ) -> Result<Self, WorkloadError> {
        match method {
            Method::CpuFused => Ok(Self::Cpu(CpuTrainer::new(config, data))),
            Method::CpuAutograd => Self::autograd(config, &data, &CandleDevice::Cpu),
            #[cfg(feature = "cuda")]
            Method::CudaGraph | Method::CudaStream => {
                let graphs = method == Method::CudaGraph;
                Ok(Self::Cuda(Box::new(CudaTrainer::new(config, &data, tuning, graphs)?)))
            }
            #[cfg(feature = "cuda")]
            Method::CudaAutograd => Self::autograd(config, &data, &candle_device()?),
            #[cfg(not(feature = "cuda"))]
            Method::CudaGraph | Method::CudaStream | Method::CudaAutograd => {
                let why = "this program was built without it; build with --features cuda, or choose cpu".to_owned();
                Err(WorkloadError::Device { what: format!("{method} with {tuning:?}"), why })
            }
        }
    }

    /// Trains and gives the loss of the last epoch, as it was before that epoch's update.
    pub(crate) fn advance(&mut self, epochs: u64) -> Result<f64, WorkloadError> {
        match self {
            Self::Cpu(trainer) => Ok(trainer.advance(epochs)),
            Self::Autograd(trainer) => candle("training", trainer.advance(epochs)),
            #[cfg(feature = "cuda")]
            Self::Cuda(trainer) => trainer.advance(epochs),
        }
    }

    /// All weights in the order of the flat buffer.
    pub(crate) fn weights(&self) -> Result<Floats, WorkloadError> {
        match self {
            Self::Cpu(trainer) => Ok(trainer.weights.clone()),
            Self::Autograd(trainer) => candle("reading weights", trainer.weights()).map(Floats::new),
            #[cfg(feature = "cuda")]
            Self::Cuda(trainer) => trainer.weights(),
        }
    }

    /// Overwrites what a device holds and gives it back; what the CPU holds is wiped when dropped.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when the device fails, or keeps memory that was in use: it cannot be said to be wiped.
    pub(crate) fn wipe(self) -> Result<(), WorkloadError> {
        match self {
            Self::Cpu(_) => Ok(()),
            Self::Autograd(trainer) => {
                #[cfg(feature = "cuda")]
                let device = trainer.device().clone();
                let wiped = candle("wiping", trainer.wipe());
                #[cfg(feature = "cuda")]
                if device.is_cuda() {
                    // Whatever became of the wiping: what can be given back is.
                    return empty_pool(&device).and(wiped);
                }
                wiped
            }
            #[cfg(feature = "cuda")]
            Self::Cuda(mut trainer) => trainer.wipe(),
        }
    }

    fn autograd(config: &MlpConfig, data: &MlpData, device: &CandleDevice) -> Result<Self, WorkloadError> {
        Ok(Self::Autograd(Box::new(candle("preparing", Autograd::new(config, data, device))?)))
    }
}

fn candle<T>(what: &str, result: candle_core::Result<T>) -> Result<T, WorkloadError> {
    result.map_err(|error| WorkloadError::Device { what: what.to_owned(), why: error.to_string() })
}
