//! Precision, recall, density and coverage of samples.

use rayon::prelude::*;

use super::error::{MetricError, at_least, same_width};
use crate::Matrix;
use crate::linalg::{centred, column_means, squared_distances};

/// Rows of one side of a distance block.
const BLOCK_ROWS: usize = 256;

/// The region covered by balls round a set of rows, each as large as the distance to its row's `k`-th
/// nearest other row (Kynkäänniemi, Karras, Laine, Lehtinen, Aila 2019).
#[derive(Clone, Debug)]
pub struct Manifold {
    mean: Vec<f64>,
    /// The rows about `mean`.
    rows: Vec<f64>,
    /// Squared radius of every ball.
    radii: Vec<f64>,
    k: usize,
}

impl Manifold {
    /// Balls round `rows`, reaching the `k`-th nearest other row.
    ///
    /// # Errors
    ///
    /// [`MetricError::TooFewRows`] for a single row, [`MetricError::NeighborCount`] unless
    /// `1 <= k < rows.rows()`.
    pub fn fit(rows: Matrix<'_>, k: usize) -> Result<Self, MetricError> {
        at_least(2, rows.rows())?;
        if k == 0 || k >= rows.rows() {
            return Err(MetricError::NeighborCount { k, max: rows.rows() - 1 });
        }
        let width = rows.width();
        let mean = column_means(rows);
        let rows = centred(rows.values(), &mean);
        let radii = rows
            .par_chunks(BLOCK_ROWS * width)
            .enumerate()
            .flat_map_iter(|(block, queries)| {
                let count = queries.len() / width;
                let mut distances: Vec<Vec<f64>> = vec![Vec::new(); count];
                for others in rows.chunks(BLOCK_ROWS * width) {
                    let tile = squared_distances(queries, others, width);
                    for (all, row) in distances.iter_mut().zip(tile.chunks(others.len() / width)) {
                        all.extend_from_slice(row);
                    }
                }
                distances.into_iter().enumerate().map(move |(index, mut row)| {
                    row.swap_remove(block * BLOCK_ROWS + index);
                    *row.select_nth_unstable_by(k - 1, f64::total_cmp).1
                })
            })
            .collect();
        Ok(Self { mean, rows, radii, k })
    }

    /// For every query row, the number of balls it lies in.
    ///
    /// # Errors
    ///
    /// [`MetricError::WidthMismatch`] when the width is not the one fitted on.
    pub fn balls_containing(&self, query: Matrix<'_>) -> Result<Vec<usize>, MetricError> {
        same_width(self.mean.len(), query.width())?;
        Ok(self.scan(query, |tile, radii, count| *count += tile.iter().zip(radii).filter(|(d, r)| d <= r).count()))
    }

    /// Folds every query row's distances to the fitted rows, block by block.
    fn scan<T: Send + Default + Clone>(
        &self,
        query: Matrix<'_>,
        fold: impl Fn(&[f64], &[f64], &mut T) + Sync,
    ) -> Vec<T> {
        let width = self.mean.len();
        let query = centred(query.values(), &self.mean);
        let mut out = vec![T::default(); query.len() / width];
        out.par_chunks_mut(BLOCK_ROWS).zip(query.par_chunks(BLOCK_ROWS * width)).for_each(|(out, query)| {
            for (rows, radii) in self.rows.chunks(BLOCK_ROWS * width).zip(self.radii.chunks(BLOCK_ROWS)) {
                let tile = squared_distances(query, rows, width);
                for (value, distances) in out.iter_mut().zip(tile.chunks(radii.len())) {
                    fold(distances, radii, value);
                }
            }
        });
        out
    }
}

/// How samples and data cover each other, each figure between 0 and 1 (density may exceed 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrecisionRecall {
    /// Share of samples inside the data's manifold.
    pub precision: f64,
    /// Share of data rows inside the samples' manifold.
    pub recall: f64,
    /// Mean number of the data's balls round a sample, divided by `k` (Naeem, Oh, Uh, Choi, Yoo 2020).
    pub density: f64,
    /// Share of the data's balls with a sample inside (same source).
    pub coverage: f64,
}

impl PrecisionRecall {
    /// Compares `samples` with `data` through their manifolds of `k` neighbours (3 is usual for
    /// precision and recall, 5 for density and coverage). The work grows with the square of the rows.
    ///
    /// # Errors
    ///
    /// As [`Manifold::fit`] for either set, and [`MetricError::WidthMismatch`] when the widths differ.
    pub fn between(data: Matrix<'_>, samples: Matrix<'_>, k: usize) -> Result<Self, MetricError> {
        same_width(data.width(), samples.width())?;
        let share = |hits: usize, rows: usize| hits as f64 / rows as f64;
        let data_manifold = Manifold::fit(data, k)?;
        let sample_manifold = Manifold::fit(samples, k)?;
        let around_samples = data_manifold.balls_containing(samples)?;
        let around_data = sample_manifold.balls_containing(data)?;
        let nearest_sample = sample_manifold.scan(data, |tile, _, nearest: &mut Option<f64>| {
            let smallest = tile.iter().copied().fold(f64::INFINITY, f64::min);
            *nearest = Some(nearest.map_or(smallest, |nearest| nearest.min(smallest)));
        });
        let covered = nearest_sample
            .iter()
            .zip(&data_manifold.radii)
            .filter(|(nearest, radius)| nearest.is_some_and(|nearest| nearest <= **radius))
            .count();
        Ok(Self {
            precision: share(around_samples.iter().filter(|&&balls| balls > 0).count(), samples.rows()),
            recall: share(around_data.iter().filter(|&&balls| balls > 0).count(), data.rows()),
            density: share(around_samples.iter().sum(), data_manifold.k * samples.rows()),
            coverage: share(covered, data.rows()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal_rows};

    fn normal(seed: u64, rows: usize, width: usize, scale: f64) -> Vec<f32> {
        normal_rows(seed, Purpose::PriorRows, rows, width).iter().map(|&v| (v * scale) as f32).collect()
    }

    #[test]
    fn figures_equal_their_definitions() {
        let (width, k) = (2, 3);
        let (data, samples) = (normal(1, BLOCK_ROWS + 40, width, 1.0), normal(2, 300, width, 0.7));
        let distance = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        };
        let balls = |set: &[f32]| -> Vec<(Vec<f32>, f64)> {
            set.chunks(width)
                .map(|center| {
                    let mut all: Vec<f64> = set.chunks(width).map(|other| distance(center, other)).collect();
                    all.sort_by(f64::total_cmp);
                    (center.to_vec(), all[k])
                })
                .collect()
        };
        let inside = |balls: &[(Vec<f32>, f64)], row: &[f32]| {
            balls.iter().filter(|(center, radius)| distance(row, center) <= *radius).count()
        };
        let (data_balls, sample_balls) = (balls(&data), balls(&samples));
        let share = |from: &[f32], into: &[(Vec<f32>, f64)]| {
            let rows = from.len() / width;
            from.chunks(width).filter(|row| inside(into, row) > 0).count() as f64 / rows as f64
        };
        let found =
            PrecisionRecall::between(Matrix::new(&data, width).unwrap(), Matrix::new(&samples, width).unwrap(), k)
                .unwrap();
        assert_eq!(found.precision, share(&samples, &data_balls));
        assert_eq!(found.recall, share(&data, &sample_balls));
        let density: usize = samples.chunks(width).map(|row| inside(&data_balls, row)).sum();
        assert_eq!(found.density, density as f64 / (k * 300) as f64);
        let covered = data_balls
            .iter()
            .filter(|(center, radius)| samples.chunks(width).any(|sample| distance(center, sample) <= *radius))
            .count();
        assert_eq!(found.coverage, covered as f64 / (data.len() / width) as f64);
    }

    #[test]
    fn collapsed_samples_are_precise_without_recall() {
        let data = normal(3, 400, 3, 1.0);
        let collapsed = normal(4, 400, 3, 0.01);
        let found =
            PrecisionRecall::between(Matrix::new(&data, 3).unwrap(), Matrix::new(&collapsed, 3).unwrap(), 3).unwrap();
        assert!(found.precision > 0.9 && found.recall < 0.05, "{found:?}");
        let far: Vec<f32> = data.iter().map(|v| v + 100.0).collect();
        let found = PrecisionRecall::between(Matrix::new(&data, 3).unwrap(), Matrix::new(&far, 3).unwrap(), 3).unwrap();
        assert_eq!((found.precision, found.recall, found.density, found.coverage), (0.0, 0.0, 0.0, 0.0));
    }

    #[test]
    fn bad_input_is_an_error() {
        let two = Matrix::new(&[0.0, 1.0], 1).unwrap();
        let single = Matrix::new(&[0.0, 1.0], 2).unwrap();
        assert!(matches!(Manifold::fit(single, 1), Err(MetricError::TooFewRows { .. })));
        for k in [0, 2] {
            assert!(matches!(Manifold::fit(two, k), Err(MetricError::NeighborCount { max: 1, .. })));
        }
        let manifold = Manifold::fit(two, 1).unwrap();
        assert!(matches!(manifold.balls_containing(single), Err(MetricError::WidthMismatch { .. })));
    }
}
