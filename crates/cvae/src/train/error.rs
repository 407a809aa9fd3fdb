//! Why training cannot start or go on.

use cvae_core::{CompileError, RunError, Term};
use cvae_data::DataError;
use thiserror::Error;

use crate::autoencoder::ModelError;
use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::registry::RegistryError;

/// Training that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The loss is no longer finite. The files of the last checkpoint stay as they are.
    #[error(
        "training diverged at step {step} (epoch {epoch}): the {term} term is not finite; \
         try a lower learning rate or scaled features"
    )]
    Diverged {
        /// Step, counted from 1.
        step: u64,
        /// Epoch, counted from 1.
        epoch: u32,
        /// The first term of the loss that went non-finite.
        term: Term,
    },
    /// The loss is finite, but a parameter is not. The files of the last checkpoint stay as they are.
    #[error(
        "training diverged by step {step} (epoch {epoch}): parameter `{parameter}` is not finite; \
         try a lower learning rate or scaled features"
    )]
    DivergedParameter {
        /// Steps done.
        step: u64,
        /// Epoch, counted from 1.
        epoch: u32,
        /// Name of the parameter.
        parameter: String,
    },
    /// A training value is NaN or infinite.
    #[error("{data}: the value at row {row}, column {column} (counted from 0) is not finite")]
    NonFinite {
        /// Name of the data.
        data: String,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
    },
    /// Cross-entropy is defined for targets in [0, 1] only.
    #[error(
        "{data}: the bce reconstruction needs scaled values in [0, 1], but row {row}, column {column} \
         (counted from 0) is {value}"
    )]
    BceRange {
        /// Name of the data.
        data: String,
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
        /// The value after scaling.
        value: f32,
    },
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The backend cannot be had.
    #[error(transparent)]
    Backend(#[from] RegistryError),
    /// The backend cannot run the model.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The backend failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The rows do not fit the model, or cannot be divided as asked.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A file of the run cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The trained model could not be applied.
    #[error(transparent)]
    Model(#[from] ModelError),
}
