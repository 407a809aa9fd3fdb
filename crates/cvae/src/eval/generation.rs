//! How like the data reconstructions and samples are.

use cvae_core::Entry;
use cvae_data::{Dataset, ImageShape, Scaling};
use serde::Serialize;

use super::{EvalError, Seen, apply};
use crate::Matrix;
use crate::autoencoder::{Autoencoder, ModelError};
use crate::density::{Density, DensitySpec};
use crate::metrics::{Classifier, MetricError, Moments, PrecisionRecall, frechet_distance};

/// Samples drawn from each density.
const SAMPLES: usize = 10_000;
/// Key of the samples.
const SEED: u64 = 0;
/// Neighbours that make a ball of the manifold.
const NEIGHBORS: usize = 3;
/// Rows at most of either side whose manifolds are compared: the work grows with their square.
const MANIFOLD_ROWS: usize = 3000;
/// Rows at least, of either side, for moments and manifolds to mean anything.
const FEWEST_ROWS: usize = 32;

/// Where rows are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Features {
    /// The last hidden layer of [`Classifier::fashion_mnist`]: for unscaled images of 28 × 28 grey pixels.
    Classifier,
    /// The scaled features themselves.
    Raw,
}

impl Features {
    /// The features that rows like these are compared in.
    pub fn of(shape: Option<ImageShape>, scaling: Scaling) -> Self {
        let clothes = ImageShape { height: 28, width: 28, channels: 1 };
        match shape == Some(clothes) && scaling == Scaling::None {
            true => Self::Classifier,
            false => Self::Raw,
        }
    }

    /// Rows in these features, with their width.
    ///
    /// # Errors
    /// Rows of another width than the classifier's, or weights that are damaged.
    pub fn apply(self, rows: Matrix<'_>) -> Result<(Vec<f32>, usize), MetricError> {
        match self {
            Self::Raw => Ok((rows.values().to_vec(), rows.width())),
            Self::Classifier => {
                let classifier = Classifier::fashion_mnist()?;
                Ok((classifier.features(rows)?, classifier.feature_width()))
            }
        }
    }
}

/// How like the test rows the rows of one density are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Generated {
    /// The density the codes were drawn from.
    pub density: DensitySpec,
    /// Whether held-out codes chose its number of components: see [`Density::is_automatic`].
    pub automatic: bool,
    /// Mean log-density of the test rows' codes, in nats: held-out rows, if the test rows are.
    pub log_likelihood: f64,
    /// Fréchet distance of the samples from the test rows; smaller is better.
    pub frechet: f64,
    /// Share of samples inside the test rows' manifold.
    pub precision: f64,
    /// Share of test rows inside the samples' manifold.
    pub recall: f64,
}

/// Figures of [`generation`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Generation {
    /// What rows are compared in.
    pub features: Features,
    /// Fréchet distance of the reconstructions from the test rows.
    pub reconstructions: f64,
    /// The prior, then every density that was fitted to the model's codes.
    pub densities: Vec<Generated>,
}

/// Compares reconstructions and 10 000 samples of the prior and of each fitted density with the rows `test`, in the
/// [`Features`] that suit them. Precision and recall are those of three neighbours and of equally many rows of either
/// side, at most 3000. There is nothing to compare with fewer than 32 test rows.
///
/// # Errors
/// Rows that do not fit the model, codes or rows that are not finite, or a failed device.
pub fn generation(model: &Autoencoder, test: &Dataset) -> Result<Option<Generation>, EvalError> {
    test.expect_width(model.width()).map_err(ModelError::from)?;
    if test.rows() < FEWEST_ROWS {
        return Ok(None);
    }
    let features = Features::of(test.image_shape(), model.scaling().kind());
    let width = model.width();
    let seen = Seen::of(model, test)?;
    let codes = Matrix::new(&seen.codes, model.latent())?;
    let (data, feature_width) = features.apply(Matrix::new(&seen.rows, width)?)?;
    let data = Matrix::new(&data, feature_width)?;
    let moments = Moments::fit(data)?;
    let (reconstructed, _) = features.apply(Matrix::new(&seen.reconstructed, width)?)?;
    let reconstructions = frechet_distance(&Moments::fit(Matrix::new(&reconstructed, feature_width)?)?, &moments)?;

    let prior = Density::prior(model.latent())?;
    let measure = |density: &Density| -> Result<Generated, EvalError> {
        let decoded = apply(model, Entry::Decode, &density.sample(SAMPLES, SEED, 1.0)?)?;
        let (samples, _) = features.apply(Matrix::new(&decoded, width)?)?;
        let samples = Matrix::new(&samples, feature_width)?;
        let count = data.rows().min(MANIFOLD_ROWS);
        let manifolds = PrecisionRecall::between(first(data, count)?, first(samples, count)?, NEIGHBORS)?;
        Ok(Generated {
            density: density.spec(),
            automatic: density.is_automatic(),
            log_likelihood: density.mean_log_prob(codes)?,
            frechet: frechet_distance(&Moments::fit(samples)?, &moments)?,
            precision: manifolds.precision,
            recall: manifolds.recall,
        })
    };
    let densities = std::iter::once(&prior).chain(model.densities()).map(measure).collect::<Result<_, _>>()?;
    Ok(Some(Generation { features, reconstructions, densities }))
}

/// The first rows.
fn first(rows: Matrix<'_>, count: usize) -> Result<Matrix<'_>, EvalError> {
    Ok(Matrix::new(&rows.values()[..count * rows.width()], rows.width())?)
}
