//! Classification by nearest neighbours, by brute force over blocks.

use rayon::prelude::*;

use super::error::{MetricError, labelled, same_width};
use crate::Matrix;
use crate::linalg::{centred, column_means, product_transposed};

/// Query rows that share a pass over the training rows.
const QUERY_ROWS: usize = 128;
/// Training rows per block: their products with the query rows stay in the L2 cache.
const TRAIN_ROWS: usize = 1024;

/// Share of test rows whose label [`knn_predict`] gives.
///
/// # Errors
///
/// As [`knn_predict`], and [`MetricError::LabelCount`] when the test labels do not match the test rows.
pub fn knn_accuracy(
    train: Matrix<'_>,
    train_labels: &[u32],
    test: Matrix<'_>,
    test_labels: &[u32],
    k: usize,
) -> Result<f64, MetricError> {
    labelled(test, test_labels)?;
    let predicted = knn_predict(train, train_labels, test, k)?;
    let hits = predicted.iter().zip(test_labels).filter(|(a, b)| a == b).count();
    Ok(hits as f64 / test_labels.len() as f64)
}

/// The most frequent label among the `k` training rows nearest in Euclidean distance; among equally
/// frequent labels the smallest, among equally near rows the first.
///
/// Distances are `f32`, after moving the training mean to the origin and scaling to unit range.
///
/// # Errors
///
/// [`MetricError::WidthMismatch`] when the widths differ, [`MetricError::LabelCount`] when labels do not
/// match the training rows, [`MetricError::NeighborCount`] unless `1 <= k <= train.rows()`.
pub fn knn_predict(
    train: Matrix<'_>,
    train_labels: &[u32],
    query: Matrix<'_>,
    k: usize,
) -> Result<Vec<u32>, MetricError> {
    same_width(train.width(), query.width())?;
    labelled(train, train_labels)?;
    if k == 0 || k > train.rows() {
        return Err(MetricError::NeighborCount { k, max: train.rows() });
    }
    let neighbors = nearest_rows(train, query, k);
    Ok(neighbors
        .chunks_exact(k)
        .map(|neighbors| {
            let mut labels: Vec<u32> = neighbors.iter().map(|&row| train_labels[row]).collect();
            labels.sort_unstable();
            most_frequent(&labels)
        })
        .collect())
}

/// The first of the longest runs in sorted labels.
fn most_frequent(sorted: &[u32]) -> u32 {
    let mut best: &[u32] = &[];
    for run in sorted.chunk_by(|a, b| a == b) {
        if run.len() > best.len() {
            best = run;
        }
    }
    best[0]
}

/// Indices of the `k` nearest training rows of every query row, nearest first. The widths are equal, and `k` is at
/// least 1 and at most the number of training rows.
pub(crate) fn nearest_rows(train: Matrix<'_>, query: Matrix<'_>, k: usize) -> Vec<usize> {
    let width = train.width();
    let (train, query) = normalized(train, query);
    let norms: Vec<f32> = train.chunks_exact(width).map(|row| row.iter().map(|value| value * value).sum()).collect();
    let mut out = vec![0; query.len() / width * k];
    out.par_chunks_mut(QUERY_ROWS * k).zip(query.par_chunks(QUERY_ROWS * width)).for_each(|(out, query)| {
        // (distance − |query|², row), nearest first: the query's own norm does not change the order.
        let mut best = vec![(f32::INFINITY, 0); out.len()];
        let mut products = vec![0.0; query.len() / width * TRAIN_ROWS];
        for (block, (train, norms)) in train.chunks(TRAIN_ROWS * width).zip(norms.chunks(TRAIN_ROWS)).enumerate() {
            let products = &mut products[..query.len() / width * norms.len()];
            product_transposed(1.0, query, train, width, 0.0, products);
            for (best, products) in best.chunks_exact_mut(k).zip(products.chunks_exact(norms.len())) {
                for (index, (product, norm)) in products.iter().zip(norms).enumerate() {
                    let distance = norm - 2.0 * product;
                    if distance < best[k - 1].0 {
                        let at = best.partition_point(|entry| entry.0 <= distance);
                        best[at..].rotate_right(1);
                        best[at] = (distance, block * TRAIN_ROWS + index);
                    }
                }
            }
        }
        out.iter_mut().zip(&best).for_each(|(out, entry)| *out = entry.1);
    });
    out
}

/// Both sets about the training mean, divided by the largest magnitude in either, so that products
/// neither overflow nor lose digits to a common offset.
fn normalized(train: Matrix<'_>, query: Matrix<'_>) -> (Vec<f32>, Vec<f32>) {
    let means = column_means(train);
    let (train, query) = (centred(train.values(), &means), centred(query.values(), &means));
    let largest = train.iter().chain(&query).fold(0.0_f64, |largest, value| largest.max(value.abs()));
    let scale = if largest > 0.0 { largest.recip() } else { 1.0 };
    let scaled = |rows: Vec<f64>| rows.iter().map(|value| (value * scale) as f32).collect();
    (scaled(train), scaled(query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal_rows};

    fn rows(seed: u64, rows: usize, width: usize) -> Vec<f32> {
        normal_rows(seed, Purpose::PriorRows, rows, width).iter().map(|&v| v as f32).collect()
    }

    #[test]
    fn neighbors_equal_a_full_sort() {
        // More rows than one block on both sides, neither a multiple of it.
        let (width, k) = (3, 4);
        let (train, query) = (rows(1, TRAIN_ROWS + 77, width), rows(2, QUERY_ROWS + 5, width));
        let found = nearest_rows(Matrix::new(&train, width).unwrap(), Matrix::new(&query, width).unwrap(), k);
        for (query, found) in query.chunks(width).zip(found.chunks(k)) {
            let distance = |row: usize| -> f64 {
                let train = &train[row * width..][..width];
                train.iter().zip(query).map(|(a, b)| f64::from(a - b).powi(2)).sum()
            };
            let mut order: Vec<usize> = (0..train.len() / width).collect();
            order.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
            assert_eq!(found, &order[..k]);
        }
    }

    #[test]
    fn votes_and_ties() {
        assert_eq!(most_frequent(&[3, 3, 7, 7]), 3);
        assert_eq!(most_frequent(&[1, 2, 2]), 2);
        let train = [0.0, 1.0, 2.0, 10.0, 11.0];
        let labels = [5, 5, 9, 9, 9];
        let train = Matrix::new(&train, 1).unwrap();
        let query = Matrix::new(&[0.4, 10.4], 1).unwrap();
        assert_eq!(knn_predict(train, &labels, query, 3).unwrap(), [5, 9]);
        assert_eq!(knn_accuracy(train, &labels, query, &[5, 5], 3).unwrap(), 0.5);
        // All five rows vote: the majority wins everywhere.
        assert_eq!(knn_predict(train, &labels, query, 5).unwrap(), [9, 9]);
    }

    #[test]
    fn huge_and_constant_values_are_no_trouble() {
        let values = [3e38, -3e38, 2.9e38, -2.9e38];
        let train = Matrix::new(&values, 1).unwrap();
        assert_eq!(knn_predict(train, &[1, 2, 1, 2], train, 2).unwrap(), [1, 2, 1, 2]);
        let constant = Matrix::new(&[1.0; 4], 2).unwrap();
        assert_eq!(knn_predict(constant, &[4, 3], constant, 1).unwrap(), [4, 4]);
    }

    #[test]
    fn bad_input_is_an_error() {
        let two = Matrix::new(&[0.0; 4], 2).unwrap();
        let narrow = Matrix::new(&[0.0; 4], 1).unwrap();
        assert!(matches!(knn_predict(two, &[0, 1], narrow, 1), Err(MetricError::WidthMismatch { .. })));
        assert!(matches!(knn_predict(two, &[0], two, 1), Err(MetricError::LabelCount { .. })));
        assert!(matches!(knn_accuracy(two, &[0, 1], two, &[], 1), Err(MetricError::LabelCount { .. })));
        for k in [0, 3] {
            assert!(matches!(knn_predict(two, &[0, 1], two, k), Err(MetricError::NeighborCount { max: 2, .. })));
        }
    }
}
