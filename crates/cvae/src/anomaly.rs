//! Finding abnormal rows with a trained model: fit on held-out rows, score, predict, explain.

use cvae_core::Entry;
use cvae_data::Dataset;
use thiserror::Error;

use crate::autoencoder::{Autoencoder, ModelError};
use crate::density::{Components, Covariance, DensitySpec, FitOptions};
use crate::metrics::ImageShape;
use crate::scoring::{
    CalibrationKind, Detector, DetectorOptions, FeatureShare, Neighbors, Observed, ScoreError, Term,
    conformal_threshold,
};
use crate::{Matrix, MatrixError};

/// Rows applied to the model at a time.
const BLOCK_ROWS: usize = 4096;

/// What an [`AnomalyDetector`] is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct AnomalyOptions {
    /// The scores to add up. One alone keeps its own units; several are calibrated first.
    pub terms: Vec<Term>,
    /// The density of [`Term::Density`], fitted to the codes of the training rows.
    pub density: DensitySpec,
    /// Neighbours of [`Term::Neighbors`] among the codes of the training rows.
    pub neighbors: usize,
    /// Probability at most with which a row like the held-out ones is flagged; strictly between 0 and 1. Without
    /// it rows are scored and not judged.
    pub false_positive_rate: Option<f64>,
}

impl Default for AnomalyOptions {
    /// The mean squared reconstruction error without a threshold; a mixture of five Gaussians where a density is
    /// asked for, and five neighbours where neighbours are.
    fn default() -> Self {
        Self {
            terms: vec![Term::Reconstruction],
            density: DensitySpec::Gmm { components: Components::Fixed(5), covariance: Covariance::Full },
            neighbors: Neighbors::DEFAULT_COUNT,
            false_positive_rate: None,
        }
    }
}

/// Why rows could not be judged.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AnomalyError {
    /// The model could not be applied.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The scores could not be fitted or computed.
    #[error(transparent)]
    Score(#[from] ScoreError),
    /// There are no held-out rows for what must be fitted on them.
    #[error("held-out rows are needed for {0}")]
    NoHeldOut(&'static str),
}

impl From<MatrixError> for AnomalyError {
    fn from(error: MatrixError) -> Self {
        Self::Score(error.into())
    }
}

/// Judges rows by a trained model: [`fit`](AnomalyDetector::fit), [`score`](AnomalyDetector::score),
/// [`predict`](AnomalyDetector::predict), [`explain`](AnomalyDetector::explain).
///
/// Errors are measured on scaled features, as the model sees them, so that a feature's units do not weigh.
///
/// ```
/// use cvae::{AnomalyDetector, AnomalyOptions, Config, Trainer};
/// use cvae_data::LoadOptions;
///
/// let config = Config { epochs: 5, ..Config::digits() };
/// let rows = config.load_rows(&LoadOptions::default())?;
/// let model = Trainer::new(config).fit(&rows.train)?.model;
/// let test = rows.test.ok_or("no test rows")?;
/// let options = AnomalyOptions { false_positive_rate: Some(0.05), ..AnomalyOptions::default() };
/// let detector = AnomalyDetector::fit(&model, &rows.train, Some(&test), &options)?;
/// assert_eq!(detector.predict(&[0.9; 64])?, [true]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AnomalyDetector<'m> {
    model: &'m Autoencoder,
    detector: Detector,
    threshold: Option<Threshold>,
}

/// A threshold with the share of normal rows above it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// Rows with a higher score are flagged.
    pub score: f64,
    /// Probability at most with which a row like the held-out ones is flagged.
    pub false_positive_rate: f64,
    /// Held-out rows it was set from.
    pub rows: usize,
}

impl<'m> AnomalyDetector<'m> {
    /// A detector by mean squared reconstruction error, which needs no rows to be fitted, without a threshold.
    pub fn of_reconstruction(model: &'m Autoencoder) -> Self {
        Self { model, detector: Detector::of_reconstruction(), threshold: None }
    }

    /// Fits what `options` ask for. Terms of the code are fitted to the codes of `train`, the rows the model was
    /// trained on. Scales, calibration and threshold are fitted to `held_out` rows, which the model was not
    /// trained on: where both scales or calibration and a threshold are asked for, to every other one of them
    /// each, because a threshold holds only for scores that were fixed before.
    ///
    /// # Errors
    /// [`AnomalyError::NoHeldOut`] where rows are needed and there are none, rows that do not fit the model, and
    /// whatever [`Detector::fit`] and [`conformal_threshold`] refuse.
    pub fn fit(
        model: &'m Autoencoder,
        train: &Dataset,
        held_out: Option<&Dataset>,
        options: &AnomalyOptions,
    ) -> Result<Self, AnomalyError> {
        let single = options.terms.len() == 1;
        let of_residuals = |term: &Term| matches!(term, Term::StandardizedResidual | Term::SmoothResidual);
        let calibration = if single { CalibrationKind::None } else { CalibrationKind::Standard };
        let fits_held_out = !single || options.terms.iter().any(of_residuals);
        if held_out.is_none() && (fits_held_out || options.false_positive_rate.is_some()) {
            return Err(AnomalyError::NoHeldOut(if fits_held_out { "these terms" } else { "a threshold" }));
        }
        let shares = match (held_out, options.false_positive_rate) {
            (Some(rows), Some(_)) if fits_held_out => Some(halves(rows)?),
            _ => None,
        };
        let (to_fit, to_judge) = match &shares {
            Some((even, odd)) => (Some(even), Some(odd)),
            None => (held_out, held_out),
        };
        // Terms that fit nothing to held-out rows do not look at them: any row will do.
        let calibrated = match to_fit.filter(|_| fits_held_out) {
            Some(rows) => Observation::of(model, rows)?,
            None => Observation::of(model, &train.select(&[0]).map_err(ModelError::from)?)?,
        };
        let of_codes = |term: &Term| matches!(term, Term::Mahalanobis | Term::Density | Term::Neighbors);
        let needs_codes = options.terms.iter().any(of_codes);
        let codes = if needs_codes { Some(model.encode_dataset(train)?) } else { None };
        let codes = codes.as_ref().map(|codes| Matrix::new(codes, model.latent())).transpose()?;
        let image = train.image_shape().map(|shape| ImageShape {
            height: shape.height,
            width: shape.width,
            channels: shape.channels,
        });
        let detector = Detector::fit(
            codes,
            calibrated.observed()?,
            &DetectorOptions {
                terms: options.terms.clone(),
                calibration,
                density: options.density,
                fit: FitOptions::default(),
                neighbors: options.neighbors,
                image,
            },
        )?;
        let mut fitted = Self { model, detector, threshold: None };
        if let (Some(rows), Some(false_positive_rate)) = (to_judge, options.false_positive_rate) {
            let mut scores = Vec::with_capacity(rows.rows());
            for block in blocks(model, rows)? {
                scores.extend(fitted.score(&block?)?);
            }
            let score = conformal_threshold(&scores, false_positive_rate)?;
            fitted.threshold = Some(Threshold { score, false_positive_rate, rows: scores.len() });
        }
        Ok(fitted)
    }

    /// How abnormal each row is; higher is more abnormal. With [`Term::Reconstruction`] alone this is
    /// [`Autoencoder::score`].
    ///
    /// # Errors
    /// As [`Autoencoder::encode`]; also a reconstruction that is not finite.
    pub fn score(&self, rows: &[f32]) -> Result<Vec<f64>, AnomalyError> {
        Ok(self.detector.score_samples(Observation::new(self.model, rows)?.observed()?)?)
    }

    /// How normal each row is: [`score`](Self::score) negated, after scikit-learn's method of this name.
    ///
    /// # Errors
    /// As [`score`](Self::score).
    pub fn score_samples(&self, rows: &[f32]) -> Result<Vec<f64>, AnomalyError> {
        Ok(self.score(rows)?.into_iter().map(|score| -score).collect())
    }

    /// Whether each row's score is above the threshold.
    ///
    /// # Errors
    /// [`ScoreError::NoThreshold`] without one, else as [`score`](Self::score).
    pub fn predict(&self, rows: &[f32]) -> Result<Vec<bool>, AnomalyError> {
        let threshold = self.threshold.ok_or(ScoreError::NoThreshold)?.score;
        Ok(self.score(rows)?.into_iter().map(|score| score > threshold).collect())
    }

    /// For every row, the `count` features with the largest part in its residual.
    ///
    /// # Errors
    /// [`ScoreError::NoResidual`] without a term that compares reconstructions, else as [`score`](Self::score).
    pub fn explain(&self, rows: &[f32], count: usize) -> Result<Vec<Vec<FeatureShare>>, AnomalyError> {
        Ok(self.detector.explain(Observation::new(self.model, rows)?.observed()?, count)?)
    }

    /// The threshold, where a false-positive rate was asked for.
    pub fn threshold(&self) -> Option<Threshold> {
        self.threshold
    }
}

/// Every other row, from the first and from the second on.
fn halves(rows: &Dataset) -> Result<(Dataset, Dataset), ModelError> {
    let count = rows.rows() as u32;
    let half = |first: u32| -> Result<Dataset, ModelError> {
        let picked: Vec<u32> = (first..count).step_by(2).collect();
        match picked.is_empty() {
            true => Err(ModelError::NoRows),
            false => Ok(rows.select(&picked)?),
        }
    };
    Ok((half(0)?, half(1)?))
}

/// The rows of a data set in blocks, once their width is known to be the model's.
fn blocks<'a>(
    model: &Autoencoder,
    rows: &'a Dataset,
) -> Result<impl Iterator<Item = Result<Vec<f32>, ModelError>> + 'a, ModelError> {
    rows.expect_width(model.width())?;
    Ok((0..rows.rows()).step_by(BLOCK_ROWS).map(move |start| {
        let mut block = Vec::new();
        rows.copy_rows(start..rows.rows().min(start + BLOCK_ROWS), &mut block)?;
        Ok(block)
    }))
}

/// Rows in the model's scale with what the model makes of them.
struct Observation {
    width: usize,
    latent: usize,
    input: Vec<f32>,
    reconstruction: Vec<f32>,
    codes: Vec<f32>,
}

impl Observation {
    fn new(model: &Autoencoder, rows: &[f32]) -> Result<Self, ModelError> {
        let mut input = model.scale(rows)?;
        let codes = model.infer(Entry::Encode, &input)?;
        let reconstruction = model.infer(Entry::Decode, &codes)?;
        // A missing value adds no error.
        for (value, other) in input.iter_mut().zip(&reconstruction).filter(|(value, _)| value.is_nan()) {
            *value = *other;
        }
        Ok(Self { width: model.width(), latent: model.latent(), input, reconstruction, codes })
    }

    /// The rows of a data set.
    fn of(model: &Autoencoder, rows: &Dataset) -> Result<Self, ModelError> {
        let mut all =
            Self { width: model.width(), latent: model.latent(), input: vec![], reconstruction: vec![], codes: vec![] };
        for block in blocks(model, rows)? {
            let part = Self::new(model, &block?)?;
            all.input.extend(part.input);
            all.reconstruction.extend(part.reconstruction);
            all.codes.extend(part.codes);
        }
        Ok(all)
    }

    fn observed(&self) -> Result<Observed<'_>, AnomalyError> {
        let input = Matrix::new(&self.input, self.width)?;
        let reconstruction = Matrix::new(&self.reconstruction, self.width)?;
        Ok(Observed::new(input, reconstruction, Matrix::new(&self.codes, self.latent)?)?)
    }
}
