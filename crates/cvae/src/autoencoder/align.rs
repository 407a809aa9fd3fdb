//! Codes in coordinates where a move of the image weighs less: docs/MATH.md, "Aligned codes".

use cvae_core::{CodeMap, Entry, Shift, State, fold_code_map};
use cvae_data::Dataset;

use super::{Autoencoder, BLOCK_ROWS, ModelError};
use crate::Matrix;
use crate::density::DensityError;
use crate::linalg::{add_transposed_product, centred, column_means, covariance, from_eigen, symmetric_eigen, trace};

impl Autoencoder {
    /// Folds the map of [`CodeBasis::Aligned`](crate::CodeBasis) into the parameters: codes of `data` have mean 0 and a
    /// mean square of 1 afterwards, and directions that `shift` moves codes along are shorter. Reconstructions stay as
    /// they are, up to rounding. Densities that were fitted before are those of other codes, and go.
    ///
    /// # Errors
    /// As [`Autoencoder::encode_dataset`]; also a model that the map does not pass through.
    pub(crate) fn align(&mut self, data: &Dataset, shift: Shift) -> Result<(), ModelError> {
        let codes = self.encode_dataset(data)?;
        let codes = Matrix::new(&codes, self.latent()).map_err(DensityError::from)?;
        let scatter = self.scatter_of_moves(data, codes, shift)?;
        let map = alignment(codes, scatter).ok_or(ModelError::Unaligned)?;
        let variational = self.config.objective.latent.is_variational();
        let params =
            fold_code_map(&self.plan.spec, variational, &self.parameters()?, &map).map_err(crate::ConfigError::from)?;
        self.densities.clear();
        Ok(self.lock().write(State::Params, &params)?)
    }

    /// `Σ (z̃ − z)(z̃ − z)ᵀ` over the rows, whose codes are `codes`, and their moves up, down, left and right by the
    /// distance of `shift`.
    fn scatter_of_moves(&self, data: &Dataset, codes: Matrix<'_>, shift: Shift) -> Result<Vec<f64>, ModelError> {
        let (width, latent) = (self.width(), self.latent());
        let distance = shift.distance as isize;
        let moves = [(-distance, 0), (distance, 0), (0, -distance), (0, distance)];
        let sources = moves.map(|offset| (0..width).map(|at| shift.source(offset, at, width)).collect::<Vec<_>>());
        let origin = vec![0.0; latent];
        let mut scatter = vec![0.0; latent * latent];
        let (mut block, mut moved) = (Vec::new(), Vec::new());
        for (index, codes) in codes.values().chunks(BLOCK_ROWS * latent).enumerate() {
            let start = index * BLOCK_ROWS;
            data.copy_rows(start..start + codes.len() / latent, &mut block)?;
            let rows = self.scale(&block)?;
            for sources in &sources {
                moved.clear();
                for row in rows.chunks_exact(width) {
                    moved.extend(sources.iter().map(|source| source.map_or(0.0, |source| row[source])));
                }
                let mut step = self.infer(Entry::Encode, &moved)?;
                step.iter_mut().zip(codes).for_each(|(moved, code)| *moved -= code);
                let step = centred(&step, &origin);
                add_transposed_product((&step, latent), (&step, latent), &mut scatter);
            }
        }
        Ok(scatter)
    }
}

/// The map `z ↦ s·(W/w̄ + I)^(−½)·(z − m)`: `W` is the scatter of moves and `w̄` the mean of its eigenvalues, `m` the mean
/// of `codes`, and `s` makes their mean square 1. Codes that never differ keep their scale. `None` when a number is not
/// finite.
fn alignment(codes: Matrix<'_>, scatter: Vec<f64>) -> Option<CodeMap> {
    let latent = codes.width();
    let origin = column_means(codes);
    let mean = trace(&scatter, latent) / latent as f64;
    let (mut lengths, vectors) = symmetric_eigen(scatter, latent)?;
    for value in &mut lengths {
        let relative = if mean > 0.0 { value.max(0.0) / mean } else { 0.0 };
        *value = (relative + 1.0).sqrt().recip();
    }
    // The trace of A·C·A, of the mapped codes' covariance.
    let (square, covariance) = (lengths.iter().map(|a| a * a).collect::<Vec<_>>(), covariance(codes, &origin));
    let squared = from_eigen(&square, &vectors, latent);
    let spread: f64 = squared.iter().zip(&covariance).map(|(a, c)| a * c).sum();
    let scale = if spread > 0.0 { (latent as f64 / spread).sqrt() } else { 1.0 };
    lengths.iter_mut().for_each(|value| *value *= scale);
    let matrix = from_eigen(&lengths, &vectors, latent);
    lengths.iter_mut().for_each(|value| *value = value.recip());
    let inverse = from_eigen(&lengths, &vectors, latent);
    let finite = [&origin, &matrix, &inverse].iter().all(|values| values.iter().all(|value| value.is_finite()));
    finite.then_some(CodeMap { origin, matrix, inverse })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_way_becomes_the_shorter() {
        // Codes (±2, ±2) + (3, 5); moves along the first axis alone: w̄ = w/2, so A ∝ (3^−½, 1).
        let codes: Vec<f32> =
            [(-2, -2), (-2, 2), (2, -2), (2, 2)].iter().flat_map(|(a, b)| [a + 3, b + 5]).map(|v| v as f32).collect();
        let map = alignment(Matrix::new(&codes, 2).unwrap(), vec![8.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(map.origin, [3.0, 5.0]);
        // s²·(4/3 + 4) = 2.
        let s = (3.0f64 / 8.0).sqrt();
        let expected = [s / 3f64.sqrt(), 0.0, 0.0, s];
        for (found, expected) in map.matrix.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{:?}", map.matrix);
        }
        let back = [1.0 / expected[0], 0.0, 0.0, 1.0 / expected[3]];
        for (found, expected) in map.inverse.iter().zip(back) {
            assert!((found - expected).abs() < 1e-12, "{:?}", map.inverse);
        }
    }

    #[test]
    fn dead_codes_stay_where_they_are() {
        let map = alignment(Matrix::new(&[7.0, 1.0, 7.0, 1.0], 2).unwrap(), vec![0.0; 4]).unwrap();
        assert_eq!(
            map,
            CodeMap { origin: vec![7.0, 1.0], matrix: vec![1.0, 0.0, 0.0, 1.0], inverse: vec![1.0, 0.0, 0.0, 1.0] }
        );
        assert_eq!(alignment(Matrix::new(&[7.0, 1.0], 2).unwrap(), vec![f64::NAN; 4]), None);
    }
}
