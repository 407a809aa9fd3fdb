//! The Jacobian terms' own operations (docs/MATH.md, "Jacobian terms").

use cvae_core::Activation;

use crate::activation;

/// Rows of the unit vector.
pub(crate) fn unit_vector(index: usize, width: usize, output: &mut [f64]) {
    for (column, out) in output.iter_mut().enumerate() {
        *out = if column % width == index { 1.0 } else { 0.0 };
    }
}

/// Returns `weight·‖input‖²`, averaged over rows, and leaves its gradient in `output`.
pub(crate) fn norm(weight: f64, input: &[f64], rows: usize, output: &mut [f64]) -> f64 {
    let scale = weight / rows as f64;
    for (out, u) in output.iter_mut().zip(input) {
        *out = 2.0 * scale * u;
    }
    scale * input.iter().map(|u| u * u).sum::<f64>()
}

/// Operands of [`act_grad_grad`].
pub(crate) struct Curvature<'a> {
    /// The activation's output if [`Activation::derivative_from_output`], else its input.
    pub(crate) saved: &'a [f64],
    /// What the derivative multiplied.
    pub(crate) cotangent: &'a [f64],
    /// Gradient of that product.
    pub(crate) adjoint: &'a [f64],
    /// Gradient of the pre-activation so far.
    pub(crate) grad: &'a [f64],
}

/// `output = grad + act''(·) ⊙ cotangent ⊙ adjoint`.
pub(crate) fn act_grad_grad(activation: Activation, operands: &Curvature<'_>, output: &mut [f64]) {
    let Curvature { saved, cotangent, adjoint, grad } = operands;
    for (i, out) in output.iter_mut().enumerate() {
        *out = grad[i] + activation::second_derivative(activation, saved[i]) * cotangent[i] * adjoint[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norm_by_hand() {
        let mut output = [f64::NAN; 4];
        assert_eq!(norm(0.5, &[1.0, -2.0, 3.0, 0.0], 2, &mut output), 3.5);
        assert_eq!(output, [0.5, -1.0, 1.5, 0.0]);
    }

    #[test]
    fn unit_vectors_and_curvature_by_hand() {
        let mut unit = [f64::NAN; 6];
        unit_vector(1, 3, &mut unit);
        assert_eq!(unit, [0.0, 1.0, 0.0, 0.0, 1.0, 0.0]);
        // tanh'' = −2y(1 − y²) at y = ½ is −¾.
        let operands = Curvature { saved: &[0.5], cotangent: &[2.0], adjoint: &[4.0], grad: &[10.0] };
        let mut output = [f64::NAN];
        act_grad_grad(Activation::Tanh, &operands, &mut output);
        assert_eq!(output, [4.0]);
    }
}
