//! The invertible layers of a flow: forward, backward, inverse.

use rand_chacha::ChaCha8Rng;

use crate::linalg::{add_transposed_product, product, product_transposed};
use crate::random::fill_normal;

/// Steps of a [`Monotone`] map per dimension.
const BUMPS: usize = 8;
/// Parameters of a [`Monotone`] map per dimension: shift, log-slope, then log-height, log-steepness and
/// place of every step.
const PER_DIMENSION: usize = 2 + 3 * BUMPS;
/// Largest magnitude of a coupling's log-scale.
const LOG_SCALE: f64 = 2.0;

/// One invertible layer; its parameters are a range of the flow's.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Layer {
    Monotone(Monotone),
    Coupling(Coupling),
}

impl Layer {
    /// Number of parameters.
    pub(super) fn parameters(&self) -> usize {
        match self {
            Self::Monotone(layer) => layer.dimensions * PER_DIMENSION,
            Self::Coupling(layer) => layer.parameters(),
        }
    }

    /// Sets the layer's parameters so that it is near the identity.
    pub(super) fn initialize(&self, parameters: &mut [f64], rng: &mut ChaCha8Rng) {
        match self {
            Self::Monotone(layer) => layer.initialize(parameters),
            Self::Coupling(layer) => layer.initialize(parameters, rng),
        }
    }

    /// Maps rows in place and adds the logarithm of the volume change of every row.
    pub(super) fn forward(&self, parameters: &[f64], rows: &mut [f64], log_volumes: &mut [f64]) {
        match self {
            Self::Monotone(layer) => layer.forward(parameters, rows, log_volumes),
            Self::Coupling(layer) => layer.forward(parameters, rows, log_volumes),
        }
    }

    /// Turns the loss's gradient with respect to the output into that with respect to `input`, and adds
    /// the parameters' gradient. `volume` is the gradient with respect to every log volume change.
    pub(super) fn backward(
        &self,
        parameters: &[f64],
        input: &[f64],
        volume: f64,
        upstream: &mut [f64],
        gradient: &mut [f64],
    ) {
        match self {
            Self::Monotone(layer) => layer.backward(parameters, input, volume, upstream, gradient),
            Self::Coupling(layer) => layer.backward(parameters, input, volume, upstream, gradient),
        }
    }

    /// Undoes the map of one row.
    pub(super) fn inverse(&self, parameters: &[f64], row: &mut [f64]) {
        match self {
            Self::Monotone(layer) => layer.inverse(parameters, row),
            Self::Coupling(layer) => layer.inverse(parameters, row),
        }
    }
}

/// `y = b + e^a·x + Σ e^w·tanh(e^c·(x − m))` in every dimension by itself: rising, hence invertible, and
/// able to join several modes into one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Monotone {
    offset: usize,
    dimensions: usize,
}

/// The exponential of a parameter, bounded so that no stored value can overflow.
fn positive(parameter: f64) -> f64 {
    parameter.clamp(-20.0, 20.0).exp()
}

impl Monotone {
    pub(super) fn new(offset: usize, dimensions: usize) -> Self {
        Self { offset, dimensions }
    }

    /// The parameters as the formula uses them, [`PER_DIMENSION`] per dimension: shift, slope, then
    /// height, steepness and place of every step.
    fn curves(&self, parameters: &[f64]) -> Vec<f64> {
        let mut curves = parameters[self.offset..][..self.dimensions * PER_DIMENSION].to_vec();
        for curve in curves.chunks_exact_mut(PER_DIMENSION) {
            curve[1] = positive(curve[1]);
            for bump in curve[2..].chunks_exact_mut(3) {
                (bump[0], bump[1]) = (positive(bump[0]), positive(bump[1]));
            }
        }
        curves
    }

    fn initialize(&self, parameters: &mut [f64]) {
        let own = &mut parameters[self.offset..][..self.dimensions * PER_DIMENSION];
        for dimension in own.chunks_exact_mut(PER_DIMENSION) {
            // Steps evenly over the bulk of standardised values give a slope of about 0.4 there.
            dimension[1] = 0.6_f64.ln();
            for (index, bump) in dimension[2..].chunks_exact_mut(3).enumerate() {
                bump.copy_from_slice(&[-2.0, 0.5, -2.5 + 5.0 * index as f64 / (BUMPS - 1) as f64]);
            }
        }
    }

    /// Value and slope at one place of a [curve](Self::curves).
    fn value(curve: &[f64], x: f64) -> (f64, f64) {
        let mut out = (curve[0] + curve[1] * x, curve[1]);
        for bump in curve[2..].chunks_exact(3) {
            let (height, steepness, place) = (bump[0], bump[1], bump[2]);
            let step = (steepness * (x - place)).tanh();
            out.0 += height * step;
            out.1 += height * steepness * (1.0 - step * step);
        }
        out
    }

    fn forward(&self, parameters: &[f64], rows: &mut [f64], log_volumes: &mut [f64]) {
        let curves = self.curves(parameters);
        for (row, log_volume) in rows.chunks_exact_mut(self.dimensions).zip(log_volumes) {
            for (x, curve) in row.iter_mut().zip(curves.chunks_exact(PER_DIMENSION)) {
                let (value, slope) = Self::value(curve, *x);
                *x = value;
                *log_volume += slope.ln();
            }
        }
    }

    fn backward(&self, parameters: &[f64], input: &[f64], volume: f64, upstream: &mut [f64], gradient: &mut [f64]) {
        let curves = self.curves(parameters);
        let own = &mut gradient[self.offset..][..self.dimensions * PER_DIMENSION];
        for (row, upstream) in input.chunks_exact(self.dimensions).zip(upstream.chunks_exact_mut(self.dimensions)) {
            let parts = curves.chunks_exact(PER_DIMENSION).zip(own.chunks_exact_mut(PER_DIMENSION));
            for ((&x, upstream), (curve, gradient)) in row.iter().zip(upstream).zip(parts) {
                let (_, slope) = Self::value(curve, x);
                // The loss depends on the value and, through the volume, on the slope.
                let (by_value, by_slope) = (*upstream, volume / slope);
                gradient[0] += by_value;
                gradient[1] += curve[1] * (by_value * x + by_slope);
                let mut curvature = 0.0;
                for (bump, gradient) in curve[2..].chunks_exact(3).zip(gradient[2..].chunks_exact_mut(3)) {
                    let (height, steepness, distance) = (bump[0], bump[1], x - bump[2]);
                    let step = (steepness * distance).tanh();
                    let first = height * steepness * (1.0 - step * step);
                    let second = -2.0 * steepness * step * first;
                    gradient[0] += by_value * height * step + by_slope * first;
                    gradient[1] += by_value * first * distance + by_slope * (first + second * distance);
                    gradient[2] -= by_value * first + by_slope * second;
                    curvature += second;
                }
                *upstream = by_value * slope + by_slope * curvature;
            }
        }
    }

    /// By bisection: the steps shift the line by at most the sum of their heights.
    fn inverse(&self, parameters: &[f64], row: &mut [f64]) {
        for (y, curve) in row.iter_mut().zip(self.curves(parameters).chunks_exact(PER_DIMENSION)) {
            let reach: f64 = curve[2..].chunks_exact(3).map(|bump| bump[0]).sum();
            let middle = (*y - curve[0]) / curve[1];
            let (mut low, mut high) = (middle - reach / curve[1], middle + reach / curve[1]);
            for _ in 0..100 {
                let at = 0.5 * (low + high);
                if Self::value(curve, at).0 < *y {
                    low = at;
                } else {
                    high = at;
                }
            }
            *y = 0.5 * (low + high);
        }
    }
}

/// `y = x·e^s + t` for the moved dimensions, with s and t from a network of one hidden tanh layer over the
/// given dimensions, which pass unchanged.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Coupling {
    offset: usize,
    hidden: usize,
    given: Vec<usize>,
    moved: Vec<usize>,
}

/// The network's parameters.
struct Network<'a> {
    /// `[hidden, given]`
    first: &'a [f64],
    first_bias: &'a [f64],
    /// `[2·moved, hidden]`: log-scales, then shifts.
    second: &'a [f64],
    second_bias: &'a [f64],
}

impl Coupling {
    pub(super) fn new(offset: usize, hidden: usize, given: &[usize], moved: &[usize]) -> Self {
        Self { offset, hidden, given: given.to_vec(), moved: moved.to_vec() }
    }

    fn latent(&self) -> usize {
        self.given.len() + self.moved.len()
    }

    /// Lengths of the network's parts in the order of [`Network`]'s fields.
    fn lengths(&self) -> [usize; 4] {
        let outputs = 2 * self.moved.len();
        [self.hidden * self.given.len(), self.hidden, outputs * self.hidden, outputs]
    }

    fn parameters(&self) -> usize {
        self.lengths().iter().sum()
    }

    fn network<'a>(&self, parameters: &'a [f64]) -> Network<'a> {
        let [first, first_bias, second, _] = self.lengths();
        let own = &parameters[self.offset..][..self.parameters()];
        let (first, own) = own.split_at(first);
        let (first_bias, own) = own.split_at(first_bias);
        let (second, second_bias) = own.split_at(second);
        Network { first, first_bias, second, second_bias }
    }

    fn initialize(&self, parameters: &mut [f64], rng: &mut ChaCha8Rng) {
        // The second layer stays zero: no scale and no shift.
        let first = &mut parameters[self.offset..][..self.hidden * self.given.len()];
        fill_normal(rng, first);
        let scale = (self.given.len() as f64).sqrt().recip();
        first.iter_mut().for_each(|weight| *weight *= scale);
    }

    /// Hidden units `[rows, hidden]` and outputs `[rows, 2·moved]` with bounded log-scales.
    fn run(&self, parameters: &[f64], given: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let network = self.network(parameters);
        let rows = given.len() / self.given.len();
        let mut hidden = network.first_bias.repeat(rows);
        product_transposed(1.0, given, network.first, self.given.len(), 1.0, &mut hidden);
        hidden.iter_mut().for_each(|value| *value = value.tanh());
        let mut outputs = network.second_bias.repeat(rows);
        product_transposed(1.0, &hidden, network.second, self.hidden, 1.0, &mut outputs);
        for row in outputs.chunks_exact_mut(2 * self.moved.len()) {
            for raw in &mut row[..self.moved.len()] {
                *raw = LOG_SCALE * (*raw / LOG_SCALE).tanh();
            }
        }
        (hidden, outputs)
    }

    fn forward(&self, parameters: &[f64], rows: &mut [f64], log_volumes: &mut [f64]) {
        let (_, outputs) = self.run(parameters, &gather(rows, self.latent(), &self.given));
        let rows = rows.chunks_exact_mut(self.latent());
        for ((row, outputs), log_volume) in rows.zip(outputs.chunks_exact(2 * self.moved.len())).zip(log_volumes) {
            let (scales, shifts) = outputs.split_at(self.moved.len());
            for ((&dimension, scale), shift) in self.moved.iter().zip(scales).zip(shifts) {
                row[dimension] = row[dimension] * scale.exp() + shift;
                *log_volume += scale;
            }
        }
    }

    fn backward(&self, parameters: &[f64], input: &[f64], volume: f64, upstream: &mut [f64], gradient: &mut [f64]) {
        let (width, inputs) = (self.moved.len(), self.given.len());
        let given = gather(input, self.latent(), &self.given);
        let (hidden, outputs) = self.run(parameters, &given);
        let mut by_output = vec![0.0; outputs.len()];
        for (((upstream, by_output), outputs), row) in upstream
            .chunks_exact_mut(self.latent())
            .zip(by_output.chunks_exact_mut(2 * width))
            .zip(outputs.chunks_exact(2 * width))
            .zip(input.chunks_exact(self.latent()))
        {
            for (index, &dimension) in self.moved.iter().enumerate() {
                let (log_scale, by_value) = (outputs[index], upstream[dimension]);
                let scale = log_scale.exp();
                let by_log_scale = by_value * row[dimension] * scale + volume;
                by_output[index] = by_log_scale * (1.0 - (log_scale / LOG_SCALE).powi(2));
                by_output[width + index] = by_value;
                upstream[dimension] = by_value * scale;
            }
        }
        let network = self.network(parameters);
        let mut by_hidden = vec![0.0; hidden.len()];
        product(1.0, (&by_output, 2 * width), (network.second, self.hidden), &mut by_hidden);
        by_hidden.iter_mut().zip(&hidden).for_each(|(value, unit)| *value *= 1.0 - unit * unit);
        let mut by_given = vec![0.0; given.len()];
        product(1.0, (&by_hidden, self.hidden), (network.first, inputs), &mut by_given);
        for (upstream, by_given) in upstream.chunks_exact_mut(self.latent()).zip(by_given.chunks_exact(inputs)) {
            for (&dimension, value) in self.given.iter().zip(by_given) {
                upstream[dimension] += value;
            }
        }
        let [first, first_bias, second, _] = self.lengths();
        let own = &mut gradient[self.offset..][..self.parameters()];
        let (by_first, own) = own.split_at_mut(first);
        let (by_first_bias, own) = own.split_at_mut(first_bias);
        let (by_second, by_second_bias) = own.split_at_mut(second);
        add_transposed_product((&by_hidden, self.hidden), (&given, inputs), by_first);
        add_transposed_product((&by_output, 2 * width), (&hidden, self.hidden), by_second);
        add_rows(&by_hidden, by_first_bias);
        add_rows(&by_output, by_second_bias);
    }

    fn inverse(&self, parameters: &[f64], row: &mut [f64]) {
        let given = gather(row, row.len(), &self.given);
        let (_, outputs) = self.run(parameters, &given);
        let (scales, shifts) = outputs.split_at(self.moved.len());
        for ((&dimension, scale), shift) in self.moved.iter().zip(scales).zip(shifts) {
            row[dimension] = (row[dimension] - shift) * (-scale).exp();
        }
    }
}

/// The chosen dimensions of every row.
fn gather(rows: &[f64], latent: usize, dimensions: &[usize]) -> Vec<f64> {
    rows.chunks_exact(latent).flat_map(|row| dimensions.iter().map(|&dimension| row[dimension])).collect()
}

/// Adds every row to `sum`.
fn add_rows(rows: &[f64], sum: &mut [f64]) {
    for row in rows.chunks_exact(sum.len()) {
        sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
}
