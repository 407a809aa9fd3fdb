//! The input type of every metric, density and score: a checked view of rows.

use thiserror::Error;

/// Why a slice of values is no matrix.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum MatrixError {
    /// There is no value at all.
    #[error("the matrix has no rows")]
    NoRows,
    /// The width is zero.
    #[error("the matrix has no columns")]
    NoColumns,
    /// The number of values is no multiple of the width.
    #[error("{len} values are not a whole number of rows of width {width}")]
    PartialRow {
        /// Number of values given.
        len: usize,
        /// Values per row asked for.
        width: usize,
    },
    /// A value is NaN or infinite.
    #[error("the value at row {row}, column {column} is not finite")]
    NonFinite {
        /// Row of the first such value, from 0.
        row: usize,
        /// Column of the first such value, from 0.
        column: usize,
    },
}

/// A view of `rows × width` finite values in row-major order, with at least one row and one column.
///
/// The constructor establishes these facts once, so that the functions taking a `Matrix` need not.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    width: usize,
}

impl<'a> Matrix<'a> {
    /// Views `values` as rows of `width` values.
    ///
    /// # Errors
    ///
    /// [`MatrixError`] when `values` is empty, `width` is zero or does not divide the length, or a
    /// value is NaN or infinite.
    pub fn new(values: &'a [f32], width: usize) -> Result<Self, MatrixError> {
        if width == 0 {
            return Err(MatrixError::NoColumns);
        }
        if values.is_empty() {
            return Err(MatrixError::NoRows);
        }
        if !values.len().is_multiple_of(width) {
            return Err(MatrixError::PartialRow { len: values.len(), width });
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(MatrixError::NonFinite { row: index / width, column: index % width });
        }
        Ok(Self { values, rows: values.len() / width, width })
    }

    /// Number of rows, at least 1.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row, at least 1.
    pub fn width(&self) -> usize {
        self.width
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// The rows in order.
    pub fn iter(&self) -> std::slice::ChunksExact<'a, f32> {
        self.values.chunks_exact(self.width)
    }

    /// The rows in consecutive blocks of `rows` (the last may be shorter).
    pub(crate) fn blocks(&self, rows: usize) -> std::slice::Chunks<'a, f32> {
        self.values.chunks(rows.max(1) * self.width)
    }
}

impl<'a> IntoIterator for Matrix<'a> {
    type Item = &'a [f32];
    type IntoIter = std::slice::ChunksExact<'a, f32>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_everything_that_is_no_matrix() {
        assert_eq!(Matrix::new(&[], 3), Err(MatrixError::NoRows));
        assert_eq!(Matrix::new(&[1.0], 0), Err(MatrixError::NoColumns));
        assert_eq!(Matrix::new(&[1.0; 5], 2), Err(MatrixError::PartialRow { len: 5, width: 2 }));
        let values = [0.0, 1.0, 2.0, f32::NAN];
        assert_eq!(Matrix::new(&values, 2), Err(MatrixError::NonFinite { row: 1, column: 1 }));
        assert!(Matrix::new(&[f32::INFINITY], 1).is_err());
    }

    #[test]
    fn rows_are_in_order() {
        let matrix = Matrix::new(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
        assert_eq!((matrix.rows(), matrix.width()), (3, 2));
        assert_eq!(matrix.iter().map(|row| row[1]).collect::<Vec<_>>(), [2.0, 4.0, 6.0]);
        assert_eq!(matrix.blocks(2).map(<[f32]>::len).collect::<Vec<_>>(), [4, 2]);
    }
}
