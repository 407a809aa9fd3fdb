//! Layers applied to one row, and their Jacobian by forward differentiation.

use std::ops::Range;

use cvae_core::{Activation, Noise, ParamLayout, Stream};

use crate::direct::DirectError;
use crate::direct::branches::Branches;

/// A layer's activation, and where its parameters are.
pub(super) struct Dense {
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    activation: Activation,
    /// Index of the weight, where it is divided by its largest singular value.
    spectral: Option<u32>,
}

impl Dense {
    /// The layer with the parameters `name.weight` and, where the layout has it, `name.bias`.
    pub(super) fn find(layout: &ParamLayout, name: &str, activation: Activation) -> Result<Self, DirectError> {
        let range = |suffix: &str| layout.find(&format!("{name}.{suffix}")).map(|(_, param)| param.range());
        let weight = range("weight").ok_or(DirectError::Layout)?;
        Ok(Self { weight, bias: range("bias"), activation, spectral: None })
    }

    /// The layer with its weight divided by its largest singular value.
    pub(super) fn normalized(self, index: usize) -> Self {
        Self { spectral: Some(index as u32), ..self }
    }

    /// The parameters with the weight divided by `uᵀ·W·v`, where `u` and `v` are its leading singular vectors at the
    /// first evaluation; `inputs` is the width of the layer's input.
    fn normalize(&self, params: &mut [f64], inputs: usize, branches: &mut Branches) {
        let Some(index) = self.spectral else { return };
        let weight = &mut params[self.weight.clone()];
        let units = weight.len() / inputs;
        let vectors = branches.constant(|| leading_vectors(weight, inputs, index));
        let (left, right) = vectors.split_at(units);
        let sigma: f64 = (0..weight.len()).map(|i| left[i / inputs] * weight[i] * right[i % inputs]).sum();
        if sigma != 0.0 {
            weight.iter_mut().for_each(|w| *w /= sigma);
        }
    }

    /// `W·input + b`.
    pub(super) fn affine(&self, params: &[f64], input: &[f64]) -> Vec<f64> {
        let mut output = self.apply(params, input);
        if let Some(bias) = &self.bias {
            output.iter_mut().zip(&params[bias.clone()]).for_each(|(out, b)| *out += b);
        }
        output
    }

    /// `W·input`.
    fn apply(&self, params: &[f64], input: &[f64]) -> Vec<f64> {
        let rows = params[self.weight.clone()].chunks_exact(input.len());
        rows.map(|weights| weights.iter().zip(input).map(|(w, x)| w * x).sum()).collect()
    }
}

/// The parameters that the layers act with: normalised weights in place.
pub(super) fn effective(layers: &[Dense], params: &[f64], mut inputs: usize, branches: &mut Branches) -> Vec<f64> {
    let mut params = params.to_vec();
    for layer in layers {
        layer.normalize(&mut params, inputs, branches);
        inputs = layer.weight.len() / inputs;
    }
    params
}

/// `u` and then `v` after eight rounds of `v ← WᵀW·v`, from random signs; zeros if that ends in 0.
fn leading_vectors(weight: &[f64], inputs: usize, index: u32) -> Vec<f64> {
    let units = weight.len() / inputs;
    let mut signs = vec![0.0f32; inputs];
    Noise::new(0, Stream::Spectral, 0).signs(index, &mut signs);
    let mut right: Vec<f64> = signs.into_iter().map(f64::from).collect();
    let times = |v: &[f64]| -> Vec<f64> {
        (0..units).map(|o| (0..inputs).map(|i| weight[o * inputs + i] * v[i]).sum()).collect()
    };
    let unit = |vector: Vec<f64>| -> Vec<f64> {
        let norm = vector.iter().map(|x| x.powi(2)).sum::<f64>().sqrt();
        vector.into_iter().map(|x| if norm > 0.0 { x / norm } else { 0.0 }).collect()
    };
    for _ in 0..8 {
        let image = times(&right);
        right = unit((0..inputs).map(|i| (0..units).map(|o| weight[o * inputs + i] * image[o]).sum()).collect());
    }
    let left = unit(times(&right));
    [left, right].concat()
}

/// What a part makes of one row.
pub(super) struct PartOutput {
    /// Input of the last layer.
    pub(super) last_input: Vec<f64>,
    /// Output of the last layer before its activation.
    pub(super) logits: Vec<f64>,
    pub(super) output: Vec<f64>,
    /// Slopes of each layer's activation.
    pub(super) slopes: Vec<Vec<f64>>,
}

/// Runs layers on one row.
pub(super) fn run(layers: &[Dense], params: &[f64], input: &[f64], branches: &mut Branches) -> PartOutput {
    let mut result = PartOutput { last_input: vec![], logits: vec![], output: input.to_vec(), slopes: vec![] };
    for layer in layers {
        let logits = layer.affine(params, &result.output);
        let (output, slopes) = logits.iter().map(|a| activate(layer.activation, *a, branches)).unzip();
        result.slopes.push(slopes);
        result.last_input = std::mem::replace(&mut result.output, output);
        result.logits = logits;
    }
    result
}

/// The columns of the Jacobian of a part: the derivative of its output by each element of its input, with the
/// given slopes of its activations.
pub(super) fn jacobian(layers: &[Dense], params: &[f64], width: usize, slopes: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let column = |index: usize| {
        let mut tangent: Vec<f64> = (0..width).map(|i| f64::from(u8::from(i == index))).collect();
        for (layer, slopes) in layers.iter().zip(slopes) {
            tangent = layer.apply(params, &tangent);
            tangent.iter_mut().zip(slopes).for_each(|(t, slope)| *t *= slope);
        }
        tangent
    };
    (0..width).map(column).collect()
}

/// Value and slope of an activation.
fn activate(activation: Activation, a: f64, branches: &mut Branches) -> (f64, f64) {
    let mut positive = || branches.above(a, 0.0);
    match activation {
        Activation::Identity => (a, 1.0),
        Activation::Relu if positive() => (a, 1.0),
        Activation::Relu => (0.0, 0.0),
        Activation::LeakyRelu if positive() => (a, 1.0),
        Activation::LeakyRelu => (0.01 * a, 0.01),
        Activation::Elu if positive() => (a, 1.0),
        Activation::Elu => (a.exp_m1(), a.exp()),
        Activation::Gelu => {
            let below = 0.5 * (1.0 + libm::erf(a / 2f64.sqrt()));
            (a * below, below + a * (-a * a / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt())
        }
        Activation::Silu => {
            let growth = (-a).exp();
            (a / (1.0 + growth), (1.0 + growth + a * growth) / (1.0 + growth).powi(2))
        }
        Activation::Tanh => (a.tanh(), a.cosh().powi(-2)),
        Activation::Sigmoid => {
            let half = (0.5 * a).tanh();
            (0.5 * (1.0 + half), 0.25 * (1.0 - half * half))
        }
    }
}
