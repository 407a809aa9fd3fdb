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

/// What a stack of layers makes of a batch.
pub(crate) struct Trace {
    /// Input of the last layer.
    pub(crate) last_input: Tensor,
    /// Output of each layer before its activation, first layer first.
    pub(crate) logits: Vec<Tensor>,
    /// Output of the last layer.
    pub(crate) output: Tensor,
}

impl Dense {
    /// A layer of `weight` `[out, in]` and `bias` `[out]`, which it shares with the variables.
    pub(crate) fn new(precision: Precision, weight: &Var, bias: Option<&Var>, activation: Activation) -> Self {
        let linear = Linear::new(weight.as_tensor().clone(), bias.map(|bias| bias.as_tensor().clone()));
        Self { precision, linear, activation }
    }

    /// `W`, `[out, in]`.
    pub(crate) fn weight(&self) -> &Tensor {
        self.linear.weight()
    }

    /// The activation of the output.
    pub(crate) fn activation(&self) -> Activation {
        self.activation
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

    /// Runs `layers` one after the other, the first on `input`.
    pub(crate) fn trace(layers: &[Self], input: &Tensor) -> Result<Trace> {
        let mut trace = Trace { last_input: input.clone(), logits: vec![], output: input.clone() };
        for layer in layers {
            let logits = layer.linear(&trace.output)?;
            let output = activate(layer.precision, layer.activation, &logits)?;
            trace.last_input = std::mem::replace(&mut trace.output, output);
            trace.logits.push(logits);
        }
        Ok(trace)
    }

    /// The layer's name of what runs, for [`cvae_core::KernelChoice`].
    pub(crate) fn kernel(&self) -> String {
        match self.precision {
            Precision::F32 => format!("candle_nn::Linear, {}", self.activation),
            Precision::F64 => format!("candle matmul in f64, {}", self.activation),
        }
    }
}
