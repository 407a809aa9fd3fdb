//! The same function with fewer or plainer layers: linear layers multiplied out, weights divided by their norm.

use crate::error::SpecError;
use crate::layout::{ParamLayout, ParamRole};
use crate::objective::Objective;
use crate::rng::{Noise, Stream};
use crate::spec::{Activation, LayerSpec, ModelSpec, Part};

/// A layer with its parameters in double precision.
struct Layer {
    spec: LayerSpec,
    inputs: usize,
    /// `[units, inputs]`, row-major.
    weight: Vec<f64>,
    /// Empty without a bias.
    bias: Vec<f64>,
}

impl Layer {
    /// `self` after `before`, which has no activation, as one layer.
    fn after(self, before: Self) -> Self {
        let (inputs, inner) = (before.inputs, self.inputs);
        let units = self.spec.units();
        let mut weight = vec![0.0; units * inputs];
        for (out, row) in weight.chunks_exact_mut(inputs).zip(self.weight.chunks_exact(inner)) {
            for (w, before) in row.iter().zip(before.weight.chunks_exact(inputs)) {
                out.iter_mut().zip(before).for_each(|(out, b)| *out += w * b);
            }
        }
        let mut bias = self.bias;
        if !before.bias.is_empty() {
            bias.resize(units, 0.0);
            for (out, row) in bias.iter_mut().zip(self.weight.chunks_exact(inner)) {
                *out += row.iter().zip(&before.bias).map(|(w, b)| w * b).sum::<f64>();
            }
        }
        let spec = match bias.is_empty() {
            true => LayerSpec::Linear { units },
            false => LayerSpec::Dense { units, activation: self.spec.activation() },
        };
        Self { spec, inputs, weight, bias }
    }

    /// Whether this layer and `next` are one layer when multiplied.
    fn joins(&self, next: &Self) -> bool {
        self.spec.activation() == Activation::Identity && !(self.spec.has_bias() && next.spec.has_bias())
    }
}

/// The model without the linear layers that can be multiplied into a neighbour, and its parameters: the same
/// function up to rounding. `variational` says whether the layout has the log-variance head, whose input is kept.
///
/// A linear layer joins the layer before it if that has no activation, and the layer after it always. Products are
/// formed in double precision.
///
/// # Errors
/// An invalid specification, or parameters of another length than its layout's.
pub fn fold_linear(spec: &ModelSpec, variational: bool, params: &[f32]) -> Result<(ModelSpec, Vec<f32>), SpecError> {
    spec.validate()?;
    let layout = ParamLayout::new(spec, variational);
    if params.len() != layout.len() {
        return Err(SpecError::ParamCount { expected: layout.len(), found: params.len() });
    }
    let tensor = |name: &str| -> Vec<f64> {
        let range = layout.find(name).map_or(0..0, |(_, param)| param.range());
        params[range].iter().map(|value| f64::from(*value)).collect()
    };
    let mut folded = ModelSpec { input: spec.input.clone(), encoder: vec![], decoder: vec![] };
    let mut tensors = vec![];
    let mut inputs = spec.width();
    for part in [Part::Encoder, Part::Decoder] {
        let mut layers: Vec<Layer> = vec![];
        for (index, layer) in spec.layers(part).iter().enumerate() {
            let name = |suffix: &str| format!("{part}.{}.{suffix}", 2 * index);
            let (weight, bias) = (tensor(&name("weight")), tensor(&name("bias")));
            let next = Layer { spec: layer.clone(), inputs, weight, bias };
            inputs = layer.units();
            // The log-variance head reads the input of the last encoder layer.
            let head = variational && part == Part::Encoder && index + 1 == spec.encoder.len();
            let joined = match layers.pop_if(|before| !head && before.joins(&next)) {
                Some(before) => next.after(before),
                None => next,
            };
            layers.push(joined);
        }
        let last = layers.len();
        for (index, layer) in layers.into_iter().enumerate() {
            tensors.extend([layer.weight, layer.bias]);
            if variational && part == Part::Encoder && index + 1 == last {
                tensors.extend([tensor("logvar.weight"), tensor("logvar.bias")]);
            }
            match part {
                Part::Encoder => folded.encoder.push(layer.spec),
                Part::Decoder => folded.decoder.push(layer.spec),
            }
        }
    }
    let params = tensors.into_iter().flatten().map(|value| value as f32).collect();
    Ok((folded, params))
}

/// The parameters of a plain model that computes what `params` compute with every decoder weight divided by its
/// largest singular value: each of them is divided, in double precision. `variational` is as in [`fold_linear`].
///
/// # Errors
/// As [`fold_linear`].
pub fn fold_spectral_norm(spec: &ModelSpec, variational: bool, params: &[f32]) -> Result<Vec<f32>, SpecError> {
    spec.validate()?;
    let layout = ParamLayout::new(spec, variational);
    if params.len() != layout.len() {
        return Err(SpecError::ParamCount { expected: layout.len(), found: params.len() });
    }
    let mut folded = params.to_vec();
    for (index, param) in layout.params().iter().enumerate() {
        if param.part == Part::Decoder && param.role == ParamRole::Weight {
            let weight: Vec<f64> = params[param.range()].iter().map(|value| f64::from(*value)).collect();
            let scale = 1.0 / largest_singular_value(&weight, param.fan_in, index as u32).unwrap_or(1.0);
            for (out, value) in folded[param.range()].iter_mut().zip(weight) {
                *out = (value * scale) as f32;
            }
        }
    }
    Ok(folded)
}

/// σ as [`crate::Op::SpectralScale`] defines it, of the weight with index `param`; `None` where a norm is 0.
fn largest_singular_value(weight: &[f64], inputs: usize, param: u32) -> Option<f64> {
    let norm = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut signs = vec![0.0; inputs];
    Noise::new(0, Stream::Spectral, 0).signs(param, &mut signs);
    let mut right: Vec<f64> = signs.into_iter().map(f64::from).collect();
    let start = norm(&right);
    right.iter_mut().for_each(|x| *x /= start);
    let image = |right: &[f64]| -> Vec<f64> {
        weight.chunks_exact(inputs).map(|row| row.iter().zip(right).map(|(w, x)| w * x).sum()).collect()
    };
    for _ in 0..Objective::SPECTRAL_ITERATIONS {
        let left = image(&right);
        right.fill(0.0);
        for (row, u) in weight.chunks_exact(inputs).zip(&left) {
            right.iter_mut().zip(row).for_each(|(x, w)| *x += w * u);
        }
        let length = norm(&right);
        right.iter_mut().for_each(|x| *x /= length);
    }
    Some(norm(&image(&right))).filter(|sigma| *sigma > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(units: usize, activation: Activation) -> LayerSpec {
        LayerSpec::Dense { units, activation }
    }

    fn linear(units: usize) -> LayerSpec {
        LayerSpec::Linear { units }
    }

    #[test]
    fn a_linear_code_disappears() {
        let plain = ModelSpec::mlp(&[5, 4, 2], Activation::Relu, Activation::Identity).unwrap();
        let deep = plain.clone().with_linear_code(3).unwrap();
        assert_eq!(deep.encoder[2..], [linear(2), linear(2), linear(2)]);
        let layout = ParamLayout::new(&deep, false);
        assert_eq!(layout.len(), ParamLayout::new(&plain, false).len() + 3 * 4, "no biases");
        let (folded, params) = fold_linear(&deep, false, &vec![0.5; layout.len()]).unwrap();
        assert_eq!(params.len(), ParamLayout::new(&plain, false).len());
        assert_eq!(folded, plain);
    }

    #[test]
    fn what_joins_what() {
        let spec = ModelSpec {
            input: crate::Shape::flat(3),
            encoder: vec![linear(4), dense(4, Activation::Tanh), linear(3), linear(2)],
            decoder: vec![linear(5), dense(6, Activation::Identity), linear(4), dense(3, Activation::Sigmoid)],
        };
        let len = ParamLayout::new(&spec, false).len();
        let (folded, _) = fold_linear(&spec, false, &vec![1.0; len]).unwrap();
        assert_eq!(folded.encoder, [dense(4, Activation::Tanh), linear(2)]);
        assert_eq!(folded.decoder, [dense(4, Activation::Identity), dense(3, Activation::Sigmoid)]);
        let len = ParamLayout::new(&spec, true).len();
        let (folded, params) = fold_linear(&spec, true, &vec![1.0; len]).unwrap();
        assert_eq!(folded.encoder, [dense(4, Activation::Tanh), linear(3), linear(2)], "the head's input is kept");
        assert_eq!(params.len(), ParamLayout::new(&folded, true).len());
    }

    #[test]
    fn products_by_hand() {
        let spec = ModelSpec {
            input: crate::Shape::flat(2),
            encoder: vec![dense(2, Activation::Identity), linear(1)],
            decoder: vec![dense(2, Activation::Identity)],
        };
        let params = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 10.0, 100.0, 7.0, 8.0, 9.0, 0.5];
        let (folded, found) = fold_linear(&spec, false, &params).unwrap();
        assert_eq!(folded.encoder, [dense(1, Activation::Identity)]);
        assert_eq!(found, [310.0, 420.0, 650.0, 7.0, 8.0, 9.0, 0.5]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let spec = ModelSpec::mlp(&[3, 2], Activation::Relu, Activation::Identity).unwrap();
        let error = fold_linear(&spec, false, &[0.0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "the model has 17 parameters, got 3");
        assert_eq!(
            spec.with_linear_code(usize::MAX).unwrap_err().to_string(),
            "18446744073709551615 linear layers at the end of the encoder, at most 64 are supported"
        );
        let wide = ModelSpec::mlp(&[30_000, 20_000], Activation::Relu, Activation::Identity).unwrap();
        assert!(matches!(wide.with_linear_code(64), Err(SpecError::TooManyParams { .. })));
    }
}
