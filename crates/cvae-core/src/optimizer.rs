//! How parameters are updated: algorithm, learning-rate schedule and clipping, as plain data.

use serde::{Deserialize, Serialize};

use crate::error::SpecError;

/// The update rule. Formulas: docs/MATH.md, section "Optimisers".
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Algorithm {
    /// Adam (Kingma & Ba, ICLR 2015).
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the corrected second moment.
        eps: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019): `θ ← θ·(1 − lr·weight_decay)` first.
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the corrected second moment.
        eps: f64,
        /// Decay rate per unit of learning rate, applied to every parameter.
        weight_decay: f64,
    },
    /// Stochastic gradient descent with momentum: `v ← momentum·v + g; θ ← θ − lr·v`.
    Sgd {
        /// Velocity decay; 0 is plain gradient descent.
        momentum: f64,
    },
}

/// How the learning rate changes with the step, as a factor of the base rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// Always 1.
    Constant,
    /// `final_factor + (1 − final_factor)·½(1 + cos(π·t/steps))`, then `final_factor`.
    Cosine {
        /// Steps of the whole descent, warm-up excluded.
        steps: u64,
        /// Factor at the end.
        final_factor: f64,
    },
    /// Multiplied by `factor` every `every` steps.
    Step {
        /// Steps between drops.
        every: u64,
        /// Multiplier of each drop.
        factor: f64,
    },
}

/// Optimiser, schedule and clipping.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSpec {
    /// Update rule.
    pub algorithm: Algorithm,
    /// Base learning rate.
    pub learning_rate: f64,
    /// Schedule after the warm-up.
    pub schedule: Schedule,
    /// Steps over which the rate rises linearly from `lr/warmup_steps`; 0 for none.
    pub warmup_steps: u64,
    /// Gradients are scaled down so that their global Euclidean norm is at most this.
    pub clip_norm: Option<f64>,
}

impl OptimizerSpec {
    /// Adam(β₁ = 0.9, β₂ = 0.999, ε = 1e-8) at a constant rate.
    pub fn adam(learning_rate: f64) -> Self {
        Self::constant(Algorithm::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-8 }, learning_rate)
    }

    /// AdamW with Adam's defaults at a constant rate.
    pub fn adamw(learning_rate: f64, weight_decay: f64) -> Self {
        Self::constant(Algorithm::AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay }, learning_rate)
    }

    /// Gradient descent with momentum at a constant rate.
    pub fn sgd(learning_rate: f64, momentum: f64) -> Self {
        Self::constant(Algorithm::Sgd { momentum }, learning_rate)
    }

    fn constant(algorithm: Algorithm, learning_rate: f64) -> Self {
        Self { algorithm, learning_rate, schedule: Schedule::Constant, warmup_steps: 0, clip_norm: None }
    }

    /// The learning rate of the step that follows `step` finished ones (0 for the first).
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.learning_rate * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let t = step - self.warmup_steps;
        let factor = match self.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine { steps, final_factor } => {
                let progress = (t as f64 / steps as f64).min(1.0);
                final_factor + (1.0 - final_factor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
            Schedule::Step { every, factor } => factor.powf((t / every.max(1)) as f64),
        };
        self.learning_rate * factor
    }

    /// The scalars of one update, for the step that follows `step` finished ones.
    pub fn coefficients(&self, step: u64) -> Update {
        let lr = self.learning_rate_at(step);
        let t = (step + 1) as f64;
        let adam = |beta1: f64, beta2: f64, eps: f64, weight_decay: f64| Update::Adam {
            beta1,
            beta2,
            eps,
            step_size: lr / (1.0 - beta1.powf(t)),
            inv_sqrt_correction: 1.0 / (1.0 - beta2.powf(t)).sqrt(),
            keep: 1.0 - lr * weight_decay,
        };
        match self.algorithm {
            Algorithm::Adam { beta1, beta2, eps } => adam(beta1, beta2, eps, 0.0),
            Algorithm::AdamW { beta1, beta2, eps, weight_decay } => adam(beta1, beta2, eps, weight_decay),
            Algorithm::Sgd { momentum } => Update::Sgd { momentum, learning_rate: lr },
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first value out of range.
    pub fn validate(&self) -> Result<(), SpecError> {
        let positive = |name: &'static str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(SpecError::NotPositive { name, value }),
        };
        let decay = |name: &'static str, value: f64| match (0.0..1.0).contains(&value) {
            true => Ok(()),
            false => Err(SpecError::Decay { name, value }),
        };
        let weight = |name: &'static str, value: f64| match value.is_finite() && value >= 0.0 {
            true => Ok(()),
            false => Err(SpecError::Weight { name, value }),
        };
        positive("learning_rate", self.learning_rate)?;
        if let Some(norm) = self.clip_norm {
            positive("clip_norm", norm)?;
        }
        match self.schedule {
            Schedule::Constant => {}
            Schedule::Cosine { steps, final_factor } => {
                positive("schedule.steps", steps as f64)?;
                weight("schedule.final_factor", final_factor)?;
            }
            Schedule::Step { every, factor } => {
                positive("schedule.every", every as f64)?;
                positive("schedule.factor", factor)?;
            }
        }
        match self.algorithm {
            Algorithm::Adam { beta1, beta2, eps } => {
                decay("beta1", beta1)?;
                decay("beta2", beta2)?;
                positive("eps", eps)
            }
            Algorithm::AdamW { beta1, beta2, eps, weight_decay } => {
                decay("beta1", beta1)?;
                decay("beta2", beta2)?;
                positive("eps", eps)?;
                weight("weight_decay", weight_decay)
            }
            Algorithm::Sgd { momentum } => decay("momentum", momentum),
        }
    }
}

impl Default for OptimizerSpec {
    fn default() -> Self {
        Self::adam(1e-3)
    }
}

/// The scalars of one update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// `m ← β₁m + (1−β₁)g; v ← β₂v + (1−β₂)g²; θ ← keep·θ − step_size·m / (√v·inv_sqrt_correction + eps)`
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the corrected root.
        eps: f64,
        /// `lr / (1 − β₁ᵗ)`.
        step_size: f64,
        /// `1 / √(1 − β₂ᵗ)`.
        inv_sqrt_correction: f64,
        /// `1 − lr·weight_decay`; exactly 1 without decoupled decay.
        keep: f64,
    },
    /// `v ← momentum·v + g; θ ← θ − learning_rate·v`
    Sgd {
        /// Velocity decay.
        momentum: f64,
        /// Learning rate of this step.
        learning_rate: f64,
    },
}
