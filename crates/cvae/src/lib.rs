//! Collapsed variational autoencoders ("C" is for collapsed, never conditional): a VAE whose posterior noise
//! has been removed, so that encoding is deterministic. The literature's name for the same family is
//! *regularized autoencoder* (Ghosh et al., ICLR 2020). Plain, variational and β-variational autoencoders are
//! one field of the configuration away.
//!
//! ```
//! use cvae::{Config, Trainer, evaluate};
//! use cvae_data::LoadOptions;
//!
//! let config = Config { epochs: 30, ..Config::digits() };
//! let rows = config.load_rows(&LoadOptions::default())?;
//! let trained = Trainer::new(config).fit(&rows.train)?;
//! let test = rows.test.ok_or("no test rows")?;
//! let codes = trained.model.encode(&test.to_f32())?;
//! assert_eq!(codes.len(), test.rows() * trained.model.latent());
//! let figures = evaluate(&trained.model, &rows.train, &test)?;
//! assert!(figures.mse < figures.pca_mse, "better than principal components");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`Config`] describes a run completely: model, objective, optimiser, data, backend.
//! - [`Trainer`] trains it, with validation rows, early stopping, callbacks, and a [`RunFolder`] that survives
//!   being killed at any moment.
//! - [`Autoencoder`] is the result: encode, decode, reconstruct, score, sample, save, load.
//! - [`frozen`] (feature `cpu`): models reduced to inference, in 32-bit floats or in bytes.
//! - [`registry`] opens backends by name.
//! - [`checkpoint`] holds the files of a run.
//! - [`metrics`]: reconstruction error, the PCA floor, nearest neighbours, latent statistics, distances
//!   between distributions, ranking quality; [`evaluate`] computes what a report shows, [`baselines`] what to
//!   compare it with, [`generation`] how like the data samples are.
//! - [`density`]: densities fitted to codes after training, which make a deterministic model generative.
//! - [`scoring`]: anomaly scores, their calibration and conformal thresholds; [`AnomalyDetector`] judges rows
//!   with them.
//!
//! Metrics, densities and scores take rows as a [`Matrix`], a checked view of row-major `f32` values, and
//! accumulate in `f64`.
//!
//! # Cargo features
//! - `cpu` (default): the backend of the CPU's instruction sets.
//! - `candle`: the candle backends.
//! - `cuda`: the CUDA backends.
//! - `reference`: the naive 64-bit backend that defines every operation; for tests.
#![forbid(unsafe_code)]

mod anomaly;
mod autoencoder;
pub mod checkpoint;
mod config;
mod data;
pub mod density;
mod eval;
#[cfg(feature = "cpu")]
pub mod frozen;
mod linalg;
mod matrix;
pub mod metrics;
mod random;
pub mod registry;
pub mod scoring;
mod train;

pub use anomaly::{AnomalyDetector, AnomalyError, AnomalyOptions, Threshold};
pub use autoencoder::{Autoencoder, ModelError};
pub use checkpoint::{CheckpointError, Existing, RunFolder};
pub use config::{BackendConfig, CodeBasis, Config, ConfigError, DataConfig, FORMAT_VERSION, Precision};
pub use data::LoadedRows;
pub use eval::{
    Baseline, Baselines, EvalError, Evaluation, Features, Generated, Generation, baselines, evaluate, generation,
};
#[cfg(feature = "cpu")]
pub use frozen::{FrozenAutoencoder, FrozenPrecision};
pub use matrix::{Matrix, MatrixError};
pub use registry::RegistryError;
pub use train::{EpochRecord, Progress, Stop, TrainError, Trained, Trainer};
