//! Training a flow by maximum likelihood.

use rayon::prelude::*;

use super::Flow;
use crate::density::FitOptions;
use crate::random::{Purpose, indices, stream};

/// Rows per step.
const BATCH: usize = 512;
/// Rows whose gradient is computed together; fixed, so that sums do not depend on the number of threads.
const SHARD: usize = 64;
/// Learning rate at the start; it falls to zero along half a cosine.
const LEARNING_RATE: f64 = 5e-3;
/// Steps between two looks at the held-out rows.
const LOOK: usize = 100;
/// Looks without improvement after which training stops.
const PATIENCE: usize = 8;

/// Adam's state (Kingma, Ba 2015).
struct Adam {
    first: Vec<f64>,
    second: Vec<f64>,
    step: i32,
}

impl Adam {
    fn update(&mut self, parameters: &mut [f64], gradient: &[f64], rate: f64) {
        const DECAY: (f64, f64) = (0.9, 0.999);
        self.step += 1;
        let corrections = (1.0 - DECAY.0.powi(self.step), 1.0 - DECAY.1.powi(self.step));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((parameter, gradient), (first, second)) in parameters.iter_mut().zip(gradient).zip(moments) {
            *first += (1.0 - DECAY.0) * (gradient - *first);
            *second += (1.0 - DECAY.1) * (gradient * gradient - *second);
            *parameter -= rate * (*first / corrections.0) / ((*second / corrections.1).sqrt() + 1e-8);
        }
    }
}

/// Trains a flow on standardised rows and keeps the parameters of the best held-out likelihood. Returns
/// the steps made and whether the held-out likelihood settled before the last.
pub(in crate::density) fn train(
    rows: &[f64],
    held_out: &[f64],
    latent: usize,
    options: &FitOptions,
) -> (Flow, usize, bool) {
    let mut flow = Flow::start(latent, options.seed);
    let mut adam = Adam { first: vec![0.0; flow.parameters()], second: vec![0.0; flow.parameters()], step: 0 };
    let mut best = (mean_log_density(&flow, held_out), flow.parameters.clone());
    let (mut order, mut epoch, mut looks) = (Vec::new(), 0, 0);
    let count = rows.len() / latent;
    for step in 0..options.flow_steps {
        if order.is_empty() {
            order = indices(&mut stream(options.seed, Purpose::Rows, 2 + epoch), count, count);
            epoch += 1;
        }
        let chosen = order.split_off(order.len().saturating_sub(BATCH));
        let batch: Vec<f64> = chosen.iter().flat_map(|&row| &rows[row * latent..][..latent]).copied().collect();
        let progress = step as f64 / options.flow_steps as f64;
        let rate = LEARNING_RATE * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
        let gradient = clipped(gradient(&flow, &batch));
        adam.update(&mut flow.parameters, &gradient, rate);
        if (step + 1) % LOOK == 0 || step + 1 == options.flow_steps {
            let found = mean_log_density(&flow, held_out);
            looks += 1;
            if found > best.0 {
                best = (found, flow.parameters.clone());
                looks = 0;
            }
            if looks == PATIENCE {
                flow.parameters = best.1;
                return (flow, step + 1, true);
            }
        }
    }
    flow.parameters = best.1;
    (flow, options.flow_steps, false)
}

/// Gradient of the batch's mean loss: shards in parallel, summed in order.
fn gradient(flow: &Flow, batch: &[f64]) -> Vec<f64> {
    let count = (batch.len() / flow.latent()) as f64;
    let shards: Vec<Vec<f64>> = batch
        .par_chunks(SHARD * flow.latent())
        .map(|shard| {
            let mut gradient = vec![0.0; flow.parameters()];
            flow.loss(shard, count, &mut gradient);
            gradient
        })
        .collect();
    let mut sum = vec![0.0; flow.parameters()];
    for shard in &shards {
        sum.iter_mut().zip(shard).for_each(|(sum, value)| *sum += value);
    }
    sum
}

/// The gradient with its norm at most 10, which tames single outlying codes.
fn clipped(mut gradient: Vec<f64>) -> Vec<f64> {
    const LIMIT: f64 = 10.0;
    let norm = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
    if norm > LIMIT {
        gradient.iter_mut().for_each(|value| *value *= LIMIT / norm);
    }
    gradient
}

fn mean_log_density(flow: &Flow, rows: &[f64]) -> f64 {
    let blocks: Vec<Vec<f64>> = rows.par_chunks(BATCH * flow.latent()).map(|block| flow.log_densities(block)).collect();
    let values = blocks.concat();
    values.iter().sum::<f64>() / values.len() as f64
}
