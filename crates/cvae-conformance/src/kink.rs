//! How far a batch is from the kinks of its loss.
//!
//! At a kink (relu at 0, an absolute error at 0, …) rounding decides between two slopes. Two precisions can
//! only be compared away from them, so the suite draws parameters until every value keeps its distance.

use cvae_core::{Activation, Latent, Noise, Part, Plan, Reconstruction, Stream};

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
        let rows = self.rows.chunks_exact(self.plan.spec.width()).enumerate();
        rows.map(|(index, row)| self.row(index as u32, row)).fold(f64::INFINITY, f64::min)
    }

    fn row(&self, index: u32, row: &[f32]) -> f64 {
        let mut margin = f64::INFINITY;
        let input: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        let mut features = vec![];
        let mut code = self.part(Part::Encoder, &input, &mut features, &mut margin);
        if self.plan.objective.latent.is_variational() {
            let logvar = self.affine("logvar", &features);
            let mut noise = vec![0.0; code.len()];
            let source = Noise::new(self.plan.seed, Stream::Reparameterize, self.epoch);
            source.normal(self.first_row.wrapping_add(index), &mut noise);
            let (low, high) = Latent::LOG_VARIANCE;
            for ((z, s), eps) in code.iter_mut().zip(logvar).zip(noise) {
                margin = margin.min((s - low).abs()).min((s - high).abs());
                *z += (0.5 * s.clamp(low, high)).exp() * f64::from(eps);
            }
        }
        let output = self.part(Part::Decoder, &code, &mut features, &mut margin);
        for (y, x) in output.iter().zip(input) {
            let distance = match self.plan.objective.reconstruction {
                Reconstruction::L1 => (y - x).abs(),
                Reconstruction::Huber { delta } => ((y - x).abs() - delta).abs(),
                Reconstruction::MseSum | Reconstruction::MseMean | Reconstruction::Bce => f64::INFINITY,
            };
            margin = margin.min(distance);
        }
        margin
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
