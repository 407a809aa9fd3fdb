//! Rung 1: gradients against differences of the loss written straight from the specification.
//!
//! What is reached depends on the loss. Where it is smooth, differences of eighth order over wide steps are
//! good to about 1e-11 of a gradient. Where it has kinks, steps must stay on one smooth piece and so are
//! narrow, and the rounding of the loss leaves about 1e-8.

use cvae_core::{Activation, LayerSpec, Part, Reconstruction};
use cvae_reference::{DirectError, Draw, direct_loss, finite_difference};

use crate::case::Case;
use crate::check::{Check, Requirement};
use crate::checks::gradients::{activation_cases, term_cases};
use crate::compare::within;
use crate::failure::{Failure, Verdict, expect};
use crate::target::Target;

/// Parameters differentiated in a case.
const COORDINATES: usize = 64;
/// Largest relative error of a gradient of a smooth loss.
const SMOOTH_LIMIT: f64 = 1e-9;
/// Largest relative error of a gradient of a loss with kinks.
const KINKED_LIMIT: f64 = 5e-8;
/// Widest step of the differences of a smooth loss; each further one is half of it.
const WIDEST: f64 = 0.08;
/// Steps, and so half the order.
const STEPS: usize = 4;
/// Slopes below this fraction of the largest are compared with that fraction: the rounding of the loss itself,
/// divided by the narrowest step, is an absolute error.
const FLOOR: f64 = 1e-2;

/// Adds `difference::*`, for backends in double precision.
pub(crate) fn add(all: &mut Vec<Check>) {
    for (family, cases) in [("activation", activation_cases()), ("term", term_cases())] {
        for case in cases {
            let kind = if is_smooth(case) { "smooth" } else { "kinked" };
            let name = format!("difference::{kind}::{family}_{}", case.name.replace("::", "_"));
            let check = Check::new(name, move |target| differences(target, case));
            all.push(check.requiring(Requirement::DoublePrecision));
        }
    }
}

/// Whether the loss of a case has no kinks. The clamp of the log-variance is far from every case.
fn is_smooth(case: &Case) -> bool {
    let kinked = |activation| matches!(activation, Activation::Relu | Activation::LeakyRelu | Activation::Elu);
    let layers = [Part::Encoder, Part::Decoder].into_iter().flat_map(|part| case.plan.spec.layers(part));
    let mut activations = layers.map(LayerSpec::activation);
    let term = matches!(case.plan.objective.reconstruction, Reconstruction::L1 | Reconstruction::Huber { .. });
    !term && !activations.any(kinked)
}

fn differences(target: &Target<'_>, case: &Case) -> Verdict {
    let mut probe = case.probe(target.backend)?;
    let gradients = probe.gradients(&case.batch())?;
    let coordinates: Vec<usize> = spread(gradients.len(), COORDINATES).collect();
    let chosen: Vec<f64> = coordinates.iter().map(|index| gradients[*index]).collect();
    let inputs = Inputs::new(case);
    let failed = |error: DirectError| Failure::Expectation { expected: "a loss".to_owned(), found: error.to_string() };
    let (error, limit, usable) = if is_smooth(case) {
        let slopes = inputs.smooth(&coordinates).map_err(failed)?;
        (worst_relative_error(&chosen, &slopes), SMOOTH_LIMIT, coordinates.len())
    } else {
        let plan = &case.plan;
        let Inputs { params, rows, draw, .. } = &inputs;
        let found = finite_difference(&plan.spec, &plan.objective, &plan.params, params, rows, *draw, &coordinates);
        let found = found.map_err(failed)?;
        (found.worst_relative_error(&chosen), KINKED_LIMIT, coordinates.len() - found.stepped_over)
    };
    expect(usable * 10 >= coordinates.len() * 9, "nine of ten coordinates away from kinks", || usable.to_string())?;
    within("the gradient against finite differences", error, limit, || format!("over {usable} coordinates"))
}

fn worst_relative_error(found: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0f64, |largest, slope| largest.max(slope.abs()));
    let errors = found.iter().zip(expected).map(|(f, e)| (f - e).abs() / f.abs().max(e.abs()).max(FLOOR * largest));
    errors.fold(0.0, |worst: f64, error| if error.is_nan() { f64::NAN } else { worst.max(error) })
}

/// `count` indices spread over `0..len`, both ends included.
fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |i| if count == 1 { 0 } else { i * (len - 1) / (count - 1) })
}

/// A case in double precision.
struct Inputs<'a> {
    case: &'a Case,
    params: Vec<f64>,
    rows: Vec<f64>,
    draw: Draw,
}

impl<'a> Inputs<'a> {
    fn new(case: &'a Case) -> Self {
        let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
        let draw = Draw { seed: case.plan.seed, epoch: case.epoch, first_row: case.first_row };
        Self { case, params: wide(&case.params), rows: wide(&case.rows), draw }
    }

    fn loss(&self, params: &[f64]) -> Result<f64, DirectError> {
        let plan = &self.case.plan;
        let terms = direct_loss(&plan.spec, &plan.objective, &plan.params, params, &self.rows, self.draw)?;
        Ok(terms.iter().sum())
    }

    /// Slopes of a smooth loss: central differences over four halved steps, extrapolated to a step of 0
    /// (Richardson).
    fn smooth(&self, coordinates: &[usize]) -> Result<Vec<f64>, DirectError> {
        let mut params = self.params.clone();
        let mut slope = |index: usize| -> Result<f64, DirectError> {
            let centre = params[index];
            let mut table = [0.0; STEPS];
            for (step, entry) in table.iter_mut().enumerate() {
                let width = WIDEST * 0.5f64.powi(step as i32);
                let mut at = |value: f64| {
                    params[index] = value;
                    self.loss(&params)
                };
                let (above, below) = (centre + width, centre - width);
                *entry = (at(above)? - at(below)?) / (above - below);
            }
            params[index] = centre;
            for order in 1..STEPS {
                let factor = 4f64.powi(order as i32);
                for step in (order..STEPS).rev() {
                    table[step] = (factor * table[step] - table[step - 1]) / (factor - 1.0);
                }
            }
            Ok(table[STEPS - 1])
        };
        coordinates.iter().map(|index| slope(*index)).collect()
    }
}
