//! Reconstruction terms, averaged over rows and differentiated by candle. Formulas: docs/MATH.md.

use candle_core::{Result, Tensor};
use cvae_core::Reconstruction;

use crate::Precision;

/// The term for predictions and targets of `rows × width`; for cross-entropy the prediction is the logits.
pub(crate) fn reconstruction(
    precision: Precision,
    kind: Reconstruction,
    prediction: &Tensor,
    target: &Tensor,
) -> Result<Tensor> {
    let (rows, width) = prediction.dims2()?;
    let elements = (rows * width) as f64;
    let (rows, width) = (rows as f64, width as f64);
    match (precision, kind) {
        // candle_nn's losses are means over all elements.
        (Precision::F32, Reconstruction::MseSum) => candle_nn::loss::mse(prediction, target)? * (0.5 * width),
        (Precision::F32, Reconstruction::MseMean) => candle_nn::loss::mse(prediction, target),
        (Precision::F32, Reconstruction::L1) => (prediction - target)?.abs()?.sum_all()? / rows,
        (Precision::F32, Reconstruction::Huber { delta }) => candle_nn::loss::huber(prediction, target, delta)? * width,
        (Precision::F64, Reconstruction::MseSum) => (prediction - target)?.sqr()?.sum_all()? * (0.5 / rows),
        (Precision::F64, Reconstruction::MseMean) => (prediction - target)?.sqr()?.sum_all()? / elements,
        (Precision::F64, Reconstruction::L1) => {
            // `sign` is a constant to autograd, and 0 at 0.
            let error = (prediction - target)?;
            (&error * error.sign()?)?.sum_all()? / rows
        }
        (Precision::F64, Reconstruction::Huber { delta }) => {
            // ½c² + δ(|e| − |c|) with c = e clamped to ±δ; the clamped part has no gradient of its own.
            let error = (prediction - target)?;
            let inside = error.abs()?.le(delta)?.to_dtype(error.dtype())?;
            let outside = inside.affine(-1.0, 1.0)?;
            let quadratic = ((&error * inside)?.sqr()? * 0.5)?;
            let linear = (((&error * error.sign()?)? * delta)? - 0.5 * delta * delta)?;
            (quadratic + (linear * outside)?)?.sum_all()? / rows
        }
        // candle_nn's cross-entropy takes the logarithm of a sigmoid and overflows; both precisions use the
        // stable form. At u = 0 candle's derivatives of `relu` (1) and `abs` (1) add up to the right ½ − x.
        (_, Reconstruction::Bce) => {
            let softplus = (prediction.relu()? + (prediction.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
            (softplus - (prediction * target)?)?.sum_all()? / rows
        }
    }
}
