//! How codes are spread over the latent dimensions.

use super::error::MetricError;
use crate::Matrix;
use crate::linalg::{column_means, column_variances, covariance, symmetric_eigen};

/// Variance above which a latent dimension counts as active.
const ACTIVE_VARIANCE: f64 = 0.01;

/// Root mean square over all elements of the codes, `√(mean z²)`; 1 in expectation for N(0, I).
pub fn latent_rms(codes: Matrix<'_>) -> f64 {
    let sum: f64 = codes.values().iter().map(|&value| f64::from(value).powi(2)).sum();
    (sum / codes.values().len() as f64).sqrt()
}

/// Number of dimensions whose variance over the rows exceeds 0.01 (Burda, Grosse, Salakhutdinov 2016).
/// It depends on the scale of the codes; [`effective_rank`] does not.
pub fn active_units(codes: Matrix<'_>) -> usize {
    let variances = column_variances(codes, &column_means(codes));
    variances.iter().filter(|&&variance| variance > ACTIVE_VARIANCE).count()
}

/// Effective rank `exp(H(λ/Σλ))` of the codes' covariance with eigenvalues λ and entropy H in nats
/// (Roy, Vetterli 2007): the latent size for isotropic codes, 1 for codes on a line, 0 for constant ones.
///
/// # Errors
///
/// [`MetricError::NoConvergence`] when the eigenvalue iteration fails.
pub fn effective_rank(codes: Matrix<'_>) -> Result<f64, MetricError> {
    let covariance = covariance(codes, &column_means(codes));
    let (values, _) = symmetric_eigen(covariance, codes.width()).ok_or(MetricError::NoConvergence)?;
    let total: f64 = values.iter().map(|value| value.max(0.0)).sum();
    if total == 0.0 {
        return Ok(0.0);
    }
    let entropy: f64 =
        values.iter().map(|value| value / total).filter(|&share| share > 0.0).map(|share| -share * share.ln()).sum();
    Ok(entropy.exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn isotropic_codes_have_full_effective_rank() {
        // ±e_i for every axis: covariance I/4·… the same in every direction.
        let latent = 5;
        let mut values = vec![0.0; 2 * latent * latent];
        for axis in 0..latent {
            values[2 * axis * latent + axis] = 3.0;
            values[(2 * axis + 1) * latent + axis] = -3.0;
        }
        let codes = Matrix::new(&values, latent).unwrap();
        assert!((effective_rank(codes).unwrap() - 5.0).abs() < 1e-9);
        assert_eq!(active_units(codes), 5);
        assert!((latent_rms(codes) - (9.0_f64 / 5.0).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn codes_on_a_line_have_effective_rank_one() {
        let values: Vec<f32> = (0..20).flat_map(|i| [i as f32, -2.0 * i as f32, 7.0]).collect();
        let codes = Matrix::new(&values, 3).unwrap();
        assert!((effective_rank(codes).unwrap() - 1.0).abs() < 1e-9);
        assert_eq!(active_units(codes), 2);
    }

    #[test]
    fn effective_rank_of_two_unequal_axes_is_the_exponential_of_the_entropy() {
        let values = [3.0, 0.0, -3.0, 0.0, 0.0, 1.0, 0.0, -1.0];
        let codes = Matrix::new(&values, 2).unwrap();
        let expected = (-(0.9_f64 * 0.9_f64.ln() + 0.1 * 0.1_f64.ln())).exp();
        assert!((effective_rank(codes).unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn constant_codes_have_no_rank_and_no_active_unit() {
        let codes = Matrix::new(&[0.5; 12], 3).unwrap();
        assert_eq!(effective_rank(codes).unwrap(), 0.0);
        assert_eq!(active_units(codes), 0);
        assert_eq!(latent_rms(codes), 0.5);
    }
}
