//! The loss straight from the specification and the objective: no program, no backward pass, no code shared
//! with the interpreter. Everything else about gradients is checked against this file.

use std::ops::Range;

use cvae_core::{
    Activation, Latent, LayerSpec, ModelSpec, Objective, ParamLayout, Part, Reconstruction, SpecError, Term,
};
use thiserror::Error;

/// Inputs of [`direct_loss`] that do not fit each other.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum DirectError {
    /// The specification or the objective breaks a rule.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The layout is not the one of the specification and the objective.
    #[error("the parameter layout belongs to another model")]
    Layout,
    /// A slice of the wrong length.
    #[error("{what} has {found} elements, expected {expected}")]
    Length {
        /// Which slice.
        what: &'static str,
        /// Length needed.
        expected: usize,
        /// Length given.
        found: usize,
    },
    /// A parameter index beyond the layout.
    #[error("coordinate {coordinate} is beyond the model's {params} parameters")]
    Coordinate {
        /// The index.
        coordinate: usize,
        /// Number of parameters.
        params: usize,
    },
}

/// The terms of the loss of one batch, each weighted and averaged over rows, in the order of [`Term::ALL`].
///
/// `params` is the flat buffer described by `layout`; `rows` is `rows × width`; `noise` is the `ε` of the
/// reparameterisation, `rows × latent`, and empty unless the objective is variational. Formulas: docs/MATH.md.
///
/// # Errors
/// An invalid specification or objective, or slices and a layout that do not fit them.
pub fn direct_loss(
    spec: &ModelSpec,
    objective: &Objective,
    layout: &ParamLayout,
    params: &[f64],
    rows: &[f64],
    noise: &[f64],
) -> Result<[f64; Term::COUNT], DirectError> {
    let problem = Problem::new(spec, objective, layout, rows, noise)?;
    problem.check_params(params)?;
    Ok(problem.loss(params, &mut Branches::default()))
}

/// Where a value lies with respect to an interval; a kink is an interval of one point.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Side {
    Below,
    Inside,
    Above,
}

/// Which piece of each piecewise function an evaluation uses.
///
/// The first evaluation chooses each piece by its argument and records it. A replayed evaluation uses the
/// recorded pieces wherever its arguments lie: it computes the smooth function that equals the loss around the
/// first point.
#[derive(Default)]
pub(crate) struct Branches {
    sides: Vec<Side>,
    replayed: Option<usize>,
    /// Since the start of the replay: an argument has left its recorded piece.
    pub(crate) crossed: bool,
    /// Since the start of the replay: an argument that sits exactly on a kink has moved.
    pub(crate) off_kink: bool,
}

impl Branches {
    /// Starts a replay of the recorded pieces.
    pub(crate) fn replay(&mut self) {
        self.replayed = Some(0);
        (self.crossed, self.off_kink) = (false, false);
    }

    /// The piece to use for `value`, where pieces meet at `low` and `high`.
    fn side(&mut self, value: f64, (low, high): (f64, f64)) -> Side {
        let side = match value {
            value if value < low => Side::Below,
            value if value > high => Side::Above,
            _ => Side::Inside,
        };
        let Some(index) = &mut self.replayed else {
            self.sides.push(side);
            return side;
        };
        let recorded = self.sides[*index];
        *index += 1;
        if side != recorded {
            let kink = low == high && recorded == Side::Inside;
            self.off_kink |= kink;
            self.crossed |= !kink;
        }
        recorded
    }
}

/// A batch and everything that its loss depends on besides the parameters.
pub(crate) struct Problem<'a> {
    spec: &'a ModelSpec,
    objective: &'a Objective,
    layout: &'a ParamLayout,
    encoder: Vec<Dense>,
    decoder: Vec<Dense>,
    /// The second head of a variational encoder.
    logvar: Option<Dense>,
    rows: &'a [f64],
    noise: &'a [f64],
    count: usize,
}

/// A layer's activation, and where its parameters are.
struct Dense {
    weight: Range<usize>,
    bias: Range<usize>,
    activation: Activation,
}

impl Dense {
    /// The layer with the parameters `name.weight` and `name.bias`.
    fn find(layout: &ParamLayout, name: &str, activation: Activation) -> Result<Self, DirectError> {
        let range = |suffix: &str| layout.find(&format!("{name}.{suffix}")).map(|(_, param)| param.range());
        match (range("weight"), range("bias")) {
            (Some(weight), Some(bias)) => Ok(Self { weight, bias, activation }),
            _ => Err(DirectError::Layout),
        }
    }

    /// `W·input + b`.
    fn affine(&self, params: &[f64], input: &[f64]) -> Vec<f64> {
        let rows = params[self.weight.clone()].chunks_exact(input.len());
        let dot = |weights: &[f64]| weights.iter().zip(input).map(|(w, x)| w * x).sum::<f64>();
        rows.zip(&params[self.bias.clone()]).map(|(weights, b)| b + dot(weights)).collect()
    }
}

impl<'a> Problem<'a> {
    pub(crate) fn new(
        spec: &'a ModelSpec,
        objective: &'a Objective,
        layout: &'a ParamLayout,
        rows: &'a [f64],
        noise: &'a [f64],
    ) -> Result<Self, DirectError> {
        spec.validate()?;
        objective.validate(spec)?;
        let variational = objective.latent.is_variational();
        if *layout != ParamLayout::new(spec, variational) {
            return Err(DirectError::Layout);
        }
        let count = rows.len() / spec.width();
        check_length("the batch", count.max(1) * spec.width(), rows.len())?;
        check_length("the noise", if variational { count * spec.latent() } else { 0 }, noise.len())?;
        let part = |part: Part| -> Result<Vec<_>, _> {
            let layers = spec.layers(part).iter().enumerate();
            let dense = |(index, layer): (_, &LayerSpec)| {
                Dense::find(layout, &format!("{part}.{}", 2 * index), layer.activation())
            };
            layers.map(dense).collect()
        };
        let logvar = variational.then(|| Dense::find(layout, "logvar", Activation::Identity)).transpose()?;
        let (encoder, decoder) = (part(Part::Encoder)?, part(Part::Decoder)?);
        Ok(Self { spec, objective, layout, encoder, decoder, logvar, rows, noise, count })
    }

    pub(crate) fn check_params(&self, params: &[f64]) -> Result<(), DirectError> {
        check_length("the parameters", self.layout.len(), params.len())
    }

    /// The terms at `params`, on the pieces that `branches` records or replays.
    pub(crate) fn loss(&self, params: &[f64], branches: &mut Branches) -> [f64; Term::COUNT] {
        let mut terms = [0.0; Term::COUNT];
        for (index, row) in self.rows.chunks_exact(self.spec.width()).enumerate() {
            let (reconstruction, latent) = self.row(params, index, row, branches);
            terms[Term::Reconstruction.index()] += reconstruction / self.count as f64;
            terms[Term::Latent.index()] += latent / self.count as f64;
        }
        let decoder = self.layout.params().iter().filter(|param| param.part == Part::Decoder);
        let squares: f64 = decoder.flat_map(|param| &params[param.range()]).map(|theta| theta.powi(2)).sum();
        terms[Term::DecoderL2.index()] = self.objective.decoder_l2 / 2.0 * squares;
        terms
    }

    /// Reconstruction and latent term of one row.
    fn row(&self, params: &[f64], index: usize, row: &[f64], branches: &mut Branches) -> (f64, f64) {
        let encoder = stack(&self.encoder, params, row, branches);
        let (code, latent) = match self.objective.latent {
            Latent::None => (encoder.output, 0.0),
            Latent::Collapsed { beta } => {
                let norm: f64 = encoder.output.iter().map(|z| z.powi(2)).sum();
                (encoder.output, beta * norm / 2.0)
            }
            Latent::Variational { beta } => {
                let logvar = self.logvar.as_ref().map_or(vec![], |head| head.affine(params, &encoder.last_input));
                let noise = &self.noise[index * logvar.len()..][..logvar.len()];
                let (mut code, mut divergence) = (vec![], 0.0);
                for ((mean, s), eps) in encoder.output.iter().zip(logvar).zip(noise) {
                    let variance = match branches.side(s, Latent::LOG_VARIANCE) {
                        Side::Below => Latent::LOG_VARIANCE.0.exp(),
                        Side::Inside => s.exp(),
                        Side::Above => Latent::LOG_VARIANCE.1.exp(),
                    };
                    code.push(mean + variance.sqrt() * eps);
                    divergence += (mean.powi(2) + variance - 1.0 - variance.ln()) / 2.0;
                }
                (code, beta * divergence)
            }
        };
        let decoder = stack(&self.decoder, params, &code, branches);
        let reconstruction = match self.objective.reconstruction {
            Reconstruction::Bce => cross_entropy(&decoder.logits, row),
            other => distance(other, &decoder.output, row, branches),
        };
        (reconstruction, latent)
    }
}

/// Runs layers on one row.
fn stack(layers: &[Dense], params: &[f64], input: &[f64], branches: &mut Branches) -> PartOutput {
    let mut result = PartOutput { last_input: vec![], logits: vec![], output: input.to_vec() };
    for layer in layers {
        let logits = layer.affine(params, &result.output);
        let output = logits.iter().map(|a| activate(layer.activation, *a, branches)).collect();
        result = PartOutput { last_input: result.output, logits, output };
    }
    result
}

/// Result of the encoder or the decoder for one row.
struct PartOutput {
    /// Input of the last layer.
    last_input: Vec<f64>,
    /// Output of the last layer before its activation.
    logits: Vec<f64>,
    output: Vec<f64>,
}

fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), DirectError> {
    match expected == found {
        true => Ok(()),
        false => Err(DirectError::Length { what, expected, found }),
    }
}

fn activate(activation: Activation, a: f64, branches: &mut Branches) -> f64 {
    let mut positive = || branches.side(a, (0.0, 0.0)) == Side::Above;
    match activation {
        Activation::Identity => a,
        Activation::Relu => {
            if positive() {
                a
            } else {
                0.0
            }
        }
        Activation::LeakyRelu => {
            if positive() {
                a
            } else {
                0.01 * a
            }
        }
        Activation::Elu => {
            if positive() {
                a
            } else {
                a.exp_m1()
            }
        }
        Activation::Gelu => 0.5 * a * (1.0 + libm::erf(a / 2f64.sqrt())),
        Activation::Silu => a / (1.0 + (-a).exp()),
        Activation::Tanh => a.tanh(),
        Activation::Sigmoid => 0.5 * (1.0 + (0.5 * a).tanh()),
    }
}

/// `Σ softplus(u) − u·x`, with `softplus(u) = max(u, 0) + ln(1 + e^−|u|)`.
fn cross_entropy(logits: &[f64], target: &[f64]) -> f64 {
    let softplus = |u: f64| u.max(0.0) + (-u.abs()).exp().ln_1p();
    logits.iter().zip(target).map(|(u, x)| softplus(*u) - u * x).sum()
}

/// Every comparison but the cross-entropy.
fn distance(kind: Reconstruction, output: &[f64], target: &[f64], branches: &mut Branches) -> f64 {
    let width = output.len() as f64;
    let errors = output.iter().zip(target).map(|(y, x)| y - x);
    match kind {
        Reconstruction::MseMean => errors.map(|e| e.powi(2)).sum::<f64>() / width,
        Reconstruction::MseSum | Reconstruction::Bce => errors.map(|e| e.powi(2)).sum::<f64>() / 2.0,
        Reconstruction::L1 => {
            let absolute = |e| if branches.side(e, (0.0, 0.0)) == Side::Below { -e } else { e };
            errors.map(absolute).sum()
        }
        Reconstruction::Huber { delta } => {
            let huber = |e: f64| match branches.side(e, (-delta, delta)) {
                Side::Below => delta * -e - delta.powi(2) / 2.0,
                Side::Inside => e.powi(2) / 2.0,
                Side::Above => delta * e - delta.powi(2) / 2.0,
            };
            errors.map(huber).sum()
        }
    }
}
