//! The same function with other parameters: linear layers multiplied out, weights divided by their norm, codes in other
//! coordinates.

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

/// An invertible affine map of codes, `z ↦ A·(z − m)`.
#[derive(Clone, Debug, PartialEq)]
pub struct CodeMap {
    /// `m`, a value for each dimension of the code.
    pub origin: Vec<f64>,
    /// `A`, row-major, `latent × latent`.
    pub matrix: Vec<f64>,
    /// The inverse of `A`, row-major.
    pub inverse: Vec<f64>,
}

/// The parameters of the same model with its codes in other coordinates: the last layer of the encoder computes
/// `A·(z − m)`, the first one of the decoder undoes it, so that reconstructions are the same up to rounding. Products
/// are formed in double precision. `variational` is as in [`fold_linear`].
///
/// # Errors
/// An invalid specification, parameters of another length than its layout's, a map of another size than the code's, or
/// a model that the map does not pass through ([`ModelSpec::has_affine_code`]).
pub fn fold_code_map(
    spec: &ModelSpec,
    variational: bool,
    params: &[f32],
    map: &CodeMap,
) -> Result<Vec<f32>, SpecError> {
    spec.validate()?;
    let layout = ParamLayout::new(spec, variational);
    if params.len() != layout.len() {
        return Err(SpecError::ParamCount { expected: layout.len(), found: params.len() });
    }
    let latent = spec.latent();
    let fits = map.origin.len() == latent && [&map.matrix, &map.inverse].iter().all(|m| m.len() == latent * latent);
    if !fits || variational || !spec.has_affine_code() {
        return Err(SpecError::CodeMap { latent });
    }
    let range = |name: String| layout.find(&name).map_or(0..0, |(_, param)| param.range());
    let last = format!("{}.{}", Part::Encoder, 2 * (spec.encoder.len() - 1));
    let first = format!("{}.0", Part::Decoder);
    let mut folded = params.to_vec();

    // Encoder: A·(W·h + b − m).
    let (weight, bias) = (range(format!("{last}.weight")), range(format!("{last}.bias")));
    let inputs = weight.len() / latent;
    let (weights, biases) = (&params[weight.clone()], &params[bias.clone()]);
    let rows = folded[weight].chunks_exact_mut(inputs);
    for (row, map_row) in rows.zip(map.matrix.chunks_exact(latent)) {
        for (index, out) in row.iter_mut().enumerate() {
            let column = weights[index..].iter().step_by(inputs);
            *out = map_row.iter().zip(column).map(|(a, w)| a * f64::from(*w)).sum::<f64>() as f32;
        }
    }
    for (out, map_row) in folded[bias].iter_mut().zip(map.matrix.chunks_exact(latent)) {
        let moved = biases.iter().zip(&map.origin).map(|(b, m)| f64::from(*b) - m);
        *out = map_row.iter().zip(moved).map(|(a, b)| a * b).sum::<f64>() as f32;
    }

    // Decoder: W·(A⁻¹·z + m) + b.
    let (weight, bias) = (range(format!("{first}.weight")), range(format!("{first}.bias")));
    for (out, row) in folded[bias].iter_mut().zip(params[weight.clone()].chunks_exact(latent)) {
        let shift: f64 = row.iter().zip(&map.origin).map(|(w, m)| f64::from(*w) * m).sum();
        *out = (f64::from(*out) + shift) as f32;
    }
    for (out, row) in folded[weight.clone()].chunks_exact_mut(latent).zip(params[weight].chunks_exact(latent)) {
        for (index, out) in out.iter_mut().enumerate() {
            let column = map.inverse[index..].iter().step_by(latent);
            *out = row.iter().zip(column).map(|(w, a)| f64::from(*w) * a).sum::<f64>() as f32;
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
    fn codes_in_other_coordinates_by_hand() {
        // z = (2x + 1, 3x); A = [[2, 1], [1, 1]], m = (1, 10); x' = 5·z₀ + 7·z₁ + 11.
        let spec = ModelSpec::mlp(&[1, 2], Activation::Relu, Activation::Identity).unwrap();
        let map =
            CodeMap { origin: vec![1.0, 10.0], matrix: vec![2.0, 1.0, 1.0, 1.0], inverse: vec![1.0, -1.0, -1.0, 2.0] };
        let folded = fold_code_map(&spec, false, &[2.0, 3.0, 1.0, 0.0, 5.0, 7.0, 11.0], &map).unwrap();
        // A·W = (7, 5), A·(b − m) = A·(0, −10); W·A⁻¹ = (5 − 7, −5 + 14), b + W·m = 11 + 5 + 70.
        assert_eq!(folded, [7.0, 5.0, -10.0, -10.0, -2.0, 9.0, 86.0]);
    }

    #[test]
    fn a_map_that_does_not_pass_through_is_refused() {
        let refused = |spec: &ModelSpec, variational: bool, latent: usize| {
            let identity: Vec<f64> = (0..latent * latent).map(|i| f64::from(u8::from(i % (latent + 1) == 0))).collect();
            let map = CodeMap { origin: vec![0.0; latent], matrix: identity.clone(), inverse: identity };
            let params = vec![0.5; ParamLayout::new(spec, variational).len()];
            fold_code_map(spec, variational, &params, &map)
                .is_err_and(|error| matches!(error, SpecError::CodeMap { .. }))
        };
        let plain = ModelSpec::mlp(&[3, 2], Activation::Relu, Activation::Identity).unwrap();
        assert!(!refused(&plain, false, 2));
        assert!(refused(&plain, false, 3), "another size");
        assert!(refused(&plain, true, 2), "a second head");
        assert!(refused(&plain.clone().with_linear_code(1).unwrap(), false, 2), "no bias to move the origin by");
        let bounded = ModelSpec { encoder: vec![dense(2, Activation::Tanh)], ..plain.clone() };
        assert!(refused(&bounded, false, 2), "a bounded code");
        let linear_decoder = ModelSpec { decoder: vec![linear(3)], ..plain };
        assert!(refused(&linear_decoder, false, 2), "no bias in the decoder");
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
