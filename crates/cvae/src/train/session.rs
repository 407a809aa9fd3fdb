//! One call of [`Trainer::fit`](super::Trainer::fit): epochs, validation, early stopping, checkpoints.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cvae_core::{Backend, Batch, Corruption, Entry, Executable, Latent, Losses, Plan, State, Term, epoch_order};
use cvae_data::Dataset;

use super::error::TrainError;
use super::history::{EpochRecord, merge};
use super::rows::{TrainingRows, digest};
use super::{Callback, Progress, Stop, Trained};
use crate::autoencoder::{Autoencoder, ModelError};
use crate::checkpoint::{Best, CheckpointError, Existing, RunFolder, StateFile, TrainingState, metrics_lines};
use crate::config::{CodeBasis, Config};
use crate::density::DensitySpec;

/// Floating-point operations between two looks at the losses: a few hundredths of a second on a CPU. A count
/// and not a time, so that the sums of losses do not depend on the clock.
const CHUNK_FLOPS: u64 = 4_000_000_000;
/// Time between two calls of the callback within an epoch.
const CALLBACK_INTERVAL: Duration = Duration::from_millis(150);
/// Rows that the latent scale is measured on where the loss does not tell it.
const RMS_ROWS: usize = 64;
/// Training rows at most whose codes the density after training is fitted to.
const DENSITY_ROWS: usize = 20_000;
/// Training rows at most that the coordinates of codes are found by.
const ALIGNED_ROWS: usize = 10_000;
/// Position of the noise of validation rows: the same in every epoch, and used by none in training.
const VALIDATION_EPOCH: u32 = u32::MAX;

/// What [`Session::run`] needs.
pub(super) struct Session<'a> {
    pub(super) config: Config,
    pub(super) backend: Arc<dyn Backend>,
    pub(super) folder: Option<(RunFolder, Existing)>,
    pub(super) checkpoint_every: Duration,
    pub(super) callback: Option<Callback<'a>>,
}

/// A compiled model with its data and its past.
struct Run<'a> {
    config: Config,
    backend: Arc<dyn Backend>,
    plan: Arc<Plan>,
    executable: Box<dyn Executable>,
    rows: TrainingRows,
    /// Rows for the latent scale, scaled.
    sample: Vec<f32>,
    data: String,
    history: Vec<EpochRecord>,
    best: Option<Best>,
    folder: Option<RunFolder>,
    callback: Option<Callback<'a>>,
}

impl<'a> Session<'a> {
    /// Trains on `data`, from the start or from the state in the folder.
    pub(super) fn run(self, data: &Dataset, backend_reason: String) -> Result<Trained, TrainError> {
        let Session { config, backend, folder, checkpoint_every, callback } = self;
        let plan = Arc::new(config.plan()?);
        data.expect_width(plan.spec.width())?;
        let fingerprint = digest(data)?;
        let saved = match &folder {
            Some((folder, existing)) => saved_state(folder, *existing, &config, data, &fingerprint)?,
            None => None,
        };
        // Everything that can fail for want of a good input has been done before the folder is touched.
        let mut executable = backend.compile(Arc::clone(&plan))?;
        let (scaling, past) = match saved {
            Some((scaling, training)) => (Some(scaling), Some(training)),
            None => (None, None),
        };
        let rows = TrainingRows::upload(&config, data, scaling, executable.as_mut())?;
        if let Some((folder, existing)) = &folder {
            folder.prepare(&config, *existing)?;
        }
        if config.objective.is_degenerate() {
            tracing::warn!(
                "the collapsed prior without a decoder regulariser is degenerate: scaling codes down and the decoder \
                 up lowers the loss without bound; set decoder_l2 above 0"
            );
        }
        let mut sample = vec![];
        if rms_of_latent_term(&config, 0.0).is_none() {
            data.gather(&rows.train[..rows.train.len().min(RMS_ROWS)], &mut sample)?;
            rows.scaling.apply(&mut sample).map_err(cvae_data::DataError::from)?;
        }
        let folder = folder.map(|(folder, _)| folder);
        let (history, best) = start(&config, &plan, executable.as_mut(), past)?;
        let run =
            Run { config, backend, plan, executable, rows, sample, data: fingerprint, history, best, folder, callback };
        run.train(data, checkpoint_every, backend_reason)
    }
}

/// The state to go on from, if there is any, checked against the configuration and the data.
fn saved_state(
    folder: &RunFolder,
    existing: Existing,
    config: &Config,
    data: &Dataset,
    fingerprint: &str,
) -> Result<Option<(cvae_data::FittedScaling, TrainingState)>, CheckpointError> {
    let path = folder.file(RunFolder::STATE);
    if !folder.examine(config, existing)? || !path.exists() {
        return Ok(None);
    }
    let state = folder.read_state()?;
    config.check_resumable(&state.config).map_err(|source| CheckpointError::Config { path: path.clone(), source })?;
    let Some(training) = state.training else {
        return Err(CheckpointError::NotResumable { path });
    };
    if training.data != fingerprint {
        return Err(CheckpointError::OtherData { path, data: data.name().to_owned() });
    }
    Ok(Some((state.scaling, training)))
}

/// Sets the executable to the initial state or to that of the past epochs.
fn start(
    config: &Config,
    plan: &Plan,
    executable: &mut dyn Executable,
    past: Option<TrainingState>,
) -> Result<(Vec<EpochRecord>, Option<Best>), TrainError> {
    match past {
        None => {
            executable.write(State::Params, &plan.params.initial(config.initializer, config.seed))?;
            Ok((vec![], None))
        }
        Some(past) => {
            executable.write(State::Params, &past.params)?;
            executable.write(State::Moment1, &past.moment1)?;
            executable.write(State::Moment2, &past.moment2)?;
            executable.set_step(past.step);
            // Without patience no best parameters are asked for.
            Ok((past.history, past.best.filter(|_| config.patience.is_some())))
        }
    }
}

impl Run<'_> {
    fn train(
        mut self,
        data: &Dataset,
        checkpoint_every: Duration,
        backend_reason: String,
    ) -> Result<Trained, TrainError> {
        let resumed_epochs = self.history.len() as u32;
        self.checkpoint()?;
        let (mut last_checkpoint, mut saved) = (Instant::now(), self.history.len());
        let mut order: Vec<u32> = vec![0; self.rows.train.len()];
        let stop = loop {
            if let Some(best_epoch) = self.early_stop() {
                break Stop::EarlyStopping { best_epoch };
            }
            let epoch = self.history.len() as u32;
            if epoch >= self.config.epochs {
                break Stop::Epochs;
            }
            epoch_order(self.config.seed, epoch, &mut order);
            for position in &mut order {
                *position = self.rows.train[*position as usize];
            }
            let Some(record) = self.epoch(epoch, &order)? else { break Stop::Interrupted };
            self.history.push(record);
            self.note_best(&record)?;
            let interrupted = self.report(&record).is_break();
            if interrupted || last_checkpoint.elapsed() >= checkpoint_every {
                self.checkpoint()?;
                (last_checkpoint, saved) = (Instant::now(), self.history.len());
            }
            if interrupted {
                break Stop::Interrupted;
            }
        };
        if stop != Stop::Interrupted && self.history.len() > saved {
            self.checkpoint()?;
        }
        let state = if stop == Stop::Interrupted { None } else { Some(self.state()?) };
        if let Some(best) = &self.best {
            self.executable.write(State::Params, &best.params)?;
        }
        self.executable.release(self.rows.data)?;
        let steps = self.executable.step();
        let id = self.backend.id();
        let scaling = self.rows.scaling;
        let mut model = Autoencoder::assemble(self.config, scaling, id, Arc::clone(&self.plan), self.executable);
        align(&mut model, data, &self.rows.train)?;
        fit_density(&mut model, data, &self.rows.train)?;
        if let (Some(folder), Some(mut state)) = (&self.folder, state) {
            if model.config().codes == CodeBasis::Aligned {
                // The state keeps the parameters that training ended with.
                folder.write_model(model.config(), model.scaling(), &self.plan.params, &model.parameters()?)?;
            }
            state.densities = model.densities().to_vec();
            folder.write_state(&state, &self.plan.params)?;
        }
        let seconds = self.history.iter().map(|record| record.seconds).sum();
        Ok(Trained { model, history: self.history, stop, steps, seconds, resumed_epochs, backend_reason })
    }

    fn steps_per_epoch(&self) -> u64 {
        self.rows.train.len().div_ceil(self.config.batch_size) as u64
    }

    /// Trains on the rows `order`, or returns `None` when a callback ended training within the epoch.
    fn epoch(&mut self, epoch: u32, order: &[u32]) -> Result<Option<EpochRecord>, TrainError> {
        let started = Instant::now();
        let mut last_call = started;
        let batch = self.config.batch_size;
        let flops = 6 * self.plan.params.len() as u64 * batch as u64;
        let chunk = (CHUNK_FLOPS / flops).max(1) as usize * batch;
        let mut losses = Losses::default();
        let mut done = 0;
        for rows in order.chunks(chunk) {
            self.executable.train_epoch(self.rows.data, rows, batch, epoch)?;
            merge(&mut losses, &self.drain(epoch)?);
            done += rows.len();
            if done < order.len() && last_call.elapsed() >= CALLBACK_INTERVAL {
                last_call = Instant::now();
                let rate = done as f64 / started.elapsed().as_secs_f64();
                if self.call(epoch, losses.total(), rate, None).is_break() {
                    return Ok(None);
                }
            }
        }
        let rows_per_second = order.len() as f64 / started.elapsed().as_secs_f64().max(1e-9);
        let validation_loss = self.validate(epoch)?;
        let step = self.executable.step();
        Ok(Some(EpochRecord {
            epoch: epoch + 1,
            step,
            loss: losses.total(),
            reconstruction: losses.mean(Term::Reconstruction),
            latent: losses.mean(Term::Latent),
            decoder_l2: losses.mean(Term::DecoderL2),
            jacobian: losses.mean(Term::Jacobian),
            validation_loss,
            learning_rate: self.config.optimizer.learning_rate_at(step.saturating_sub(1)),
            latent_rms: self.latent_rms(epoch, losses.mean(Term::Latent))?,
            rows_per_second,
            seconds: started.elapsed().as_secs_f64(),
        }))
    }

    /// The losses since the last call, all finite.
    fn drain(&mut self, epoch: u32) -> Result<Losses, TrainError> {
        let losses = self.executable.losses()?;
        match losses.non_finite {
            Some(bad) => Err(TrainError::Diverged { step: bad.step, epoch: epoch + 1, term: bad.term }),
            None => Ok(losses),
        }
    }

    /// The whole loss on the validation rows, if there are any.
    fn validate(&mut self, epoch: u32) -> Result<Option<f64>, TrainError> {
        if self.rows.validation.is_empty() {
            return Ok(None);
        }
        for rows in self.rows.validation.chunks(self.config.batch_size) {
            self.executable.gradients(&Batch::resident(self.rows.data, rows, VALIDATION_EPOCH))?;
        }
        Ok(Some(self.drain(epoch)?.total()))
    }

    /// Root mean square of the codes' elements after an epoch whose latent term was `latent_term`.
    fn latent_rms(&mut self, epoch: u32, latent_term: f64) -> Result<f64, TrainError> {
        if let Some(rms) = rms_of_latent_term(&self.config, latent_term) {
            return Ok(rms);
        }
        let rows = self.sample.len() / self.plan.spec.width();
        let mut codes = vec![0.0; rows * self.plan.spec.latent()];
        self.executable.infer(Entry::Encode, &self.sample, &mut codes)?;
        let squares: f64 = codes.iter().map(|code| f64::from(*code).powi(2)).sum();
        let rms = (squares / codes.len() as f64).sqrt();
        if rms.is_finite() {
            return Ok(rms);
        }
        // The loss was finite before the last update.
        let mut params = vec![0.0; self.plan.params.len()];
        self.executable.read(State::Params, &mut params)?;
        self.check_finite(&params)?;
        Err(TrainError::Diverged { step: self.executable.step(), epoch: epoch + 1, term: Term::Latent })
    }

    /// Remembers the parameters of the best epoch when early stopping may need them.
    fn note_best(&mut self, record: &EpochRecord) -> Result<(), TrainError> {
        let (Some(_), Some(loss)) = (self.config.patience, record.validation_loss) else { return Ok(()) };
        if self.best.as_ref().is_some_and(|best| best.loss <= loss) {
            return Ok(());
        }
        let mut params = self.best.take().map_or_else(|| vec![0.0; self.plan.params.len()], |best| best.params);
        self.executable.read(State::Params, &mut params)?;
        self.best = Some(Best { epoch: record.epoch, loss, params });
        Ok(())
    }

    /// The best epoch, when the patience with later ones is exhausted.
    fn early_stop(&self) -> Option<u32> {
        let (patience, best) = (self.config.patience?, self.best.as_ref()?);
        (self.history.len() as u32 - best.epoch >= patience).then_some(best.epoch)
    }

    fn report(&mut self, record: &EpochRecord) -> ControlFlow<()> {
        self.call(record.epoch - 1, record.loss, record.rows_per_second, Some(record))
    }

    fn call(&mut self, epoch: u32, loss: f64, rows_per_second: f64, record: Option<&EpochRecord>) -> ControlFlow<()> {
        let epochs = self.config.epochs;
        let steps = self.steps_per_epoch() * u64::from(epochs);
        let Some(callback) = &mut self.callback else { return ControlFlow::Continue(()) };
        callback(&Progress {
            epoch: epoch + 1,
            epochs,
            step: self.executable.step(),
            steps,
            loss,
            rows_per_second,
            record,
        })
    }

    /// All that training needs to go on from here.
    fn state(&mut self) -> Result<StateFile, TrainError> {
        let len = self.plan.params.len();
        let mut parts = [State::Params, State::Moment1, State::Moment2].map(|state| (state, vec![0.0; len]));
        for (state, values) in &mut parts {
            self.executable.read(*state, values)?;
            self.check_finite(values)?;
        }
        let [(_, params), (_, moment1), (_, moment2)] = parts;
        Ok(StateFile {
            config: self.config.clone(),
            scaling: self.rows.scaling.clone(),
            training: Some(TrainingState {
                step: self.executable.step(),
                params,
                moment1,
                moment2,
                best: self.best.clone(),
                history: self.history.clone(),
                data: self.data.clone(),
                backend: self.backend.id().to_string(),
            }),
            densities: vec![],
        })
    }

    /// Writes the state, then the files that follow it.
    fn checkpoint(&mut self) -> Result<(), TrainError> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let state = self.state()?;
        let layout = &self.plan.params;
        folder.write_state(&state, layout)?;
        let last = state.training.as_ref().map_or(&[][..], |training| &training.params);
        let params = self.best.as_ref().map_or(last, |best| &best.params);
        folder.write_model(&self.config, &self.rows.scaling, layout, params)?;
        let malformed = |source| CheckpointError::Metrics { path: folder.file(RunFolder::METRICS), source };
        Ok(folder.write_metrics(&metrics_lines(&self.history).map_err(malformed)?)?)
    }

    /// A loss can be finite while the update after it overflowed.
    fn check_finite(&self, values: &[f32]) -> Result<(), TrainError> {
        let Some(bad) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
        let parameter = self.plan.params.params().iter().find(|param| param.range().contains(&bad));
        let step = self.executable.step();
        Err(TrainError::DivergedParameter {
            step,
            epoch: step.div_ceil(self.steps_per_epoch()) as u32,
            parameter: parameter.map(|param| param.name.clone()).unwrap_or_default(),
        })
    }
}

/// Brings the codes to the coordinates that the configuration asks for.
fn align(model: &mut Autoencoder, data: &Dataset, train: &[u32]) -> Result<(), TrainError> {
    match (model.config().codes, model.config().objective.corruption) {
        (CodeBasis::Aligned, Corruption::Shift { shift, .. }) => {
            let rows = data.select(&spread(train, ALIGNED_ROWS))?;
            Ok(model.align(&rows, shift)?)
        }
        // Aligned codes without such moves are no valid configuration.
        _ => Ok(()),
    }
}

/// At most `count` of the rows `train`, evenly spread over them.
fn spread(train: &[u32], count: usize) -> Vec<u32> {
    let count = train.len().min(count);
    (0..count).map(|i| train[i * train.len() / count]).collect()
}

/// Fits a Gaussian to the codes of training rows, so that the model can be sampled from. Codes that no Gaussian
/// fits leave the model without one.
fn fit_density(model: &mut Autoencoder, data: &Dataset, train: &[u32]) -> Result<(), TrainError> {
    let codes = model.encode_dataset(&data.select(&spread(train, DENSITY_ROWS))?)?;
    match model.fit_density(DensitySpec::Gaussian, &codes) {
        Ok(_) => Ok(()),
        Err(ModelError::Density(error)) => {
            tracing::warn!("no density was fitted to the codes: {error}");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// The latent scale that the collapsed objective's own term tells, as an average over the epoch:
/// `β·½‖z‖²` is a mean over rows.
fn rms_of_latent_term(config: &Config, term: f64) -> Option<f64> {
    match config.objective.latent {
        Latent::Collapsed { beta } if beta > 0.0 => Some((2.0 * term / (beta * config.model.latent() as f64)).sqrt()),
        _ => None,
    }
}
