//! Maximum mean discrepancy with the inverse multiquadric kernel.

use rayon::prelude::*;

use super::error::{MetricError, at_least, positive, same_width};
use crate::Matrix;
use crate::linalg::squared_distances;
use crate::random::{Purpose, normal_rows};

/// Rows of one side of a distance block.
const BLOCK_ROWS: usize = 256;
/// Multiples of the base scale at which the kernel is summed.
const SCALES: [f64; 7] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Squared maximum mean discrepancy between two sets of rows, without bias: it may be negative, and is
/// zero in expectation when both sets come from one distribution.
///
/// The kernel is `Σ_s C/(C + ‖a − b‖²)` with `C = 2·width·variance·s` and s ∈ {0.1, 0.2, 0.5, 1, 2, 5, 10}
/// (Tolstikhin, Bousquet, Gelly, Schölkopf 2018); `variance` is that of one coordinate, 1 for a standard
/// normal prior. The work grows with the square of the rows.
///
/// # Errors
///
/// [`MetricError::WidthMismatch`] when the widths differ, [`MetricError::TooFewRows`] when a set has a
/// single row, [`MetricError::NotPositive`] when `variance` is not positive and finite.
pub fn mmd(left: Matrix<'_>, right: Matrix<'_>, variance: f64) -> Result<f64, MetricError> {
    same_width(left.width(), right.width())?;
    let right: Vec<f64> = right.values().iter().map(|&value| f64::from(value)).collect();
    mmd_to_rows(left, &right, variance)
}

/// [`mmd`] with variance 1 between codes and as many draws from N(0, I), chosen by `seed`.
///
/// # Errors
///
/// [`MetricError::TooFewRows`] for a single row.
pub fn mmd_to_prior(codes: Matrix<'_>, seed: u64) -> Result<f64, MetricError> {
    let prior = normal_rows(seed, Purpose::PriorRows, codes.rows(), codes.width());
    mmd_to_rows(codes, &prior, 1.0)
}

fn mmd_to_rows(left: Matrix<'_>, right: &[f64], variance: f64) -> Result<f64, MetricError> {
    positive("variance", variance)?;
    let width = left.width();
    at_least(2, left.rows())?;
    at_least(2, right.len() / width)?;
    let left: Vec<f64> = left.values().iter().map(|&value| f64::from(value)).collect();
    let base = 2.0 * width as f64 * variance;
    let pairs = |rows: &[f64]| {
        let rows = (rows.len() / width) as f64;
        rows * (rows - 1.0)
    };
    let cross = (left.len() / width) as f64 * (right.len() / width) as f64;
    Ok(kernel_sum(&left, &left, width, base, true) / pairs(&left)
        + kernel_sum(right, right, width, base, true) / pairs(right)
        - 2.0 * kernel_sum(&left, right, width, base, false) / cross)
}

/// Sum of the kernel over all pairs; without equal indices when `skip_diagonal`.
fn kernel_sum(left: &[f64], right: &[f64], width: usize, base: f64, skip_diagonal: bool) -> f64 {
    let kernel = |distance: f64| SCALES.iter().map(|scale| base * scale / (base * scale + distance)).sum::<f64>();
    let blocks: Vec<f64> = left
        .par_chunks(BLOCK_ROWS * width)
        .enumerate()
        .map(|(left_block, left)| {
            let mut sum = 0.0;
            for (right_block, right) in right.chunks(BLOCK_ROWS * width).enumerate() {
                let mut tile = squared_distances(left, right, width);
                let columns = right.len() / width;
                if skip_diagonal && left_block == right_block {
                    tile.iter_mut().step_by(columns + 1).for_each(|distance| *distance = f64::INFINITY);
                }
                sum += tile.iter().map(|&distance| kernel(distance)).sum::<f64>();
            }
            sum
        })
        .collect();
    blocks.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(seed: u64, rows: usize, width: usize, scale: f64, shift: f64) -> Vec<f32> {
        normal_rows(seed, Purpose::PriorRows, rows, width).iter().map(|&v| (v * scale + shift) as f32).collect()
    }

    /// `E C/(C + ‖u‖²)` for `u ~ N(shift, variance·I)`: the kernel is `∫₀^∞ exp(−t − t‖u‖²/C) dt`, whose
    /// expectation is Gaussian in closed form; Simpson's rule does the rest.
    fn expected_kernel(width: usize, shift_squared: f64, variance: f64) -> f64 {
        let base = 2.0 * width as f64;
        let of_scale = |scale: f64| {
            let c = base * scale;
            let integrand = |t: f64| {
                let spread = 1.0 + 2.0 * t * variance / c;
                (-t - t * shift_squared / (c * spread)).exp() * spread.powf(-(width as f64) / 2.0)
            };
            let (steps, end) = (20_000, 40.0);
            let h = end / steps as f64;
            let inner: f64 = (1..steps).map(|i| if i % 2 == 1 { 4.0 } else { 2.0 } * integrand(i as f64 * h)).sum();
            (integrand(0.0) + inner + integrand(end)) * h / 3.0
        };
        SCALES.iter().map(|&scale| of_scale(scale)).sum()
    }

    #[test]
    fn equals_the_definition_over_ragged_blocks() {
        let (left, right) = (normal(1, BLOCK_ROWS + 3, 2, 1.0, 0.0), normal(2, 50, 2, 2.0, 1.0));
        let kernel = |a: &[f32], b: &[f32]| -> f64 {
            let distance: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
            SCALES.iter().map(|s| 2.0 * 2.0 * 3.0 * s).map(|c| c / (c + distance)).sum()
        };
        let within = |set: &[f32]| {
            let rows: Vec<&[f32]> = set.chunks(2).collect();
            let mut sum = 0.0;
            for i in 0..rows.len() {
                for j in (0..rows.len()).filter(|&j| j != i) {
                    sum += kernel(rows[i], rows[j]);
                }
            }
            sum / (rows.len() * (rows.len() - 1)) as f64
        };
        let cross: f64 =
            left.chunks(2).flat_map(|a| right.chunks(2).map(move |b| (a, b))).map(|(a, b)| kernel(a, b)).sum();
        let expected = within(&left) + within(&right) - 2.0 * cross / (left.len() * right.len() / 4) as f64;
        let found = mmd(Matrix::new(&left, 2).unwrap(), Matrix::new(&right, 2).unwrap(), 3.0).unwrap();
        assert!((found - expected).abs() < 1e-10, "{found} {expected}");
    }

    #[test]
    fn gaussians_have_the_closed_form() {
        // N(0.5·1, 4·I) against N(0, I): differences within are N(0, 8·I) and N(0, 2·I), across N(0.5·1, 5·I).
        for width in [1, 3] {
            let found: f64 = (0..8)
                .map(|seed| {
                    let codes = normal(seed, 1000, width, 2.0, 0.5);
                    mmd_to_prior(Matrix::new(&codes, width).unwrap(), 100 + seed).unwrap() / 8.0
                })
                .sum();
            let shift = 0.25 * width as f64;
            let expected = expected_kernel(width, 0.0, 8.0) + expected_kernel(width, 0.0, 2.0)
                - 2.0 * expected_kernel(width, shift, 5.0);
            assert!((found / expected - 1.0).abs() < 0.03, "{found} {expected}");
        }
    }

    #[test]
    fn the_estimate_has_no_bias() {
        // The mean over many small sets of one distribution is zero; a biased estimate with the diagonal
        // terms would exceed 7/20 each.
        let mean: f64 = (0..300)
            .map(|seed| {
                let codes = normal(1000 + seed, 20, 2, 1.0, 0.0);
                mmd_to_prior(Matrix::new(&codes, 2).unwrap(), 5000 + seed).unwrap()
            })
            .sum::<f64>()
            / 300.0;
        assert!(mean.abs() < 0.02, "{mean}");
    }

    #[test]
    fn bad_input_is_an_error() {
        let (two, single) = ([0.0, 1.0], [0.0]);
        let (two, single) = (Matrix::new(&two, 1).unwrap(), Matrix::new(&single, 1).unwrap());
        assert!(matches!(mmd(two, single, 1.0), Err(MetricError::TooFewRows { .. })));
        assert!(matches!(mmd_to_prior(single, 0), Err(MetricError::TooFewRows { .. })));
        assert!(matches!(mmd(two, two, 0.0), Err(MetricError::NotPositive { name: "variance", .. })));
        let wide = Matrix::new(&[0.0; 4], 2).unwrap();
        assert!(matches!(mmd(two, wide, 1.0), Err(MetricError::WidthMismatch { .. })));
    }
}
