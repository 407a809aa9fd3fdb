//! Where each parameter lives in the one flat buffer.

use serde::{Deserialize, Serialize};

use crate::program::ParamId;
use crate::rng::{Noise, Stream, unit};
use crate::spec::{ModelSpec, Part};

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamRole {
    /// A matrix `[out, in]`, row-major.
    Weight,
    /// A vector `[out]`.
    Bias,
}

/// One parameter tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Name in checkpoints, such as `encoder.0.weight`.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// First element in the flat buffer.
    pub offset: usize,
    /// Weight or bias.
    pub role: ParamRole,
    /// The half it belongs to.
    pub part: Part,
    /// Inputs that feed one output.
    pub fan_in: usize,
    /// Outputs that one input feeds.
    pub fan_out: usize,
}

impl Param {
    /// Number of elements.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements' range in the flat buffer.
    pub fn range(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.size()
    }
}

/// Every parameter of a model, in one flat `f32` buffer without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ParamLayout {
    params: Vec<Param>,
}

/// How initial parameters are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Initializer {
    /// Weights uniform in `±√(6/(fan_in + fan_out))`, biases zero (Glorot & Bengio 2010).
    Glorot,
    /// Weights normal with variance `2/fan_in`, biases zero (He et al. 2015).
    He,
    /// Weights and biases uniform in `±1/√fan_in`, as PyTorch's `nn.Linear`.
    #[default]
    Torch,
}

impl Initializer {
    /// Every initialiser.
    pub const ALL: [Self; 3] = [Self::Glorot, Self::He, Self::Torch];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Glorot => "glorot",
            Self::He => "he",
            Self::Torch => "torch",
        }
    }
}

impl ParamLayout {
    /// The parameters of `spec`; `variational` adds the log-variance head `logvar`.
    ///
    /// Layer `i` of a part is named `encoder.{2i}` or `decoder.{2i}`, so that the names fit a PyTorch
    /// `nn.Sequential` in which activations take the odd positions.
    pub fn new(spec: &ModelSpec, variational: bool) -> Self {
        let mut layout = Self::default();
        let mut shape = spec.input.clone();
        for part in [Part::Encoder, Part::Decoder] {
            let layers = spec.layers(part);
            for (index, layer) in layers.iter().enumerate() {
                let (inputs, units) = (shape.size(), layer.units());
                layout.push_dense(&format!("{part}.{}", 2 * index), part, (inputs, units), layer.has_bias());
                if variational && part == Part::Encoder && index + 1 == layers.len() {
                    layout.push_dense("logvar", part, (inputs, units), true);
                }
                shape = layer.output(&shape);
            }
        }
        layout
    }

    fn push_dense(&mut self, name: &str, part: Part, (fan_in, fan_out): (usize, usize), bias: bool) {
        let weight = ("weight", vec![fan_out, fan_in], ParamRole::Weight);
        let bias = bias.then(|| ("bias", vec![fan_out], ParamRole::Bias));
        for (suffix, shape, role) in [weight].into_iter().chain(bias) {
            let offset = self.len();
            self.params.push(Param { name: format!("{name}.{suffix}"), shape, offset, role, part, fan_in, fan_out });
        }
    }

    /// The parameters, in the order of their offsets.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The parameter `id`, or `None` when the layout has no such parameter.
    pub fn get(&self, id: ParamId) -> Option<&Param> {
        self.params.get(id.index())
    }

    /// The parameter with the given name.
    pub fn find(&self, name: &str) -> Option<(ParamId, &Param)> {
        let index = self.params.iter().position(|param| param.name == name)?;
        Some((ParamId(index as u32), &self.params[index]))
    }

    /// Elements of the flat buffer.
    pub fn len(&self) -> usize {
        self.params.last().map_or(0, |param| param.range().end)
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    /// Draws initial parameters: element `j` of parameter `p` comes from row `p`, block `j / 4` of
    /// [`Stream::Init`].
    pub fn initial(&self, initializer: Initializer, seed: u64) -> Vec<f32> {
        let mut flat = vec![0.0; self.len()];
        let noise = Noise::new(seed, Stream::Init, 0);
        for (index, param) in self.params.iter().enumerate() {
            let out = &mut flat[param.range()];
            let row = index as u32;
            let bound = |variance: f64| variance.sqrt();
            match (initializer, param.role) {
                (Initializer::Glorot | Initializer::He, ParamRole::Bias) => {}
                (Initializer::Glorot, ParamRole::Weight) => {
                    fill_uniform(noise, row, bound(6.0 / (param.fan_in + param.fan_out) as f64), out);
                }
                (Initializer::He, ParamRole::Weight) => {
                    noise.normal(row, out);
                    let scale = bound(2.0 / param.fan_in as f64) as f32;
                    out.iter_mut().for_each(|value| *value *= scale);
                }
                (Initializer::Torch, _) => fill_uniform(noise, row, bound(1.0 / param.fan_in as f64), out),
            }
        }
        flat
    }
}

fn fill_uniform(noise: Noise, row: u32, bound: f64, out: &mut [f32]) {
    for (block, chunk) in out.chunks_mut(4).enumerate() {
        let words = noise.words(row, block as u32);
        for (value, word) in chunk.iter_mut().zip(words) {
            *value = (f64::from(unit(word)).mul_add(2.0, -1.0) * bound) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Activation;

    #[test]
    fn names_fit_a_sequential_pair() {
        let spec = ModelSpec::mlp(&[5, 4, 2], Activation::Relu, Activation::Identity).unwrap();
        let names: Vec<_> = ParamLayout::new(&spec, true).params().iter().map(|p| p.name.clone()).collect();
        assert_eq!(
            names,
            [
                "encoder.0.weight",
                "encoder.0.bias",
                "encoder.2.weight",
                "encoder.2.bias",
                "logvar.weight",
                "logvar.bias",
                "decoder.0.weight",
                "decoder.0.bias",
                "decoder.2.weight",
                "decoder.2.bias"
            ]
        );
    }

    #[test]
    fn initializers_have_their_variance() {
        let spec = ModelSpec::mlp(&[300, 200], Activation::Relu, Activation::Identity).unwrap();
        let layout = ParamLayout::new(&spec, false);
        let expected =
            [(Initializer::Glorot, 2.0 / 500.0), (Initializer::He, 2.0 / 300.0), (Initializer::Torch, 1.0 / 900.0)];
        for (initializer, variance) in expected {
            let flat = layout.initial(initializer, 1);
            let weights = &flat[layout.params()[0].range()];
            let found = weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / weights.len() as f64;
            assert!((found / variance - 1.0).abs() < 0.02, "{initializer:?}: {found} against {variance}");
        }
    }
}
