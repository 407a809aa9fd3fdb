//! Sparse codes and the comparison of codes with the prior (docs/MATH.md, "Latent terms").

use cvae_core::Latent;

/// The `k` elements of largest magnitude of each row of `width`, 0 elsewhere; ties go to the lower column.
pub(crate) fn top_k(k: usize, width: usize, input: &[f64], output: &mut [f64]) {
    let mut order: Vec<usize> = (0..width).collect();
    for (row, out) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        out.fill(0.0);
        order.sort_by(|a, b| row[*b].abs().total_cmp(&row[*a].abs()).then(a.cmp(b)));
        order[..k].iter().for_each(|column| out[*column] = row[*column]);
    }
}

/// The gradient where the sparse code is not 0.
pub(crate) fn top_k_grad(code: &[f64], grad: &[f64], output: &mut [f64]) {
    for ((out, z), g) in output.iter_mut().zip(code).zip(grad) {
        *out = if *z == 0.0 { 0.0 } else { *g };
    }
}

/// Adds the gradient `weight·sign(z)/rows`; returns `weight·Σ|z|`, averaged over rows.
pub(crate) fn l1(weight: f64, code: &[f64], grad: &[f64], rows: usize, output: &mut [f64]) -> f64 {
    let rows = rows as f64;
    let mut sum = 0.0;
    for ((out, z), g) in output.iter_mut().zip(code).zip(grad) {
        sum += z.abs();
        *out = g + weight * if *z == 0.0 { 0.0 } else { z.signum() } / rows;
    }
    weight * sum / rows
}

/// Adds the gradient of `weight·MMD²` between the rows of `code` and of `prior`; returns the term. Both are 0
/// for a single row, which has no pairs.
pub(crate) fn mmd(weight: f64, width: usize, code: &[f64], prior: &[f64], grad: &[f64], output: &mut [f64]) -> f64 {
    output.copy_from_slice(grad);
    let rows = code.len() / width;
    if rows < 2 {
        return 0.0;
    }
    let (pairs, cross) = ((rows * (rows - 1)) as f64, (rows * rows) as f64);
    let mut term = 0.0;
    for i in 0..rows {
        let z = &code[i * width..][..width];
        let out = &mut output[i * width..][..width];
        for j in 0..rows {
            let (other, draw) = (&code[j * width..][..width], &prior[j * width..][..width]);
            if i != j {
                // The pair counts twice: once with its rows exchanged.
                term += (add_kernel(z, other, 2.0 * weight / pairs, out)
                    + kernel(&prior[i * width..][..width], draw).0)
                    / pairs;
            }
            term -= 2.0 * add_kernel(z, draw, -2.0 * weight / cross, out) / cross;
        }
    }
    weight * term
}

/// The kernel of `a` and `b`; adds `scale` times its gradient by `a` to `output`.
fn add_kernel(a: &[f64], b: &[f64], scale: f64, output: &mut [f64]) -> f64 {
    let (value, slope) = kernel(a, b);
    for ((out, a), b) in output.iter_mut().zip(a).zip(b) {
        *out += scale * slope * 2.0 * (a - b);
    }
    value
}

/// `Σ_s C/(C + q)` with `q = ‖a − b‖²` and `C = 2·width·s`, and its derivative by `q`.
fn kernel(a: &[f64], b: &[f64]) -> (f64, f64) {
    let q: f64 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    let constants = Latent::MMD_SCALES.iter().map(|scale| 2.0 * a.len() as f64 * scale);
    constants.fold((0.0, 0.0), |(value, slope), c| (value + c / (c + q), slope - c / (c + q).powi(2)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_magnitudes_are_kept() {
        let mut output = [f64::NAN; 8];
        top_k(2, 4, &[1.0, -3.0, 2.0, 0.5, -1.0, 1.0, 1.0, -0.5], &mut output);
        assert_eq!(output, [0.0, -3.0, 2.0, 0.0, -1.0, 1.0, 0.0, 0.0], "ties go to the lower column");
        let mut grad = [f64::NAN; 4];
        top_k_grad(&output[..4], &[5.0, 6.0, 7.0, 8.0], &mut grad);
        assert_eq!(grad, [0.0, 6.0, 7.0, 0.0]);
    }

    #[test]
    fn l1_by_hand() {
        let mut output = [f64::NAN; 4];
        let term = l1(0.5, &[2.0, -3.0, 0.0, 1.0], &[10.0, 20.0, 30.0, 40.0], 2, &mut output);
        assert_eq!((term, output), (1.5, [10.25, 19.75, 30.0, 40.25]));
    }

    /// Two rows in one dimension: every kernel value can be written down.
    #[test]
    fn discrepancy_by_hand() {
        let k = |q: f64| [0.2, 0.4, 1.0, 2.0, 4.0, 10.0, 20.0].iter().map(|c| c / (c + q)).sum::<f64>();
        let (code, prior) = ([0.0, 1.0], [3.0, -1.0]);
        let mut output = [f64::NAN; 2];
        let term = mmd(0.5, 1, &code, &prior, &[7.0, 8.0], &mut output);
        let expected = 0.5 * (k(1.0) + k(16.0) - (k(9.0) + k(1.0) + k(4.0) + k(4.0)) / 2.0);
        assert!((term - expected).abs() < 1e-14, "{term} against {expected}");
        for (i, h) in [(0, 1e-5), (1, 1e-5)] {
            let at = |shift: f64| {
                let mut moved = code;
                moved[i] += shift;
                mmd(0.5, 1, &moved, &prior, &[0.0; 2], &mut [0.0; 2])
            };
            let slope = (at(h) - at(-h)) / (2.0 * h);
            assert!((output[i] - [7.0, 8.0][i] - slope).abs() < 1e-9, "{output:?}");
        }
    }

    #[test]
    fn discrepancy_of_one_row_is_zero() {
        let mut output = [f64::NAN; 2];
        assert_eq!(mmd(3.0, 2, &[1.0, 2.0], &[0.0, 5.0], &[4.0, 5.0], &mut output), 0.0);
        assert_eq!(output, [4.0, 5.0]);
    }

    /// Two samples of the same draws in another order: the discrepancy may be negative and is not clamped.
    #[test]
    fn discrepancy_is_without_bias() {
        let rows = [0.3, -1.0, 2.0];
        let term = mmd(1.0, 1, &rows, &rows, &[0.0; 3], &mut [0.0; 3]);
        assert!(term < 0.0, "{term}");
    }
}
