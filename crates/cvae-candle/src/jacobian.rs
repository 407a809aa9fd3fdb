//! Jacobian terms. Formulas: docs/MATH.md, section "Jacobian terms".
//!
//! candle's gradients cannot be differentiated again. The product of a cotangent with the Jacobian is therefore
//! written out as a forward computation, with the derivative of each activation an expression of its
//! pre-activation; ordinary reverse mode differentiates the whole.

use candle_core::{Result, Tensor};

use crate::activation::slope;
use crate::linear::{Dense, Trace};

/// `weight · ‖Jᵀ·cotangent‖²`, averaged over rows, for the Jacobian of `layers` at the point of `trace`. With
/// `logits` the last layer counts without its activation.
pub(crate) fn squared_norm(
    weight: f64,
    layers: &[Dense],
    trace: &Trace,
    cotangent: &Tensor,
    logits: bool,
) -> Result<Tensor> {
    let mut pulled = cotangent.clone();
    for (index, (layer, logit)) in layers.iter().zip(&trace.logits).enumerate().rev() {
        let linear = logits && index + 1 == layers.len();
        if !linear && let Some(slope) = slope(layer.activation(), logit)? {
            pulled = (pulled * slope)?;
        }
        pulled = pulled.matmul(layer.weight())?;
    }
    let rows = pulled.dim(0)? as f64;
    pulled.sqr()?.sum_all()? * (weight / rows)
}

/// `rows` copies of the unit vector of column `index`, shaped and typed like `like` (`rows × width`).
pub(crate) fn unit_vectors(index: usize, like: &Tensor) -> Result<Tensor> {
    let (rows, width) = like.dims2()?;
    let mut values = vec![0.0f32; rows * width];
    values.iter_mut().skip(index).step_by(width).for_each(|value| *value = 1.0);
    Tensor::from_vec(values, (rows, width), like.device())?.to_dtype(like.dtype())
}
