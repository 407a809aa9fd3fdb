//! A small normalising flow: an invertible map from standardised codes to N(0, I).
//!
//! Three blocks, each of a [monotone map](layers::Monotone) of every dimension by itself and, for two or
//! more dimensions, two [affine couplings](layers::Coupling) (Dinh, Sohl-Dickstein, Bengio 2017) between
//! random halves of the dimensions. The log-density of a row is that of its image plus the logarithm of
//! the map's volume change.

mod layers;
mod train;

use std::f64::consts::PI;

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::DensityError;
use crate::random::{Purpose, fill_normal, indices, stream};
use layers::{Coupling, Layer, Monotone};
pub(super) use train::train;

/// Number of blocks.
const BLOCKS: usize = 3;

/// Hidden units of a coupling's network.
fn hidden_units(latent: usize) -> usize {
    (2 * latent).clamp(32, 128)
}

/// A normalising flow over standardised codes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Parts", into = "Parts")]
pub(super) struct Flow {
    latent: usize,
    /// One order of the dimensions per block: the first half conditions the second, then the other way.
    orders: Vec<Vec<usize>>,
    /// From codes to noise.
    layers: Vec<Layer>,
    /// The parameters of all layers, one after another.
    parameters: Vec<f64>,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
struct Parts {
    orders: Vec<Vec<usize>>,
    parameters: Vec<f64>,
}

impl From<Flow> for Parts {
    fn from(flow: Flow) -> Self {
        Self { orders: flow.orders, parameters: flow.parameters }
    }
}

impl TryFrom<Parts> for Flow {
    type Error = DensityError;

    fn try_from(Parts { orders, parameters }: Parts) -> Result<Self, DensityError> {
        let latent = orders.first().map_or(0, Vec::len);
        let permutation = |order: &Vec<usize>| {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            sorted.into_iter().eq(0..latent)
        };
        if latent == 0 || !orders.iter().all(permutation) {
            return Err(DensityError::Stored("the flow's dimensions are no permutations"));
        }
        if !parameters.iter().all(|value| value.is_finite()) {
            return Err(DensityError::Stored("a value is not finite"));
        }
        let (layers, count) = build(&orders);
        if parameters.len() != count {
            return Err(DensityError::Stored("the flow has another number of parameters"));
        }
        Ok(Self { latent, orders, layers, parameters })
    }
}

/// The layers for these orders, and the number of their parameters.
fn build(orders: &[Vec<usize>]) -> (Vec<Layer>, usize) {
    let (mut layers, mut offset) = (Vec::new(), 0);
    let mut add = |layer: fn(usize, &[usize], &[usize]) -> Layer, given: &[usize], moved: &[usize]| {
        let layer = layer(offset, given, moved);
        offset += layer.parameters();
        layers.push(layer);
    };
    for order in orders {
        add(|offset, _, moved| Layer::Monotone(Monotone::new(offset, moved.len())), &[], order);
        if order.len() > 1 {
            let (left, right) = order.split_at(order.len() / 2);
            let coupling: fn(usize, &[usize], &[usize]) -> Layer = |offset, given, moved| {
                Layer::Coupling(Coupling::new(offset, hidden_units(given.len() + moved.len()), given, moved))
            };
            add(coupling, left, right);
            add(coupling, right, left);
        }
    }
    (layers, offset)
}

impl Flow {
    /// A flow near the identity, with orders and weights chosen by `seed`.
    fn start(latent: usize, seed: u64) -> Self {
        let mut rng = stream(seed, Purpose::Starts, 0);
        let orders: Vec<Vec<usize>> = (0..BLOCKS).map(|_| indices(&mut rng, latent, latent)).collect();
        let (layers, count) = build(&orders);
        let mut parameters = vec![0.0; count];
        for layer in &layers {
            layer.initialize(&mut parameters, &mut rng);
        }
        Self { latent, orders, layers, parameters }
    }

    /// Latent size.
    pub(super) fn latent(&self) -> usize {
        self.latent
    }

    /// Number of parameters.
    pub(super) fn parameters(&self) -> usize {
        self.parameters.len()
    }

    /// Maps rows to noise in place and returns the logarithm of the volume change of every row. `visit`
    /// sees the input of every layer.
    fn forward(&self, rows: &mut [f64], mut visit: impl FnMut(&[f64])) -> Vec<f64> {
        let mut log_volumes = vec![0.0; rows.len() / self.latent];
        for layer in &self.layers {
            visit(rows);
            layer.forward(&self.parameters, rows, &mut log_volumes);
        }
        log_volumes
    }

    /// Log-densities of standardised rows.
    pub(super) fn log_densities(&self, rows: &[f64]) -> Vec<f64> {
        let mut noise = rows.to_vec();
        let log_volumes = self.forward(&mut noise, |_| ());
        let constant = 0.5 * self.latent as f64 * (2.0 * PI).ln();
        let square = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>();
        noise
            .chunks_exact(self.latent)
            .zip(log_volumes)
            .map(|(row, log_volume)| log_volume - 0.5 * square(row) - constant)
            .collect()
    }

    /// Draws one standardised row; `temperature` scales the noise.
    pub(super) fn sample(&self, rng: &mut ChaCha8Rng, temperature: f64, row: &mut [f64]) {
        fill_normal(rng, row);
        row.iter_mut().for_each(|value| *value *= temperature);
        for layer in self.layers.iter().rev() {
            layer.inverse(&self.parameters, row);
        }
    }

    /// Mean negative log-density without its constant, and its gradient added to `gradient`, each divided
    /// by `count` instead of the number of rows.
    fn loss(&self, rows: &[f64], count: f64, gradient: &mut [f64]) -> f64 {
        let mut noise = rows.to_vec();
        let mut inputs: Vec<Vec<f64>> = Vec::with_capacity(self.layers.len());
        let log_volumes = self.forward(&mut noise, |input| inputs.push(input.to_vec()));
        let loss = 0.5 * noise.iter().map(|value| value * value).sum::<f64>() - log_volumes.iter().sum::<f64>();
        let mut upstream: Vec<f64> = noise.iter().map(|value| value / count).collect();
        for (layer, input) in self.layers.iter().zip(&inputs).rev() {
            layer.backward(&self.parameters, input, -1.0 / count, &mut upstream, gradient);
        }
        loss / count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal_rows;

    /// A flow with every parameter away from its start.
    fn shaken(latent: usize) -> Flow {
        let mut flow = Flow::start(latent, 3);
        let noise = normal_rows(4, Purpose::PriorRows, flow.parameters.len(), 1);
        flow.parameters.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.2 * noise);
        flow
    }

    #[test]
    fn gradients_equal_finite_differences() {
        for latent in [1, 2, 3, 5] {
            let mut flow = shaken(latent);
            let rows = normal_rows(5, Purpose::PriorRows, 7, latent);
            let mut gradient = vec![0.0; flow.parameters.len()];
            flow.loss(&rows, 7.0, &mut gradient);
            let mut scratch = vec![0.0; gradient.len()];
            for index in (0..gradient.len()).step_by(1 + gradient.len() / 300) {
                let value = flow.parameters[index];
                let mut at = |offset: f64| {
                    flow.parameters[index] = value + offset;
                    flow.loss(&rows, 7.0, &mut scratch)
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                flow.parameters[index] = value;
                let error = (slope - gradient[index]).abs() / (1e-2 + slope.abs());
                assert!(error < 1e-6, "latent {latent}, parameter {index}: {slope} {}", gradient[index]);
            }
        }
    }

    #[test]
    fn the_inverse_undoes_the_map() {
        for latent in [1, 2, 5] {
            let flow = shaken(latent);
            let rows = normal_rows(6, Purpose::PriorRows, 20, latent);
            let mut there = rows.clone();
            flow.forward(&mut there, |_| ());
            for (row, expected) in there.chunks_mut(latent).zip(rows.chunks(latent)) {
                for layer in flow.layers.iter().rev() {
                    layer.inverse(&flow.parameters, row);
                }
                for (found, expected) in row.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-8, "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn the_volume_change_is_the_determinant_of_the_jacobian() {
        let flow = shaken(2);
        let row = [0.3, -0.8];
        let image = |x: f64, y: f64| {
            let mut row = [x, y];
            flow.forward(&mut row, |_| ());
            row
        };
        let h = 1e-5;
        let dx: Vec<f64> =
            image(row[0] + h, row[1]).iter().zip(image(row[0] - h, row[1])).map(|(a, b)| (a - b) / (2.0 * h)).collect();
        let dy: Vec<f64> =
            image(row[0], row[1] + h).iter().zip(image(row[0], row[1] - h)).map(|(a, b)| (a - b) / (2.0 * h)).collect();
        let determinant: f64 = dx[0] * dy[1] - dx[1] * dy[0];
        let log_volumes = flow.forward(&mut row.clone(), |_| ());
        assert!((log_volumes[0] - determinant.abs().ln()).abs() < 1e-6);
    }

    #[test]
    fn a_flow_starts_near_the_standard_normal() {
        let flow = Flow::start(3, 0);
        let rows = normal_rows(7, Purpose::PriorRows, 100, 3);
        for (row, found) in rows.chunks(3).zip(flow.log_densities(&rows)) {
            let expected = -0.5 * row.iter().map(|v| v * v).sum::<f64>() - 1.5 * (2.0 * PI).ln();
            assert!((found - expected).abs() < 2.0, "{found} {expected}");
        }
    }

    #[test]
    fn inconsistent_stored_flows_are_errors() {
        let json = serde_json::to_value(Flow::start(2, 0)).unwrap();
        assert!(serde_json::from_value::<Flow>(json.clone()).is_ok());
        let breaks: [fn(&mut serde_json::Value); 4] = [
            |json| json["orders"] = serde_json::json!([]),
            |json| json["orders"][1] = serde_json::json!([0, 0]),
            |json| json["orders"][1] = serde_json::json!([0, 1, 2]),
            |json| json["parameters"] = serde_json::json!([1.0]),
        ];
        for break_it in breaks {
            let mut json = json.clone();
            break_it(&mut json);
            assert!(serde_json::from_value::<Flow>(json).is_err());
        }
    }
}
