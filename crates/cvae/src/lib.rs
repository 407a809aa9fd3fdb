//! Collapsed variational autoencoders ("C" is for collapsed, never conditional): evaluation, latent
//! densities and anomaly scores.
//!
//! - [`metrics`]: reconstruction error, the PCA floor, nearest neighbours, latent statistics, distances
//!   between distributions, ranking quality.
//! - [`density`]: densities fitted to codes after training, which make a deterministic model generative.
//! - [`scoring`]: anomaly scores, their calibration and conformal thresholds.
//!
//! All three take rows as a [`Matrix`], a checked view of row-major `f32` values, and accumulate in `f64`.
#![forbid(unsafe_code)]

mod autoencoder;
pub mod checkpoint;
mod config;
mod data;
pub mod density;
mod eval;
mod linalg;
mod matrix;
pub mod metrics;
mod random;
pub mod registry;
pub mod scoring;
mod train;

pub use autoencoder::{Autoencoder, ModelError};
pub use checkpoint::{CheckpointError, Existing, RunFolder};
pub use config::{BackendConfig, Config, ConfigError, DataConfig, FORMAT_VERSION, Precision};
pub use data::LoadedRows;
pub use eval::{EvalError, Evaluation, evaluate};
pub use matrix::{Matrix, MatrixError};
pub use registry::RegistryError;
pub use train::{EpochRecord, Progress, Stop, TrainError, Trained, Trainer};
