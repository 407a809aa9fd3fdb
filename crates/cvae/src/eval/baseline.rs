//! What a model's figures are to be compared with.

use cvae_core::{Backend, Entry};
use cvae_data::Dataset;
use serde::Serialize;

use super::{EvalError, Seen, apply, label_figures};
use crate::Matrix;
use crate::autoencoder::{Autoencoder, ModelError};
use crate::metrics::{self, Pca};

/// Figures of one thing to compare with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Baseline {
    /// Mean squared error of the reconstructions, on scaled features.
    pub mse: f64,
    /// Accuracy of the five nearest training codes' vote, where there are labels.
    pub knn5: Option<f64>,
    /// Accuracy of logistic regression on the codes, where there are labels.
    pub linear_probe: Option<f64>,
}

/// What a model has to beat.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Baselines {
    /// Principal components of the training rows, as many as the code has dimensions.
    pub pca: Baseline,
    /// The same network with the parameters that training began with.
    pub untrained: Baseline,
}

/// Measures principal components and the untrained network on the rows `test`, as [`evaluate`](super::evaluate)
/// measures the model. The untrained network runs on `backend`.
///
/// # Errors
/// As [`evaluate`](super::evaluate).
pub fn baselines(
    model: &Autoencoder,
    backend: &dyn Backend,
    train: &Dataset,
    test: &Dataset,
) -> Result<Baselines, EvalError> {
    let (width, latent) = (model.width(), model.latent());
    for data in [train, test] {
        data.expect_width(width).map_err(ModelError::from)?;
    }
    let (train_rows, test_rows) = (Seen::of(model, train)?.rows, Seen::of(model, test)?.rows);
    let baseline = |train_codes: &[f32], test_codes: &[f32], latent: usize, mse: f64| -> Result<Baseline, EvalError> {
        let train_codes = (Matrix::new(train_codes, latent)?, train.labels());
        let test_codes = (Matrix::new(test_codes, latent)?, test.labels());
        let (knn5, linear_probe) = label_figures(train_codes, test_codes)?;
        Ok(Baseline { mse, knn5, linear_probe })
    };

    let (train_matrix, test_matrix) = (Matrix::new(&train_rows, width)?, Matrix::new(&test_rows, width)?);
    let components = latent.min(width);
    let pca = Pca::fit(train_matrix, components)?;
    // As many components as features reconstruct every row.
    let mse = if components < width { pca.mse(test_matrix)? } else { 0.0 };
    let pca = baseline(&pca.transform(train_matrix)?, &pca.transform(test_matrix)?, components, mse)?;

    let untrained = model.untrained(backend)?;
    let reconstructed = apply(&untrained, Entry::Reconstruct, &test_rows)?;
    let mse = metrics::mse(test_matrix, Matrix::new(&reconstructed, width)?)?;
    let train_codes = apply(&untrained, Entry::Encode, &train_rows)?;
    let test_codes = apply(&untrained, Entry::Encode, &test_rows)?;
    let untrained = baseline(&train_codes, &test_codes, latent, mse)?;
    Ok(Baselines { pca, untrained })
}
