//! Fréchet distance between Gaussians.

use super::error::{MetricError, at_least, same_width};
use crate::Matrix;
use crate::linalg::{column_means, covariance, product, square_root, symmetric_eigen, trace};

/// Mean and covariance of a set of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Moments {
    mean: Vec<f64>,
    covariance: Vec<f64>,
}

impl Moments {
    /// Moments of the rows, the covariance with divisor `rows − 1`.
    ///
    /// # Errors
    ///
    /// [`MetricError::TooFewRows`] for a single row.
    pub fn fit(rows: Matrix<'_>) -> Result<Self, MetricError> {
        at_least(2, rows.rows())?;
        let mean = column_means(rows);
        let mut covariance = covariance(rows, &mean);
        let correction = rows.rows() as f64 / (rows.rows() - 1) as f64;
        covariance.iter_mut().for_each(|value| *value *= correction);
        Ok(Self { mean, covariance })
    }

    /// N(0, I) in `width` dimensions.
    pub fn standard_normal(width: usize) -> Self {
        let mut covariance = vec![0.0; width * width];
        covariance.iter_mut().step_by(width + 1).for_each(|diagonal| *diagonal = 1.0);
        Self { mean: vec![0.0; width], covariance }
    }

    /// The mean of every column.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The `width × width` covariance, row-major.
    pub fn covariance(&self) -> &[f64] {
        &self.covariance
    }
}

/// Squared Fréchet distance between the Gaussians with these moments,
/// `‖μ₁ − μ₂‖² + tr(A + B − 2·(A^½ B A^½)^½)` (Dowson, Landau 1982). With features of a classifier as
/// rows this is the Fréchet inception distance's definition.
///
/// # Errors
///
/// [`MetricError::WidthMismatch`] when the widths differ, [`MetricError::NoConvergence`] when an
/// eigenvalue iteration fails.
pub fn frechet_distance(left: &Moments, right: &Moments) -> Result<f64, MetricError> {
    same_width(left.mean.len(), right.mean.len())?;
    let width = left.mean.len();
    let root = square_root(left.covariance.clone(), width).ok_or(MetricError::NoConvergence)?;
    let (mut half, mut inner) = (vec![0.0; width * width], vec![0.0; width * width]);
    product(1.0, (&root, width), (&right.covariance, width), &mut half);
    product(1.0, (&half, width), (&root, width), &mut inner);
    let (values, _) = symmetric_eigen(inner, width).ok_or(MetricError::NoConvergence)?;
    let cross: f64 = values.iter().map(|value| value.max(0.0).sqrt()).sum();
    let shift: f64 = left.mean.iter().zip(&right.mean).map(|(a, b)| (a - b).powi(2)).sum();
    Ok((shift + trace(&left.covariance, width) + trace(&right.covariance, width) - 2.0 * cross).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal_rows};
    use nalgebra::{DMatrix, DVector, Rotation3};

    fn gaussian(mean: &[f64], covariance: DMatrix<f64>) -> Moments {
        Moments { mean: mean.to_vec(), covariance: covariance.as_slice().to_vec() }
    }

    #[test]
    fn commuting_covariances_have_the_closed_form() {
        // A = Q diag(4, 9, 1) Qᵀ, B = Q diag(1, 25, 16) Qᵀ: ‖Δμ‖² + Σ(√a − √b)².
        let q = Rotation3::from_euler_angles(0.3, -1.1, 2.0);
        let q = DMatrix::from_fn(3, 3, |i, j| q.matrix()[(i, j)]);
        let rotated = |values: [f64; 3]| &q * DMatrix::from_diagonal(&DVector::from_row_slice(&values)) * q.transpose();
        let left = gaussian(&[1.0, 0.0, 2.0], rotated([4.0, 9.0, 1.0]));
        let right = gaussian(&[0.0, 2.0, 2.0], rotated([1.0, 25.0, 16.0]));
        let expected = 5.0 + 1.0 + 4.0 + 9.0;
        assert!((frechet_distance(&left, &right).unwrap() - expected).abs() < 1e-9);
        assert!((frechet_distance(&right, &left).unwrap() - expected).abs() < 1e-9);
        assert!(frechet_distance(&left, &left).unwrap() < 1e-9);
    }

    #[test]
    fn two_dimensional_covariances_have_the_determinant_form() {
        // tr((AB)^½) = √(tr(AB) + 2·√det(AB)) for 2×2 matrices that need not commute.
        let a = DMatrix::from_row_slice(2, 2, &[2.0, 0.7, 0.7, 1.0]);
        let b = DMatrix::from_row_slice(2, 2, &[1.0, -0.4, -0.4, 3.0]);
        let product: DMatrix<f64> = &a * &b;
        let cross = (product.trace() + 2.0 * product.determinant().sqrt()).sqrt();
        let expected = a.trace() + b.trace() - 2.0 * cross;
        let zero = [0.0, 0.0];
        let distance = frechet_distance(&gaussian(&zero, a), &gaussian(&zero, b)).unwrap();
        assert!((distance - expected).abs() < 1e-9);
    }

    #[test]
    fn singular_covariances_are_allowed() {
        let left = gaussian(&[0.0, 0.0], DMatrix::from_row_slice(2, 2, &[1.0, 1.0, 1.0, 1.0]));
        let right = gaussian(&[0.0, 0.0], DMatrix::zeros(2, 2));
        assert!((frechet_distance(&left, &right).unwrap() - 2.0).abs() < 1e-9);
    }

    #[test]
    fn moments_of_rows_use_the_unbiased_divisor() {
        let rows = [0.0, 1.0, 2.0, 3.0, 4.0, 8.0];
        let moments = Moments::fit(Matrix::new(&rows, 2).unwrap()).unwrap();
        assert_eq!(moments.mean(), [2.0, 4.0]);
        assert_eq!(moments.covariance(), [4.0, 7.0, 7.0, 13.0]);
    }

    #[test]
    fn a_standard_normal_sample_is_near_the_standard_normal() {
        let rows: Vec<f32> = normal_rows(1, Purpose::PriorRows, 20_000, 4).iter().map(|&v| v as f32).collect();
        let moments = Moments::fit(Matrix::new(&rows, 4).unwrap()).unwrap();
        assert!(frechet_distance(&moments, &Moments::standard_normal(4)).unwrap() < 2e-3);
    }

    #[test]
    fn bad_input_is_an_error() {
        let single = Moments::fit(Matrix::new(&[1.0, 2.0], 2).unwrap());
        assert!(matches!(single, Err(MetricError::TooFewRows { needed: 2, rows: 1 })));
        let (two, three) = (Moments::standard_normal(2), Moments::standard_normal(3));
        assert!(matches!(frechet_distance(&two, &three), Err(MetricError::WidthMismatch { .. })));
    }
}
