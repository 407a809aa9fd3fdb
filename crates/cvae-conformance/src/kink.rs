//! How far a batch is from the kinks of its loss.
//!
//! At a kink (relu at 0, an absolute error at 0, …) rounding decides between two slopes. Two precisions can
//! only be compared away from them, so the suite draws parameters until every value keeps its distance.

use cvae_core::rng::{below, chosen};
use cvae_core::{Activation, Corruption, Latent, Noise, Part, Plan, Reconstruction, Stream};

/// Where a batch is evaluated.
pub(crate) struct Point<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) params: &'a [f32],
    pub(crate) rows: &'a [f32],
    pub(crate) first_row: u32,
    pub(crate) epoch: u32,
}

impl Point<'_> {
    /// Smallest distance of any value of the training pass from a kink of what is applied to it; infinite if
    /// there are no kinks.
    pub(crate) fn margin(&self) -> f64 {
        let count = self.rows.len() / self.plan.spec.width();
        let mut divergences = vec![0.0; self.plan.spec.latent()];
        let margin = (0..count).map(|index| self.row(index, &mut divergences)).fold(f64::INFINITY, f64::min);
        let means = divergences.iter().map(|sum| sum / count as f64);
        let distance = match self.plan.objective.latent {
            Latent::Capacity { capacity, .. } => (means.sum::<f64>() - capacity).abs(),
            Latent::FreeBits { floor, .. } => means.map(|mean| (mean - floor).abs()).fold(f64::INFINITY, f64::min),
            _ => f64::INFINITY,
        };
        margin.min(distance)
    }

    /// Margin of one row; adds the divergence of each dimension of a sampled code to `divergences`.
    fn row(&self, index: usize, divergences: &mut [f64]) -> f64 {
        let mut margin = f64::INFINITY;
        let objective = &self.plan.objective;
        let mut features = vec![];
        let mut code = self.part(Part::Encoder, &self.fed(index), &mut features, &mut margin);
        if objective.latent.is_variational() {
            let logvar = self.affine("logvar", &features);
            let noise = self.draw(Stream::Reparameterize, index, code.len());
            let (low, high) = Latent::LOG_VARIANCE;
            for (((z, s), eps), sum) in code.iter_mut().zip(logvar).zip(noise).zip(divergences) {
                margin = margin.min((s - low).abs()).min((s - high).abs());
                let s = s.clamp(low, high);
                *sum += 0.5 * (*z * *z + s.exp_m1() - s);
                *z += (0.5 * s).exp() * eps;
            }
        }
        if let Some(k) = objective.top_k {
            let mut sizes: Vec<f64> = code.iter().map(|z| z.abs()).collect();
            sizes.sort_by(|a, b| b.total_cmp(a));
            let (kept, next) = (sizes[k - 1], sizes.get(k).copied().unwrap_or(f64::NEG_INFINITY));
            margin = margin.min(kept - next);
            code.iter_mut().filter(|z| z.abs() < kept).for_each(|z| *z = 0.0);
        }
        if let Latent::Sparse { .. } = objective.latent {
            margin = code.iter().filter(|z| **z != 0.0).fold(margin, |margin, z| margin.min(z.abs()));
        }
        let output = self.part(Part::Decoder, &code, &mut features, &mut margin);
        for (column, y) in output.iter().enumerate() {
            let error = (y - self.clean(index, column)).abs();
            let distance = match objective.reconstruction {
                Reconstruction::L1 => error,
                Reconstruction::Huber { delta } => (error - delta).abs(),
                Reconstruction::MseSum | Reconstruction::MseMean | Reconstruction::Bce => f64::INFINITY,
            };
            margin = margin.min(distance);
        }
        margin
    }

    fn noise(&self, stream: Stream) -> Noise {
        Noise::new(self.plan.seed, stream, self.epoch)
    }

    fn draw(&self, stream: Stream, index: usize, width: usize) -> Vec<f64> {
        let mut values = vec![0.0; width];
        self.noise(stream).normal(self.position(index), &mut values);
        values.into_iter().map(f64::from).collect()
    }

    /// Noise position of a row of the batch.
    fn position(&self, index: usize) -> u32 {
        self.first_row.wrapping_add(index as u32)
    }

    /// An element of the batch, 0 where it is missing.
    fn clean(&self, index: usize, column: usize) -> f64 {
        let x = f64::from(self.rows[index * self.plan.spec.width() + column]);
        if self.plan.objective.missing && x.is_nan() { 0.0 } else { x }
    }

    /// What the encoder reads of a row.
    fn fed(&self, index: usize) -> Vec<f64> {
        let objective = &self.plan.objective;
        let width = self.plan.spec.width();
        let units = objective.corruption.units(width, &objective.columns);
        let word = |stream: Stream, column: usize| self.noise(stream).unit_word(self.position(index), units[column]);
        let marked = |share: f64, column: usize| chosen(word(Stream::Corrupt, column), share);
        let rows = (self.rows.len() / width) as u32;
        let column = |column: usize| match objective.corruption {
            Corruption::Masking { share } | Corruption::Masked { share, .. } if marked(share, column) => 0.0,
            Corruption::Permutation { share } if marked(share, column) => {
                self.clean(below(word(Stream::Permute, column), rows) as usize, column)
            }
            Corruption::Shift { share, shift } if marked(share, column) => {
                let offset = shift.drawn(word(Stream::Permute, 0));
                shift.source(offset, column, width).map_or(0.0, |from| self.clean(index, from))
            }
            Corruption::None
            | Corruption::Gaussian { .. }
            | Corruption::Masking { .. }
            | Corruption::Masked { .. }
            | Corruption::Permutation { .. }
            | Corruption::Shift { .. } => self.clean(index, column),
        };
        let mut row: Vec<f64> = (0..width).map(column).collect();
        if let Corruption::Gaussian { std } = objective.corruption {
            row.iter_mut().zip(self.draw(Stream::Corrupt, index, width)).for_each(|(x, noise)| *x += std * noise);
        }
        if objective.missing {
            let observed = self.rows[index * width..][..width].iter().map(|x| !x.is_nan());
            row.iter_mut().zip(observed).filter(|(_, observed)| !observed).for_each(|(x, _)| *x = 0.0);
        }
        row
    }

    /// Output of a part; `features` receives the input of its last layer.
    fn part(&self, part: Part, input: &[f64], features: &mut Vec<f64>, margin: &mut f64) -> Vec<f64> {
        let mut value = input.to_vec();
        for (index, layer) in self.plan.spec.layers(part).iter().enumerate() {
            let activation = layer.activation();
            let linear = self.affine(&format!("{part}.{}", 2 * index), &value);
            if matches!(activation, Activation::Relu | Activation::LeakyRelu | Activation::Elu) {
                *margin = linear.iter().fold(*margin, |margin, a| margin.min(a.abs()));
            }
            *features = std::mem::replace(&mut value, linear.iter().map(|a| activate(activation, *a)).collect());
        }
        value
    }

    fn affine(&self, name: &str, input: &[f64]) -> Vec<f64> {
        let tensor = |suffix: &str| match self.plan.params.find(&format!("{name}.{suffix}")) {
            Some((_, param)) => &self.params[param.range()],
            None => &[],
        };
        let dot = |weights: &[f32]| weights.iter().zip(input).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
        let rows = tensor("weight").chunks_exact(input.len());
        let biases = tensor("bias").iter().copied().chain(std::iter::repeat(0.0));
        rows.zip(biases).map(|(weights, bias)| f64::from(bias) + dot(weights)).collect()
    }
}

/// Close enough to place a point: gelu by its logistic approximation.
fn activate(activation: Activation, a: f64) -> f64 {
    let sigmoid = |a: f64| 1.0 / (1.0 + (-a).exp());
    match activation {
        Activation::Identity => a,
        Activation::Relu => a.max(0.0),
        Activation::LeakyRelu => a.max(Activation::LEAKY_SLOPE * a),
        Activation::Elu if a < 0.0 => a.exp_m1(),
        Activation::Elu => a,
        Activation::Gelu => 0.5 * a * (1.0 + (0.797_884_560_8 * (a + 0.044_715 * a.powi(3))).tanh()),
        Activation::Silu => a * sigmoid(a),
        Activation::Tanh => a.tanh(),
        Activation::Sigmoid => sigmoid(a),
    }
}
