//! Dense layers.

use candle_core::{Result, Tensor, Var};
use candle_nn::{Linear, Module};
use cvae_core::Activation;

use crate::Precision;
use crate::activation::activate;

/// A dense layer over parameters that the model owns.
pub(crate) struct Dense {
    precision: Precision,
    linear: Linear,
    activation: Activation,
}

impl Dense {
    /// A layer of `weight` `[out, in]` and `bias` `[out]`, which it shares with the variables.
    pub(crate) fn new(precision: Precision, weight: &Var, bias: &Var, activation: Activation) -> Self {
        let linear = Linear::new(weight.as_tensor().clone(), Some(bias.as_tensor().clone()));
        Self { precision, linear, activation }
    }

    /// `input · Wᵀ + b`.
    pub(crate) fn linear(&self, input: &Tensor) -> Result<Tensor> {
        match self.precision {
            Precision::F32 => self.linear.forward(input),
            Precision::F64 => {
                let product = input.matmul(&self.linear.weight().t()?)?;
                self.linear.bias().map_or(Ok(product.clone()), |bias| product.broadcast_add(bias))
            }
        }
    }

    /// `act(input · Wᵀ + b)`.
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        activate(self.precision, self.activation, &self.linear(input)?)
    }

    /// The layer's name of what runs, for [`cvae_core::KernelChoice`].
    pub(crate) fn kernel(&self) -> String {
        match self.precision {
            Precision::F32 => format!("candle_nn::Linear, {}", self.activation),
            Precision::F64 => format!("candle matmul in f64, {}", self.activation),
        }
    }
}
