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

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_nn::{AdamW, Optimizer, ParamsAdamW};
    use cvae_core::OptimizerSpec;

    use super::*;

    /// The baseline's update is the one that candle's users know: `candle_nn::AdamW`, its decay given.
    #[test]
    fn adam_is_candle_nn_s() -> Result<()> {
        for (spec, weight_decay) in [(OptimizerSpec::adam(0.1), 0.0), (OptimizerSpec::adamw(0.1, 0.3), 0.3)] {
            let start = Tensor::new(&[1.0f64, -2.0, 0.5], &Device::Cpu)?;
            let (ours, theirs) = (Var::from_tensor(&start)?, Var::from_tensor(&start)?);
            let params = ParamsAdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay };
            let mut optimizer = AdamW::new(vec![theirs.clone()], params)?;
            let mut moments = Moments::zeros(std::slice::from_ref(&ours))?;
            for step in 0..5 {
                optimizer.backward_step(&theirs.sqr()?.sum_all()?)?;
                let gradients = [(ours.as_tensor() * 2.0)?];
                update(spec.coefficients(step), std::slice::from_ref(&ours), &mut moments, &gradients)?;
            }
            let difference = (ours.as_tensor() - theirs.as_tensor())?.abs()?.max_all()?.to_scalar::<f64>()?;
            assert!(difference < 1e-14, "{difference:e} with decay {weight_decay}");
        }
        Ok(())
    }

    #[test]
    fn momentum_and_clipping_by_hand() -> Result<()> {
        let var = Var::new(&[0.0f64, 0.0], &Device::Cpu)?;
        let vars = [var.clone()];
        let mut moments = Moments::zeros(&vars)?;
        let gradients = clip(&[Tensor::new(&[3.0f64, 4.0], &Device::Cpu)?], 1.0)?;
        let rule = Update::Sgd { momentum: 0.5, learning_rate: 10.0 };
        update(rule, &vars, &mut moments, &gradients)?;
        update(rule, &vars, &mut moments, &gradients)?;
        // Velocities (0.6, 0.8) and 1.5 times that.
        let found = var.to_vec1::<f64>()?;
        assert!((found[0] + 15.0).abs() < 1e-12 && (found[1] + 20.0).abs() < 1e-12, "{found:?}");
        let short = clip(&gradients, 2.0)?;
        assert_eq!(short[0].to_vec1::<f64>()?, gradients[0].to_vec1::<f64>()?);
        Ok(())
    }
}
