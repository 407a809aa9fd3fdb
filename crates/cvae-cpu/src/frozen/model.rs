//! A frozen model as plain data.

use cvae_core::{Activation, Entry, Graph, Op, Plan, Unsupported};

use super::error::FreezeError;
use crate::simd::bf16::Bf16;
use crate::simd::int8::MAX_ACTIVATION;

/// Most inputs of an int8 layer: sums of 127·127·inputs, once more for the zero, stay below 2³¹.
const MAX_BYTE_INPUTS: usize = 1 << 16;

/// How a frozen model stores its weights, the longest form first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrozenPrecision {
    /// 32-bit floats.
    F32,
    /// Weights in 16 bits ([`Bf16`]), sums in 32-bit floats.
    Bf16,
    /// Bytes with a scale per output; activations are bytes too.
    Int8,
}

impl FrozenPrecision {
    /// Every precision.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// How bytes stand for real values: `value = step · (byte − zero)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteLevels {
    /// Distance of neighbouring values; finite and positive.
    pub step: f32,
    /// The byte that stands for 0; at most 127.
    pub zero: u8,
}

/// The weights of a layer, `[units, inputs]` row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum FrozenWeights {
    /// As trained.
    F32(Vec<f32>),
    /// Rounded.
    Bf16(Vec<Bf16>),
    /// `weight = scale[unit] · value`, with activations in bytes.
    Int8 {
        /// From −127 to 127.
        values: Vec<i8>,
        /// One per unit; finite and positive.
        scales: Vec<f32>,
        /// How the layer's inputs become bytes from 0 to 127.
        input: ByteLevels,
    },
}

/// A dense layer: `act(W·x + b)`.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenLayer {
    /// Inputs of a row.
    pub inputs: usize,
    /// Outputs of a row.
    pub units: usize,
    /// Applied to the outputs.
    pub activation: Activation,
    /// `W`
    pub weights: FrozenWeights,
    /// `b`, one per unit.
    pub bias: Vec<f32>,
}

/// A trained model reduced to what inference needs, independent of machine and instruction set.
#[derive(Clone, Debug, PartialEq)]
pub struct FrozenModel {
    /// Rows to codes.
    pub encoder: Vec<FrozenLayer>,
    /// Codes to rows.
    pub decoder: Vec<FrozenLayer>,
}

impl FrozenModel {
    /// The inference part of a plan with its parameters, in 32-bit floats. A variational model encodes to
    /// posterior means.
    ///
    /// # Errors
    /// [`FreezeError::Unsupported`] for ops other than dense layers with activations,
    /// [`FreezeError::Parameters`] for another number of parameters, [`FreezeError::Value`] for one that is not
    /// finite.
    pub fn new(plan: &Plan, params: &[f32]) -> Result<Self, FreezeError> {
        let expected = plan.params.len();
        if params.len() != expected {
            return Err(FreezeError::Parameters { expected, found: params.len() });
        }
        let model = Self {
            encoder: layers(plan, plan.program.entry(Entry::Encode), params)?,
            decoder: layers(plan, plan.program.entry(Entry::Decode), params)?,
        };
        model.validate()?;
        Ok(model)
    }

    /// The layers, the encoder's first.
    pub fn layers(&self) -> impl Iterator<Item = &FrozenLayer> {
        self.encoder.iter().chain(&self.decoder)
    }

    /// Elements of a row.
    pub fn width(&self) -> usize {
        self.encoder.first().map_or(0, |layer| layer.inputs)
    }

    /// Elements of a code.
    pub fn latent(&self) -> usize {
        self.decoder.first().map_or(0, |layer| layer.inputs)
    }

    /// How weights are stored: in the shortest form of any layer's.
    pub fn precision(&self) -> FrozenPrecision {
        let precisions = self.layers().map(|layer| match layer.weights {
            FrozenWeights::F32(_) => FrozenPrecision::F32,
            FrozenWeights::Bf16(_) => FrozenPrecision::Bf16,
            FrozenWeights::Int8 { .. } => FrozenPrecision::Int8,
        });
        precisions.max().unwrap_or(FrozenPrecision::F32)
    }

    /// The model with every weight rounded to [`Bf16`]; biases and activations stay 32-bit floats.
    ///
    /// # Errors
    /// [`FreezeError::NotF32`] for a model whose weights were rounded or quantised before, [`FreezeError::Value`] for
    /// a weight whose nearest bfloat16 is infinite.
    pub fn to_bf16(&self) -> Result<Self, FreezeError> {
        let round = |layer: &FrozenLayer| match &layer.weights {
            FrozenWeights::F32(weights) => {
                let weights = FrozenWeights::Bf16(weights.iter().map(|w| Bf16::from_f32(*w)).collect());
                Ok(FrozenLayer { weights, ..layer.clone() })
            }
            FrozenWeights::Bf16(_) | FrozenWeights::Int8 { .. } => Err(FreezeError::NotF32),
        };
        let part = |layers: &[FrozenLayer]| layers.iter().map(round).collect::<Result<_, _>>();
        let model = Self { encoder: part(&self.encoder)?, decoder: part(&self.decoder)? };
        model.validate()?;
        Ok(model)
    }

    /// Checks sizes and numbers.
    ///
    /// # Errors
    /// The first rule that a layer breaks.
    pub fn validate(&self) -> Result<(), FreezeError> {
        for (part, layers) in [("encoder", &self.encoder), ("decoder", &self.decoder)] {
            if layers.is_empty() {
                return Err(FreezeError::NoLayers { part });
            }
        }
        let mut inputs = self.width();
        for (layer, numbers) in self.layers().enumerate() {
            numbers.validate(layer, inputs)?;
            inputs = numbers.units;
        }
        let last = self.layers().count() - 1;
        let size = |layer, expected, found| match expected == found {
            true => Ok(()),
            false => Err(FreezeError::Size { layer, what: "the output", expected, found }),
        };
        size(last, self.width(), inputs)
    }
}

impl FrozenLayer {
    fn validate(&self, layer: usize, inputs: usize) -> Result<(), FreezeError> {
        let size = |what, expected, found| match expected == found {
            true => Ok(()),
            false => Err(FreezeError::Size { layer, what, expected, found }),
        };
        let value = |what, rule, holds| match holds {
            true => Ok(()),
            false => Err(FreezeError::Value { layer, what, rule }),
        };
        value("its width", "at least 1", self.inputs > 0 && self.units > 0)?;
        size("the input", inputs, self.inputs)?;
        size("the bias", self.units, self.bias.len())?;
        value("the bias", "finite", self.bias.iter().all(|b| b.is_finite()))?;
        let elements = self.inputs.saturating_mul(self.units);
        match &self.weights {
            FrozenWeights::F32(weights) => {
                size("the weight", elements, weights.len())?;
                value("the weight", "finite", weights.iter().all(|w| w.is_finite()))
            }
            FrozenWeights::Bf16(weights) => {
                size("the weight", elements, weights.len())?;
                value("the weight", "finite", weights.iter().all(|w| w.to_f32().is_finite()))
            }
            FrozenWeights::Int8 { values, scales, input } => {
                if self.inputs > MAX_BYTE_INPUTS {
                    return Err(FreezeError::TooWide { layer, inputs: self.inputs, max: MAX_BYTE_INPUTS });
                }
                size("the weight", elements, values.len())?;
                size("the scales of the weight", self.units, scales.len())?;
                let positive = |x: f32| x.is_finite() && x > 0.0;
                let scales = scales.iter().all(|scale| positive(*scale) && positive(scale * input.step));
                value("the weight", "at least -127", !values.contains(&i8::MIN))?;
                value("a scale", "finite and positive", scales && positive(input.step.recip()))?;
                value("the zero of the input", "at most 127", input.zero <= MAX_ACTIVATION)
            }
        }
    }
}

/// The dense layers of an inference graph.
fn layers(plan: &Plan, graph: &Graph, params: &[f32]) -> Result<Vec<FrozenLayer>, FreezeError> {
    let mut layers: Vec<FrozenLayer> = vec![];
    let mut current = graph.input;
    for op in &graph.ops {
        let refused = || Unsupported::Op { backend: "a frozen model".to_owned(), op: op.to_string() };
        current = match *op {
            Op::Linear { input, weight, bias, output } if input == current => {
                let Some(shape) = plan.params.get(weight) else { return Err(refused().into()) };
                let bias = bias.and_then(|id| plan.params.get(id));
                let units = graph.size(output);
                layers.push(FrozenLayer {
                    inputs: graph.size(input),
                    units,
                    activation: Activation::Identity,
                    weights: FrozenWeights::F32(params[shape.range()].to_vec()),
                    bias: bias.map_or_else(|| vec![0.0; units], |bias| params[bias.range()].to_vec()),
                });
                output
            }
            Op::Act { activation, input, output } if input == current => match layers.last_mut() {
                Some(layer) if layer.activation == Activation::Identity => {
                    layer.activation = activation;
                    output
                }
                _ => return Err(refused().into()),
            },
            _ => return Err(refused().into()),
        };
    }
    Ok(layers)
}
