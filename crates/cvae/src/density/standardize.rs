//! Moving codes to zero mean and unit variance before a density is fitted.

use serde::{Deserialize, Serialize};

use super::DensityError;
use crate::Matrix;
use crate::linalg::{centred, column_deviations, column_means};

/// `u = (z − mean)/scale` in every dimension.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts")]
pub(crate) struct Standardizer {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

/// The stored form, before it is checked.
#[derive(Deserialize)]
struct Parts {
    mean: Vec<f64>,
    scale: Vec<f64>,
}

impl TryFrom<Parts> for Standardizer {
    type Error = DensityError;

    fn try_from(parts: Parts) -> Result<Self, DensityError> {
        if parts.mean.is_empty() || parts.mean.len() != parts.scale.len() {
            return Err(DensityError::Stored("mean and scale have different lengths or none"));
        }
        if !parts.mean.iter().all(|mean| mean.is_finite()) {
            return Err(DensityError::Stored("a mean is not finite"));
        }
        if !parts.scale.iter().all(|scale| scale.is_finite() && *scale > 0.0) {
            return Err(DensityError::Stored("a scale is not positive and finite"));
        }
        Ok(Self { mean: parts.mean, scale: parts.scale })
    }
}

impl Standardizer {
    /// Mean and standard deviation of the codes; scale 1 for a constant dimension.
    pub(crate) fn fit(codes: Matrix<'_>) -> Self {
        let mean = column_means(codes);
        let scale = column_deviations(codes, &mean)
            .into_iter()
            .map(|deviation| if deviation > 0.0 { deviation } else { 1.0 })
            .collect();
        Self { mean, scale }
    }

    /// Latent size.
    pub(crate) fn latent(&self) -> usize {
        self.mean.len()
    }

    /// Mean of every dimension.
    pub(crate) fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Turns a covariance of codes into that of standardised ones.
    pub(crate) fn standardize_covariance(&self, covariance: &mut [f64]) {
        for (row, row_scale) in covariance.chunks_exact_mut(self.latent()).zip(&self.scale) {
            row.iter_mut().zip(&self.scale).for_each(|(value, scale)| *value /= scale * row_scale);
        }
    }

    /// Consecutive codes in standardised form.
    pub(crate) fn forward(&self, codes: &[f32]) -> Vec<f64> {
        let mut rows = centred(codes, &self.mean);
        for row in rows.chunks_exact_mut(self.latent()) {
            row.iter_mut().zip(&self.scale).for_each(|(value, scale)| *value /= scale);
        }
        rows
    }

    /// One standardised row as a code.
    pub(crate) fn backward(&self, row: &[f64], code: &mut [f32]) {
        for (((code, value), mean), scale) in code.iter_mut().zip(row).zip(&self.mean).zip(&self.scale) {
            *code = (mean + scale * value) as f32;
        }
    }

    /// What to add to a log-density of standardised rows to have that of codes: `−Σ ln scale`.
    pub(crate) fn log_volume(&self) -> f64 {
        -self.scale.iter().map(|scale| scale.ln()).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standardised_codes_have_unit_variance_and_return() {
        let values = [1.0, 10.0, 7.0, 3.0, 30.0, 7.0, 8.0, -4.0, 7.0];
        let codes = Matrix::new(&values, 3).unwrap();
        let standardizer = Standardizer::fit(codes);
        let rows = standardizer.forward(codes.values());
        for column in 0..2 {
            let squares: f64 = rows.iter().skip(column).step_by(3).map(|value| value * value).sum();
            assert!((squares / 3.0 - 1.0).abs() < 1e-12);
        }
        assert!(rows.iter().skip(2).step_by(3).all(|&value| value == 0.0), "constant dimension");
        let mut back = [0.0f32; 9];
        rows.chunks(3).zip(back.chunks_mut(3)).for_each(|(row, code)| standardizer.backward(row, code));
        assert_eq!(back, values);
    }

    #[test]
    fn rounding_of_a_constant_is_no_variance() {
        let values = vec![0.1f32; 60_000];
        let standardizer = Standardizer::fit(Matrix::new(&values, 1).unwrap());
        assert_eq!(standardizer.scale, [1.0]);
    }
}
