//! Distance of codes from the training codes.

use serde::{Deserialize, Serialize};

use super::ScoreError;
use crate::Matrix;
use crate::density::{Density, DensitySpec, FitOptions, log_peak};

/// Mahalanobis distance `√((z − μ)ᵀ Σ⁻¹ (z − μ))` from the mean μ of training codes with covariance Σ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Density", into = "Density")]
pub struct Mahalanobis {
    gaussian: Density,
    /// Log-density at the mean.
    peak: f64,
}

impl TryFrom<Density> for Mahalanobis {
    type Error = ScoreError;

    fn try_from(gaussian: Density) -> Result<Self, ScoreError> {
        match log_peak(&gaussian) {
            Some(peak) => Ok(Self { gaussian, peak }),
            None => Err(ScoreError::Stored("Mahalanobis distances need a Gaussian")),
        }
    }
}

impl From<Mahalanobis> for Density {
    fn from(mahalanobis: Mahalanobis) -> Self {
        mahalanobis.gaussian
    }
}

impl Mahalanobis {
    /// Measures training codes. Directions without variance get the floor of
    /// [`FitOptions::covariance_floor`](crate::density::FitOptions).
    ///
    /// # Errors
    ///
    /// [`ScoreError::Density`] for a single code, or when the covariance has no factor.
    pub fn fit(codes: Matrix<'_>) -> Result<Self, ScoreError> {
        Density::fit(DensitySpec::Gaussian, codes, None, &FitOptions::default())?.density.try_into()
    }

    /// Distance of every code.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Density`] when the codes have another latent size.
    pub fn scores(&self, codes: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
        let log_densities = self.gaussian.log_prob(codes)?;
        Ok(log_densities.into_iter().map(|value| (2.0 * (self.peak - value)).max(0.0).sqrt()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_of_axis_aligned_codes_are_standardised_ones() {
        // Variances 4 and 1 (divisor: the number of rows), no correlation, mean (10, 0).
        let codes = [12.0, 1.0, 12.0, -1.0, 8.0, 1.0, 8.0, -1.0];
        let mahalanobis = Mahalanobis::fit(Matrix::new(&codes, 2).unwrap()).unwrap();
        let query = [10.0, 0.0, 14.0, 0.0, 10.0, 3.0, 16.0, 4.0];
        let found = mahalanobis.scores(Matrix::new(&query, 2).unwrap()).unwrap();
        for (found, expected) in found.iter().zip([0.0, 2.0, 3.0, 5.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn distances_do_not_change_under_linear_maps() {
        let codes: Vec<f32> = (0..60).map(|i| ((i * 31) % 17) as f32).collect();
        let mapped: Vec<f32> =
            codes.chunks(2).flat_map(|row| [3.0 * row[0] + row[1] - 5.0, row[0] - 2.0 * row[1]]).collect();
        let scores = |values: &[f32]| {
            let codes = Matrix::new(values, 2).unwrap();
            Mahalanobis::fit(codes).unwrap().scores(codes).unwrap()
        };
        for (a, b) in scores(&codes).iter().zip(scores(&mapped)) {
            assert!((a - b).abs() < 1e-6);
        }
    }

    #[test]
    fn stored_distances_return() {
        let codes = Matrix::new(&[0.0, 1.0, 5.0, 2.0], 1).unwrap();
        let mahalanobis = Mahalanobis::fit(codes).unwrap();
        let json = serde_json::to_string(&mahalanobis).unwrap();
        assert_eq!(serde_json::from_str::<Mahalanobis>(&json).unwrap(), mahalanobis);
        assert!(serde_json::from_str::<Mahalanobis>(r#"{"kind":"prior","latent":2}"#).is_err());
    }
}
