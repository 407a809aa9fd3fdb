//! Optimiser updates and clipping by the global norm (docs/MATH.md, "Optimisers").

use cvae_core::Update;

/// Factor that brings a gradient down to the Euclidean norm `limit`; 1 when it is short enough already.
pub(crate) fn clip_factor(grads: &[f64], limit: Option<f64>) -> f64 {
    let norm = grads.iter().map(|g| g * g).sum::<f64>().sqrt();
    match limit {
        Some(limit) if norm > limit => limit / norm,
        _ => 1.0,
    }
}

/// Parameters and moments, all of the layout's length.
pub(crate) struct Tensors {
    /// θ.
    pub(crate) params: Vec<f64>,
    /// Adam's `m`, or the velocity.
    pub(crate) moment1: Vec<f64>,
    /// Adam's `v`.
    pub(crate) moment2: Vec<f64>,
}

/// One step from `factor · grads`.
pub(crate) fn update(rule: Update, tensors: &mut Tensors, grads: &[f64], factor: f64) {
    for (i, grad) in grads.iter().enumerate() {
        let g = factor * grad;
        let theta = &mut tensors.params[i];
        match rule {
            Update::Adam { beta1, beta2, eps, step_size, inv_sqrt_correction, keep } => {
                let m = beta1 * tensors.moment1[i] + (1.0 - beta1) * g;
                let v = beta2 * tensors.moment2[i] + (1.0 - beta2) * g * g;
                *theta = keep * *theta - step_size * m / (v.sqrt() * inv_sqrt_correction + eps);
                tensors.moment1[i] = m;
                tensors.moment2[i] = v;
            }
            Update::Sgd { momentum, learning_rate } => {
                let velocity = momentum * tensors.moment1[i] + g;
                *theta -= learning_rate * velocity;
                tensors.moment1[i] = velocity;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use cvae_core::OptimizerSpec;

    use super::*;

    fn tensors(param: f64) -> Tensors {
        Tensors { params: vec![param], moment1: vec![0.0], moment2: vec![0.0] }
    }

    /// With a constant gradient both corrected moments are exact: every step of Adam is `lr·g/(|g| + ε)`.
    #[test]
    fn adam_on_a_constant_gradient() {
        let spec = OptimizerSpec::adam(0.1);
        let mut state = tensors(1.0);
        for step in 0..50 {
            update(spec.coefficients(step), &mut state, &[-3.0], 1.0);
        }
        let expected = 1.0 + 50.0 * 0.1 * 3.0 / (3.0 + 1e-8);
        assert!((state.params[0] - expected).abs() < 1e-12, "{} against {expected}", state.params[0]);
    }

    #[test]
    fn weight_decay_is_decoupled() {
        let spec = OptimizerSpec::adamw(0.1, 0.5);
        let mut state = tensors(2.0);
        update(spec.coefficients(0), &mut state, &[0.0], 1.0);
        assert_eq!(state.params[0], 0.95 * 2.0, "a zero gradient leaves the decay alone");
        assert_eq!((state.moment1[0], state.moment2[0]), (0.0, 0.0), "the decay never reaches the moments");
    }

    #[test]
    fn momentum_by_hand() {
        let spec = OptimizerSpec::sgd(0.5, 0.9);
        let mut state = tensors(0.0);
        for (grad, expected) in [(1.0, -0.5), (1.0, -1.45), (0.0, -2.305)] {
            update(spec.coefficients(0), &mut state, &[grad], 1.0);
            assert!((state.params[0] - expected).abs() < 1e-15, "{} against {expected}", state.params[0]);
        }
        assert_eq!(state.moment2[0], 0.0);
    }

    #[test]
    fn clipping_by_hand() {
        assert_eq!(clip_factor(&[3.0, 4.0], None), 1.0);
        assert_eq!(clip_factor(&[3.0, 4.0], Some(5.0)), 1.0);
        assert_eq!(clip_factor(&[3.0, 4.0], Some(1.0)), 0.2);
        assert_eq!(clip_factor(&[0.0, 0.0], Some(1.0)), 1.0);
    }
}
