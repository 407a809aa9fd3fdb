//! How good a trained model is, on rows it was not trained on.

use cvae_core::Entry;
use cvae_data::{Dataset, Scaling};
use serde::Serialize;
use thiserror::Error;

use crate::autoencoder::{Autoencoder, ModelError};
use crate::metrics::{self, ImageShape, LinearProbe, MetricError, Pca};
use crate::{Matrix, MatrixError};

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
}

impl From<MatrixError> for EvalError {
    fn from(error: MatrixError) -> Self {
        Self::Metric(error.into())
    }
}

/// Evaluates `model` on the rows `test`. The rows `train` it was trained on serve the figures that are fitted:
/// principal components, neighbours, the probe. Labels are used where both have them.
///
/// # Errors
/// Rows that do not fit the model, codes that are not finite, or a failed device.
pub fn evaluate(model: &Autoencoder, train: &Dataset, test: &Dataset) -> Result<Evaluation, EvalError> {
    let (width, latent) = (model.width(), model.latent());
    for data in [train, test] {
        data.expect_width(width).map_err(ModelError::from)?;
    }
    let train_rows = model.scale(&train.to_f32())?;
    let test_rows = model.scale(&test.to_f32())?;
    let run = |entry, rows: &[f32]| -> Result<Vec<f32>, ModelError> {
        let blocks = rows.chunks(BLOCK_ROWS * width).map(|block| model.infer(entry, block));
        Ok(blocks.collect::<Result<Vec<_>, _>>()?.concat())
    };
    let reconstructed = run(Entry::Reconstruct, &test_rows)?;
    let train_codes = run(Entry::Encode, &train_rows)?;
    let test_codes = run(Entry::Encode, &test_rows)?;
    let train_rows = Matrix::new(&train_rows, width)?;
    let test_rows = Matrix::new(&test_rows, width)?;
    let reconstructed = Matrix::new(&reconstructed, width)?;
    let train_codes = Matrix::new(&train_codes, latent)?;
    let test_codes = Matrix::new(&test_codes, latent)?;

    let mse = metrics::mse(test_rows, reconstructed)?;
    // As many components as features reconstruct every row.
    let pca_mse = if latent < width { Pca::fit(train_rows, latent)?.mse(test_rows)? } else { 0.0 };
    let peak = peak(model, train, train_rows);
    let (mut knn5, mut linear_probe) = (None, None);
    if let (Some(train_labels), Some(test_labels)) = (train.labels(), test.labels()) {
        if train_codes.rows() >= NEIGHBORS {
            knn5 = Some(metrics::knn_accuracy(train_codes, train_labels, test_codes, test_labels, NEIGHBORS)?);
        }
        if train_labels.iter().any(|label| *label != train_labels[0]) {
            linear_probe = Some(LinearProbe::fit(train_codes, train_labels)?.accuracy(test_codes, test_labels)?);
        }
    }
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

/// The range of values: 1 for unscaled images in [0, 1], else that of the training rows.
fn peak(model: &Autoencoder, train: &Dataset, rows: Matrix<'_>) -> f64 {
    let widen = |(low, high): (f32, f32), value: &f32| (low.min(*value), high.max(*value));
    let (low, high) = rows.values().iter().fold((f32::INFINITY, f32::NEG_INFINITY), widen);
    let image = train.image_shape().is_some() && model.scaling().kind() == Scaling::None;
    if image && low >= 0.0 && high <= 1.0 { 1.0 } else { f64::from(high) - f64::from(low) }
}
