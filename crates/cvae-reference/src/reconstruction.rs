//! The reconstruction terms and their gradients (docs/MATH.md, "Reconstruction").

use cvae_core::{ColumnGroup, ColumnKind, Reconstruction};

use crate::activation::sigmoid;

/// A batch of `rows × width` values.
pub(crate) struct Comparison<'a> {
    /// `x'`, or logits.
    pub(crate) prediction: &'a [f64],
    /// `x`.
    pub(crate) target: &'a [f64],
    /// Factor of each element; 1 if absent.
    pub(crate) weights: Option<&'a [f64]>,
    pub(crate) rows: usize,
}

impl Comparison<'_> {
    fn weight(&self, index: usize) -> f64 {
        self.weights.map_or(1.0, |weights| weights[index])
    }
}

/// Returns the term, averaged over rows, and leaves `∂term/∂prediction` in `grad` (`1/rows` included).
///
/// For [`Reconstruction::Bce`] the prediction is the logits.
pub(crate) fn loss(kind: Reconstruction, batch: &Comparison<'_>, grad: &mut [f64]) -> f64 {
    let rows = batch.rows as f64;
    let width = grad.len() as f64 / rows;
    let mut sum = 0.0;
    for (i, g) in grad.iter_mut().enumerate() {
        let (loss, slope) = element(kind, batch.prediction[i], batch.target[i], width);
        sum += batch.weight(i) * loss;
        *g = batch.weight(i) * slope / rows;
    }
    sum / rows
}

/// The term of a learnt variance, `N/(2·rows)·ln(M + floor)`; its gradient is left in `grad`.
pub(crate) fn sigma_loss(floor: f64, batch: &Comparison<'_>, grad: &mut [f64]) -> f64 {
    let rows = batch.rows as f64;
    let error = |i: usize| batch.prediction[i] - batch.target[i];
    let count: f64 = (0..grad.len()).map(|i| batch.weight(i)).sum();
    let squares: f64 = (0..grad.len()).map(|i| batch.weight(i) * error(i).powi(2)).sum();
    let variance = if count == 0.0 { floor } else { squares / count + floor };
    for (i, g) in grad.iter_mut().enumerate() {
        *g = batch.weight(i) * error(i) / (rows * variance);
    }
    count / (2.0 * rows) * variance.ln()
}

/// The term of groups of columns, averaged over rows; its gradient is left in `grad`.
pub(crate) fn mixed_loss(
    kind: Reconstruction,
    columns: &[ColumnGroup],
    batch: &Comparison<'_>,
    grad: &mut [f64],
) -> f64 {
    let rows = batch.rows as f64;
    let width = grad.len() / batch.rows;
    let mut sum = 0.0;
    for row in 0..batch.rows {
        for (group, range) in ColumnGroup::ranges(columns) {
            let elements = row * width + range.start..row * width + range.end;
            let scale = group.weight / rows;
            let kind = match group.kind {
                ColumnKind::Numeric => kind,
                ColumnKind::Binary => Reconstruction::Bce,
                ColumnKind::Categorical => {
                    let observed = elements.clone().map(|i| batch.weight(i)).product::<f64>();
                    let (logits, target) = (&batch.prediction[elements.clone()], &batch.target[elements.clone()]);
                    sum += scale * observed * categorical(logits, target, scale * observed, &mut grad[elements]);
                    continue;
                }
            };
            for i in elements {
                let (loss, slope) = element(kind, batch.prediction[i], batch.target[i], width as f64);
                sum += scale * batch.weight(i) * loss;
                grad[i] = scale * batch.weight(i) * slope;
            }
        }
    }
    sum
}

/// `Σ t·(ln Σ e^u − u)`; leaves `scale` times its gradient in `grad`.
fn categorical(logits: &[f64], target: &[f64], scale: f64, grad: &mut [f64]) -> f64 {
    let mut shares = vec![0.0; logits.len()];
    let log_sum = softmax(logits, &mut shares);
    let total: f64 = target.iter().sum();
    for ((g, share), t) in grad.iter_mut().zip(shares).zip(target) {
        *g = scale * (total * share - t);
    }
    logits.iter().zip(target).map(|(u, t)| t * (log_sum - u)).sum()
}

/// The softmax of a group's logits; returns `ln Σ e^u`.
fn softmax(logits: &[f64], output: &mut [f64]) -> f64 {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|u| (u - largest).exp()).sum();
    for (out, u) in output.iter_mut().zip(logits) {
        *out = (u - largest).exp() / sum;
    }
    largest + sum.ln()
}

/// From the decoder's output to rows: numbers as they are, the sigmoid and the softmax of logits.
pub(crate) fn mixed_output(columns: &[ColumnGroup], width: usize, input: &[f64], output: &mut [f64]) {
    for (input, output) in input.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
        for (group, range) in ColumnGroup::ranges(columns) {
            let (from, to) = (&input[range.clone()], &mut output[range]);
            match group.kind {
                ColumnKind::Numeric => to.copy_from_slice(from),
                ColumnKind::Binary => to.iter_mut().zip(from).for_each(|(out, u)| *out = sigmoid(*u)),
                ColumnKind::Categorical => {
                    softmax(from, to);
                }
            }
        }
    }
}

/// One element's part of the row's term, and its derivative by the prediction `p`.
fn element(kind: Reconstruction, p: f64, t: f64, width: f64) -> (f64, f64) {
    let e = p - t;
    match kind {
        Reconstruction::MseSum => (0.5 * e * e, e),
        Reconstruction::MseMean => (e * e / width, 2.0 * e / width),
        Reconstruction::Bce => (p.max(0.0) - p * t + (-p.abs()).exp().ln_1p(), sigmoid(p) - t),
        Reconstruction::L1 => (e.abs(), sign(e)),
        Reconstruction::Huber { delta } if e.abs() <= delta => (0.5 * e * e, e),
        Reconstruction::Huber { delta } => (delta * (e.abs() - 0.5 * delta), delta * sign(e)),
    }
}

/// −1, 0 or 1; NaN for NaN.
fn sign(e: f64) -> f64 {
    if e == 0.0 { 0.0 } else { e.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_slopes_by_hand() {
        let huber = Reconstruction::Huber { delta: 0.5 };
        let table = [
            (Reconstruction::MseSum, 3.0, 1.0, (2.0, 2.0)),
            (Reconstruction::MseMean, 3.0, 1.0, (1.0, 1.0)),
            (Reconstruction::L1, 3.0, 1.0, (2.0, 1.0)),
            (Reconstruction::L1, 1.0, 3.0, (2.0, -1.0)),
            (Reconstruction::L1, 1.0, 1.0, (0.0, 0.0)),
            (huber, 1.25, 1.0, (0.03125, 0.25)),
            (huber, 1.5, 1.0, (0.125, 0.5)),
            (huber, 0.0, 2.0, (0.875, -0.5)),
        ];
        for (kind, p, t, expected) in table {
            assert_eq!(element(kind, p, t, 4.0), expected, "{kind} of {p} against {t}");
        }
    }

    #[test]
    fn cross_entropy_equals_its_definition() {
        for (u, t) in [(0.3f64, 0.0), (-1.2, 1.0), (2.0, 0.25), (0.0, 0.5)] {
            let y = sigmoid(u);
            let (loss, slope) = element(Reconstruction::Bce, u, t, 1.0);
            let expected = -(t * y.ln() + (1.0 - t) * (1.0 - y).ln());
            assert!((loss - expected).abs() < 1e-15, "{loss} against {expected}");
            assert!((slope - (y - t)).abs() < 1e-16);
        }
    }

    #[test]
    fn cross_entropy_is_stable_at_huge_logits() {
        for (u, t, expected) in [(1e4, 1.0, 0.0), (1e4, 0.0, 1e4), (-1e4, 0.0, 0.0), (-1e4, 1.0, 1e4)] {
            let (loss, slope) = element(Reconstruction::Bce, u, t, 1.0);
            assert_eq!((loss, slope), (expected, f64::from(u > 0.0) - t), "logit {u}, target {t}");
        }
    }

    #[test]
    fn term_and_gradient_are_means_over_rows() {
        let mut grad = [f64::NAN; 4];
        let mut batch = Comparison { prediction: &[1.0, 2.0, 3.0, 4.0], target: &[0.0; 4], weights: None, rows: 2 };
        let term = loss(Reconstruction::MseSum, &batch, &mut grad);
        assert_eq!((term, grad), (7.5, [0.5, 1.0, 1.5, 2.0]));
        batch.weights = Some(&[1.0, 0.0, 0.0, 1.0]);
        let term = loss(Reconstruction::MseSum, &batch, &mut grad);
        assert_eq!((term, grad), (4.25, [0.5, 0.0, 0.0, 2.0]), "what does not count has no part in either");
    }

    #[test]
    fn learnt_variance_by_hand() {
        let mut batch = Comparison { prediction: &[1.0, 2.0, 3.0, 4.0], target: &[0.0; 4], weights: None, rows: 2 };
        let mut grad = [f64::NAN; 4];
        let term = sigma_loss(0.5, &batch, &mut grad);
        assert!((term - 8f64.ln()).abs() < 1e-15, "MSE 7.5, so ln 8 once for each of the two columns' halves");
        assert_eq!(grad, [0.0625, 0.125, 0.1875, 0.25]);
        batch.weights = Some(&[1.0, 0.0, 0.0, 0.0]);
        let term = sigma_loss(0.5, &batch, &mut grad);
        assert!((term - 0.25 * 1.5f64.ln()).abs() < 1e-16);
        assert_eq!(grad, [1.0 / 3.0, 0.0, 0.0, 0.0]);
        batch.weights = Some(&[0.0; 4]);
        assert_eq!((sigma_loss(0.5, &batch, &mut grad), grad), (-0.0, [0.0; 4]), "nothing was observed");
    }

    #[test]
    fn mixed_columns_by_hand() {
        let group = |kind, width, weight| ColumnGroup { weight, ..ColumnGroup::new(kind, width) };
        let columns = [
            group(ColumnKind::Numeric, 1, 2.0),
            group(ColumnKind::Binary, 1, 1.0),
            group(ColumnKind::Categorical, 2, 3.0),
        ];
        let (prediction, target) = ([3.0, 0.0, 0.0, 3f64.ln()], [1.0, 1.0, 1.0, 0.0]);
        let mut batch = Comparison { prediction: &prediction, target: &target, weights: None, rows: 1 };
        let mut grad = [f64::NAN; 4];
        let term = mixed_loss(Reconstruction::MseSum, &columns, &batch, &mut grad);
        let expected = 2.0 * 2.0 + 2f64.ln() + 3.0 * 4f64.ln();
        assert!((term - expected).abs() < 1e-14, "{term} against {expected}");
        for (found, expected) in grad.iter().zip([4.0, -0.5, -2.25, 2.25]) {
            assert!((found - expected).abs() < 1e-15, "{grad:?}");
        }
        batch.weights = Some(&[0.0, 1.0, 1.0, 0.0]);
        let term = mixed_loss(Reconstruction::MseSum, &columns, &batch, &mut grad);
        assert_eq!((term, grad), (2f64.ln(), [0.0, -0.5, 0.0, 0.0]), "a group misses if one of its cells does");
        let mut row = [f64::NAN; 4];
        mixed_output(&columns, 4, &prediction, &mut row);
        for (found, expected) in row.iter().zip([3.0, 0.5, 0.25, 0.75]) {
            assert!((found - expected).abs() < 1e-15, "{row:?}");
        }
    }
}
