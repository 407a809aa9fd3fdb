//! Training: rows in, model out.

mod error;
mod history;
mod rows;
mod session;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cvae_core::Backend;
use cvae_data::Dataset;

use crate::autoencoder::Autoencoder;
use crate::checkpoint::{Existing, RunFolder};
use crate::config::Config;
use crate::registry;

pub use error::TrainError;
pub use history::EpochRecord;
use session::Session;

/// Where training stands, told to a callback.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The epoch in progress or just finished, from 1.
    pub epoch: u32,
    /// Epochs in all.
    pub epochs: u32,
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps in all, without early stopping.
    pub steps: u64,
    /// Mean loss of the epoch so far.
    pub loss: f64,
    /// Rows trained on a second, in the epoch so far.
    pub rows_per_second: f64,
    /// The epoch's record, when it has just finished.
    pub record: Option<&'a EpochRecord>,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All epochs were done.
    Epochs,
    /// The validation loss had not improved for [`Config::patience`] epochs; the parameters of `best_epoch`
    /// (from 1) were restored.
    EarlyStopping {
        /// The epoch with the lowest validation loss.
        best_epoch: u32,
    },
    /// A callback asked for it.
    Interrupted,
}

/// The outcome of training.
#[derive(Debug)]
#[non_exhaustive]
pub struct Trained {
    /// The model: with early stopping the best one, else the last.
    pub model: Autoencoder,
    /// One record an epoch, those before a resume included.
    pub history: Vec<EpochRecord>,
    /// Why training ended.
    pub stop: Stop,
    /// Optimiser steps done in all.
    pub steps: u64,
    /// Seconds that training took in all: loading, compiling and writing checkpoints not included.
    pub seconds: f64,
    /// Epochs that were done before this call, 0 unless the run was resumed.
    pub resumed_epochs: u32,
    /// Why the backend was chosen.
    pub backend_reason: String,
}

/// What a callback is: told about progress, and asked whether to go on.
type Callback<'a> = Box<dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a>;

/// Trains a model described by a [`Config`].
///
/// ```no_run
/// use cvae::{Config, Existing, Trainer};
/// use cvae_data::LoadOptions;
///
/// let config = Config::digits();
/// let rows = config.load_rows(&LoadOptions::default())?;
/// let trained = Trainer::new(config).run_folder("run", Existing::Refuse).fit(&rows.train)?;
/// println!("loss {:.4}", trained.history.last().map_or(f64::NAN, |epoch| epoch.loss));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub struct Trainer<'a> {
    config: Config,
    backend: Option<Arc<dyn Backend>>,
    folder: Option<(RunFolder, Existing)>,
    checkpoint_every: Duration,
    callback: Option<Callback<'a>>,
}

impl std::fmt::Debug for Trainer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("config", &self.config).field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl<'a> Trainer<'a> {
    /// Seconds between checkpoints unless [`Trainer::checkpoint_every`] says otherwise.
    pub const CHECKPOINT_SECONDS: u64 = 2;

    /// A trainer for `config`, on the backend that the configuration names, without a run folder.
    pub fn new(config: Config) -> Self {
        let checkpoint_every = Duration::from_secs(Self::CHECKPOINT_SECONDS);
        Self { config, backend: None, folder: None, checkpoint_every, callback: None }
    }

    /// Trains on `backend` instead of the one that the configuration names.
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Keeps the files of the run in `path`: see [`RunFolder`].
    pub fn run_folder(mut self, path: impl AsRef<Path>, existing: Existing) -> Self {
        self.folder = Some((RunFolder::new(path.as_ref()), existing));
        self
    }

    /// Writes a checkpoint after the first epoch that ends this long after the last checkpoint. One is always
    /// written before the first step and at the end.
    pub fn checkpoint_every(mut self, interval: Duration) -> Self {
        self.checkpoint_every = interval;
        self
    }

    /// Calls `callback` several times a second and after each epoch. [`ControlFlow::Break`] ends training:
    /// after an epoch with a checkpoint, within one without, so that resuming repeats that epoch.
    pub fn on_progress(mut self, callback: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a) -> Self {
        self.callback = Some(Box::new(callback));
        self
    }

    /// Trains on `data`, from the start or from where the run in the folder stopped.
    ///
    /// The same configuration and data give the same parameters bit for bit on the same machine and backend,
    /// for any number of threads and however often training was interrupted.
    ///
    /// # Errors
    /// A configuration, data, backend or folder that cannot be used, or a loss that is no longer finite.
    pub fn fit(self, data: &Dataset) -> Result<Trained, TrainError> {
        self.config.validate()?;
        let (backend, reason) = match self.backend {
            Some(backend) => (backend, "given by the caller".to_owned()),
            None => {
                let selected = registry::select_for(&self.config.backend, &self.config.plan()?)?;
                (selected.backend, selected.reason)
            }
        };
        let session = Session {
            config: self.config,
            backend,
            folder: self.folder,
            checkpoint_every: self.checkpoint_every,
            callback: self.callback,
        };
        session.run(data, reason)
    }
}
