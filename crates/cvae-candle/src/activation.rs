//! Activation functions, differentiated by candle. Formulas: docs/MATH.md, section "Activations".

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use candle_core::{Result, Tensor};
use candle_nn::Module;
use cvae_core::Activation;

use crate::Precision;

/// Applies `activation` elementwise.
pub(crate) fn activate(precision: Precision, activation: Activation, input: &Tensor) -> Result<Tensor> {
    match precision {
        Precision::F32 => idiomatic(activation, input),
        Precision::F64 => explicit(activation, input),
    }
}

/// As a candle user writes it.
fn idiomatic(activation: Activation, input: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(input.clone()),
        Activation::Relu => input.relu(),
        Activation::LeakyRelu => candle_nn::Activation::LeakyRelu(Activation::LEAKY_SLOPE).forward(input),
        Activation::Elu => input.elu(1.0),
        Activation::Gelu => input.gelu_erf(),
        Activation::Silu => input.silu(),
        Activation::Tanh => input.tanh(),
        Activation::Sigmoid => candle_nn::ops::sigmoid(input),
    }
}

/// Written out, so that the derivative at 0 is that of the definition (candle's `relu` has 1 there, its
/// `minimum` and `maximum` a half) and its accuracy that of `f64` (the derivative of candle's `gelu_erf` has
/// a constant of six digits).
fn explicit(activation: Activation, input: &Tensor) -> Result<Tensor> {
    match activation {
        Activation::Identity => Ok(input.clone()),
        Activation::Relu => input * positive(input)?,
        Activation::LeakyRelu => {
            // 1 above zero, the slope elsewhere.
            let factor = positive(input)?.affine(1.0 - Activation::LEAKY_SLOPE, Activation::LEAKY_SLOPE)?;
            input * factor
        }
        Activation::Elu => {
            let above = positive(input)?;
            let below = above.affine(-1.0, 1.0)?;
            (input * above)? + ((input * below)?.exp()? - 1.0)?
        }
        Activation::Gelu => input * (input * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?,
        Activation::Silu => input * sigmoid(input)?,
        Activation::Tanh => input.tanh(),
        Activation::Sigmoid => sigmoid(input),
    }
}

/// The derivative of `activation` as an expression of the pre-activation that autograd can differentiate; `None`
/// for 1 everywhere.
pub(crate) fn slope(activation: Activation, input: &Tensor) -> Result<Option<Tensor>> {
    let slope = match activation {
        Activation::Identity => return Ok(None),
        Activation::Relu => positive(input),
        Activation::LeakyRelu => positive(input)?.affine(1.0 - Activation::LEAKY_SLOPE, Activation::LEAKY_SLOPE),
        // e^a below zero; above, e^0 is the 1 of the other piece.
        Activation::Elu => (input * positive(input)?.affine(-1.0, 1.0)?)?.exp(),
        Activation::Gelu => {
            let distribution = (input * FRAC_1_SQRT_2)?.erf()?.affine(0.5, 0.5)?;
            let density = ((input.sqr()? * -0.5)?.exp()? * (1.0 / (2.0 * PI).sqrt()))?;
            distribution + (input * density)?
        }
        Activation::Silu => {
            let gate = sigmoid(input)?;
            &gate * (input * gate.affine(-1.0, 1.0)?)?.affine(1.0, 1.0)?
        }
        Activation::Tanh => input.tanh()?.sqr()?.affine(-1.0, 1.0),
        Activation::Sigmoid => {
            let gate = sigmoid(input)?;
            &gate * gate.affine(-1.0, 1.0)?
        }
    };
    slope.map(Some)
}

/// 1 where the element is above zero, else 0; a constant to autograd.
pub(crate) fn positive(input: &Tensor) -> Result<Tensor> {
    input.gt(0.0)?.to_dtype(input.dtype())
}

/// `½(1 + tanh(a/2))`, which cannot overflow.
pub(crate) fn sigmoid(input: &Tensor) -> Result<Tensor> {
    (input * 0.5)?.tanh()?.affine(0.5, 0.5)
}
