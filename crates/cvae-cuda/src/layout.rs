//! Where parameters live on the device: as in [`ParamLayout`], with every row padded to a multiple of 16 bytes.

use cvae_core::{ParamId, ParamLayout};

/// The leading dimension of a matrix with `width` columns: rows start at multiples of 16 bytes.
pub(crate) fn leading(width: usize) -> usize {
    width.next_multiple_of(4)
}

/// One parameter on the device: `rows × width` values, rows `leading(width)` apart. A bias is one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    /// First element in the padded buffer.
    pub(crate) offset: usize,
    /// First element in the flat buffer.
    flat: usize,
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

impl Matrix {
    /// Elements with padding.
    pub(crate) fn padded(&self) -> usize {
        self.rows * leading(self.width)
    }
}

/// The padded layout of every parameter. Padding is zero and stays zero.
#[derive(Clone, Debug)]
pub(crate) struct PaddedLayout {
    matrices: Vec<Matrix>,
    flat_len: usize,
}

impl PaddedLayout {
    pub(crate) fn new(layout: &ParamLayout) -> Self {
        let mut offset = 0;
        let matrix = |param: &cvae_core::layout::Param| {
            let width = param.shape.last().copied().unwrap_or(1);
            let rows = param.size() / width.max(1);
            let matrix = Matrix { offset, flat: param.offset, rows, width };
            offset += matrix.padded();
            matrix
        };
        Self { matrices: layout.params().iter().map(matrix).collect(), flat_len: layout.len() }
    }

    /// The matrices, in parameter order.
    pub(crate) fn matrices(&self) -> &[Matrix] {
        &self.matrices
    }

    /// One parameter.
    pub(crate) fn get(&self, id: ParamId) -> Matrix {
        self.matrices[id.index()]
    }

    /// Elements of the padded buffer.
    pub(crate) fn len(&self) -> usize {
        self.matrices.last().map_or(0, |matrix| matrix.offset + matrix.padded())
    }

    /// Elements of the flat buffer.
    pub(crate) fn flat_len(&self) -> usize {
        self.flat_len
    }

    /// The flat buffer as a padded one.
    pub(crate) fn pad(&self, flat: &[f32]) -> Vec<f32> {
        let mut padded = vec![0.0; self.len()];
        self.for_each_row(|from, to, width| padded[to..to + width].copy_from_slice(&flat[from..from + width]));
        padded
    }

    /// The padded buffer as a flat one.
    pub(crate) fn unpad(&self, padded: &[f32], flat: &mut [f32]) {
        self.for_each_row(|to, from, width| flat[to..to + width].copy_from_slice(&padded[from..from + width]));
    }

    /// Calls `visit(flat offset, padded offset, width)` for every row.
    fn for_each_row(&self, mut visit: impl FnMut(usize, usize, usize)) {
        for matrix in &self.matrices {
            for row in 0..matrix.rows {
                let (flat, padded) = (row * matrix.width, row * leading(matrix.width));
                visit(matrix.flat + flat, matrix.offset + padded, matrix.width);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cvae_core::{Activation, ModelSpec};

    #[test]
    fn padding_and_back_is_the_identity() {
        let spec = ModelSpec::mlp(&[7, 5, 3], Activation::Relu, Activation::Identity).expect("a valid model");
        let layout = ParamLayout::new(&spec, true);
        let padded = PaddedLayout::new(&layout);
        let flat: Vec<f32> = (0..layout.len()).map(|i| i as f32 + 1.0).collect();
        let wide = padded.pad(&flat);
        assert!(padded.matrices().iter().all(|matrix| matrix.offset % 4 == 0));
        assert_eq!(wide.iter().filter(|value| **value == 0.0).count(), padded.len() - layout.len());
        let mut back = vec![0.0; layout.len()];
        padded.unpad(&wide, &mut back);
        assert_eq!(back, flat);
    }
}
