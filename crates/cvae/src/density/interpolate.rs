//! Paths between codes.

use super::DensityError;
use crate::{Matrix, MatrixError};

/// How two codes are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// By the straight line: [`linear`].
    #[default]
    Linear,
    /// By the great arc: [`spherical`].
    Spherical,
}

impl Path {
    /// `steps` codes on the path, both ends included, `[steps, latent]`.
    ///
    /// # Errors
    ///
    /// As [`linear`].
    pub fn codes(self, from: &[f32], to: &[f32], steps: usize) -> Result<Vec<f32>, DensityError> {
        match self {
            Self::Linear => linear(from, to, steps),
            Self::Spherical => spherical(from, to, steps),
        }
    }
}

/// `steps` codes on the straight line from one code to another, both included, `[steps, latent]`.
///
/// # Errors
///
/// [`DensityError::WidthMismatch`] when the codes have different lengths, [`DensityError::Matrix`] when
/// they are empty or not finite, [`DensityError::TooFewRows`] for fewer than two steps.
pub fn linear(from: &[f32], to: &[f32], steps: usize) -> Result<Vec<f32>, DensityError> {
    path(from, to, steps, |t| (1.0 - t, t))
}

/// `steps` codes on the great arc from one code to another, both included: the angle grows evenly, the
/// norm goes linearly (Shoemake 1985). Codes of N(0, I) in many dimensions lie near a sphere, whose
/// inside a straight line would cross. For (anti)parallel or zero codes, whose arc is not defined, the
/// path is the straight line.
///
/// # Errors
///
/// As [`linear`].
pub fn spherical(from: &[f32], to: &[f32], steps: usize) -> Result<Vec<f32>, DensityError> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    let (from_norm, to_norm) = (dot(from, from).sqrt(), dot(to, to).sqrt());
    let angle = (dot(from, to) / (from_norm * to_norm)).clamp(-1.0, 1.0).acos();
    let sine = angle.sin();
    if sine.is_nan() || sine < 1e-6 {
        return linear(from, to, steps);
    }
    path(from, to, steps, |t| {
        let norm = (1.0 - t) * from_norm + t * to_norm;
        (norm * ((1.0 - t) * angle).sin() / (sine * from_norm), norm * (t * angle).sin() / (sine * to_norm))
    })
}

/// Codes `a·from + b·to` for weights `(a, b)` at even positions in [0, 1].
fn path(from: &[f32], to: &[f32], steps: usize, weights: impl Fn(f64) -> (f64, f64)) -> Result<Vec<f32>, DensityError> {
    Matrix::new(from, from.len())?;
    if to.len() != from.len() {
        return Err(DensityError::WidthMismatch { expected: from.len(), found: to.len() });
    }
    Matrix::new(to, to.len())?;
    if steps < 2 {
        return Err(DensityError::TooFewRows { needed: 2, rows: steps });
    }
    let length = steps.checked_mul(from.len()).ok_or(MatrixError::NoRows)?;
    let mut codes = Vec::with_capacity(length);
    for step in 0..steps {
        let (a, b) = weights(step as f64 / (steps - 1) as f64);
        codes.extend(from.iter().zip(to).map(|(&from, &to)| (a * f64::from(from) + b * f64::from(to)) as f32));
    }
    Ok(codes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straight_lines_are_even() {
        let path = linear(&[0.0, 2.0], &[4.0, 0.0], 5).unwrap();
        assert_eq!(path, [0.0, 2.0, 1.0, 1.5, 2.0, 1.0, 3.0, 0.5, 4.0, 0.0]);
    }

    #[test]
    fn arcs_keep_the_norm_and_divide_the_angle() {
        let path = spherical(&[3.0, 0.0], &[0.0, 3.0], 4).unwrap();
        for (step, code) in path.chunks(2).enumerate() {
            let angle = std::f32::consts::FRAC_PI_2 * step as f32 / 3.0;
            assert!((code[0] - 3.0 * angle.cos()).abs() < 1e-5);
            assert!((code[1] - 3.0 * angle.sin()).abs() < 1e-5);
        }
        let path = spherical(&[1.0, 0.0], &[0.0, 3.0], 3).unwrap();
        assert!((path[2].hypot(path[3]) - 2.0).abs() < 1e-5, "the norm goes linearly");
    }

    #[test]
    fn undefined_arcs_are_straight() {
        let cases = [([1.0, 1.0], [2.0, 2.0]), ([0.0, 0.0], [1.0, 2.0]), ([1.0, 0.0], [-1.0, 0.0])];
        for (from, to) in cases {
            assert_eq!(spherical(&from, &to, 4), linear(&from, &to, 4));
        }
    }

    #[test]
    fn bad_input_is_an_error() {
        assert!(matches!(linear(&[1.0], &[1.0, 2.0], 3), Err(DensityError::WidthMismatch { .. })));
        assert!(matches!(linear(&[1.0], &[2.0], 1), Err(DensityError::TooFewRows { needed: 2, rows: 1 })));
        for function in [linear, spherical] {
            assert!(matches!(function(&[], &[], 3), Err(DensityError::Matrix(_))));
            assert!(matches!(function(&[1.0], &[f32::NAN], 3), Err(DensityError::Matrix(_))));
        }
    }
}
