//! Exact principal component analysis: the error no linear autoencoder can beat.

use rayon::prelude::*;

use super::error::{MetricError, same_width};
use crate::Matrix;
use crate::linalg::{centred, column_means, covariance, product, product_transposed, symmetric_eigen, trace};

/// Rows projected at a time.
const BLOCK_ROWS: usize = 512;

/// Principal components of a training set.
///
/// Computed in `f64` from the full eigendecomposition of the covariance, or of the Gram matrix when there
/// are no more rows than columns. In that second case at most `rows − 1` directions have variance; the
/// components beyond them are zero vectors.
///
/// ```
/// use cvae::{Matrix, metrics::Pca};
/// // Points on the line through (1, 0) and (2, 1): one component loses nothing.
/// let train = [1.0, 0.0, 2.0, 1.0, 4.0, 3.0];
/// let train = Matrix::new(&train, 2)?;
/// let pca = Pca::fit(train, 1)?;
/// assert!(pca.mse(train)? < 1e-12);
/// # Ok::<(), cvae::metrics::MetricError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    mean: Vec<f64>,
    /// `[components, width]`, orthonormal rows.
    components: Vec<f64>,
    /// Variance along each component (divisor: the number of rows).
    variances: Vec<f64>,
    total_variance: f64,
}

impl Pca {
    /// Finds the `components` directions of largest variance about the column means.
    ///
    /// # Errors
    ///
    /// [`MetricError::ComponentCount`] unless `1 <= components <= width`, and
    /// [`MetricError::NoConvergence`] when the eigenvalue iteration fails.
    pub fn fit(train: Matrix<'_>, components: usize) -> Result<Self, MetricError> {
        let width = train.width();
        if components == 0 || components > width {
            return Err(MetricError::ComponentCount { components, max: width });
        }
        let mean = column_means(train);
        if train.rows() > width {
            let covariance = covariance(train, &mean);
            let total_variance = trace(&covariance, width);
            let (values, mut vectors) = symmetric_eigen(covariance, width).ok_or(MetricError::NoConvergence)?;
            vectors.truncate(components * width);
            let variances = values.iter().take(components).map(|value| value.max(0.0)).collect();
            return Ok(Self { mean, components: vectors, variances, total_variance });
        }
        Self::fit_wide(train, mean, components)
    }

    /// From the Gram matrix of the centred rows: with `G u = λ u`, the direction is `Xᵀu / √λ`.
    fn fit_wide(train: Matrix<'_>, mean: Vec<f64>, components: usize) -> Result<Self, MetricError> {
        let (rows, width) = (train.rows(), train.width());
        let centred = centred(train.values(), &mean);
        let mut gram = vec![0.0; rows * rows];
        product_transposed(1.0, &centred, &centred, width, 0.0, &mut gram);
        let total_variance = trace(&gram, rows) / rows as f64;
        let (values, vectors) = symmetric_eigen(gram, rows).ok_or(MetricError::NoConvergence)?;
        let smallest = values.first().map_or(0.0, |largest| largest * rows as f64 * f64::EPSILON);
        let mut directions = vec![0.0; components * width];
        let mut variances = vec![0.0; components];
        let pairs = values.iter().zip(vectors.chunks_exact(rows));
        for (index, (value, vector)) in pairs.enumerate().take(components) {
            if *value <= smallest {
                break;
            }
            let direction = &mut directions[index * width..][..width];
            product(value.sqrt().recip(), (vector, rows), (&centred, width), direction);
            variances[index] = value / rows as f64;
        }
        Ok(Self { mean, components: directions, variances, total_variance })
    }

    /// Width of the rows fitted on.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Number of components.
    pub fn components(&self) -> usize {
        self.variances.len()
    }

    /// Variance of the training rows along each component, in falling order.
    pub fn variances(&self) -> &[f64] {
        &self.variances
    }

    /// Share of the total variance that the components hold, 1 for a training set without variance.
    pub fn explained(&self) -> f64 {
        if self.total_variance == 0.0 {
            return 1.0;
        }
        self.variances.iter().sum::<f64>() / self.total_variance
    }

    /// The first `components` alone, as if fitted with that number.
    ///
    /// # Errors
    ///
    /// [`MetricError::ComponentCount`] unless `1 <= components <= self.components()`.
    pub fn truncated(&self, components: usize) -> Result<Self, MetricError> {
        if components == 0 || components > self.components() {
            return Err(MetricError::ComponentCount { components, max: self.components() });
        }
        Ok(Self {
            mean: self.mean.clone(),
            components: self.components[..components * self.width()].to_vec(),
            variances: self.variances[..components].to_vec(),
            total_variance: self.total_variance,
        })
    }

    /// Scores of the rows, `rows × components`.
    ///
    /// # Errors
    ///
    /// [`MetricError::WidthMismatch`] when the width is not the one fitted on.
    pub fn transform(&self, rows: Matrix<'_>) -> Result<Vec<f32>, MetricError> {
        same_width(self.width(), rows.width())?;
        let mut out = vec![0.0; rows.rows() * self.components()];
        out.par_chunks_mut(BLOCK_ROWS * self.components())
            .zip(rows.values().par_chunks(BLOCK_ROWS * self.width()))
            .for_each(|(out, block)| {
                let (_, scores) = self.project(block);
                out.iter_mut().zip(scores).for_each(|(out, score)| *out = score as f32);
            });
        Ok(out)
    }

    /// Rows with these scores, `rows × width`.
    ///
    /// # Errors
    ///
    /// [`MetricError::WidthMismatch`] when a row of scores has not one value per component.
    pub fn inverse_transform(&self, scores: Matrix<'_>) -> Result<Vec<f32>, MetricError> {
        same_width(self.components(), scores.width())?;
        let width = self.width();
        let mut out = vec![0.0; scores.rows() * width];
        out.par_chunks_mut(BLOCK_ROWS * width).zip(scores.values().par_chunks(BLOCK_ROWS * scores.width())).for_each(
            |(out, block)| {
                let block: Vec<f64> = block.iter().map(|&score| f64::from(score)).collect();
                let mut rows = vec![0.0; out.len()];
                product(1.0, (&block, scores.width()), (&self.components, width), &mut rows);
                for (out, row) in out.chunks_exact_mut(width).zip(rows.chunks_exact(width)) {
                    for ((out, value), mean) in out.iter_mut().zip(row).zip(&self.mean) {
                        *out = (value + mean) as f32;
                    }
                }
            },
        );
        Ok(out)
    }

    /// Mean squared error of every row's reconstruction.
    ///
    /// # Errors
    ///
    /// [`MetricError::WidthMismatch`] when the width is not the one fitted on.
    pub fn residuals(&self, rows: Matrix<'_>) -> Result<Vec<f64>, MetricError> {
        same_width(self.width(), rows.width())?;
        let square = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>();
        let blocks: Vec<Vec<f64>> = rows
            .values()
            .par_chunks(BLOCK_ROWS * self.width())
            .map(|block| {
                let (centred, scores) = self.project(block);
                centred
                    .chunks_exact(self.width())
                    .zip(scores.chunks_exact(self.components()))
                    .map(|(row, scores)| (square(row) - square(scores)).max(0.0) / self.width() as f64)
                    .collect()
            })
            .collect();
        Ok(blocks.concat())
    }

    /// Mean squared error of the reconstructions over all elements: the floor to print beside an
    /// autoencoder's test error.
    ///
    /// # Errors
    ///
    /// [`MetricError::WidthMismatch`] when the width is not the one fitted on.
    pub fn mse(&self, rows: Matrix<'_>) -> Result<f64, MetricError> {
        let residuals = self.residuals(rows)?;
        Ok(residuals.iter().sum::<f64>() / residuals.len() as f64)
    }

    /// A block of rows about the mean, and its scores, both row-major.
    fn project(&self, block: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let centred = centred(block, &self.mean);
        let mut scores = vec![0.0; block.len() / self.width() * self.components()];
        product_transposed(1.0, &centred, &self.components, self.width(), 0.0, &mut scores);
        (centred, scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::mse;
    use crate::random::{Purpose, normal_rows};

    /// Rows with variances 9, 4, 1, 0.25 along rotated axes and mean (1, 2, 3, 4).
    fn sample(rows: usize) -> Vec<f32> {
        let half = 0.5;
        let basis = [
            [half, half, half, half],
            [half, -half, half, -half],
            [half, half, -half, -half],
            [half, -half, -half, half],
        ];
        let scales = [3.0, 2.0, 1.0, 0.5];
        let noise = normal_rows(3, Purpose::PriorRows, rows, 4);
        noise
            .chunks_exact(4)
            .flat_map(|row| {
                (0..4).map(move |column| {
                    let value: f64 = (0..4).map(|axis| row[axis] * scales[axis] * basis[axis][column]).sum();
                    (value + 1.0 + column as f64) as f32
                })
            })
            .collect()
    }

    #[test]
    fn training_error_is_the_variance_left_out() {
        let values = sample(5000);
        let train = Matrix::new(&values, 4).unwrap();
        let full = Pca::fit(train, 4).unwrap();
        for (variance, expected) in full.variances().iter().zip([9.0, 4.0, 1.0, 0.25]) {
            assert!((variance / expected - 1.0).abs() < 0.1, "{variance} {expected}");
        }
        for components in 1..=4 {
            let pca = full.truncated(components).unwrap();
            assert_eq!(pca, Pca::fit(train, components).unwrap());
            let left: f64 = full.variances()[components..].iter().sum();
            assert!((pca.mse(train).unwrap() - left / 4.0).abs() < 1e-12);
            let share = 1.0 - left / full.variances().iter().sum::<f64>();
            assert!((pca.explained() - share).abs() < 1e-12);
        }
    }

    #[test]
    fn residuals_are_the_errors_of_the_inverse_transform() {
        let values = sample(700);
        let rows = Matrix::new(&values, 4).unwrap();
        let pca = Pca::fit(Matrix::new(&values[..1200], 4).unwrap(), 2).unwrap();
        let scores = pca.transform(rows).unwrap();
        let back = pca.inverse_transform(Matrix::new(&scores, 2).unwrap()).unwrap();
        let error = mse(rows, Matrix::new(&back, 4).unwrap()).unwrap();
        assert!((error / pca.mse(rows).unwrap() - 1.0).abs() < 1e-5);
        assert_eq!(pca.residuals(rows).unwrap().len(), 700);
    }

    #[test]
    fn few_wide_rows_give_the_same_components_as_the_covariance() {
        // 30 rows of width 40 through the Gram matrix; the same rows with 20 copies through the covariance.
        let rows: Vec<f32> = normal_rows(5, Purpose::PriorRows, 30, 40).iter().map(|&v| v as f32).collect();
        let copies = rows.repeat(20);
        let wide = Pca::fit(Matrix::new(&rows, 40).unwrap(), 7).unwrap();
        let tall = Pca::fit(Matrix::new(&copies, 40).unwrap(), 7).unwrap();
        let other: Vec<f32> = normal_rows(6, Purpose::PriorRows, 9, 40).iter().map(|&v| v as f32).collect();
        let other = Matrix::new(&other, 40).unwrap();
        for (a, b) in wide.residuals(other).unwrap().iter().zip(tall.residuals(other).unwrap()) {
            assert!((a - b).abs() < 1e-10);
        }
    }

    #[test]
    fn components_beyond_the_rank_add_nothing() {
        let values = [1.0, 0.0, 2.0, 0.0, 1.0, 5.0];
        let two_rows = Matrix::new(&values, 3).unwrap();
        let pca = Pca::fit(two_rows, 3).unwrap();
        assert_eq!(pca.variances()[1..], [0.0, 0.0]);
        assert!(pca.mse(two_rows).unwrap() < 1e-12);
        let constant = Matrix::new(&[2.0; 6], 2).unwrap();
        let pca = Pca::fit(constant, 2).unwrap();
        assert_eq!((pca.mse(constant).unwrap(), pca.explained()), (0.0, 1.0));
        let single = Matrix::new(&[2.0, 1.0], 2).unwrap();
        assert_eq!(Pca::fit(single, 1).unwrap().mse(single).unwrap(), 0.0);
    }

    #[test]
    fn bad_input_is_an_error() {
        let rows = Matrix::new(&[0.0; 12], 3).unwrap();
        for components in [0, 4] {
            assert!(matches!(Pca::fit(rows, components), Err(MetricError::ComponentCount { max: 3, .. })));
        }
        let pca = Pca::fit(rows, 2).unwrap();
        assert!(matches!(pca.truncated(3), Err(MetricError::ComponentCount { max: 2, .. })));
        let narrow = Matrix::new(&[0.0; 4], 2).unwrap();
        assert!(matches!(pca.transform(narrow), Err(MetricError::WidthMismatch { expected: 3, found: 2 })));
        assert!(pca.mse(narrow).is_err());
        assert!(pca.inverse_transform(rows).is_err());
    }
}
