//! What can go wrong when a model is applied.

use cvae_core::{CompileError, RunError};
use cvae_data::{DataError, ScalingError};
use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::config::ConfigError;
use crate::density::{DensityError, DensitySpec};

/// A model that cannot be loaded, applied or saved.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The values are not whole rows.
    #[error("{values} values are not a whole number of rows of width {width}")]
    Rows {
        /// Values given.
        values: usize,
        /// Width of a row, or of a code.
        width: usize,
    },
    /// There are no rows.
    #[error("there are no rows")]
    NoRows,
    /// A value is NaN or infinite.
    #[error("the value at row {row}, column {column} (counted from 0) is not finite")]
    NonFinite {
        /// Row, from 0.
        row: usize,
        /// Column, from 0.
        column: usize,
    },
    /// The result is too large for this machine to address.
    #[error("{rows} rows of width {width} are more than this machine can address")]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Width of a row.
        width: usize,
    },
    /// Samples were asked of a density that has not been fitted.
    #[error("the density `{spec}` has not been fitted to the codes of this model")]
    NoDensity {
        /// The density.
        spec: DensitySpec,
    },
    /// A density could not be fitted or sampled.
    #[error(transparent)]
    Density(#[from] DensityError),
    /// The spread of the codes, or of their moves, is not finite.
    #[error("the codes cannot be aligned: their spread is not a finite number")]
    Unaligned,
    /// The configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The backend cannot run the model.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The backend failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The feature scaling does not fit the rows.
    #[error(transparent)]
    Scaling(#[from] ScalingError),
    /// The model cannot be frozen.
    #[cfg(feature = "cpu")]
    #[error(transparent)]
    Freeze(#[from] cvae_cpu::FreezeError),
    /// A frozen model on another backend than the CPU's.
    #[error("`{name}` cannot run a frozen model: that takes a CPU backend")]
    FrozenBackend {
        /// The backend asked for.
        name: String,
    },
    /// A file of the run cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}
