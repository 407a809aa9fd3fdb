//! Reconstruction error over all elements.

use super::error::{MetricError, positive, same_shape};
use crate::Matrix;
use crate::linalg::column_means;

/// Mean squared error over all elements.
///
/// # Errors
///
/// [`MetricError::ShapeMismatch`] when the shapes differ.
pub fn mse(target: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<f64, MetricError> {
    same_shape(target, reconstruction)?;
    let sum: f64 = target
        .iter()
        .zip(reconstruction)
        .map(|(target, reconstruction)| {
            target.iter().zip(reconstruction).map(|(&t, &r)| (f64::from(t) - f64::from(r)).powi(2)).sum::<f64>()
        })
        .sum();
    Ok(sum / target.values().len() as f64)
}

/// Peak signal-to-noise ratio in decibels of the mean squared error over all rows,
/// `10·log10(peak² / mse)`: one figure for the set, not a mean of per-row figures. Infinite when the
/// error is zero. `peak` is the largest possible value, 1 for images in [0, 1].
///
/// # Errors
///
/// [`MetricError::ShapeMismatch`] when the shapes differ, [`MetricError::NotPositive`] when `peak` is not
/// positive and finite.
pub fn psnr(target: Matrix<'_>, reconstruction: Matrix<'_>, peak: f64) -> Result<f64, MetricError> {
    positive("peak", peak)?;
    Ok(10.0 * (peak * peak / mse(target, reconstruction)?).log10())
}

/// Share of variance explained, `1 − Σ(x − x')² / Σ(x − mean)²` with the mean of every column and both
/// sums over all elements. Columns weigh by their variance. A set without any variance gives 1 when it
/// is reconstructed exactly and negative infinity otherwise.
///
/// # Errors
///
/// [`MetricError::ShapeMismatch`] when the shapes differ.
pub fn r2(target: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<f64, MetricError> {
    let error = mse(target, reconstruction)?;
    let means = column_means(target);
    let spread = target
        .iter()
        .map(|row| row.iter().zip(&means).map(|(&v, mean)| (f64::from(v) - mean).powi(2)).sum::<f64>())
        .sum::<f64>()
        / target.values().len() as f64;
    if error == 0.0 { Ok(1.0) } else { Ok(1.0 - error / spread) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_worked_example() {
        let target = [0.0, 1.0, 2.0, 3.0];
        let reconstruction = [0.5, 1.0, 2.0, 2.0];
        let target = Matrix::new(&target, 2).unwrap();
        let reconstruction = Matrix::new(&reconstruction, 2).unwrap();
        assert_eq!(mse(target, reconstruction).unwrap(), 1.25 / 4.0);
        let expected = 10.0 * (4.0_f64 / 0.3125).log10();
        assert!((psnr(target, reconstruction, 2.0).unwrap() - expected).abs() < 1e-12);
        // Column means 1 and 2, every deviation 1: spread 1.
        assert!((r2(target, reconstruction).unwrap() - (1.0 - 0.3125)).abs() < 1e-12);
    }

    #[test]
    fn exact_reconstruction_and_the_column_mean() {
        let values = [0.25, 1.0, 2.0, 3.0, 5.0, 1.5];
        let target = Matrix::new(&values, 3).unwrap();
        assert_eq!(mse(target, target).unwrap(), 0.0);
        assert_eq!(psnr(target, target, 1.0).unwrap(), f64::INFINITY);
        assert_eq!(r2(target, target).unwrap(), 1.0);
        let means: Vec<f32> = column_means(target).iter().map(|&m| m as f32).collect();
        let means = [means.clone(), means].concat();
        let means = Matrix::new(&means, 3).unwrap();
        assert!(r2(target, means).unwrap().abs() < 1e-6);
    }

    #[test]
    fn a_constant_set_has_no_variance_to_explain() {
        let target = Matrix::new(&[2.0, 2.0], 1).unwrap();
        let off = Matrix::new(&[2.0, 3.0], 1).unwrap();
        assert_eq!(r2(target, target).unwrap(), 1.0);
        assert_eq!(r2(target, off).unwrap(), f64::NEG_INFINITY);
    }

    #[test]
    fn bad_input_is_an_error() {
        let wide = Matrix::new(&[0.0; 4], 4).unwrap();
        let tall = Matrix::new(&[0.0; 4], 1).unwrap();
        assert!(matches!(mse(wide, tall), Err(MetricError::ShapeMismatch { rows: 4, width: 1, .. })));
        for peak in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(psnr(wide, wide, peak), Err(MetricError::NotPositive { name: "peak", .. })));
        }
    }
}
