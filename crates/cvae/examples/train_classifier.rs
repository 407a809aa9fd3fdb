//! Trains the small classifier of clothes whose hidden features the Fréchet distance is measured in, prints its
//! held-out accuracy and writes its weights: what `cargo xtask classifier` runs.
//!
//! `cargo run --release --example train_classifier -- FILE.safetensors`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::collections::BTreeMap;
use std::error::Error;

use cvae_data::{LoadOptions, Source};
use ndarray::{Array1, Array2, ArrayView2, Axis, Zip, linalg::general_mat_mul};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use safetensors::tensor::{Dtype, TensorView};

const WIDTHS: [usize; 4] = [784, 128, 64, 10];
const SEED: u64 = 0;
const EPOCHS: u32 = 16;
const BATCH: usize = 128;
const LEARNING_RATE: f32 = 1e-3;
/// Standard deviation of the noise added to the pixels, which keeps the network from learning rows by heart.
const NOISE: f32 = 0.15;
const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

/// A dense layer with Adam's moments.
struct Layer {
    weight: Parameter,
    bias: Parameter,
}

/// A matrix of parameters, `[out, in]`, with its gradient and moments. A bias is `[1, out]`.
struct Parameter {
    value: Array2<f32>,
    gradient: Array2<f32>,
    moment1: Array2<f32>,
    moment2: Array2<f32>,
}

impl Parameter {
    fn new(value: Array2<f32>) -> Self {
        let zeros = || Array2::zeros(value.raw_dim());
        Self { gradient: zeros(), moment1: zeros(), moment2: zeros(), value }
    }

    /// One step of Adam; `corrections` are `1 − βᵗ`.
    fn update(&mut self, rate: f32, corrections: (f32, f32)) {
        let parts = Zip::from(&mut self.value).and(&self.gradient).and(&mut self.moment1).and(&mut self.moment2);
        parts.for_each(|value, &gradient, first, second| {
            *first = BETA1 * *first + (1.0 - BETA1) * gradient;
            *second = BETA2 * *second + (1.0 - BETA2) * gradient * gradient;
            *value -= rate * (*first / corrections.0) / ((*second / corrections.1).sqrt() + EPSILON);
        });
    }
}

impl Layer {
    /// Weights of He's normal distribution, zero biases.
    fn new(from: usize, to: usize, rng: &mut ChaCha8Rng) -> Self {
        let deviation = (2.0 / from as f32).sqrt();
        let weight = Array2::from_shape_simple_fn((to, from), || {
            let draw: f32 = StandardNormal.sample(rng);
            deviation * draw
        });
        Self { weight: Parameter::new(weight), bias: Parameter::new(Array2::zeros((1, to))) }
    }

    fn forward(&self, input: &Array2<f32>, rectified: bool) -> Array2<f32> {
        let mut out = input.dot(&self.weight.value.t());
        out += &self.bias.value;
        if rectified {
            out.mapv_inplace(|value| value.max(0.0));
        }
        out
    }

    /// Sets the gradients and returns that of the input.
    fn backward(&mut self, input: &Array2<f32>, upstream: &Array2<f32>) -> Array2<f32> {
        general_mat_mul(1.0, &upstream.t(), input, 0.0, &mut self.weight.gradient);
        self.bias.gradient.row_mut(0).assign(&upstream.sum_axis(Axis(0)));
        upstream.dot(&self.weight.value)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("name the file to write")?;
    let load = |name: &str| name.parse::<Source>()?.load(&LoadOptions::default());
    let (train, test) = (load("fashion-mnist:train")?, load("fashion-mnist:test")?);
    let (labels, test_labels) = (train.labels().ok_or("no labels")?, test.labels().ok_or("no labels")?);
    let test_rows = ArrayView2::from_shape((test.rows(), WIDTHS[0]), &test.to_f32())?.to_owned();

    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut layers: Vec<Layer> = WIDTHS.windows(2).map(|pair| Layer::new(pair[0], pair[1], &mut rng)).collect();
    let steps = train.rows().div_ceil(BATCH) as u32 * EPOCHS;
    let (mut step, mut block, mut order) = (0u32, Vec::new(), vec![0; train.rows()]);
    for epoch in 0..EPOCHS {
        let mut loss = 0.0;
        cvae_core::epoch_order(SEED, epoch, &mut order);
        for batch in order.chunks(BATCH) {
            train.gather(batch, &mut block)?;
            for value in &mut block {
                let draw: f32 = StandardNormal.sample(&mut rng);
                *value += NOISE * draw;
            }
            let targets: Vec<u32> = batch.iter().map(|&row| labels[row as usize]).collect();
            let input = Array2::from_shape_vec((batch.len(), WIDTHS[0]), block.clone())?;
            loss += gradients(&mut layers, input, &targets) * batch.len() as f32;
            step += 1;
            let rate = LEARNING_RATE * 0.5 * (1.0 + (std::f32::consts::PI * step as f32 / steps as f32).cos());
            let corrections = (1.0 - BETA1.powi(step as i32), 1.0 - BETA2.powi(step as i32));
            for parameter in layers.iter_mut().flat_map(|layer| [&mut layer.weight, &mut layer.bias]) {
                parameter.update(rate, corrections);
            }
        }
        eprintln!("epoch {:2}  loss {:.4}", epoch + 1, loss / train.rows() as f32);
    }
    let correct = predictions(&layers, test_rows).iter().zip(test_labels).filter(|(a, b)| a == b).count();
    println!("held-out accuracy {:.4}", correct as f64 / test.rows() as f64);
    save(&layers, &path)
}

/// The mean cross-entropy of a batch; leaves the gradients in the layers.
fn gradients(layers: &mut [Layer], input: Array2<f32>, targets: &[u32]) -> f32 {
    let last = layers.len() - 1;
    let mut activations = vec![input];
    for (index, layer) in layers.iter().enumerate() {
        let out = layer.forward(&activations[index], index < last);
        activations.push(out);
    }
    let mut upstream = activations.pop().unwrap_or_default();
    let (rows, mut loss) = (targets.len() as f32, 0.0);
    for (mut logits, &target) in upstream.rows_mut().into_iter().zip(targets) {
        let largest = logits.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        logits.mapv_inplace(|value| (value - largest).exp());
        let total = logits.sum();
        logits /= total;
        loss -= logits[target as usize].max(f32::MIN_POSITIVE).ln();
        logits[target as usize] -= 1.0;
        logits /= rows;
    }
    for (layer, input) in layers.iter_mut().zip(&activations).rev() {
        upstream = layer.backward(input, &upstream);
        // The derivative of the rectifier that made this input; the pixels have none and are not used further.
        Zip::from(&mut upstream).and(input).for_each(|gradient, &value| {
            if value <= 0.0 {
                *gradient = 0.0;
            }
        });
    }
    loss / rows
}

/// The class of largest logit of every row.
fn predictions(layers: &[Layer], mut rows: Array2<f32>) -> Vec<u32> {
    let last = layers.len() - 1;
    for (index, layer) in layers.iter().enumerate() {
        rows = layer.forward(&rows, index < last);
    }
    let largest = |logits: ndarray::ArrayView1<'_, f32>| {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
        best.map_or(0, |(class, _)| class as u32)
    };
    rows.rows().into_iter().map(largest).collect::<Array1<u32>>().to_vec()
}

/// Writes `0.weight`, `0.bias`, `1.weight`, … as 32-bit floats.
fn save(layers: &[Layer], path: &str) -> Result<(), Box<dyn Error>> {
    let bytes = |values: &Array2<f32>| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let mut parts = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        parts.insert(format!("{index}.weight"), (layer.weight.value.shape().to_vec(), bytes(&layer.weight.value)));
        parts.insert(format!("{index}.bias"), (vec![layer.bias.value.len()], bytes(&layer.bias.value)));
    }
    let mut views = Vec::new();
    for (name, (shape, bytes)) in &parts {
        views.push((name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes)?));
    }
    let file = safetensors::serialize(views, None)?;
    cvae_data::atomic_write(path, |out| out.write_all(&file))?;
    println!("{path}: {} bytes, SHA-256 {}", file.len(), cvae_data::sha256(file.as_slice())?);
    Ok(())
}
