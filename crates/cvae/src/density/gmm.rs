//! Mixtures of Gaussians: evaluation, sampling and the stored form.

use std::f64::consts::PI;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::{Covariance, DensityError};
use crate::linalg::{cholesky, invert_lower, product_transposed};
use crate::random::{fill_normal, uniform};

/// A mixture of Gaussians over standardised codes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub struct Gmm {
    /// Sum to 1.
    weights: Vec<f64>,
    /// `[components, latent]`.
    means: Vec<f64>,
    factors: Factors,
}

/// Covariances in the form that evaluation and sampling need.
#[derive(Clone, Debug, PartialEq)]
enum Factors {
    Full {
        /// Lower Cholesky factors, `[components, latent, latent]`.
        lower: Vec<f64>,
        /// Their inverses.
        inverse: Vec<f64>,
        /// Every inverse times its component's mean, `[components, latent]`.
        whitened_means: Vec<f64>,
    },
    Diagonal {
        /// Standard deviations, `[components, latent]`.
        deviations: Vec<f64>,
    },
}

/// The stored form: `factors` holds lower Cholesky factors or standard deviations.
#[derive(Serialize, Deserialize)]
struct Parts {
    covariance: String,
    weights: Vec<f64>,
    means: Vec<f64>,
    factors: Vec<f64>,
}

impl From<Gmm> for Parts {
    fn from(gmm: Gmm) -> Self {
        let (covariance, factors) = match gmm.factors {
            Factors::Full { lower, .. } => ("full", lower),
            Factors::Diagonal { deviations } => ("diagonal", deviations),
        };
        Self { covariance: covariance.to_owned(), weights: gmm.weights, means: gmm.means, factors }
    }
}

impl TryFrom<Parts> for Gmm {
    type Error = DensityError;

    fn try_from(parts: Parts) -> Result<Self, DensityError> {
        let Parts { covariance, weights, means, factors } = parts;
        let components = weights.len();
        if components == 0 || means.is_empty() || means.len() % components != 0 {
            return Err(DensityError::Stored("weights and means do not match"));
        }
        let latent = means.len() / components;
        if !weights.iter().all(|weight| *weight >= 0.0) || (weights.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
            return Err(DensityError::Stored("the weights are no probabilities"));
        }
        if !means.iter().chain(&factors).all(|value| value.is_finite()) {
            return Err(DensityError::Stored("a value is not finite"));
        }
        match covariance.as_str() {
            "diagonal" => {
                if factors.len() != means.len() || factors.iter().any(|&deviation| deviation <= 0.0) {
                    return Err(DensityError::Stored("the deviations do not match the means"));
                }
                Ok(Self { weights, means, factors: Factors::Diagonal { deviations: factors } })
            }
            "full" => {
                if latent.checked_mul(means.len()) != Some(factors.len()) {
                    return Err(DensityError::Stored("the Cholesky factors do not match the means"));
                }
                let lower_triangular = |factor: &[f64]| {
                    factor
                        .chunks_exact(latent)
                        .enumerate()
                        .all(|(row, values)| values[row] > 0.0 && values[row + 1..].iter().all(|&value| value == 0.0))
                };
                if !factors.chunks_exact(latent * latent).all(lower_triangular) {
                    return Err(DensityError::Stored("a Cholesky factor is not lower triangular"));
                }
                Self::from_lower(weights, means, factors)
            }
            _ => Err(DensityError::Stored("the covariance is neither full nor diagonal")),
        }
    }
}

impl Gmm {
    /// From covariances: `[components, latent, latent]` when full, variances `[components, latent]` when
    /// diagonal.
    pub(crate) fn from_covariances(
        shape: Covariance,
        weights: Vec<f64>,
        means: Vec<f64>,
        covariances: &[f64],
    ) -> Result<Self, DensityError> {
        let latent = means.len() / weights.len();
        match shape {
            Covariance::Full => {
                let mut lower = Vec::with_capacity(covariances.len());
                for (component, covariance) in covariances.chunks_exact(latent * latent).enumerate() {
                    let factor = cholesky(covariance, latent);
                    lower.extend(factor.ok_or(DensityError::Factorization { component })?);
                }
                Self::from_lower(weights, means, lower)
            }
            Covariance::Diagonal => {
                let deviations = covariances.iter().map(|variance| variance.sqrt()).collect();
                Ok(Self { weights, means, factors: Factors::Diagonal { deviations } })
            }
        }
    }

    fn from_lower(weights: Vec<f64>, means: Vec<f64>, lower: Vec<f64>) -> Result<Self, DensityError> {
        let latent = means.len() / weights.len();
        let mut inverse = Vec::with_capacity(lower.len());
        let mut whitened_means = vec![0.0; means.len()];
        for (component, factor) in lower.chunks_exact(latent * latent).enumerate() {
            let inverted = invert_lower(factor, latent).ok_or(DensityError::Factorization { component })?;
            let at = component * latent;
            let mean = &means[at..at + latent];
            product_transposed(1.0, mean, &inverted, latent, 0.0, &mut whitened_means[at..at + latent]);
            inverse.extend(inverted);
        }
        Ok(Self { weights, means, factors: Factors::Full { lower, inverse, whitened_means } })
    }

    /// Number of components.
    pub fn components(&self) -> usize {
        self.weights.len()
    }

    /// Latent size.
    pub fn latent(&self) -> usize {
        self.means.len() / self.weights.len()
    }

    /// Shape of the covariances.
    pub fn covariance_shape(&self) -> Covariance {
        match self.factors {
            Factors::Full { .. } => Covariance::Full,
            Factors::Diagonal { .. } => Covariance::Diagonal,
        }
    }

    /// Probability of every component.
    pub fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Means over standardised codes, `[components, latent]`.
    pub fn means(&self) -> &[f64] {
        &self.means
    }

    /// Covariance of one component over standardised codes, `[latent, latent]`, or `None` when there is
    /// no such component.
    pub fn covariance(&self, component: usize) -> Option<Vec<f64>> {
        let latent = self.latent();
        if component >= self.components() {
            return None;
        }
        let mut covariance = vec![0.0; latent * latent];
        match &self.factors {
            Factors::Full { lower, .. } => {
                let lower = &lower[component * latent * latent..][..latent * latent];
                product_transposed(1.0, lower, lower, latent, 0.0, &mut covariance);
            }
            Factors::Diagonal { deviations } => {
                let deviations = &deviations[component * latent..][..latent];
                for (diagonal, deviation) in covariance.iter_mut().step_by(latent + 1).zip(deviations) {
                    *diagonal = deviation * deviation;
                }
            }
        }
        Some(covariance)
    }

    /// Number of free parameters, as the Bayesian information criterion counts them.
    pub fn parameters(&self) -> usize {
        let (components, latent) = (self.components(), self.latent());
        let covariance = match self.factors {
            Factors::Full { .. } => latent * (latent + 1) / 2,
            Factors::Diagonal { .. } => latent,
        };
        components - 1 + components * (latent + covariance)
    }

    /// `ln wₖ + ln N(u; μₖ, Σₖ)` for standardised rows, `[rows, components]`.
    pub(crate) fn joint_log_densities(&self, rows: &[f64]) -> Vec<f64> {
        let (components, latent) = (self.components(), self.latent());
        let constant = -0.5 * latent as f64 * (2.0 * PI).ln();
        let mut out = Vec::with_capacity(rows.len() / latent * components);
        match &self.factors {
            Factors::Full { lower, inverse, whitened_means } => {
                let offsets: Vec<f64> = lower
                    .chunks_exact(latent * latent)
                    .zip(&self.weights)
                    .map(|(lower, weight)| {
                        let volume: f64 = lower.iter().step_by(latent + 1).map(|diagonal| diagonal.ln()).sum();
                        weight.ln() + constant - volume
                    })
                    .collect();
                let mut whitened = vec![0.0; rows.len() * components];
                product_transposed(1.0, rows, inverse, latent, 0.0, &mut whitened);
                for whitened in whitened.chunks_exact(components * latent) {
                    let parts = whitened.chunks_exact(latent).zip(whitened_means.chunks_exact(latent));
                    out.extend(parts.zip(&offsets).map(|((row, mean), offset)| {
                        let square: f64 = row.iter().zip(mean).map(|(a, b)| (a - b) * (a - b)).sum();
                        offset - 0.5 * square
                    }));
                }
            }
            Factors::Diagonal { deviations } => {
                let scales: Vec<f64> = deviations.iter().map(|deviation| deviation.recip()).collect();
                let offsets: Vec<f64> = deviations
                    .chunks_exact(latent)
                    .zip(&self.weights)
                    .map(|(deviations, weight)| {
                        let volume: f64 = deviations.iter().map(|deviation| deviation.ln()).sum();
                        weight.ln() + constant - volume
                    })
                    .collect();
                for row in rows.chunks_exact(latent) {
                    let parts = self.means.chunks_exact(latent).zip(scales.chunks_exact(latent));
                    out.extend(parts.zip(&offsets).map(|((mean, scales), offset)| {
                        let scaled =
                            row.iter().zip(mean).zip(scales).map(|((value, mean), scale)| (value - mean) * scale);
                        offset - 0.5 * scaled.map(|value| value * value).sum::<f64>()
                    }));
                }
            }
        }
        out
    }

    /// Draws one standardised row; `temperature` scales the deviation from the component's mean.
    pub(crate) fn sample(&self, rng: &mut ChaCha8Rng, temperature: f64, row: &mut [f64]) {
        let latent = self.latent();
        let mut left = uniform(rng);
        let mut component = 0;
        for (index, &weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
            component = index;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        let mean = &self.means[component * latent..][..latent];
        let mut noise = vec![0.0; latent];
        fill_normal(rng, &mut noise);
        match &self.factors {
            Factors::Full { lower, .. } => {
                let lower = &lower[component * latent * latent..][..latent * latent];
                for ((value, mean), lower) in row.iter_mut().zip(mean).zip(lower.chunks_exact(latent)) {
                    let shift: f64 = lower.iter().zip(&noise).map(|(a, b)| a * b).sum();
                    *value = mean + temperature * shift;
                }
            }
            Factors::Diagonal { deviations } => {
                let deviations = &deviations[component * latent..][..latent];
                for (((value, mean), deviation), noise) in row.iter_mut().zip(mean).zip(deviations).zip(noise) {
                    *value = mean + temperature * deviation * noise;
                }
            }
        }
    }
}

/// `ln Σ exp(valueᵢ)` without overflow; negative infinity when all values are.
pub(crate) fn log_sum_exp(values: &[f64]) -> f64 {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if largest == f64::NEG_INFINITY {
        return largest;
    }
    largest + values.iter().map(|value| (value - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_components(shape: Covariance) -> Gmm {
        let covariances: &[f64] = match shape {
            Covariance::Full => &[2.0, 0.6, 0.6, 1.0, 0.5, -0.2, -0.2, 0.3],
            Covariance::Diagonal => &[2.0, 1.0, 0.5, 0.3],
        };
        Gmm::from_covariances(shape, vec![0.3, 0.7], vec![1.0, -1.0, 0.0, 2.0], covariances).unwrap()
    }

    #[test]
    fn log_densities_equal_the_two_dimensional_formula() {
        for shape in [Covariance::Full, Covariance::Diagonal] {
            let gmm = two_components(shape);
            let rows = [0.3, 0.7, -2.0, 4.0, 1.0, -1.0];
            let found = gmm.joint_log_densities(&rows);
            for (row, found) in rows.chunks(2).zip(found.chunks(2)) {
                for (component, found) in found.iter().enumerate() {
                    let c = gmm.covariance(component).unwrap();
                    let determinant = c[0] * c[3] - c[1] * c[2];
                    let mean = &gmm.means()[component * 2..][..2];
                    let (x, y) = (row[0] - mean[0], row[1] - mean[1]);
                    let square = (c[3] * x * x - 2.0 * c[1] * x * y + c[0] * y * y) / determinant;
                    let expected =
                        gmm.weights()[component].ln() - 0.5 * square - 0.5 * ((2.0 * PI).powi(2) * determinant).ln();
                    assert!((found - expected).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn stored_mixtures_return_bit_by_bit() {
        for shape in [Covariance::Full, Covariance::Diagonal] {
            let gmm = two_components(shape);
            let json = serde_json::to_string(&gmm).unwrap();
            assert_eq!(serde_json::from_str::<Gmm>(&json).unwrap(), gmm);
        }
    }

    #[test]
    fn inconsistent_stored_mixtures_are_errors() {
        let cases = [
            r#"{"covariance":"full","weights":[],"means":[],"factors":[]}"#,
            r#"{"covariance":"full","weights":[0.5,0.5],"means":[1.0],"factors":[1.0]}"#,
            r#"{"covariance":"full","weights":[1.0],"means":[0.0,0.0],"factors":[1.0,0.0,0.0]}"#,
            r#"{"covariance":"full","weights":[1.0],"means":[0.0,0.0],"factors":[1.0,0.5,0.0,1.0]}"#,
            r#"{"covariance":"full","weights":[1.0],"means":[0.0],"factors":[0.0]}"#,
            r#"{"covariance":"diagonal","weights":[1.0],"means":[0.0],"factors":[-1.0]}"#,
            r#"{"covariance":"diagonal","weights":[0.4],"means":[0.0],"factors":[1.0]}"#,
            r#"{"covariance":"diagonal","weights":[2.0,-1.0],"means":[0.0,0.0],"factors":[1.0,1.0]}"#,
            r#"{"covariance":"tied","weights":[1.0],"means":[0.0],"factors":[1.0]}"#,
        ];
        for json in cases {
            assert!(serde_json::from_str::<Gmm>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn parameters_are_counted_as_in_the_information_criterion() {
        assert_eq!(two_components(Covariance::Full).parameters(), 1 + 2 * (2 + 3));
        assert_eq!(two_components(Covariance::Diagonal).parameters(), 1 + 2 * (2 + 2));
    }

    #[test]
    fn log_sum_exp_neither_overflows_nor_underflows() {
        assert!((log_sum_exp(&[1000.0, 1000.0]) - (1000.0 + 2f64.ln())).abs() < 1e-12);
        assert!((log_sum_exp(&[-1000.0, -1001.0]) - (-1000.0 + (-1f64).exp().ln_1p())).abs() < 1e-12);
        assert_eq!(log_sum_exp(&[f64::NEG_INFINITY; 2]), f64::NEG_INFINITY);
    }
}
