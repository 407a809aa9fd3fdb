//! Rung 1: gradients against differences of the loss written straight from the specification.
//!
//! Each difference stays on the smooth piece of the loss that the point lies on (see
//! [`finite_difference`]), so that kinks do not limit its width.

use cvae_reference::{Draw, finite_difference};

use crate::case::Case;
use crate::check::{Check, Requirement};
use crate::checks::gradients::{activation_cases, term_cases};
use crate::compare::within;
use crate::failure::{Failure, Verdict, expect};
use crate::family::{self, Member};
use crate::target::Target;

/// Parameters differentiated in a case.
const COORDINATES: usize = 64;
/// Largest relative error of a gradient.
const LIMIT: f64 = 1e-9;
/// Slopes below this fraction of the largest are compared with that fraction: the rounding of the loss itself,
/// divided by the narrowest step, is an absolute error.
const FLOOR: f64 = 1e-2;

/// Adds `difference::*`, for backends in double precision.
pub(crate) fn add(all: &mut Vec<Check>) {
    let named = |family: &'static str, cases: &'static [Case]| {
        cases.iter().map(move |case| (family, case.name.replace("::", "_"), case))
    };
    let members = family::members().iter();
    let members = members.map(|Member { objective, case }| ("family", format!("{objective}_{}", case.name), case));
    let cases = named("activation", activation_cases()).chain(named("term", term_cases())).chain(members);
    for (family, name, case) in cases {
        let check = Check::new(format!("difference::{family}::{name}"), move |target| differences(target, case));
        all.push(check.requiring(Requirement::DoublePrecision));
    }
}

fn differences(target: &Target<'_>, case: &Case) -> Verdict {
    let mut probe = case.probe(target.backend)?;
    let gradients = probe.gradients(&case.batch())?;
    let coordinates: Vec<usize> = spread(gradients.len(), COORDINATES).collect();
    let wide = |values: &[f32]| values.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
    let plan = &case.plan;
    let draw = Draw { seed: plan.seed, epoch: case.epoch, first_row: case.first_row };
    let (params, rows) = (wide(&case.params), wide(&case.rows));
    let found = finite_difference(&plan.spec, &plan.objective, &plan.params, &params, &rows, draw, &coordinates);
    let found = found.map_err(|error| Failure::Expectation {
        expected: "the derivatives of a loss".to_owned(),
        found: error.to_string(),
    })?;
    let usable = coordinates.len() - found.stepped_over;
    expect(usable * 10 >= coordinates.len() * 9, "nine of ten coordinates off kinks", || usable.to_string())?;
    let chosen: Vec<f64> = coordinates.iter().map(|index| gradients[*index]).collect();
    let error = worst_relative_error(&chosen, &found.derivatives);
    within("the gradient against finite differences", error, LIMIT, || format!("over {usable} coordinates"))
}

fn worst_relative_error(found: &[f64], expected: &[Option<f64>]) -> f64 {
    let largest = expected.iter().flatten().fold(0.0f64, |largest, slope| largest.max(slope.abs()));
    let pairs = found.iter().zip(expected).filter_map(|(found, expected)| Some((*found, (*expected)?)));
    let error = |(f, e): (f64, f64)| match (f - e).abs() {
        0.0 => 0.0,
        difference => difference / f.abs().max(e.abs()).max(FLOOR * largest),
    };
    pairs.map(error).fold(0.0, |worst: f64, error| if error.is_nan() { f64::NAN } else { worst.max(error) })
}

/// `count` indices spread over `0..len`, both ends included.
fn spread(len: usize, count: usize) -> impl Iterator<Item = usize> {
    let count = count.min(len);
    (0..count).map(move |i| if count == 1 { 0 } else { i * (len - 1) / (count - 1) })
}
