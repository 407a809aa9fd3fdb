//! Sliced Wasserstein distance to the standard normal prior.

use std::f64::consts::{PI, SQRT_2};

use rayon::prelude::*;

use super::error::MetricError;
use crate::Matrix;
use crate::random::{Purpose, fill_normal, stream};

/// Sliced 2-Wasserstein distance between codes and N(0, I): the root mean square, over `directions`
/// random directions chosen by `seed`, of the distance between the projected codes and N(0, 1).
///
/// A projection's distance is exact, not a comparison with draws. With sorted projections x₍ᵢ₎, the
/// standard normal quantiles q and density φ,
/// `W² = mean x² + 1 − 2·Σ x₍ᵢ₎·(φ(q((i−1)/n)) − φ(q(i/n)))`.
///
/// # Errors
///
/// [`MetricError::NoDirections`] when `directions` is zero.
pub fn sliced_w2_to_prior(codes: Matrix<'_>, directions: usize, seed: u64) -> Result<f64, MetricError> {
    if directions == 0 {
        return Err(MetricError::NoDirections);
    }
    let slices = quantile_means(codes.rows());
    let squares: Vec<f64> = (0..directions)
        .into_par_iter()
        .map(|index| {
            let direction = unit_vector(codes.width(), seed, index as u64);
            let mut projected: Vec<f64> = codes
                .iter()
                .map(|row| row.iter().zip(&direction).map(|(&value, weight)| f64::from(value) * weight).sum())
                .collect();
            projected.sort_unstable_by(f64::total_cmp);
            let square = projected.iter().map(|x| x * x).sum::<f64>() / projected.len() as f64;
            let cross: f64 = projected.iter().zip(&slices).map(|(x, slice)| x * slice).sum();
            (square + 1.0 - 2.0 * cross).max(0.0)
        })
        .collect();
    Ok((squares.iter().sum::<f64>() / directions as f64).sqrt())
}

/// A direction uniform on the sphere.
fn unit_vector(width: usize, seed: u64, index: u64) -> Vec<f64> {
    let mut vector = vec![0.0; width];
    fill_normal(&mut stream(seed, Purpose::Directions, index), &mut vector);
    let norm = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    vector.iter_mut().for_each(|value| *value /= norm);
    vector
}

/// `∫ q(u) du` over each of `count` equal parts of (0, 1), q being the standard normal quantile:
/// the difference of the density at the part's ends.
fn quantile_means(count: usize) -> Vec<f64> {
    let density_at = |index: usize| {
        if index == 0 || index == count {
            return 0.0;
        }
        let quantile = normal_quantile(index as f64 / count as f64);
        (-0.5 * quantile * quantile).exp() / (2.0 * PI).sqrt()
    };
    let densities: Vec<f64> = (0..=count).map(density_at).collect();
    densities.windows(2).map(|pair| pair[0] - pair[1]).collect()
}

/// The standard normal quantile of a probability strictly between 0 and 1, by bisection of
/// `½·erfc(−q/√2)`.
fn normal_quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-40.0, 40.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if 0.5 * libm::erfc(-middle / SQRT_2) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal_rows;

    #[test]
    fn quantiles_are_the_textbook_values() {
        for (probability, expected) in [(0.5, 0.0), (0.975, 1.959963984540054), (0.001, -3.090232306167813)] {
            assert!((normal_quantile(probability) - expected).abs() < 1e-9);
        }
    }

    #[test]
    fn a_single_point_has_the_closed_form() {
        // W² between a point mass at x and N(0, 1) is x² + 1.
        let code = Matrix::new(&[2.0], 1).unwrap();
        assert!((sliced_w2_to_prior(code, 3, 0).unwrap() - 5.0_f64.sqrt()).abs() < 1e-9);
    }

    #[test]
    fn gaussian_codes_have_the_closed_form() {
        // N(μ, s²·I) projects to N(⟨μ, θ⟩, s²): the mean square over directions is ‖μ‖²/d + (s − 1)².
        let codes: Vec<f32> =
            normal_rows(3, Purpose::PriorRows, 20_000, 4).iter().map(|&value| (1.5 * value + 2.0) as f32).collect();
        let found = sliced_w2_to_prior(Matrix::new(&codes, 4).unwrap(), 400, 1).unwrap();
        let expected = (4.0_f64 + 0.25).sqrt();
        assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
    }

    #[test]
    fn draws_from_the_prior_are_near_it() {
        let codes: Vec<f32> = normal_rows(4, Purpose::PriorRows, 20_000, 3).iter().map(|&value| value as f32).collect();
        assert!(sliced_w2_to_prior(Matrix::new(&codes, 3).unwrap(), 20, 1).unwrap() < 0.03);
    }

    #[test]
    fn no_direction_is_an_error() {
        let code = Matrix::new(&[2.0], 1).unwrap();
        assert!(matches!(sliced_w2_to_prior(code, 0, 0), Err(MetricError::NoDirections)));
    }
}
