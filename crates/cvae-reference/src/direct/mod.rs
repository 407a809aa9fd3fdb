//! The loss straight from the specification and the objective: no program, no backward pass, no code shared
//! with the interpreter. Everything else about gradients is checked against these files.

mod branches;
mod input;
mod network;
mod terms;

use cvae_core::{Activation, Jacobian, LayerSpec, ModelSpec, Objective, ParamLayout, Part, SpecError, Stream, Term};
use thiserror::Error;

pub(crate) use crate::direct::branches::Branches;
pub use crate::direct::input::Draw;
use crate::direct::input::Inputs;
use crate::direct::network::{Dense, PartOutput};

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
/// `params` is the flat buffer described by `layout`; `rows` is `rows × width`, with NaN for a missing value;
/// `draw` tells which random numbers the batch draws. Formulas: docs/MATH.md.
///
/// # Errors
/// An invalid specification or objective, or slices and a layout that do not fit them.
pub fn direct_loss(
    spec: &ModelSpec,
    objective: &Objective,
    layout: &ParamLayout,
    params: &[f64],
    rows: &[f64],
    draw: Draw,
) -> Result<[f64; Term::COUNT], DirectError> {
    let problem = Problem::new(spec, objective, layout, rows, draw)?;
    problem.check_params(params)?;
    Ok(problem.loss(params, &mut Branches::default()))
}

/// A batch and everything that its loss depends on besides the parameters.
pub(crate) struct Problem<'a> {
    spec: &'a ModelSpec,
    objective: &'a Objective,
    layout: &'a ParamLayout,
    encoder: Vec<Dense>,
    decoder: Vec<Dense>,
    /// The second head of a sampled encoder.
    logvar: Option<Dense>,
    inputs: Inputs,
    /// `ε` of the reparameterisation.
    noise: Vec<Vec<f64>>,
    /// Signs that estimate a Jacobian's norm, of the output of its part.
    signs: Vec<Vec<f64>>,
    /// Draws of the prior.
    prior: Vec<Vec<f64>>,
}

/// What the terms of a batch are made of, one entry per row.
#[derive(Default)]
struct Batch {
    codes: Vec<Vec<f64>>,
    /// Divergence of each dimension of a sampled code.
    divergences: Vec<Vec<f64>>,
    /// Output of the decoder, logits where the term takes them.
    outputs: Vec<Vec<f64>>,
    /// Squared norm of what the Jacobian term measures.
    jacobian: Vec<f64>,
}

impl<'a> Problem<'a> {
    pub(crate) fn new(
        spec: &'a ModelSpec,
        objective: &'a Objective,
        layout: &'a ParamLayout,
        rows: &'a [f64],
        draw: Draw,
    ) -> Result<Self, DirectError> {
        spec.validate()?;
        objective.validate(spec)?;
        let variational = objective.latent.is_variational();
        if *layout != ParamLayout::new(spec, variational) {
            return Err(DirectError::Layout);
        }
        let (width, latent) = (spec.width(), spec.latent());
        let count = rows.len() / width;
        check_length("the batch", count.max(1) * width, rows.len())?;
        let part = |part: Part| -> Result<Vec<_>, _> {
            let layers = spec.layers(part).iter().enumerate();
            let dense = |(index, layer): (_, &LayerSpec)| {
                Dense::find(layout, &format!("{part}.{}", 2 * index), layer.activation())
            };
            layers.map(dense).collect()
        };
        let logvar = variational.then(|| Dense::find(layout, "logvar", Activation::Identity)).transpose()?;
        let (encoder, mut decoder) = (part(Part::Encoder)?, part(Part::Decoder)?);
        if objective.spectral_norm {
            let weight = |layer: usize| layout.find(&format!("decoder.{}.weight", 2 * layer)).map(|(id, _)| id.index());
            let normalized = |(layer, dense): (_, Dense)| weight(layer).map(|index| dense.normalized(index));
            decoder =
                decoder.into_iter().enumerate().map(normalized).collect::<Option<_>>().ok_or(DirectError::Layout)?;
        }
        let probed = if matches!(objective.jacobian, Jacobian::GradientPenalty { .. }) { width } else { latent };
        Ok(Self {
            spec,
            objective,
            layout,
            encoder,
            decoder,
            logvar,
            inputs: Inputs::new(objective, rows, width, draw),
            noise: draw.normal(Stream::Reparameterize, count, latent),
            signs: draw.signs(count, probed),
            prior: draw.normal(Stream::Prior, count, latent),
        })
    }

    pub(crate) fn check_params(&self, params: &[f64]) -> Result<(), DirectError> {
        check_length("the parameters", self.layout.len(), params.len())
    }

    /// The terms at `params`, on the pieces that `branches` records or replays.
    pub(crate) fn loss(&self, params: &[f64], branches: &mut Branches) -> [f64; Term::COUNT] {
        let mut batch = Batch::default();
        let effective = network::effective(&self.decoder, params, self.spec.latent(), branches);
        for index in 0..self.inputs.fed.len() {
            self.row(&effective, index, &mut batch, branches);
        }
        let decoder = self.layout.params().iter().filter(|param| param.part == Part::Decoder);
        let squares: f64 = decoder.flat_map(|param| &params[param.range()]).map(|theta| theta.powi(2)).sum();
        let norms: f64 = batch.jacobian.iter().sum::<f64>() / batch.codes.len() as f64;
        let mut terms = [0.0; Term::COUNT];
        terms[Term::Reconstruction.index()] = self.reconstruction(&batch, branches);
        terms[Term::Latent.index()] =
            terms::latent(self.objective, &batch.codes, &batch.divergences, &self.prior, branches);
        terms[Term::DecoderL2.index()] = self.objective.decoder_l2 / 2.0 * squares;
        terms[Term::Jacobian.index()] = self.objective.jacobian.weight() * norms;
        terms
    }

    fn reconstruction(&self, batch: &Batch, branches: &mut Branches) -> f64 {
        let Inputs { target, weights, .. } = &self.inputs;
        let rows = batch.outputs.iter().zip(target).zip(weights);
        let Some(floor) = self.objective.sigma_floor else {
            let row = |((output, target), weights): ((&Vec<_>, &Vec<_>), &Vec<_>)| {
                terms::row(self.objective, output, target, weights, branches)
            };
            return rows.map(row).sum::<f64>() / target.len() as f64;
        };
        let elements = rows.flat_map(|((output, target), weights)| output.iter().zip(target).zip(weights));
        let squares: f64 = elements.map(|((y, x), weight)| weight * (y - x).powi(2)).sum();
        let count: f64 = weights.iter().flatten().sum();
        let mse = if count > 0.0 { squares / count } else { 0.0 };
        count / target.len() as f64 / 2.0 * (mse + floor).ln()
    }

    /// Appends what one row contributes.
    fn row(&self, params: &[f64], index: usize, batch: &mut Batch, branches: &mut Branches) {
        let mut encoder = network::run(&self.encoder, params, &self.inputs.fed[index], branches);
        let code = match &self.logvar {
            Some(head) => self.sample(head.affine(params, &encoder.last_input), &encoder, index, batch, branches),
            None => self.sparse(&mut encoder, branches),
        };
        let decoder = network::run(&self.decoder, params, &code, branches);
        batch.jacobian.push(self.jacobian(params, index, &encoder, &decoder));
        batch.codes.push(code);
        batch.outputs.push(if self.objective.takes_logits() { decoder.logits } else { decoder.output });
    }

    /// The sampled code of a row.
    fn sample(
        &self,
        logvar: Vec<f64>,
        encoder: &PartOutput,
        index: usize,
        batch: &mut Batch,
        branches: &mut Branches,
    ) -> Vec<f64> {
        let (mut code, mut divergences) = (vec![], vec![]);
        for ((mean, s), eps) in encoder.output.iter().zip(logvar).zip(&self.noise[index]) {
            let variance = terms::variance(s, branches);
            code.push(mean + variance.sqrt() * eps);
            divergences.push((mean.powi(2) + variance - 1.0 - variance.ln()) / 2.0);
        }
        batch.divergences.push(divergences);
        code
    }

    /// The code of a row, with its largest elements alone where the objective says so.
    fn sparse(&self, encoder: &mut PartOutput, branches: &mut Branches) -> Vec<f64> {
        let code = encoder.output.clone();
        let Some(k) = self.objective.top_k else { return code };
        // An element is kept if fewer than k others are larger, or equal and further left.
        let kept = |i: usize| {
            let before = |j: usize| code[j].abs() > code[i].abs() || code[j].abs() == code[i].abs() && j < i;
            (0..code.len()).filter(|j| before(*j)).count() < k
        };
        let kept: Vec<f64> = (0..code.len()).map(|i| f64::from(u8::from(branches.choice(kept(i))))).collect();
        if let Some(slopes) = encoder.slopes.last_mut() {
            slopes.iter_mut().zip(&kept).for_each(|(slope, kept)| *slope *= kept);
        }
        code.iter().zip(kept).map(|(z, kept)| z * kept).collect()
    }

    /// The squared norm that the Jacobian term of a row is proportional to.
    fn jacobian(&self, params: &[f64], index: usize, encoder: &PartOutput, decoder: &PartOutput) -> f64 {
        let latent = self.spec.latent();
        let along_signs = |column: &Vec<f64>| -> f64 {
            column.iter().zip(&self.signs[index]).map(|(j, sign)| j * sign).sum::<f64>().powi(2)
        };
        match self.objective.jacobian {
            Jacobian::None => 0.0,
            Jacobian::GradientPenalty { .. } => {
                let mut slopes = decoder.slopes.clone();
                if self.objective.takes_logits()
                    && let Some(last) = slopes.last_mut()
                {
                    last.fill(1.0);
                }
                network::jacobian(&self.decoder, params, latent, &slopes).iter().map(along_signs).sum()
            }
            Jacobian::Contractive { .. } => {
                let columns = network::jacobian(&self.encoder, params, self.spec.width(), &encoder.slopes);
                match latent <= 16 {
                    true => columns.iter().flatten().map(|j| j.powi(2)).sum(),
                    false => columns.iter().map(along_signs).sum(),
                }
            }
        }
    }
}

fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), DirectError> {
    match expected == found {
        true => Ok(()),
        false => Err(DirectError::Length { what, expected, found }),
    }
}
