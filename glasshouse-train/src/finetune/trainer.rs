//! The training loop: batches, gradients, the optimizer, evaluation and where it stands.

use candle_core::{Device, Tensor, Var};
use glasshouse_core::fixed::Digest32;
use glasshouse_core::traits::WorkloadError;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::adamw::{AdamW, AdamWState, flat};
use super::checkpoint::{Checkpoint, CheckpointState};
use super::error::{data, device, model, tensor};
use super::{Metrics, Settings};
use crate::crossing::to_host;
use crate::data::{Batch, BatchStream, Dataset};
use crate::qwen::{Qwen2, QwenError, check_gradients};

/// On a GPU losses wait until there are this many of them; on a CPU they are there anyway.
const READ_BACK: usize = 4;

/// An evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Optimizer steps before it.
    pub step: u64,
    /// Mean loss per target token of the documents held out, nats.
    pub loss: f64,
    /// Target tokens.
    pub targets: usize,
}

/// Trains one model on one data set.
pub(super) struct Trainer {
    settings: Settings,
    model: Qwen2,
    variables: Vec<(String, Var)>,
    optimizer: AdamW,
    stream: BatchStream,
    held_out: Vec<Batch>,
    device: Device,
    /// Names the run: what a checkpoint must have been made with.
    run: Digest32,
    step: u64,
    tokens: u64,
    waiting: Vec<(Metrics, Tensor, Tensor)>,
    log: Vec<Metrics>,
    evaluations: Vec<Evaluation>,
}

impl Trainer {
    /// At the first step. `run` names the data and the settings.
    pub(super) fn new(
        settings: Settings,
        model: Qwen2,
        dataset: &Dataset,
        padding: u32,
        device: Device,
        run: Digest32,
    ) -> Result<Self, WorkloadError> {
        let Settings { batch, sequence, seed, .. } = settings;
        let stream = BatchStream::new(dataset.train.clone(), batch, sequence, padding, seed).map_err(data)?;
        let held_out = BatchStream::in_order(&dataset.held_out, batch, sequence, padding);
        let mut variables = model.trainable().to_vec();
        variables.sort_by(|(a, _), (b, _)| a.cmp(b));
        let optimizer = AdamW::new(&variables, settings.adamw).map_err(|e| tensor("the optimizer", &e))?;
        Ok(Self {
            settings,
            model,
            variables,
            optimizer,
            stream,
            held_out,
            device,
            run,
            step: 0,
            tokens: 0,
            waiting: Vec::new(),
            log: Vec::new(),
            evaluations: Vec::new(),
        })
    }

    /// Optimizer steps done, those before a resumption included.
    pub(super) fn steps_done(&self) -> u64 {
        self.step
    }

    /// Tokens trained on, those before a resumption included.
    pub(super) fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The latest step whose loss is known.
    pub(super) fn latest(&self) -> Option<&Metrics> {
        self.log.last()
    }

    /// The latest evaluation.
    pub(super) fn evaluated(&self) -> Option<&Evaluation> {
        self.evaluations.last()
    }

    /// All evaluations.
    pub(super) fn evaluations(&self) -> &[Evaluation] {
        &self.evaluations
    }

    /// All steps whose loss is known.
    pub(super) fn log(&self) -> &[Metrics] {
        &self.log
    }

    /// One optimizer step.
    pub(super) fn train_step(&mut self) -> Result<(), WorkloadError> {
        let (rows, accumulate) = (self.settings.batch, self.settings.accumulate);
        let failed = |error: QwenError| model(error, rows, accumulate);
        let batches: Vec<Batch> = (0..accumulate).map(|_| self.stream.next_batch()).collect();
        let targets: usize = batches.iter().map(Batch::targets).sum();
        let (mut gradients, mut total) = (None::<Tensor>, None::<Tensor>);
        // All of them while the device has nothing to do: sending waits for it.
        let send = |(number, batch): (usize, &Batch)| {
            let dropout = (self.settings.lora.dropout > 0.0).then(|| self.dropout_seed(number as u64));
            self.model.send(batch, dropout).map_err(failed)
        };
        let sent = batches.iter().enumerate().map(send).collect::<Result<Vec<_>, _>>()?;
        for (batch, sent) in batches.iter().zip(sent) {
            let loss = self.model.loss_of(sent, targets.max(1) as f64).map_err(failed)?;
            let value = loss.value().detach();
            let store = loss.backward().map_err(failed)?;
            check_gradients(&self.variables, &store).map_err(failed)?;
            let found = self.variables.iter().filter_map(|(_, variable)| store.get(variable.as_tensor()));
            let these = flat(found).map_err(|e| tensor("gradients", &e))?;
            gradients = Some(add(gradients, these)?);
            total = Some(add(total, value)?);
            self.tokens += batch_tokens(batch);
        }
        let (Some(gradients), Some(loss)) = (gradients, total) else { return Ok(()) };
        let rate = self.settings.rate(self.step);
        let norm = self
            .optimizer
            .step(&self.variables, &gradients, rate, self.settings.clip)
            .map_err(|e| tensor("the optimizer's step", &e))?;
        self.step += 1;
        let metrics =
            Metrics { step: self.step, learning_rate: Some(rate), tokens: Some(self.tokens), ..Metrics::default() };
        self.waiting.push((metrics, loss, norm));
        Ok(())
    }

    /// Waits until the device has done all that was asked, and reads losses back when enough of them wait.
    pub(super) fn settle(&mut self, read: bool) -> Result<(), WorkloadError> {
        if read || self.device.is_cpu() || self.waiting.len() >= READ_BACK {
            return self.read_back();
        }
        self.device.synchronize().map_err(|e| tensor("waiting for the device", &e))
    }

    /// Reads the losses back that still wait.
    ///
    /// # Errors
    /// [`WorkloadError::NotFinite`] for the first that is none.
    pub(super) fn read_back(&mut self) -> Result<(), WorkloadError> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let pairs = self.waiting.iter().flat_map(|(_, loss, norm)| [loss, norm]);
        let values = flat(pairs).and_then(|values| to_host::<f32>(&values));
        let values = values.map_err(|e| tensor("reading the loss", &e))?;
        for ((mut metrics, ..), pair) in std::mem::take(&mut self.waiting).into_iter().zip(values.chunks(2)) {
            let [loss, norm] = [pair.first(), pair.last()].map(|value| f64::from(value.copied().unwrap_or(f32::NAN)));
            if !loss.is_finite() {
                return Err(WorkloadError::NotFinite { loss, done: metrics.step });
            }
            if !norm.is_finite() {
                let why =
                    format!("it is {norm} after {} steps; lower the learning rate or look at the data", metrics.step);
                return Err(device("the norm of the gradients", why));
            }
            (metrics.loss, metrics.gradient_norm) = (Some(loss), Some(norm));
            self.log.push(metrics);
        }
        Ok(())
    }

    /// Mean loss of what is held out, once per step; nothing when nothing is held out.
    pub(super) fn evaluate(&mut self) -> Result<(), WorkloadError> {
        if self.held_out.is_empty() || self.evaluated().is_some_and(|latest| latest.step == self.step) {
            return Ok(());
        }
        let (mut sums, mut targets) = (Vec::new(), 0);
        let failed = |error| model(error, self.settings.batch, self.settings.accumulate);
        // All of them while the device has nothing to do, as in a step.
        let send = |batch| self.model.send(batch, None).map_err(failed);
        let sent = self.held_out.iter().map(send).collect::<Result<Vec<_>, _>>()?;
        for (batch, sent) in self.held_out.iter().zip(sent) {
            sums.push(self.model.evaluate_sent(sent).map_err(failed)?);
            targets += batch.targets();
        }
        let sums = flat(&sums).and_then(|sums| to_host::<f32>(&sums));
        let sums = sums.map_err(|e| tensor("reading the evaluation", &e))?;
        let loss = sums.into_iter().map(f64::from).sum::<f64>() / targets.max(1) as f64;
        if !loss.is_finite() {
            return Err(WorkloadError::NotFinite { loss, done: self.step });
        }
        self.evaluations.push(Evaluation { step: self.step, loss, targets });
        Ok(())
    }

    /// SHA-256 over the adapters by name, each value little-endian.
    pub(super) fn weights_digest(&self) -> Result<Digest32, WorkloadError> {
        let mut hash = Sha256::new();
        self.weights()?.iter().for_each(|value| hash.update(value.to_le_bytes()));
        Ok(Digest32::from(<[u8; 32]>::from(hash.finalize())))
    }

    /// The model, to hand its adapters out.
    pub(super) fn model(&self) -> &Qwen2 {
        &self.model
    }

    /// Everything that is needed to go on from here. Losses that wait are read first: what is not finite is no state to
    /// go on from.
    pub(super) fn checkpoint(&mut self) -> Result<Vec<u8>, WorkloadError> {
        self.read_back()?;
        let weights = self.weights()?;
        if weights.iter().any(|value| !value.is_finite()) {
            let why = format!(
                "the adapters are not finite after {} steps, so no checkpoint is made; lower the learning rate or look at the data",
                self.step
            );
            return Err(device("training", why));
        }
        let AdamWState { first, second, .. } =
            self.optimizer.state().map_err(|e| tensor("reading the optimizer", &e))?;
        let state = CheckpointState {
            version: 1,
            step: self.step,
            tokens: self.tokens,
            position: self.stream.position(),
            seed: self.settings.seed,
            today: self.settings.today,
            run: self.run,
        };
        Checkpoint { state, weights, first, second }.to_bytes(&self.parts())
    }

    /// Goes on from a checkpoint of the same run.
    pub(super) fn resume(&mut self, bytes: &[u8]) -> Result<(), WorkloadError> {
        let checkpoint = Checkpoint::from_bytes(bytes, &self.parts())?;
        let state = checkpoint.state;
        state.continues(&self.settings, self.run)?;
        self.stream.seek(state.position).map_err(data)?;
        let moments = AdamWState { first: checkpoint.first, second: checkpoint.second, steps: state.step };
        self.optimizer
            .restore(&self.variables, &checkpoint.weights, &moments)
            .map_err(|e| tensor("restoring a checkpoint", &e))?;
        (self.step, self.tokens) = (state.step, state.tokens);
        Ok(())
    }

    fn weights(&self) -> Result<Vec<f32>, WorkloadError> {
        to_host(self.optimizer.weights()).map_err(|e| tensor("reading the adapters", &e))
    }

    fn parts(&self) -> Vec<(&str, usize)> {
        self.variables.iter().map(|(name, variable)| (name.as_str(), variable.elem_count())).collect()
    }

    /// A seed for each pass, counted from the run's.
    fn dropout_seed(&self, number: u64) -> u64 {
        crate::rng::Stream::new(self.settings.seed, DROPOUT)
            .word(self.step.wrapping_mul(u64::from(self.settings.accumulate)).wrapping_add(number))
    }
}

/// Which random numbers seed dropout.
const DROPOUT: u64 = u64::MAX - 1;

fn add(sum: Option<Tensor>, next: Tensor) -> Result<Tensor, WorkloadError> {
    match sum {
        None => Ok(next),
        Some(sum) => (sum + next).map_err(|e| tensor("accumulating", &e)),
    }
}

/// Padding is a document of its own, the last of its row, without a label; it is no work that anybody asked for.
fn batch_tokens(batch: &Batch) -> u64 {
    let rows = batch.documents.chunks(batch.length).zip(batch.labels.chunks(batch.length));
    let real = rows.map(|(documents, labels)| {
        let last = documents.last();
        let tail = documents.iter().rev().take_while(|document| Some(*document) == last).count();
        let silent = labels.iter().rev().take(tail).all(|label| *label == crate::data::IGNORE);
        if silent { documents.len() - tail } else { documents.len() }
    });
    real.sum::<usize>() as u64
}
