//! What can go wrong when rows are scored.

use thiserror::Error;

use crate::MatrixError;
use crate::density::DensityError;
use crate::metrics::MetricError;

/// Why rows could not be scored.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ScoreError {
    /// An input is no matrix of finite values.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Inputs do not fit together.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A density could not be fitted or evaluated.
    #[error(transparent)]
    Density(#[from] DensityError),
    /// A false-positive rate that is not strictly between 0 and 1.
    #[error("the false-positive rate must be strictly between 0 and 1, not {0}")]
    Rate(f64),
    /// Too few held-out scores for the false-positive rate.
    #[error("{scores} held-out scores are too few for that false-positive rate: at least {needed} are needed")]
    TooFewScores {
        /// Smallest number that works.
        needed: usize,
        /// Number of scores given.
        scores: usize,
    },
    /// No term to score with.
    #[error("at least one scoring term is needed")]
    NoTerm,
    /// There are no training codes for a term that needs them.
    #[error("the term `{0}` needs training codes")]
    NoCodes(&'static str),
    /// The rows are no images, for a term that needs them to be.
    #[error("the term `{0}` needs rows that are images")]
    NoImage(&'static str),
    /// The detector has no threshold yet.
    #[error("the detector has no threshold: set one from held-out rows first")]
    NoThreshold,
    /// Feature explanations of a detector without a residual term.
    #[error("features can be explained only by a term that compares reconstructions")]
    NoResidual,
    /// A stored detector is inconsistent.
    #[error("the stored detector is invalid: {0}")]
    Stored(&'static str),
}
