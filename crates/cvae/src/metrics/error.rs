//! What can be wrong with the input of a metric.

use thiserror::Error;

use crate::{Matrix, MatrixError};

/// Why a metric could not be computed.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum MetricError {
    /// An input is no matrix of finite values.
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    /// Two inputs that must have the same shape do not.
    #[error("expected {expected_rows} rows of width {expected_width}, found {rows} of width {width}")]
    ShapeMismatch {
        /// Rows of the first input.
        expected_rows: usize,
        /// Width of the first input.
        expected_width: usize,
        /// Rows of the second input.
        rows: usize,
        /// Width of the second input.
        width: usize,
    },
    /// Rows of another width than the ones seen before.
    #[error("expected rows of width {expected}, found width {found}")]
    WidthMismatch {
        /// Width fitted on, or of the first input.
        expected: usize,
        /// Width given.
        found: usize,
    },
    /// There is not exactly one label a row.
    #[error("{rows} rows have {labels} labels")]
    LabelCount {
        /// Number of rows.
        rows: usize,
        /// Number of labels.
        labels: usize,
    },
    /// All labels are the same, so that there is nothing to tell apart.
    #[error("the labels have one class only")]
    SingleClass,
    /// Too few rows for the quantity to be defined.
    #[error("{rows} rows are too few: at least {needed} are needed")]
    TooFewRows {
        /// Smallest number of rows that works.
        needed: usize,
        /// Number of rows given.
        rows: usize,
    },
    /// A number of neighbours outside 1 ..= max.
    #[error("{k} neighbours were asked for, 1 to {max} are possible")]
    NeighborCount {
        /// Number asked for.
        k: usize,
        /// Number of candidate rows.
        max: usize,
    },
    /// A number of principal components outside 1 ..= width.
    #[error("{components} principal components were asked for, 1 to {max} are possible")]
    ComponentCount {
        /// Number asked for.
        components: usize,
        /// Width of the rows.
        max: usize,
    },
    /// A number of random directions of zero.
    #[error("at least one direction is needed")]
    NoDirections,
    /// Rows are not images of the stated shape.
    #[error("rows of width {width} are no {height}x{image_width} images with {channels} channels")]
    ImageShape {
        /// Width of the rows.
        width: usize,
        /// Stated height of an image.
        height: usize,
        /// Stated width of an image.
        image_width: usize,
        /// Stated number of channels.
        channels: usize,
    },
    /// Images smaller than the window of the metric.
    #[error("{height}x{width} images are smaller than the {window}x{window} window")]
    ImageTooSmall {
        /// Height of an image.
        height: usize,
        /// Width of an image.
        width: usize,
        /// Side of the window.
        window: usize,
    },
    /// A parameter that must be positive and finite is not.
    #[error("the {name} must be positive and finite, not {value}")]
    NotPositive {
        /// The parameter.
        name: &'static str,
        /// Its value.
        value: f64,
    },
    /// A score is NaN or infinite.
    #[error("score {index} is not finite")]
    NonFiniteScore {
        /// Index of the first such score.
        index: usize,
    },
    /// The weights of a classifier cannot be used.
    #[error("the classifier's weights cannot be used: {0}")]
    Classifier(&'static str),
    /// An eigenvalue iteration did not converge.
    #[error("the eigenvalue iteration did not converge")]
    NoConvergence,
}

/// Checks that two matrices have the same shape.
pub(crate) fn same_shape(left: Matrix<'_>, right: Matrix<'_>) -> Result<(), MetricError> {
    if (left.rows(), left.width()) == (right.rows(), right.width()) {
        return Ok(());
    }
    Err(MetricError::ShapeMismatch {
        expected_rows: left.rows(),
        expected_width: left.width(),
        rows: right.rows(),
        width: right.width(),
    })
}

/// Checks that rows have the expected width.
pub(crate) fn same_width(expected: usize, found: usize) -> Result<(), MetricError> {
    if expected == found { Ok(()) } else { Err(MetricError::WidthMismatch { expected, found }) }
}

/// Checks that every row has one label.
pub(crate) fn labelled(matrix: Matrix<'_>, labels: &[u32]) -> Result<(), MetricError> {
    if matrix.rows() == labels.len() {
        return Ok(());
    }
    Err(MetricError::LabelCount { rows: matrix.rows(), labels: labels.len() })
}

/// Checks that there are at least `needed` rows.
pub(crate) fn at_least(needed: usize, rows: usize) -> Result<(), MetricError> {
    if rows >= needed { Ok(()) } else { Err(MetricError::TooFewRows { needed, rows }) }
}

/// Checks that a parameter is positive and finite.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<(), MetricError> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(MetricError::NotPositive { name, value }) }
}
