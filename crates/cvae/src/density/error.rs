//! What can go wrong when a density is parsed, fitted, evaluated or restored.

use thiserror::Error;

use crate::MatrixError;

/// Why a density could not be made or used.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum DensityError {
    /// The codes are no matrix of finite values.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Codes of another latent size than the density's.
    #[error("the density is over {expected} latent dimensions, the codes have {found}")]
    WidthMismatch {
        /// Latent size of the density.
        expected: usize,
        /// Width of the codes.
        found: usize,
    },
    /// The text names no density.
    #[error("unknown density `{text}`: expected prior, gaussian, gmm:K, gmm:auto, gmm-diag:K, gmm-diag:auto or flow")]
    UnknownSpec {
        /// The text.
        text: String,
    },
    /// Too few codes to fit what was asked for.
    #[error("{rows} codes are too few: at least {needed} are needed")]
    TooFewRows {
        /// Smallest number of codes that works.
        needed: usize,
        /// Number of codes given.
        rows: usize,
    },
    /// A temperature that is negative or not finite.
    #[error("the temperature must be zero or positive and finite, not {0}")]
    Temperature(f64),
    /// An option outside its range.
    #[error("the option `{name}` must be {range}")]
    Option {
        /// Field of the options.
        name: &'static str,
        /// The values it may have.
        range: &'static str,
    },
    /// A covariance could not be factorised.
    #[error("the covariance of component {component} could not be factorised")]
    Factorization {
        /// Index of the component.
        component: usize,
    },
    /// A stored density is inconsistent.
    #[error("the stored density is invalid: {0}")]
    Stored(&'static str),
}
