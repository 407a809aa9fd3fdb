//! How good a trained model is, on rows it was not trained on.

mod baseline;
mod generation;

use cvae_core::Entry;
use cvae_data::{Dataset, Scaling};
use serde::Serialize;
use thiserror::Error;

use crate::autoencoder::{Autoencoder, ModelError};
use crate::density::DensityError;
use crate::metrics::{self, ImageShape, LinearProbe, MetricError, Pca};
use crate::{Matrix, MatrixError};

pub use baseline::{Baseline, Baselines, baselines};
pub use generation::{Features, Generated, Generation, generation};

/// Rows reconstructed at a time.
const BLOCK_ROWS: usize = 4096;
/// Neighbours that vote on a label.
const NEIGHBORS: usize = 5;
/// Smallest side of an image that the window of the structural similarity fits in.
const SSIM_SIDE: usize = 11;

/// Figures of a model on test rows.
///
/// Errors are computed on scaled features, as the model sees them, so that a feature's units do not weigh; a
/// model without scaling sees the units of the data.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Evaluation {
    /// Test rows.
    pub rows: usize,
    /// Mean squared error of the reconstructions over all elements.
    pub mse: f64,
    /// Mean squared error of the best linear model of the same latent size: principal components of the
    /// training rows.
    pub pca_mse: f64,
    /// Peak signal-to-noise ratio of the mean squared error, in decibels. The peak is [`Evaluation::peak`].
    /// Absent for an exact reconstruction.
    pub psnr: Option<f64>,
    /// Largest difference of two values: 1 for images in \[0, 1\], else the range of the training rows.
    pub peak: f64,
    /// Share of variance explained. Absent for test rows without variance.
    pub r2: Option<f64>,
    /// Root mean square of the codes' elements; 1 in expectation under the prior.
    pub latent_rms: f64,
    /// Latent dimensions whose variance over the test rows exceeds 0.01; depends on their scale.
    pub active_units: usize,
    /// Effective rank of the codes' covariance; does not depend on their scale.
    pub effective_rank: f64,
    /// Accuracy of the five nearest training codes' vote, where there are labels.
    pub knn5: Option<f64>,
    /// Accuracy of logistic regression on the codes, where there are labels.
    pub linear_probe: Option<f64>,
    /// Mean structural similarity, where rows are images of at least 11 × 11 pixels with values of known
    /// range.
    pub ssim: Option<f64>,
}

/// Why a model could not be evaluated.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The model could not be applied.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A figure could not be computed.
    #[error(transparent)]
    Metric(#[from] MetricError),
    /// A density could not be evaluated or sampled.
    #[error(transparent)]
    Density(#[from] DensityError),
}

impl From<MatrixError> for EvalError {
    fn from(error: MatrixError) -> Self {
        Self::Metric(error.into())
    }
}

/// Evaluates `model` on the rows `test`. The rows `train` it was trained on serve the figures that are fitted:
/// principal components, neighbours, the probe. Labels are used where both have them. The model's error is that of
/// the values that are not missing; whatever needs whole rows sees them as the model completes them.
///
/// # Errors
/// Rows that do not fit the model, codes that are not finite, or a failed device.
pub fn evaluate(model: &Autoencoder, train: &Dataset, test: &Dataset) -> Result<Evaluation, EvalError> {
    let (width, latent) = (model.width(), model.latent());
    for data in [train, test] {
        data.expect_width(width).map_err(ModelError::from)?;
    }
    let (seen_train, seen_test) = (Seen::of(model, train)?, Seen::of(model, test)?);
    let train_rows = Matrix::new(&seen_train.rows, width)?;
    let test_rows = Matrix::new(&seen_test.rows, width)?;
    let reconstructed = Matrix::new(&seen_test.reconstructed, width)?;
    let train_codes = Matrix::new(&seen_train.codes, latent)?;
    let test_codes = Matrix::new(&seen_test.codes, latent)?;

    let mse = metrics::mse(test_rows, reconstructed)? / seen_test.observed;
    // As many components as features reconstruct every row.
    let pca_mse = if latent < width { Pca::fit(train_rows, latent)?.mse(test_rows)? } else { 0.0 };
    let peak = peak(model, train, train_rows);
    let (knn5, linear_probe) = label_figures((train_codes, train.labels()), (test_codes, test.labels()))?;
    let image = test.image_shape().filter(|shape| {
        shape.height >= SSIM_SIDE && shape.width >= SSIM_SIDE && model.scaling().kind() == Scaling::None
    });
    let ssim = match image {
        Some(shape) if peak > 0.0 => {
            let shape = ImageShape { height: shape.height, width: shape.width, channels: shape.channels };
            Some(metrics::ssim(test_rows, reconstructed, shape, peak)?)
        }
        _ => None,
    };
    let finite = |value: f64| value.is_finite().then_some(value);
    Ok(Evaluation {
        rows: test_rows.rows(),
        mse,
        pca_mse,
        psnr: if peak > 0.0 { finite(metrics::psnr(test_rows, reconstructed, peak)?) } else { None },
        peak,
        r2: finite(metrics::r2(test_rows, reconstructed)?),
        latent_rms: metrics::latent_rms(test_codes),
        active_units: metrics::active_units(test_codes),
        effective_rank: metrics::effective_rank(test_codes)?,
        knn5,
        linear_probe,
        ssim,
    })
}

/// Rows with what a model makes of them, all on scaled features.
struct Seen {
    /// Missing values are replaced by the model's reconstruction, so that they add no error.
    rows: Vec<f32>,
    codes: Vec<f32>,
    reconstructed: Vec<f32>,
    /// Share of the values that are not missing.
    observed: f64,
}

impl Seen {
    fn of(model: &Autoencoder, data: &Dataset) -> Result<Self, ModelError> {
        let mut rows = model.scale(&data.to_f32())?;
        let codes = apply(model, Entry::Encode, &rows)?;
        let reconstructed = apply(model, Entry::Decode, &codes)?;
        let mut missing = 0usize;
        for (value, other) in rows.iter_mut().zip(&reconstructed).filter(|(value, _)| value.is_nan()) {
            *value = *other;
            missing += 1;
        }
        let observed = (rows.len() - missing).max(1) as f64 / rows.len() as f64;
        Ok(Self { rows, codes, reconstructed, observed })
    }
}

/// Applies an entry to scaled rows or codes, block by block.
fn apply(model: &Autoencoder, entry: Entry, input: &[f32]) -> Result<Vec<f32>, ModelError> {
    let (from, _) = entry.widths(model.plan());
    let blocks = input.chunks(BLOCK_ROWS * from).map(|block| model.infer(entry, block));
    Ok(blocks.collect::<Result<Vec<_>, _>>()?.concat())
}

/// What codes know about labels: the accuracy of five neighbours' vote and of a linear probe, where there are labels.
fn label_figures(
    (train_codes, train_labels): (Matrix<'_>, Option<&[u32]>),
    (test_codes, test_labels): (Matrix<'_>, Option<&[u32]>),
) -> Result<(Option<f64>, Option<f64>), MetricError> {
    let (mut knn5, mut linear_probe) = (None, None);
    if let (Some(train_labels), Some(test_labels)) = (train_labels, test_labels) {
        if train_codes.rows() >= NEIGHBORS {
            knn5 = Some(metrics::knn_accuracy(train_codes, train_labels, test_codes, test_labels, NEIGHBORS)?);
        }
        if train_labels.iter().any(|label| *label != train_labels[0]) {
            linear_probe = Some(LinearProbe::fit(train_codes, train_labels)?.accuracy(test_codes, test_labels)?);
        }
    }
    Ok((knn5, linear_probe))
}

/// The range of values: 1 for unscaled images in [0, 1], else that of the training rows.
fn peak(model: &Autoencoder, train: &Dataset, rows: Matrix<'_>) -> f64 {
    let widen = |(low, high): (f32, f32), value: &f32| (low.min(*value), high.max(*value));
    let (low, high) = rows.values().iter().fold((f32::INFINITY, f32::NEG_INFINITY), widen);
    let image = train.image_shape().is_some() && model.scaling().kind() == Scaling::None;
    if image && low >= 0.0 && high <= 1.0 { 1.0 } else { f64::from(high) - f64::from(low) }
}
