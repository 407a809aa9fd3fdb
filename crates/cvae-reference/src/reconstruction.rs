//! The reconstruction terms and their gradients (docs/MATH.md, "Reconstruction").

use cvae_core::Reconstruction;

use crate::activation::sigmoid;

/// Returns the term, averaged over rows, and leaves `∂term/∂prediction` in `grad` (`1/rows` included).
///
/// `prediction`, `target` and `grad` are `rows × width`; for [`Reconstruction::Bce`] the prediction is the
/// logits.
pub(crate) fn loss(kind: Reconstruction, prediction: &[f64], target: &[f64], rows: usize, grad: &mut [f64]) -> f64 {
    let width = prediction.len() / rows;
    let mut sum = 0.0;
    for ((g, p), t) in grad.iter_mut().zip(prediction).zip(target) {
        let (loss, slope) = element(kind, *p, *t, width as f64);
        sum += loss;
        *g = slope / rows as f64;
    }
    sum / rows as f64
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
        let term = loss(Reconstruction::MseSum, &[1.0, 2.0, 3.0, 4.0], &[0.0; 4], 2, &mut grad);
        assert_eq!((term, grad), (7.5, [0.5, 1.0, 1.5, 2.0]));
    }
}
