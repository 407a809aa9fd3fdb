//! Update rules and clipping. Formulas: docs/MATH.md, section "Optimisers".
//!
//! `candle_nn::AdamW` hides its moments and step count, so that training could not resume, and its weight
//! decay defaults to 0.01; `candle_nn::SGD` has no momentum. This module performs the same tensor operations
//! on moments of its own.

use candle_core::{DType, Result, Tensor, Var};
use cvae_core::Update;

/// Moments of every parameter, in the order of the layout.
pub(crate) struct Moments {
    pub(crate) first: Vec<Tensor>,
    pub(crate) second: Vec<Tensor>,
}

impl Moments {
    /// Zero moments for `vars`.
    pub(crate) fn zeros(vars: &[Var]) -> Result<Self> {
        let zeros = || vars.iter().map(|var| var.zeros_like()).collect::<Result<Vec<_>>>();
        Ok(Self { first: zeros()?, second: zeros()? })
    }
}

/// Scales `gradients` so that their global norm is at most `limit`.
pub(crate) fn clip(gradients: &[Tensor], limit: f64) -> Result<Vec<Tensor>> {
    let mut squares = 0.0;
    for gradient in gradients {
        squares += gradient.to_dtype(DType::F64)?.sqr()?.sum_all()?.to_scalar::<f64>()?;
    }
    let norm = squares.sqrt();
    let scale = if norm > limit { limit / norm } else { 1.0 };
    gradients.iter().map(|gradient| gradient * scale).collect()
}

/// One step on every parameter.
pub(crate) fn update(rule: Update, vars: &[Var], moments: &mut Moments, gradients: &[Tensor]) -> Result<()> {
    for (index, (var, gradient)) in vars.iter().zip(gradients).enumerate() {
        let (first, second) = (&mut moments.first[index], &mut moments.second[index]);
        match rule {
            Update::Adam { beta1, beta2, eps, step_size, inv_sqrt_correction, keep } => {
                *first = ((&*first * beta1)? + (gradient * (1.0 - beta1))?)?;
                *second = ((&*second * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
                let root = (second.sqrt()? * inv_sqrt_correction)?;
                let change = ((&*first * step_size)? / (root + eps)?)?;
                var.set(&((var.as_tensor() * keep)? - change)?)?;
            }
            Update::Sgd { momentum, learning_rate } => {
                *first = ((&*first * momentum)? + gradient)?;
                var.set(&(var.as_tensor() - (&*first * learning_rate)?)?)?;
            }
        }
    }
    Ok(())
}
