//! Several calibrated scores put together, with a threshold and explanations.

use serde::{Deserialize, Serialize};

use super::{
    Calibration, CalibrationKind, FeatureShare, Mahalanobis, Neighbors, ResidualScale, ScoreError, SmoothResidual,
    conformal_threshold, feature_errors, row_errors, top_features,
};
use crate::Matrix;
use crate::density::{Density, DensitySpec, FitOptions};
use crate::metrics::{ImageShape, MetricError, same_shape};

/// Rows with what a model made of them.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    input: Matrix<'a>,
    reconstruction: Matrix<'a>,
    codes: Matrix<'a>,
}

impl<'a> Observed<'a> {
    /// Puts rows, their reconstructions and their codes together.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Metric`] when the reconstructions have another shape than the rows, or the codes
    /// another number of rows.
    pub fn new(input: Matrix<'a>, reconstruction: Matrix<'a>, codes: Matrix<'a>) -> Result<Self, ScoreError> {
        same_shape(input, reconstruction)?;
        if input.rows() != codes.rows() {
            return Err(ScoreError::Metric(MetricError::ShapeMismatch {
                expected_rows: input.rows(),
                expected_width: codes.width(),
                rows: codes.rows(),
                width: codes.width(),
            }));
        }
        Ok(Self { input, reconstruction, codes })
    }
}

/// One way to score a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Term {
    /// Mean squared reconstruction error.
    Reconstruction,
    /// Reconstruction error with every feature divided by its usual squared error ([`ResidualScale`]).
    StandardizedResidual,
    /// The same of images whose residual was averaged over small windows first ([`SmoothResidual`]).
    SmoothResidual,
    /// Mahalanobis distance of the code from the training codes.
    Mahalanobis,
    /// Negative log-density of the code.
    Density,
    /// Mean distance of the code from the nearest training codes ([`Neighbors`]).
    Neighbors,
}

/// How a [`Detector`] is fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct DetectorOptions {
    /// The scores to add up, each once calibrated.
    pub terms: Vec<Term>,
    /// How each is calibrated.
    pub calibration: CalibrationKind,
    /// The density of [`Term::Density`].
    pub density: DensitySpec,
    /// How that density is fitted.
    pub fit: FitOptions,
    /// Neighbours of [`Term::Neighbors`].
    pub neighbors: usize,
    /// The shape of a row, for [`Term::SmoothResidual`].
    pub image: Option<ImageShape>,
}

/// A fitted anomaly detector: the sum of calibrated terms, with an optional threshold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Detector {
    terms: Vec<CalibratedTerm>,
    threshold: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct CalibratedTerm {
    term: FittedTerm,
    calibration: Calibration,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum FittedTerm {
    Reconstruction,
    StandardizedResidual(ResidualScale),
    SmoothResidual(SmoothResidual),
    Mahalanobis(Mahalanobis),
    Density(Density),
    Neighbors(Neighbors),
}

/// The stored form, before it is checked.
#[derive(Deserialize)]
struct Stored {
    terms: Vec<CalibratedTerm>,
    threshold: Option<f64>,
}

impl TryFrom<Stored> for Detector {
    type Error = ScoreError;

    fn try_from(stored: Stored) -> Result<Self, ScoreError> {
        if stored.terms.is_empty() {
            return Err(ScoreError::NoTerm);
        }
        if stored.threshold.is_some_and(|threshold| !threshold.is_finite()) {
            return Err(ScoreError::Stored("the threshold is not finite"));
        }
        Ok(Self { terms: stored.terms, threshold: stored.threshold })
    }
}

impl FittedTerm {
    fn fit(
        term: Term,
        train_codes: Option<Matrix<'_>>,
        held_out: Observed<'_>,
        options: &DetectorOptions,
    ) -> Result<Self, ScoreError> {
        let codes = |name| train_codes.ok_or(ScoreError::NoCodes(name));
        Ok(match term {
            Term::Reconstruction => Self::Reconstruction,
            Term::StandardizedResidual => {
                Self::StandardizedResidual(ResidualScale::fit(held_out.input, held_out.reconstruction)?)
            }
            Term::SmoothResidual => {
                let shape = options.image.ok_or(ScoreError::NoImage("smooth-residual"))?;
                Self::SmoothResidual(SmoothResidual::fit(shape, held_out.input, held_out.reconstruction)?)
            }
            Term::Mahalanobis => Self::Mahalanobis(Mahalanobis::fit(codes("mahalanobis")?)?),
            Term::Density => {
                let codes = codes("density")?;
                Self::Density(Density::fit(options.density, codes, None, &options.fit)?.density)
            }
            Term::Neighbors => Self::Neighbors(Neighbors::fit(codes("neighbors")?, options.neighbors)?),
        })
    }

    fn scores(&self, rows: Observed<'_>) -> Result<Vec<f64>, ScoreError> {
        match self {
            Self::Reconstruction => row_errors(rows.input, rows.reconstruction),
            Self::StandardizedResidual(scale) => scale.scores(rows.input, rows.reconstruction),
            Self::SmoothResidual(smooth) => smooth.scores(rows.input, rows.reconstruction),
            Self::Mahalanobis(mahalanobis) => mahalanobis.scores(rows.codes),
            Self::Density(density) => {
                Ok(density.log_prob(rows.codes)?.into_iter().map(|log_density| -log_density).collect())
            }
            Self::Neighbors(neighbors) => neighbors.scores(rows.codes),
        }
    }
}

impl Detector {
    /// [`Term::Reconstruction`] alone in its own units, which needs nothing to be fitted.
    pub fn of_reconstruction() -> Self {
        let part = CalibratedTerm { term: FittedTerm::Reconstruction, calibration: Calibration::None };
        Self { terms: vec![part], threshold: None }
    }

    /// Fits every term and calibrates it on `held_out` rows, which the model was not trained on. Terms of
    /// the code are fitted on `train_codes`.
    ///
    /// # Errors
    ///
    /// [`ScoreError::NoTerm`] without terms, [`ScoreError::NoCodes`] when a term needs training codes and
    /// there are none, and what fitting a term may return.
    pub fn fit(
        train_codes: Option<Matrix<'_>>,
        held_out: Observed<'_>,
        options: &DetectorOptions,
    ) -> Result<Self, ScoreError> {
        if options.terms.is_empty() {
            return Err(ScoreError::NoTerm);
        }
        let terms = options.terms.iter().map(|&term| {
            let term = FittedTerm::fit(term, train_codes, held_out, options)?;
            let calibration = Calibration::fit(options.calibration, &term.scores(held_out)?)?;
            Ok(CalibratedTerm { term, calibration })
        });
        Ok(Self { terms: terms.collect::<Result<_, ScoreError>>()?, threshold: None })
    }

    /// Score of every row, higher for more abnormal ones: the sum of the calibrated terms.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Metric`] or [`ScoreError::Density`] when widths are not the fitted ones.
    pub fn score_samples(&self, rows: Observed<'_>) -> Result<Vec<f64>, ScoreError> {
        let mut total = vec![0.0; rows.input.rows()];
        for CalibratedTerm { term, calibration } in &self.terms {
            let scores = term.scores(rows)?;
            total.iter_mut().zip(scores).for_each(|(total, score)| *total += calibration.apply(score));
        }
        Ok(total)
    }

    /// Sets the threshold from rows that served neither for training nor for [`fit`](Self::fit): a row
    /// like them is flagged with probability at most `rate` ([`conformal_threshold`]).
    ///
    /// # Errors
    ///
    /// As [`score_samples`](Self::score_samples) and [`conformal_threshold`].
    pub fn set_threshold(&mut self, held_out: Observed<'_>, rate: f64) -> Result<f64, ScoreError> {
        let threshold = conformal_threshold(&self.score_samples(held_out)?, rate)?;
        self.threshold = Some(threshold);
        Ok(threshold)
    }

    /// The threshold, where one was set.
    pub fn threshold(&self) -> Option<f64> {
        self.threshold
    }

    /// Whether each row's score is above the threshold.
    ///
    /// # Errors
    ///
    /// [`ScoreError::NoThreshold`] before [`set_threshold`](Self::set_threshold), else as
    /// [`score_samples`](Self::score_samples).
    pub fn predict(&self, rows: Observed<'_>) -> Result<Vec<bool>, ScoreError> {
        let threshold = self.threshold.ok_or(ScoreError::NoThreshold)?;
        Ok(self.score_samples(rows)?.into_iter().map(|score| score > threshold).collect())
    }

    /// For every row, the `count` features with the largest part in its residual: standardised where the
    /// detector has [`Term::StandardizedResidual`] or [`Term::SmoothResidual`], of which the first one named counts,
    /// plain where it has [`Term::Reconstruction`] alone.
    ///
    /// # Errors
    ///
    /// [`ScoreError::NoResidual`] when it has neither, [`ScoreError::Metric`] when widths differ.
    pub fn explain(&self, rows: Observed<'_>, count: usize) -> Result<Vec<Vec<FeatureShare>>, ScoreError> {
        let standardized = self.terms.iter().find_map(|part| match &part.term {
            FittedTerm::StandardizedResidual(scale) => Some(scale.contributions(rows.input, rows.reconstruction)),
            FittedTerm::SmoothResidual(smooth) => Some(smooth.contributions(rows.input, rows.reconstruction)),
            _ => None,
        });
        let contributions = match standardized {
            Some(contributions) => contributions?,
            None if self.terms.iter().any(|part| part.term == FittedTerm::Reconstruction) => {
                feature_errors(rows.input, rows.reconstruction)?
            }
            None => return Err(ScoreError::NoResidual),
        };
        Ok(contributions.chunks_exact(rows.input.width()).map(|row| top_features(row, count)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::density::{Components, Covariance};
    use crate::metrics::{Pca, auroc};
    use crate::random::{Purpose, normal_rows};

    /// Rows of width 6 near a plane; `shift` moves feature 4 off it, `stretch` widens the codes.
    fn rows(seed: u64, count: usize, shift: f32, stretch: f64) -> Vec<f32> {
        let noise = normal_rows(seed, Purpose::PriorRows, count, 8);
        noise
            .chunks_exact(8)
            .flat_map(|noise| {
                let (a, b) = (stretch * noise[6], stretch * noise[7]);
                let plane = [a, b, a + b, a - b, 0.5 * a, 2.0 * b];
                (0..6).map(move |column| {
                    let off = if column == 4 { shift } else { 0.0 };
                    (plane[column] + 0.1 * noise[column]) as f32 + off
                })
            })
            .collect()
    }

    /// PCA as the autoencoder: (reconstruction, codes).
    fn model(pca: &Pca, rows: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let codes = pca.transform(Matrix::new(rows, 6).unwrap()).unwrap();
        (pca.inverse_transform(Matrix::new(&codes, 2).unwrap()).unwrap(), codes)
    }

    fn observed<'a>(rows: &'a [f32], (reconstruction, codes): &'a (Vec<f32>, Vec<f32>)) -> Observed<'a> {
        let matrix = |values, width| Matrix::new(values, width).unwrap();
        Observed::new(matrix(rows, 6), matrix(reconstruction, 6), matrix(codes, 2)).unwrap()
    }

    fn options(terms: &[Term], calibration: CalibrationKind) -> DetectorOptions {
        DetectorOptions {
            terms: terms.to_vec(),
            calibration,
            density: DensitySpec::Gmm { components: Components::Fixed(2), covariance: Covariance::Full },
            fit: FitOptions::default(),
            neighbors: Neighbors::DEFAULT_COUNT,
            image: Some(ImageShape { height: 2, width: 3, channels: 1 }),
        }
    }

    const ALL: [Term; 6] = [
        Term::Reconstruction,
        Term::StandardizedResidual,
        Term::SmoothResidual,
        Term::Mahalanobis,
        Term::Density,
        Term::Neighbors,
    ];

    #[test]
    fn the_combination_sees_what_its_terms_see() {
        let train = rows(1, 1000, 0.0, 1.0);
        let pca = Pca::fit(Matrix::new(&train, 6).unwrap(), 2).unwrap();
        let (held, normal) = (rows(2, 1000, 0.0, 1.0), rows(3, 500, 0.0, 1.0));
        let (off_plane, far_out) = (rows(4, 500, 1.0, 1.0), rows(5, 500, 0.0, 6.0));
        let (train_codes, held_model, normal_model) = (model(&pca, &train).1, model(&pca, &held), model(&pca, &normal));
        let (off_model, far_model) = (model(&pca, &off_plane), model(&pca, &far_out));
        let separation = |terms: &[Term], kind, abnormal: Observed<'_>| {
            let codes = Matrix::new(&train_codes, 2).unwrap();
            let detector = Detector::fit(Some(codes), observed(&held, &held_model), &options(terms, kind)).unwrap();
            let mut scores = detector.score_samples(observed(&normal, &normal_model)).unwrap();
            scores.extend(detector.score_samples(abnormal).unwrap());
            let labels: Vec<bool> = (0..scores.len()).map(|row| row >= 500).collect();
            auroc(&scores, &labels).unwrap()
        };
        for kind in [CalibrationKind::Rank, CalibrationKind::Standard] {
            let (off, far) = (observed(&off_plane, &off_model), observed(&far_out, &far_model));
            for term in [Term::Reconstruction, Term::StandardizedResidual, Term::SmoothResidual] {
                assert!(separation(&[term], kind, off) > 0.99);
                assert!((separation(&[term], kind, far) - 0.5).abs() < 0.05, "codes alone are abnormal");
            }
            for term in [Term::Mahalanobis, Term::Density, Term::Neighbors] {
                assert!(separation(&[term], kind, far) > 0.9);
                assert!(separation(&[term], kind, off) < 0.7, "the residual alone is abnormal");
            }
            for of_codes in [Term::Density, Term::Neighbors] {
                let both = [Term::StandardizedResidual, of_codes];
                assert!(separation(&both, kind, off) > 0.95 && separation(&both, kind, far) > 0.85);
            }
        }
    }

    #[test]
    fn thresholds_flag_the_stated_share_and_explanations_name_the_feature() {
        let train = rows(1, 1000, 0.0, 1.0);
        let pca = Pca::fit(Matrix::new(&train, 6).unwrap(), 2).unwrap();
        let (calibrate, threshold, fresh) = (rows(2, 1000, 0.0, 1.0), rows(3, 2000, 0.0, 1.0), rows(4, 5000, 0.0, 1.0));
        let (calibrate_model, threshold_model, fresh_model) =
            (model(&pca, &calibrate), model(&pca, &threshold), model(&pca, &fresh));
        let codes = model(&pca, &train).1;
        let mut detector = Detector::fit(
            Some(Matrix::new(&codes, 2).unwrap()),
            observed(&calibrate, &calibrate_model),
            &options(&ALL, CalibrationKind::Standard),
        )
        .unwrap();
        assert_eq!(detector.predict(observed(&fresh, &fresh_model)), Err(ScoreError::NoThreshold));
        let value = detector.set_threshold(observed(&threshold, &threshold_model), 0.05).unwrap();
        assert_eq!(detector.threshold(), Some(value));
        let flagged = detector.predict(observed(&fresh, &fresh_model)).unwrap();
        let share = flagged.iter().filter(|&&flag| flag).count() as f64 / 5000.0;
        // Deviation of the held-out quantile and of the fresh rows: √(0.05·0.95·(1/2000 + 1/5000)) < 0.006.
        assert!((share - 0.05).abs() < 0.02, "{share}");

        let abnormal = rows(5, 20, 3.0, 1.0);
        let abnormal_model = model(&pca, &abnormal);
        for explanation in detector.explain(observed(&abnormal, &abnormal_model), 2).unwrap() {
            assert_eq!(explanation.len(), 2);
            assert_eq!(explanation[0].feature, 4);
            assert!(explanation[0].share > 0.5);
        }

        let json = serde_json::to_string(&detector).unwrap();
        let back: Detector = serde_json::from_str(&json).unwrap();
        assert_eq!(back, detector);
        assert_eq!(back.predict(observed(&fresh, &fresh_model)).unwrap(), flagged);
    }

    #[test]
    fn bad_input_is_an_error() {
        let values = rows(1, 50, 0.0, 1.0);
        let pca = Pca::fit(Matrix::new(&values, 6).unwrap(), 2).unwrap();
        let made = model(&pca, &values);
        let seen = observed(&values, &made);
        let fit = |terms: &[Term]| Detector::fit(None, seen, &options(terms, CalibrationKind::Rank));
        assert_eq!(fit(&[]), Err(ScoreError::NoTerm));
        let no_image = DetectorOptions { image: None, ..options(&[Term::SmoothResidual], CalibrationKind::Rank) };
        assert_eq!(Detector::fit(None, seen, &no_image), Err(ScoreError::NoImage("smooth-residual")));
        assert_eq!(fit(&[Term::Density]), Err(ScoreError::NoCodes("density")));
        assert_eq!(fit(&[Term::Mahalanobis]), Err(ScoreError::NoCodes("mahalanobis")));
        assert_eq!(fit(&[Term::Neighbors]), Err(ScoreError::NoCodes("neighbors")));
        let codes = Matrix::new(&made.1, 2).unwrap();
        let density = options(&[Term::Density], CalibrationKind::Rank);
        let detector = Detector::fit(Some(codes), seen, &density).unwrap();
        assert_eq!(detector.explain(seen, 1), Err(ScoreError::NoResidual));
        assert!(fit(&[Term::Reconstruction]).unwrap().explain(seen, 1).is_ok());
        let input = Matrix::new(&values, 6).unwrap();
        let fewer = Matrix::new(&made.1[..10], 2).unwrap();
        assert!(matches!(Observed::new(input, input, fewer), Err(ScoreError::Metric(_))));
        let narrow = Matrix::new(&values[..50], 1).unwrap();
        let narrow = Observed::new(narrow, narrow, narrow).unwrap();
        assert!(matches!(detector.score_samples(narrow), Err(ScoreError::Density(_))));
        assert!(serde_json::from_str::<Detector>(r#"{"terms":[],"threshold":null}"#).is_err());
    }
}
