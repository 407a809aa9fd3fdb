//! Structural similarity of images.

use rayon::prelude::*;

use super::error::{MetricError, positive, same_shape};
use crate::Matrix;

/// Side of the Gaussian window.
const WINDOW: usize = 11;
/// Standard deviation of the Gaussian window in pixels.
const SIGMA: f64 = 1.5;

/// How a row is read as an image: `height × width` pixels of `channels` interleaved values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    /// Number of pixel rows.
    pub height: usize,
    /// Number of pixel columns.
    pub width: usize,
    /// Values per pixel.
    pub channels: usize,
}

/// Mean structural similarity (Wang, Bovik, Sheikh, Simoncelli 2004): an 11×11 Gaussian window with
/// σ = 1.5 at every position where it fits, K₁ = 0.01, K₂ = 0.03, mean over positions and channels of an
/// image, then over images. `peak` is the range of values, 1 for images in [0, 1].
///
/// # Errors
///
/// [`MetricError::ShapeMismatch`] when the shapes differ, [`MetricError::ImageShape`] when rows are not
/// images of that shape, [`MetricError::ImageTooSmall`] when the window does not fit, and
/// [`MetricError::NotPositive`] when `peak` is not positive and finite.
pub fn ssim(target: Matrix<'_>, reconstruction: Matrix<'_>, shape: ImageShape, peak: f64) -> Result<f64, MetricError> {
    same_shape(target, reconstruction)?;
    let ImageShape { height, width, channels } = shape;
    let size = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(channels));
    if size != Some(target.width()) {
        let image_width = width;
        return Err(MetricError::ImageShape { width: target.width(), height, image_width, channels });
    }
    if height < WINDOW || width < WINDOW {
        return Err(MetricError::ImageTooSmall { height, width, window: WINDOW });
    }
    positive("peak", peak)?;
    let window = gaussian_window();
    let per_image: Vec<f64> = target
        .values()
        .par_chunks(target.width())
        .zip(reconstruction.values().par_chunks(target.width()))
        .map(|(target, reconstruction)| {
            let sum: f64 = (0..channels)
                .map(|channel| {
                    let plane = |image: &[f32]| -> Vec<f64> {
                        image[channel..].iter().step_by(channels).map(|&v| f64::from(v)).collect()
                    };
                    plane_ssim(&plane(target), &plane(reconstruction), width, peak, &window)
                })
                .sum();
            sum / channels as f64
        })
        .collect();
    Ok(per_image.iter().sum::<f64>() / per_image.len() as f64)
}

/// The one-dimensional window; its outer product with itself is the two-dimensional one.
fn gaussian_window() -> [f64; WINDOW] {
    let mut window = std::array::from_fn(|index| {
        let offset = index as f64 - (WINDOW / 2) as f64;
        (-offset * offset / (2.0 * SIGMA * SIGMA)).exp()
    });
    let sum: f64 = window.iter().sum();
    window.iter_mut().for_each(|weight| *weight /= sum);
    window
}

fn plane_ssim(x: &[f64], y: &[f64], width: usize, peak: f64, window: &[f64; WINDOW]) -> f64 {
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>();
    let mean_x = blur(x, width, window);
    let mean_y = blur(y, width, window);
    let square_x = blur(&product(x, x), width, window);
    let square_y = blur(&product(y, y), width, window);
    let cross = blur(&product(x, y), width, window);
    let c1 = (0.01 * peak).powi(2);
    let c2 = (0.03 * peak).powi(2);
    let sum: f64 = (0..mean_x.len())
        .map(|at| {
            let (mx, my) = (mean_x[at], mean_y[at]);
            let variances = square_x[at] - mx * mx + square_y[at] - my * my;
            let covariance = cross[at] - mx * my;
            (2.0 * mx * my + c1) * (2.0 * covariance + c2) / ((mx * mx + my * my + c1) * (variances + c2))
        })
        .sum();
    sum / mean_x.len() as f64
}

/// The windowed mean at every position where the window fits: rows first, then columns.
fn blur(plane: &[f64], width: usize, window: &[f64; WINDOW]) -> Vec<f64> {
    let out_width = width - WINDOW + 1;
    let across: Vec<f64> = plane
        .chunks_exact(width)
        .flat_map(|row| row.windows(WINDOW).map(|part| part.iter().zip(window).map(|(v, w)| v * w).sum::<f64>()))
        .collect();
    let rows: Vec<&[f64]> = across.chunks_exact(out_width).collect();
    rows.windows(WINDOW)
        .flat_map(|part| (0..out_width).map(|column| part.iter().zip(window).map(|(row, w)| row[column] * w).sum()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(len: usize, step: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * step) % 17) as f32 / 16.0).collect()
    }

    #[test]
    fn identical_images_give_one() {
        let values = ramp(2 * 14 * 12 * 3, 5);
        let images = Matrix::new(&values, 14 * 12 * 3).unwrap();
        let shape = ImageShape { height: 14, width: 12, channels: 3 };
        assert!((ssim(images, images, shape, 1.0).unwrap() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn constant_images_have_the_luminance_term_alone() {
        let (a, b) = (vec![0.25; 144], vec![0.75; 144]);
        let shape = ImageShape { height: 12, width: 12, channels: 1 };
        let value = ssim(Matrix::new(&a, 144).unwrap(), Matrix::new(&b, 144).unwrap(), shape, 1.0).unwrap();
        let expected = (2.0 * 0.25 * 0.75 + 1e-4) / (0.0625 + 0.5625 + 1e-4);
        assert!((value - expected).abs() < 1e-9);
    }

    #[test]
    fn equals_the_two_dimensional_definition_at_one_position() {
        let (x, y) = (ramp(121, 5), ramp(121, 7));
        let shape = ImageShape { height: 11, width: 11, channels: 1 };
        let value = ssim(Matrix::new(&x, 121).unwrap(), Matrix::new(&y, 121).unwrap(), shape, 2.0).unwrap();
        let weight = |at: usize| {
            let (r, c) = ((at / 11) as f64 - 5.0, (at % 11) as f64 - 5.0);
            (-(r * r + c * c) / 4.5).exp()
        };
        let total: f64 = (0..121).map(weight).sum();
        let mean = |f: &dyn Fn(usize) -> f64| (0..121).map(|i| weight(i) * f(i)).sum::<f64>() / total;
        let (px, py) = (|i: usize| f64::from(x[i]), |i: usize| f64::from(y[i]));
        let (mx, my) = (mean(&px), mean(&py));
        let vx = mean(&|i| (px(i) - mx).powi(2));
        let vy = mean(&|i| (py(i) - my).powi(2));
        let cov = mean(&|i| (px(i) - mx) * (py(i) - my));
        let (c1, c2) = (4e-4, 3.6e-3);
        let expected = (2.0 * mx * my + c1) * (2.0 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2));
        assert!((value - expected).abs() < 1e-10, "{value} {expected}");
    }

    #[test]
    fn bad_shapes_are_errors() {
        let small = Matrix::new(&[0.0; 64], 64).unwrap();
        let shape = |height, width, channels| ImageShape { height, width, channels };
        assert!(matches!(
            ssim(small, small, shape(8, 8, 1), 1.0),
            Err(MetricError::ImageTooSmall { height: 8, width: 8, window: 11 })
        ));
        for wrong in [shape(8, 8, 3), shape(usize::MAX, 2, 2), shape(0, 0, 0)] {
            assert!(matches!(ssim(small, small, wrong, 1.0), Err(MetricError::ImageShape { .. })));
        }
    }
}
