//! Scores from the difference between rows and their reconstructions.

use serde::{Deserialize, Serialize};

use super::ScoreError;
use crate::Matrix;
use crate::metrics::{same_shape, same_width};

/// Mean squared error of every row over its features.
///
/// # Errors
///
/// [`ScoreError::Metric`] when the shapes differ.
pub fn row_errors(input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
    same_shape(input, reconstruction)?;
    let error =
        |(input, reconstruction): (&[f32], &[f32])| squares(input, reconstruction).sum::<f64>() / input.len() as f64;
    Ok(input.iter().zip(reconstruction).map(error).collect())
}

/// Squared error of every feature of every row, `[rows, width]`.
///
/// # Errors
///
/// [`ScoreError::Metric`] when the shapes differ.
pub fn feature_errors(input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
    same_shape(input, reconstruction)?;
    Ok(squares(input.values(), reconstruction.values()).collect())
}

fn squares<'a>(input: &'a [f32], reconstruction: &'a [f32]) -> impl Iterator<Item = f64> + 'a {
    input.iter().zip(reconstruction).map(|(&x, &r)| (f64::from(x) - f64::from(r)).powi(2))
}

/// How large every feature's residual usually is: its mean square on held-out rows.
///
/// A feature that is hardly ever wrong then counts for more than one that always is. Features whose mean
/// square is below a share of the average are treated as if they had that share, so that a feature that
/// happened to be exact on all held-out rows does not dominate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct ResidualScale {
    /// Positive.
    mean_squares: Vec<f64>,
}

/// The stored form, before it is checked.
#[derive(Deserialize)]
struct Stored {
    mean_squares: Vec<f64>,
}

impl TryFrom<Stored> for ResidualScale {
    type Error = ScoreError;

    fn try_from(stored: Stored) -> Result<Self, ScoreError> {
        let valid = |value: &f64| value.is_finite() && *value > 0.0;
        if stored.mean_squares.is_empty() || !stored.mean_squares.iter().all(valid) {
            return Err(ScoreError::Stored("a residual scale is not positive and finite"));
        }
        Ok(Self { mean_squares: stored.mean_squares })
    }
}

impl ResidualScale {
    /// Smallest mean square of a feature, as a share of the average over features.
    pub const FLOOR: f64 = 0.01;

    /// Measures the residuals of held-out rows.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Metric`] when the shapes differ.
    pub fn fit(input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Self, ScoreError> {
        same_shape(input, reconstruction)?;
        let mut mean_squares = vec![0.0; input.width()];
        for (input, reconstruction) in input.iter().zip(reconstruction) {
            let squares = squares(input, reconstruction);
            mean_squares.iter_mut().zip(squares).for_each(|(sum, square)| *sum += square);
        }
        mean_squares.iter_mut().for_each(|sum| *sum /= input.rows() as f64);
        let average = mean_squares.iter().sum::<f64>() / input.width() as f64;
        let floor = if average > 0.0 { Self::FLOOR * average } else { 1.0 };
        mean_squares.iter_mut().for_each(|value| *value = value.max(floor));
        Ok(Self { mean_squares })
    }

    /// Number of features.
    pub fn width(&self) -> usize {
        self.mean_squares.len()
    }

    /// Mean over the features of squared error divided by the usual squared error, for every row: about 1
    /// for rows like the held-out ones.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Metric`] when the shapes differ from each other or the width from the fitted one.
    pub fn scores(&self, input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
        let contributions = self.contributions(input, reconstruction)?;
        let mean = |row: &[f64]| row.iter().sum::<f64>() / row.len() as f64;
        Ok(contributions.chunks_exact(self.width()).map(mean).collect())
    }

    /// Squared error over usual squared error of every feature of every row, `[rows, width]`.
    ///
    /// # Errors
    ///
    /// As [`scores`](Self::scores).
    pub fn contributions(&self, input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
        same_width(self.width(), input.width())?;
        let mut errors = feature_errors(input, reconstruction)?;
        for row in errors.chunks_exact_mut(self.width()) {
            row.iter_mut().zip(&self.mean_squares).for_each(|(error, usual)| *error /= usual);
        }
        Ok(errors)
    }
}

/// A feature's part in a row's score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FeatureShare {
    /// Index of the feature.
    pub feature: usize,
    /// Its share of the sum over features, between 0 and 1.
    pub share: f64,
}

/// The features that contribute most to a row's score, largest first (equal ones by index); at most
/// `count`, and none that contributes nothing.
pub fn top_features(contributions: &[f64], count: usize) -> Vec<FeatureShare> {
    let total: f64 = contributions.iter().sum();
    let mut features: Vec<usize> = (0..contributions.len()).filter(|&feature| contributions[feature] > 0.0).collect();
    features.sort_by(|&a, &b| contributions[b].total_cmp(&contributions[a]));
    features.truncate(count);
    features.into_iter().map(|feature| FeatureShare { feature, share: contributions[feature] / total }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{MetricError, mse};

    #[test]
    fn row_and_feature_errors_average_to_the_mean_squared_error() {
        let input = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        let output = [0.0, 2.0, 2.0, 1.0, 4.0, 5.5];
        let (input, output) = (Matrix::new(&input, 3).unwrap(), Matrix::new(&output, 3).unwrap());
        let rows = row_errors(input, output).unwrap();
        assert_eq!(rows, [1.0 / 3.0, 4.25 / 3.0]);
        assert_eq!(feature_errors(input, output).unwrap(), [0.0, 1.0, 0.0, 4.0, 0.0, 0.25]);
        assert!((rows.iter().sum::<f64>() / 2.0 - mse(input, output).unwrap()).abs() < 1e-15);
    }

    #[test]
    fn held_out_rows_score_one_on_average() {
        let input: Vec<f32> = (0..400).map(|i| ((i * 7919) % 97) as f32 / 10.0).collect();
        let output = vec![1.0; 400];
        let (input, output) = (Matrix::new(&input, 4).unwrap(), Matrix::new(&output, 4).unwrap());
        let scale = ResidualScale::fit(input, output).unwrap();
        let scores = scale.scores(input, output).unwrap();
        assert!((scores.iter().sum::<f64>() / 100.0 - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_feature_that_was_never_wrong_is_bounded() {
        let input = [1.0, 0.0, -1.0, 0.0];
        let output = [0.0; 4];
        let scale = ResidualScale::fit(Matrix::new(&input, 2).unwrap(), Matrix::new(&output, 2).unwrap()).unwrap();
        // Mean squares 1 and 0, average ½: the second feature has scale FLOOR/2.
        let row = Matrix::new(&[1.0, 0.1], 2).unwrap();
        let zero = Matrix::new(&[0.0, 0.0], 2).unwrap();
        let found = scale.contributions(row, zero).unwrap();
        assert!((found[0] - 1.0).abs() < 1e-12 && (found[1] - 0.01 / 0.005).abs() < 1e-6);
        let exact = ResidualScale::fit(zero, zero).unwrap();
        assert_eq!(exact.scores(zero, zero).unwrap(), [0.0]);
    }

    #[test]
    fn top_features_are_sorted_shares() {
        let shares = top_features(&[1.0, 0.0, 5.0, 2.0, 2.0], 4);
        assert_eq!(shares.iter().map(|share| share.feature).collect::<Vec<_>>(), [2, 3, 4, 0]);
        assert_eq!(shares[0].share, 0.5);
        assert!(top_features(&[0.0, 0.0], 3).is_empty());
        assert!(top_features(&[1.0], 0).is_empty());
    }

    #[test]
    fn bad_input_is_an_error() {
        let (two, four) = (Matrix::new(&[0.0; 4], 2).unwrap(), Matrix::new(&[0.0; 4], 4).unwrap());
        let mismatch = |result: Result<Vec<f64>, ScoreError>| {
            matches!(result, Err(ScoreError::Metric(MetricError::ShapeMismatch { .. })))
        };
        assert!(mismatch(row_errors(two, four)) && mismatch(feature_errors(two, four)));
        assert!(ResidualScale::fit(two, four).is_err());
        let scale = ResidualScale::fit(two, two).unwrap();
        let wrong = scale.scores(four, four);
        assert!(matches!(wrong, Err(ScoreError::Metric(MetricError::WidthMismatch { expected: 2, found: 4 }))));
        for json in [r#"{"mean_squares":[]}"#, r#"{"mean_squares":[1.0,0.0]}"#, r#"{"mean_squares":[-1.0]}"#] {
            assert!(serde_json::from_str::<ResidualScale>(json).is_err());
        }
    }
}
