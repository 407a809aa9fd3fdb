//! Weights divided by their largest singular value (docs/MATH.md, "Spectral norm").

use cvae_core::{Noise, Stream};

/// The largest singular value of a weight and its vectors, as found by power iteration.
pub(crate) struct Singular {
    /// `1/σ`; 1 if the search met a norm of 0.
    pub(crate) scale: f64,
    /// `u`, or zeros.
    pub(crate) left: Vec<f64>,
    /// `v`, or zeros.
    pub(crate) right: Vec<f64>,
}

/// Finds them for the weight `[out, width]` with index `param`.
pub(crate) fn singular(weight: &[f64], width: usize, param: u32, iterations: u32) -> Singular {
    let mut start = vec![0.0; width];
    Noise::new(0, Stream::Spectral, 0).signs(param, &mut start);
    let mut right: Vec<f64> = start.into_iter().map(f64::from).collect();
    let mut sigma = normalize(&mut right);
    let mut left = vec![0.0; weight.len() / width];
    for iteration in 0..=iterations {
        for (u, row) in left.iter_mut().zip(weight.chunks_exact(width)) {
            *u = row.iter().zip(&right).map(|(w, v)| w * v).sum();
        }
        sigma = normalize(&mut left);
        if sigma == 0.0 || iteration == iterations {
            break;
        }
        right.fill(0.0);
        for (u, row) in left.iter().zip(weight.chunks_exact(width)) {
            right.iter_mut().zip(row).for_each(|(v, w)| *v += w * u);
        }
        sigma = normalize(&mut right);
        if sigma == 0.0 {
            break;
        }
    }
    if sigma == 0.0 {
        left.fill(0.0);
        right.fill(0.0);
        return Singular { scale: 1.0, left, right };
    }
    Singular { scale: 1.0 / sigma, left, right }
}

/// Divides a vector by its norm, unless that is 0; returns the norm.
fn normalize(vector: &mut [f64]) -> f64 {
    let norm = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    if norm != 0.0 {
        vector.iter_mut().for_each(|x| *x /= norm);
    }
    norm
}

/// Writes `row` into every row of `output`.
pub(crate) fn repeat(row: &[f64], output: &mut [f64]) {
    output.chunks_exact_mut(row.len()).for_each(|out| out.copy_from_slice(row));
}

/// `output = input·scale`, with one scale a row.
pub(crate) fn scale_rows(input: &[f64], scale: &[f64], output: &mut [f64]) {
    let width = input.len() / scale.len();
    for (index, (out, x)) in output.iter_mut().zip(input).enumerate() {
        *out = x * scale[index / width];
    }
}

/// `output = −scale·(Σ grad ⊙ input)·left`, row by row.
pub(crate) fn grad(grad: &[f64], input: &[f64], scale: &[f64], left: &[f64], output: &mut [f64]) {
    let (width, units) = (input.len() / scale.len(), left.len() / scale.len());
    for (row, scale) in scale.iter().enumerate() {
        let elements = row * width..(row + 1) * width;
        let along: f64 = grad[elements.clone()].iter().zip(&input[elements]).map(|(g, x)| g * x).sum();
        for unit in row * units..(row + 1) * units {
            output[unit] = -scale * along * left[unit];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_decomposition() {
        // diag(3, 0.5), rotated on both sides by orthogonal matrices of cosine 0.6 and 0.8.
        let weight = [1.8 * 0.8 - 0.4 * -0.3, 1.8 * 0.6 + -0.4 * 0.4, 2.4 * 0.8 + 0.6 * -0.3, 2.4 * 0.6 + 0.6 * 0.4];
        let found = singular(&weight, 2, 0, 8);
        let product: f64 = (0..4).map(|i| found.left[i / 2] * weight[i] * found.right[i % 2]).sum();
        assert!((product * found.scale - 1.0).abs() < 1e-12, "u·W·v is σ");
        let gram = |i: usize, j: usize| (0..2).map(|k| weight[2 * k + i] * weight[2 * k + j]).sum::<f64>();
        let (trace, determinant) = (gram(0, 0) + gram(1, 1), gram(0, 0) * gram(1, 1) - gram(0, 1).powi(2));
        let expected = ((trace + (trace * trace - 4.0 * determinant).sqrt()) / 2.0).sqrt();
        assert!((1.0 / found.scale / expected - 1.0).abs() < 1e-9, "{} against {expected}", 1.0 / found.scale);
    }

    #[test]
    fn a_weight_of_zero_is_left_alone() {
        let found = singular(&[0.0; 6], 3, 1, 8);
        assert_eq!((found.scale, found.left, found.right), (1.0, vec![0.0; 2], vec![0.0; 3]));
    }

    #[test]
    fn rows_by_hand() {
        let mut scaled = [f64::NAN; 4];
        scale_rows(&[1.0, 2.0, 3.0, 4.0], &[2.0, 0.5], &mut scaled);
        assert_eq!(scaled, [2.0, 4.0, 1.5, 2.0]);
        let mut along = [f64::NAN; 2];
        grad(&[1.0, 2.0, 3.0, 4.0], &[5.0, 1.0, 1.0, 0.5], &[2.0, 0.5], &[1.0, -1.0], &mut along);
        assert_eq!(along, [-14.0, 2.5]);
    }
}
