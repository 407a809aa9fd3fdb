//! Residuals of images, averaged over small windows.

use serde::{Deserialize, Serialize};

use super::{ResidualScale, ScoreError};
use crate::Matrix;
use crate::metrics::{ImageShape, same_width};

/// The standardised residual of images whose residual `e = x' − x` was averaged over square windows before it is
/// squared: the mean over the pixels of `ē²/m`, with `ē` the mean of `e` over the window about a pixel, 0 beyond the
/// border, and `m` the mean of `ē²` over held-out rows ([`ResidualScale`]).
///
/// What a model cannot follow in a normal image is fine texture, whose residual changes sign from pixel to pixel and
/// averages out. A part that does not belong leaves a residual of one sign.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct SmoothResidual {
    height: usize,
    width: usize,
    channels: usize,
    scale: ResidualScale,
}

/// The stored form, before it is checked.
#[derive(Deserialize)]
struct Stored {
    height: usize,
    width: usize,
    channels: usize,
    scale: ResidualScale,
}

impl TryFrom<Stored> for SmoothResidual {
    type Error = ScoreError;

    fn try_from(Stored { height, width, channels, scale }: Stored) -> Result<Self, ScoreError> {
        let pixels = height.checked_mul(width).and_then(|pixels| pixels.checked_mul(channels));
        match pixels == Some(scale.width()) {
            true => Ok(Self { height, width, channels, scale }),
            false => Err(ScoreError::Stored("a scale of residuals does not fit its images")),
        }
    }
}

impl SmoothResidual {
    /// Pixels of a window's side.
    pub const SIDE: usize = 3;

    /// Measures the averaged residuals of held-out rows.
    ///
    /// # Errors
    ///
    /// [`ScoreError::Metric`] when the shapes differ from each other or the rows are no images of `shape`.
    pub fn fit(shape: ImageShape, input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Self, ScoreError> {
        let ImageShape { height, width, channels } = shape;
        same_width(height.saturating_mul(width).saturating_mul(channels), input.width())?;
        let smooth = |rows: Matrix<'_>| averaged((height, width, channels), rows);
        let (input, reconstruction) = (smooth(input), smooth(reconstruction));
        let row = height * width * channels;
        let scale = ResidualScale::fit(Matrix::new(&input, row)?, Matrix::new(&reconstruction, row)?)?;
        Ok(Self { height, width, channels, scale })
    }

    /// Mean over the pixels of the averaged residual's square divided by its usual square, for every row: about 1
    /// for rows like the held-out ones.
    ///
    /// # Errors
    ///
    /// As [`ResidualScale::scores`].
    pub fn scores(&self, input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
        let contributions = self.contributions(input, reconstruction)?;
        let mean = |row: &[f64]| row.iter().sum::<f64>() / row.len() as f64;
        Ok(contributions.chunks_exact(self.scale.width()).map(mean).collect())
    }

    /// The part of the window about every pixel of every row, `[rows, width]`.
    ///
    /// # Errors
    ///
    /// As [`ResidualScale::scores`].
    pub fn contributions(&self, input: Matrix<'_>, reconstruction: Matrix<'_>) -> Result<Vec<f64>, ScoreError> {
        let row = self.scale.width();
        same_width(row, input.width())?;
        same_width(row, reconstruction.width())?;
        let smooth = |rows: Matrix<'_>| averaged((self.height, self.width, self.channels), rows);
        let (input, reconstruction) = (smooth(input), smooth(reconstruction));
        self.scale.contributions(Matrix::new(&input, row)?, Matrix::new(&reconstruction, row)?)
    }
}

/// Every value replaced by the mean of its channel over the window about it, 0 beyond the border. The mean of a
/// difference is the difference of the means, so that rows and reconstructions can be averaged apart.
fn averaged((height, width, channels): (usize, usize, usize), rows: Matrix<'_>) -> Vec<f32> {
    const REACH: usize = SmoothResidual::SIDE / 2;
    let mut out = Vec::with_capacity(rows.values().len());
    for row in rows.iter() {
        for y in 0..height {
            for x in 0..width {
                for channel in 0..channels {
                    let mut sum = 0.0;
                    for near_y in y.saturating_sub(REACH)..height.min(y + REACH + 1) {
                        for near_x in x.saturating_sub(REACH)..width.min(x + REACH + 1) {
                            sum += row[(near_y * width + near_x) * channels + channel];
                        }
                    }
                    out.push(sum / (SmoothResidual::SIDE * SmoothResidual::SIDE) as f32);
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal_rows};

    const SHAPE: ImageShape = ImageShape { height: 6, width: 5, channels: 2 };
    const WIDTH: usize = 60;

    fn noise(seed: u64, rows: usize) -> Vec<f32> {
        normal_rows(seed, Purpose::PriorRows, rows, WIDTH).iter().map(|&value| value as f32).collect()
    }

    fn matrix(values: &[f32]) -> Matrix<'_> {
        Matrix::new(values, WIDTH).unwrap()
    }

    #[test]
    fn windows_by_hand() {
        // 3 × 2 pixels of one channel.
        let row = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let found = averaged((3, 2, 1), Matrix::new(&row, 6).unwrap());
        let expected = [10.0, 10.0, 21.0, 21.0, 18.0, 18.0].map(|sum: f32| sum / 9.0);
        assert_eq!(found, expected);
        // Channels do not mix.
        let both: Vec<f32> = row.iter().flat_map(|value| [*value, -10.0 * value]).collect();
        let found = averaged((3, 2, 2), Matrix::new(&both, 12).unwrap());
        for (pair, expected) in found.chunks(2).zip(expected) {
            assert!((pair[0] - expected).abs() < 1e-6 && (pair[1] + 10.0 * expected).abs() < 1e-5);
        }
    }

    #[test]
    fn a_patch_of_one_sign_counts_for_more_than_texture() {
        let (held, zeros) = (noise(1, 500), vec![0.0; 500 * WIDTH]);
        let scale = SmoothResidual::fit(SHAPE, matrix(&held), matrix(&zeros)).unwrap();
        let scores = scale.scores(matrix(&held), matrix(&zeros)).unwrap();
        assert!((scores.iter().sum::<f64>() / 500.0 - 1.0).abs() < 1e-9);
        // The same squares at the same pixels of both: the plain residual cannot tell them apart.
        let patch: Vec<f32> = (0..WIDTH).map(|at| if (20..40).contains(&at) { 1.0 } else { 0.0 }).collect();
        let signs = |at: usize| if (at / 2).is_multiple_of(2) { 1.0 } else { -1.0 };
        let texture: Vec<f32> = patch.iter().enumerate().map(|(at, value)| value * signs(at)).collect();
        let zero = matrix(&zeros[..WIDTH]);
        let plain = ResidualScale::fit(matrix(&held), matrix(&zeros)).unwrap();
        assert_eq!(plain.scores(matrix(&patch), zero).unwrap(), plain.scores(matrix(&texture), zero).unwrap());
        let score = |row: &[f32]| scale.scores(matrix(row), zero).unwrap()[0];
        assert!(score(&patch) > 3.0 * score(&texture), "{} {}", score(&patch), score(&texture));
    }

    #[test]
    fn bad_input_is_an_error() {
        let values = noise(1, 10);
        let rows = Matrix::new(&values, WIDTH).unwrap();
        let wrong = ImageShape { height: 6, width: 6, channels: 2 };
        assert!(matches!(SmoothResidual::fit(wrong, rows, rows), Err(ScoreError::Metric(_))));
        let scale = SmoothResidual::fit(SHAPE, rows, rows).unwrap();
        let narrow = Matrix::new(&values[..30], 30).unwrap();
        assert!(scale.scores(narrow, narrow).is_err() && scale.scores(rows, narrow).is_err());
        let json = serde_json::to_string(&scale).unwrap();
        assert_eq!(serde_json::from_str::<SmoothResidual>(&json).unwrap(), scale);
        assert!(serde_json::from_str::<SmoothResidual>(&json.replace(r#""height":6"#, r#""height":7"#)).is_err());
    }
}
