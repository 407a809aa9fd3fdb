//! Dense linear algebra over rows, in `f64`, with results independent of the number of threads.
//!
//! Matrices are row-major slices. Products go through ndarray, which takes any strides; factorisations
//! go through nalgebra.

use nalgebra::{Cholesky, DMatrix, SymmetricEigen};
use ndarray::linalg::general_mat_mul;
use ndarray::{ArrayView2, ArrayViewMut2, Axis, LinalgScalar, Slice};
use rayon::prelude::*;

use crate::Matrix;

/// Rows converted to `f64` at a time.
const BLOCK_ROWS: usize = 1024;
/// Side of one covariance tile: two panels of `BLOCK_ROWS × TILE` stay in the L2 cache.
const TILE: usize = 112;

/// A row-major slice as a `rows × width` view.
fn view<T>(values: &[T], width: usize) -> ArrayView2<'_, T> {
    let rows = values.len() / width;
    ArrayView2::from_shape((rows, width), &values[..rows * width]).expect("the slice has rows × width values")
}

/// `out = scale · left · right` for row-major `left` (`left_width` columns) and `right` (`right_width`).
pub(crate) fn product<T: LinalgScalar>(
    scale: T,
    (left, left_width): (&[T], usize),
    (right, right_width): (&[T], usize),
    out: &mut [T],
) {
    multiply(scale, view(left, left_width), view(right, right_width), T::zero(), out);
}

/// `out = scale · left · rightᵀ + keep · out`; both have rows of `width` values.
pub(crate) fn product_transposed<T: LinalgScalar>(
    scale: T,
    left: &[T],
    right: &[T],
    width: usize,
    keep: T,
    out: &mut [T],
) {
    multiply(scale, view(left, width), view(right, width).reversed_axes(), keep, out);
}

/// `out += leftᵀ · right`; both have the same number of rows.
pub(crate) fn add_transposed_product<T: LinalgScalar>(
    (left, left_width): (&[T], usize),
    (right, right_width): (&[T], usize),
    out: &mut [T],
) {
    multiply(T::one(), view(left, left_width).reversed_axes(), view(right, right_width), T::one(), out);
}

fn multiply<T: LinalgScalar>(scale: T, left: ArrayView2<'_, T>, right: ArrayView2<'_, T>, keep: T, out: &mut [T]) {
    let shape = (left.nrows(), right.ncols());
    let mut out = ArrayViewMut2::from_shape(shape, out).expect("the output has rows × columns values");
    general_mat_mul(scale, &left, &right, keep, &mut out);
}

/// Mean of every column.
pub(crate) fn column_means(matrix: Matrix<'_>) -> Vec<f64> {
    let mut means = vec![0.0; matrix.width()];
    for row in matrix {
        for (mean, &value) in means.iter_mut().zip(row) {
            *mean += f64::from(value);
        }
    }
    let rows = matrix.rows() as f64;
    means.iter_mut().for_each(|mean| *mean /= rows);
    means
}

/// Mean squared deviation of every column from `means` (divisor: the number of rows).
pub(crate) fn column_variances(matrix: Matrix<'_>, means: &[f64]) -> Vec<f64> {
    let mut variances = vec![0.0; matrix.width()];
    for row in matrix {
        for ((variance, &value), mean) in variances.iter_mut().zip(row).zip(means) {
            *variance += (f64::from(value) - mean).powi(2);
        }
    }
    let rows = matrix.rows() as f64;
    variances.iter_mut().for_each(|variance| *variance /= rows);
    variances
}

/// Standard deviation of every column about `means`; 0 for a constant column, where what is left is
/// rounding of the mean.
pub(crate) fn column_deviations(matrix: Matrix<'_>, means: &[f64]) -> Vec<f64> {
    let deviations = column_variances(matrix, means).into_iter().map(f64::sqrt);
    deviations.zip(means).map(|(deviation, mean)| if deviation > 1e-9 * mean.abs() { deviation } else { 0.0 }).collect()
}

/// Consecutive rows minus `means`, in `f64`.
pub(crate) fn centred(values: &[f32], means: &[f64]) -> Vec<f64> {
    let width = means.len();
    let mut out = vec![0.0; values.len()];
    out.par_chunks_mut(width * 64).zip(values.par_chunks(width * 64)).for_each(|(out, values)| {
        for (out, row) in out.chunks_exact_mut(width).zip(values.chunks_exact(width)) {
            for ((out, &value), mean) in out.iter_mut().zip(row).zip(means) {
                *out = f64::from(value) - mean;
            }
        }
    });
    out
}

/// Covariance about `means` with the number of rows as divisor, `width × width`.
///
/// Tiles of the lower triangle are accumulated in parallel, each over the row blocks in order.
pub(crate) fn covariance(matrix: Matrix<'_>, means: &[f64]) -> Vec<f64> {
    let width = matrix.width();
    let columns = |start: usize| start..(start + TILE).min(width);
    let starts: Vec<usize> = (0..width).step_by(TILE).collect();
    let mut tiles: Vec<(usize, usize, Vec<f64>)> = starts
        .iter()
        .flat_map(|&i| starts.iter().filter(move |&&j| j <= i).map(move |&j| (i, j)))
        .map(|(i, j)| (i, j, vec![0.0; columns(i).len() * columns(j).len()]))
        .collect();
    for block in matrix.blocks(BLOCK_ROWS) {
        let block = centred(block, means);
        let rows = view(&block, width);
        tiles.par_iter_mut().for_each(|(i, j, tile)| {
            let panel = |start: usize| rows.slice_axis(Axis(1), Slice::from(columns(start)));
            multiply(1.0, panel(*i).reversed_axes(), panel(*j), 1.0, tile);
        });
    }
    let mut covariance = vec![0.0; width * width];
    let rows = matrix.rows() as f64;
    for (i, j, tile) in &tiles {
        for (row, values) in columns(*i).zip(tile.chunks_exact(columns(*j).len())) {
            for (column, value) in columns(*j).zip(values) {
                covariance[row * width + column] = value / rows;
                covariance[column * width + row] = value / rows;
            }
        }
    }
    covariance
}

/// Sum of the diagonal of a square matrix.
pub(crate) fn trace(matrix: &[f64], width: usize) -> f64 {
    matrix.iter().step_by(width + 1).sum()
}

/// Eigenvalues of a symmetric matrix in falling order with the eigenvectors as rows, each signed so that
/// its entry of largest magnitude is positive; `None` when the iteration does not converge.
pub(crate) fn symmetric_eigen(matrix: Vec<f64>, width: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let eigen = SymmetricEigen::try_new(DMatrix::from_vec(width, width, matrix), f64::EPSILON, 100 * width.max(10))?;
    let mut order: Vec<usize> = (0..width).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let values: Vec<f64> = order.iter().map(|&index| eigen.eigenvalues[index]).collect();
    let mut vectors = Vec::with_capacity(width * width);
    for &index in &order {
        let vector = eigen.eigenvectors.column(index);
        let sign = if vector[vector.icamax()] < 0.0 { -1.0 } else { 1.0 };
        vectors.extend(vector.iter().map(|value| sign * value));
    }
    values.iter().all(|value| value.is_finite()).then_some((values, vectors))
}

/// The symmetric matrix with these eigenvalues and eigenvectors (as rows).
pub(crate) fn from_eigen(values: &[f64], vectors: &[f64], width: usize) -> Vec<f64> {
    let scaled: Vec<f64> = vectors
        .chunks_exact(width)
        .zip(values)
        .flat_map(|(vector, value)| vector.iter().map(move |entry| entry * value))
        .collect();
    let mut matrix = vec![0.0; width * width];
    add_transposed_product((&scaled, width), (vectors, width), &mut matrix);
    matrix
}

/// The symmetric square root of a positive semi-definite matrix (negative rounding is cut to zero).
pub(crate) fn square_root(matrix: Vec<f64>, width: usize) -> Option<Vec<f64>> {
    let (mut values, vectors) = symmetric_eigen(matrix, width)?;
    values.iter_mut().for_each(|value| *value = value.max(0.0).sqrt());
    Some(from_eigen(&values, &vectors, width))
}

/// The lower Cholesky factor of a symmetric matrix, or `None` unless it is positive definite.
pub(crate) fn cholesky(matrix: &[f64], width: usize) -> Option<Vec<f64>> {
    let factor = Cholesky::new(DMatrix::from_row_slice(width, width, matrix))?;
    Some(factor.l().transpose().as_slice().to_vec())
}

/// The inverse of a lower triangular matrix, or `None` when a diagonal entry is zero.
pub(crate) fn invert_lower(lower: &[f64], width: usize) -> Option<Vec<f64>> {
    let lower = DMatrix::from_row_slice(width, width, lower);
    let inverse = lower.solve_lower_triangular(&DMatrix::identity(width, width))?;
    Some(inverse.transpose().as_slice().to_vec())
}

/// Squared Euclidean distances between row-major `left` and `right`, as `left_rows × right_rows`
/// row-major; never negative.
pub(crate) fn squared_distances(left: &[f64], right: &[f64], width: usize) -> Vec<f64> {
    let norms = |rows: &[f64]| -> Vec<f64> {
        rows.chunks_exact(width).map(|row| row.iter().map(|value| value * value).sum()).collect()
    };
    let (left_norms, right_norms) = (norms(left), norms(right));
    let mut out = vec![0.0; left_norms.len() * right_norms.len()];
    product_transposed(-2.0, left, right, width, 0.0, &mut out);
    for (row, left_norm) in out.chunks_exact_mut(right_norms.len()).zip(&left_norms) {
        for (value, right_norm) in row.iter_mut().zip(&right_norms) {
            *value = (*value + left_norm + right_norm).max(0.0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Purpose, normal_rows};

    #[test]
    fn covariance_equals_the_double_loop_over_ragged_tiles() {
        let (rows, width) = (1500, 2 * TILE + 5);
        let values: Vec<f32> =
            normal_rows(1, Purpose::PriorRows, rows, width).iter().map(|&v| v as f32 + 3.0).collect();
        let matrix = Matrix::new(&values, width).unwrap();
        let means = column_means(matrix);
        let covariance = covariance(matrix, &means);
        for (i, j) in [(0, 0), (3, 2 * TILE + 4), (2 * TILE + 4, 3), (TILE, TILE - 1), (TILE, TILE)] {
            let expected =
                matrix.iter().map(|row| (f64::from(row[i]) - means[i]) * (f64::from(row[j]) - means[j])).sum::<f64>()
                    / rows as f64;
            assert!((covariance[i * width + j] - expected).abs() < 1e-12, "{i} {j}");
        }
    }

    #[test]
    fn factorisations_multiply_back() {
        let factor: Vec<f64> = (0..20).map(|i| (i * 7 % 11) as f64 - 4.5).collect();
        let mut matrix = vec![0.0; 25];
        product_transposed(1.0, &factor, &factor, 4, 0.0, &mut matrix);
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-10);

        let root = square_root(matrix.clone(), 5).unwrap();
        let mut back = vec![0.0; 25];
        product(1.0, (&root, 5), (&root, 5), &mut back);
        assert!(close(&back, &matrix));

        let (values, vectors) = symmetric_eigen(matrix.clone(), 5).unwrap();
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        assert!(close(&from_eigen(&values, &vectors, 5), &matrix));

        assert!(cholesky(&[1.0, 2.0, 2.0, 1.0], 2).is_none(), "indefinite");
        matrix.iter_mut().step_by(6).for_each(|diagonal| *diagonal += 1.0);
        let lower = cholesky(&matrix, 5).unwrap();
        let inverse = invert_lower(&lower, 5).unwrap();
        product_transposed(1.0, &lower, &lower, 5, 0.0, &mut back);
        assert!(close(&back, &matrix));
        product(1.0, (&lower, 5), (&inverse, 5), &mut back);
        assert!(invert_lower(&[1.0, 0.0, 1.0, 0.0], 2).is_none(), "singular");
        let identity: Vec<f64> = (0..25).map(|i| if i % 6 == 0 { 1.0 } else { 0.0 }).collect();
        assert!(close(&back, &identity));
        assert!((0..4).all(|row| lower[row * 5 + row + 1..][..4 - row].iter().all(|&value| value == 0.0)));
    }

    #[test]
    fn squared_distances_equal_the_definition() {
        let left = [0.0, 0.0, 1.0, 2.0, -3.0, 0.5];
        let right = [1.0, 2.0, 4.0, -1.0];
        let distances = squared_distances(&left, &right, 2);
        for (i, a) in left.chunks(2).enumerate() {
            for (j, b) in right.chunks(2).enumerate() {
                let expected = (a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2);
                assert!((distances[i * 2 + j] - expected).abs() < 1e-12);
            }
        }
    }
}
