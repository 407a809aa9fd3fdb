//! What the network is: layers, widths and activations, as plain data.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::SpecError;
use crate::shape::Shape;

/// Largest number of parameters a specification may describe (2³¹ − 1, so that offsets fit an `i32`).
pub const MAX_PARAMS: usize = i32::MAX as usize;

/// An elementwise activation function. Formulas: docs/MATH.md, section "Activations".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `a`
    Identity,
    /// `max(a, 0)`
    Relu,
    /// `a` if `a > 0`, else `0.01·a`
    LeakyRelu,
    /// `a` if `a > 0`, else `e^a − 1`
    Elu,
    /// `a·Φ(a)` with the exact normal distribution function
    Gelu,
    /// `a·sigmoid(a)`
    Silu,
    /// `tanh(a)`
    Tanh,
    /// `1 / (1 + e^−a)`
    Sigmoid,
}

impl Activation {
    /// Slope of [`Activation::LeakyRelu`] below zero.
    pub const LEAKY_SLOPE: f64 = 0.01;

    /// Every activation, in declaration order.
    pub const ALL: [Self; 8] =
        [Self::Identity, Self::Relu, Self::LeakyRelu, Self::Elu, Self::Gelu, Self::Silu, Self::Tanh, Self::Sigmoid];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Relu => "relu",
            Self::LeakyRelu => "leaky_relu",
            Self::Elu => "elu",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
        }
    }

    /// Whether the derivative is a function of the activation's output alone.
    ///
    /// The lowering then keeps the output for the backward pass, otherwise the pre-activation.
    pub fn derivative_from_output(self) -> bool {
        !matches!(self, Self::Gelu | Self::Silu)
    }
}

impl fmt::Display for Activation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Activation {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        Self::ALL
            .into_iter()
            .find(|activation| activation.name() == name || (name == "linear" && *activation == Self::Identity))
            .ok_or_else(|| SpecError::unknown("activation", name, Self::ALL.iter().map(|a| a.name())))
    }
}

/// One layer of the encoder or the decoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LayerSpec {
    /// `act(W·x + b)` with `W` of shape `[units, input]`.
    Dense {
        /// Output width.
        units: usize,
        /// Activation of the output.
        activation: Activation,
    },
    /// `W·x` with `W` of shape `[units, input]`: no bias, no activation. Several in a row are one linear map,
    /// which [`crate::fold_linear`] multiplies out.
    Linear {
        /// Output width.
        units: usize,
    },
}

impl LayerSpec {
    /// The shape of this layer's output for an input of shape `input`.
    pub fn output(&self, _input: &Shape) -> Shape {
        Shape::flat(self.units())
    }

    /// Width of this layer's output.
    pub fn units(&self) -> usize {
        match self {
            Self::Dense { units, .. } | Self::Linear { units } => *units,
        }
    }

    /// Whether the layer has a bias.
    pub fn has_bias(&self) -> bool {
        match self {
            Self::Dense { .. } => true,
            Self::Linear { .. } => false,
        }
    }

    /// The activation applied to this layer's output.
    pub fn activation(&self) -> Activation {
        match self {
            Self::Dense { activation, .. } => *activation,
            Self::Linear { .. } => Activation::Identity,
        }
    }
}

/// Encoder and decoder of an autoencoder.
///
/// The encoder's output is the code `z` (for a variational objective: the posterior mean); the decoder
/// maps it back to the input's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// Shape of one input row.
    pub input: Shape,
    /// Encoder layers, input side first.
    pub encoder: Vec<LayerSpec>,
    /// Decoder layers, code side first.
    pub decoder: Vec<LayerSpec>,
}

impl ModelSpec {
    /// Most layers that [`ModelSpec::with_linear_code`] appends.
    pub const MAX_LINEAR_CODE: usize = 64;

    /// A multilayer perceptron with the encoder widths `widths` (input first, code last) and the mirrored
    /// decoder. Hidden layers use `activation`, the code is linear, the reconstruction uses `output`.
    ///
    /// # Errors
    /// Fewer than two widths, a zero width, or more than [`MAX_PARAMS`] parameters.
    pub fn mlp(widths: &[usize], activation: Activation, output: Activation) -> Result<Self, SpecError> {
        let mirrored: Vec<usize> = widths.iter().rev().copied().collect();
        Self::mlp_pair(widths, &mirrored, activation, output)
    }

    /// A multilayer perceptron with separate encoder and decoder widths, each listing its input first.
    ///
    /// # Errors
    /// As [`ModelSpec::mlp`]; also when the decoder does not start at the code or end at the input width.
    pub fn mlp_pair(
        encoder: &[usize],
        decoder: &[usize],
        activation: Activation,
        output: Activation,
    ) -> Result<Self, SpecError> {
        let (Some(&input), Some(&code)) = (encoder.first(), encoder.last()) else {
            return Err(SpecError::TooFewWidths { part: Part::Encoder, widths: encoder.len() });
        };
        for (part, widths) in [(Part::Encoder, encoder), (Part::Decoder, decoder)] {
            if widths.len() < 2 {
                return Err(SpecError::TooFewWidths { part, widths: widths.len() });
            }
        }
        if decoder[0] != code {
            return Err(SpecError::DecoderInput { latent: code, decoder: decoder[0] });
        }
        let spec = Self {
            input: Shape::flat(input),
            encoder: dense_stack(&encoder[1..], activation, Activation::Identity),
            decoder: dense_stack(&decoder[1..], activation, output),
        };
        spec.validate()?;
        Ok(spec)
    }

    /// The model with `layers` square linear layers at the end of the encoder, which bias training towards codes
    /// of low rank (Jing, Zbontar & LeCun, "Implicit Rank-Minimizing Autoencoder", NeurIPS 2020).
    ///
    /// # Errors
    /// More than [`ModelSpec::MAX_LINEAR_CODE`] layers, or more than [`MAX_PARAMS`] parameters.
    pub fn with_linear_code(mut self, layers: usize) -> Result<Self, SpecError> {
        if layers > Self::MAX_LINEAR_CODE {
            return Err(SpecError::LinearCode { layers, max: Self::MAX_LINEAR_CODE });
        }
        let units = self.latent();
        self.encoder.extend(std::iter::repeat_n(LayerSpec::Linear { units }, layers));
        self.validate()?;
        Ok(self)
    }

    /// The model with this activation in the last hidden layer of the encoder, the one before the code, where it has
    /// several dense ones; else the model as it is.
    pub fn with_activation_before_code(mut self, before_code: Activation) -> Self {
        if let [_, .., LayerSpec::Dense { activation, .. }, _] = self.encoder.as_mut_slice() {
            *activation = before_code;
        }
        self
    }

    /// Width of the input row.
    pub fn width(&self) -> usize {
        self.input.size()
    }

    /// Width of the code. Allocates nothing: every inference call asks.
    pub fn latent(&self) -> usize {
        self.encoder.last().map_or_else(|| self.width(), LayerSpec::units)
    }

    /// Shape of the code.
    pub fn latent_shape(&self) -> Shape {
        output_shape(&self.input, &self.encoder)
    }

    /// Whether the code is `W·h + b`, and the first layer of the decoder has a bias too: then any invertible affine map
    /// of the code can be folded into both ([`crate::fold_code_map`]).
    pub fn has_affine_code(&self) -> bool {
        let affine = |layer: &LayerSpec| layer.has_bias() && layer.activation() == Activation::Identity;
        self.encoder.last().is_some_and(affine) && self.decoder.first().is_some_and(LayerSpec::has_bias)
    }

    /// Activation of the reconstruction.
    pub fn output_activation(&self) -> Activation {
        self.decoder.last().map_or(Activation::Identity, LayerSpec::activation)
    }

    /// The layers of one part.
    pub fn layers(&self, part: Part) -> &[LayerSpec] {
        match part {
            Part::Encoder => &self.encoder,
            Part::Decoder => &self.decoder,
        }
    }

    /// Checks every rule a specification must meet.
    ///
    /// # Errors
    /// An empty part, a zero width, a decoder that does not return to the input's size, or too many
    /// parameters.
    pub fn validate(&self) -> Result<(), SpecError> {
        if self.width() == 0 {
            return Err(SpecError::ZeroWidth { part: Part::Encoder, layer: 0 });
        }
        let mut shape = self.input.clone();
        let mut params = 0usize;
        for part in [Part::Encoder, Part::Decoder] {
            let layers = self.layers(part);
            if layers.is_empty() {
                return Err(SpecError::TooFewWidths { part, widths: 1 });
            }
            for (index, layer) in layers.iter().enumerate() {
                let output = layer.output(&shape);
                if output.size() == 0 {
                    return Err(SpecError::ZeroWidth { part, layer: index + 1 });
                }
                let inputs = shape.size().saturating_add(usize::from(layer.has_bias()));
                params = params.saturating_add(inputs.saturating_mul(output.size()));
                shape = output;
            }
        }
        if shape.size() != self.width() {
            return Err(SpecError::DecoderOutput { input: self.width(), decoder: shape.size() });
        }
        if params > MAX_PARAMS {
            return Err(SpecError::TooManyParams { params, max: MAX_PARAMS });
        }
        Ok(())
    }
}

fn dense_stack(widths: &[usize], hidden: Activation, last: Activation) -> Vec<LayerSpec> {
    let count = widths.len();
    let layer = |(i, &units): (usize, &usize)| LayerSpec::Dense {
        units,
        activation: if i + 1 == count { last } else { hidden },
    };
    widths.iter().enumerate().map(layer).collect()
}

fn output_shape(input: &Shape, layers: &[LayerSpec]) -> Shape {
    layers.iter().fold(input.clone(), |shape, layer| layer.output(&shape))
}

/// The two halves of an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Input to code.
    Encoder,
    /// Code to reconstruction.
    Decoder,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Encoder => "encoder",
            Self::Decoder => "decoder",
        })
    }
}
