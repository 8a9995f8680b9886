//! The epoch on a CUDA device: a [`Plan`] captured into a graph of many epochs.

mod device;
mod launch;
mod pool;

use glasshouse_core::traits::WorkloadError;

use self::device::{CudaDevice, Graph};
pub(crate) use self::pool::{candle_device, empty_pool};
use super::config::{MlpConfig, Tuning};
use super::data::{Floats, MlpData};
use super::plan::Plan;

/// Training on the first CUDA device, with everything on it: between two readings of the loss, nothing but launches
/// goes there and nothing comes back.
pub(crate) struct CudaTrainer {
    // Before the device, so that graphs go before the memory that they write.
    graphs: Option<Graphs>,
    device: CudaDevice,
    plan: Plan,
}

struct Graphs {
    /// `size` epochs in one launch.
    batch: Graph,
    size: u64,
    /// One epoch, for what is left over.
    one: Graph,
}

impl CudaTrainer {
    /// Uploads everything and captures the graphs; without `graphs`, every operation is launched by itself.
    ///
    /// # Errors
    /// [`WorkloadError::Device`] when the device, cuBLAS or the capture fails.
    pub(crate) fn new(config: &MlpConfig, data: &MlpData, tuning: Tuning, graphs: bool) -> Result<Self, WorkloadError> {
        let plan = Plan::new(config, tuning);
        let device = CudaDevice::new(&plan, config.optimizer)?;
        let mut trainer = Self { graphs: None, device, plan };
        // One epoch outside of any graph loads all code and shows any error as itself; then back to the start.
        trainer.load(data)?;
        trainer.enqueue(1)?;
        trainer.device.synchronize()?;
        trainer.load(data)?;
        if graphs {
            let size = config.launch_batch;
            trainer.graphs = Some(Graphs { batch: trainer.capture(size)?, size, one: trainer.capture(1)? });
        }
        Ok(trainer)
    }

    /// Trains and gives the loss of the last epoch, as it was before that epoch's update; read back once.
    pub(crate) fn advance(&mut self, epochs: u64) -> Result<f64, WorkloadError> {
        match &self.graphs {
            Some(graphs) => {
                for _ in 0..epochs / graphs.size {
                    self.device.launch(&graphs.batch)?;
                }
                for _ in 0..epochs % graphs.size {
                    self.device.launch(&graphs.one)?;
                }
            }
            None => self.enqueue(epochs)?,
        }
        let squared = self.device.download(self.plan.squared.start, self.plan.squared.len())?;
        Ok(squared.iter().map(|sum| f64::from(*sum)).sum::<f64>() * self.plan.mean)
    }

    /// All weights in the order of the flat buffer.
    pub(crate) fn weights(&self) -> Result<Floats, WorkloadError> {
        let values = self.device.download(self.plan.params.start, self.plan.params.len())?;
        Ok(self.plan.to_flat(&values))
    }

    /// Overwrites everything on the device with zeros.
    pub(crate) fn wipe(&mut self) -> Result<(), WorkloadError> {
        self.device.wipe()
    }

    /// Data, initial weights, zero moments and the state before the first step.
    fn load(&mut self, data: &MlpData) -> Result<(), WorkloadError> {
        self.device.wipe()?;
        self.device.upload(self.plan.x, &data.x)?;
        self.device.upload(self.plan.y, &data.y)?;
        self.device.upload(self.plan.params.start, &self.plan.to_device(&data.weights))?;
        self.device.upload(self.plan.state, &Plan::initial_state())
    }

    fn enqueue(&mut self, epochs: u64) -> Result<(), WorkloadError> {
        enqueue(&mut self.device, &self.plan, epochs)
    }

    fn capture(&mut self, epochs: u64) -> Result<Graph, WorkloadError> {
        let plan = &self.plan;
        self.device.capture(|device| enqueue(device, plan, epochs))
    }
}

fn enqueue(device: &mut CudaDevice, plan: &Plan, epochs: u64) -> Result<(), WorkloadError> {
    for _ in 0..epochs {
        for op in &plan.ops {
            device.enqueue(op, plan.state)?;
        }
    }
    Ok(())
}
