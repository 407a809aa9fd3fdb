//! Numerical derivatives of [`direct_loss`](crate::direct_loss).

use cvae_core::{ModelSpec, Objective, ParamLayout};

use crate::direct::{Branches, DirectError, Draw, Problem};

/// Half the width of the widest difference, relative to `max(1, |θ|)`.
const WIDTH: f64 = 0.32;

/// Differences of a derivative, each half as wide as the one before.
const DIFFERENCES: usize = 7;

/// Derivatives of the loss by some of its parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Differences {
    /// One per coordinate asked for; `None` where the point lies exactly on a kink in that direction.
    pub derivatives: Vec<Option<f64>>,
    /// How many coordinates have no derivative, and are stepped over.
    pub stepped_over: usize,
    /// How many derivatives were found although a kink lies within the width of their differences.
    pub crossed_kink: usize,
}

impl Differences {
    /// The largest relative error of `gradients`, one per coordinate in the same order, over the coordinates
    /// that have a derivative.
    ///
    /// An error is relative to the larger of the two derivatives compared, or to a thousandth of the largest
    /// derivative of all where both are smaller: below that the rounding of the loss itself dominates. NaN if
    /// any value is NaN.
    pub fn worst_relative_error(&self, gradients: &[f64]) -> f64 {
        let largest = self.derivatives.iter().flatten().fold(0.0f64, |largest, d| largest.max(d.abs()));
        let mut worst = 0.0f64;
        for (derivative, gradient) in self.derivatives.iter().zip(gradients) {
            let Some(derivative) = derivative else { continue };
            let error = (gradient - derivative).abs();
            let scale = derivative.abs().max(gradient.abs()).max(1e-3 * largest);
            let relative = if error == 0.0 { 0.0 } else { error / scale };
            worst = if relative.is_nan() || worst.is_nan() { f64::NAN } else { worst.max(relative) };
        }
        worst
    }
}

/// Differentiates the total [`direct_loss`](crate::direct_loss) by the parameters `coordinates`, by central
/// differences in `f64` of several widths, extrapolated to a width of 0.
///
/// The loss has kinks (relu, leaky_relu, elu, absolute values, Huber, bounds, the choice of the largest). All points of a
/// difference are evaluated on the smooth piece that `params` lies on, continued past its end where need be, so
/// that the derivative is exact however near a kink is. A coordinate is stepped over only if `params` lies
/// exactly on a kink in its direction. The arguments are those of [`direct_loss`](crate::direct_loss).
///
/// # Errors
/// As [`direct_loss`](crate::direct_loss), and a coordinate beyond the parameters.
pub fn finite_difference(
    spec: &ModelSpec,
    objective: &Objective,
    layout: &ParamLayout,
    params: &[f64],
    rows: &[f64],
    draw: Draw,
    coordinates: &[usize],
) -> Result<Differences, DirectError> {
    let problem = Problem::new(spec, objective, layout, rows, draw)?;
    problem.check_params(params)?;
    if let Some(&coordinate) = coordinates.iter().find(|coordinate| **coordinate >= params.len()) {
        return Err(DirectError::Coordinate { coordinate, params: params.len() });
    }
    let mut branches = Branches::default();
    problem.loss(params, &mut branches);
    let mut point = Point { problem, params: params.to_vec(), branches };
    let mut found = Differences { derivatives: vec![], stepped_over: 0, crossed_kink: 0 };
    for coordinate in coordinates {
        let mut width = WIDTH * point.params[*coordinate].abs().max(1.0);
        let differences = [(); DIFFERENCES].map(|()| {
            let difference = point.central(*coordinate, width);
            width /= 2.0;
            difference
        });
        let slope = extrapolate(&differences.each_ref().map(|difference| difference.slope));
        let differentiable = differences.iter().all(|difference| !difference.off_kink);
        found.derivatives.push(differentiable.then_some(slope));
        found.stepped_over += usize::from(!differentiable);
        found.crossed_kink += usize::from(differentiable && differences.iter().any(|difference| difference.crossed));
    }
    Ok(found)
}

/// The limit of `slopes`, each of half the width of the one before (Ridders, "Accurate computation of F'(x) and
/// F'(x) F''(x)", Advances in Engineering Software 4, 1982).
///
/// Each round of the extrapolation removes the leading term of the error. Of all of its values the one is taken
/// that differs least from the two it was made of: wide differences for a loss that is nearly a polynomial, where
/// rounding is the larger error, and narrow ones where it curves sharply.
fn extrapolate(slopes: &[f64]) -> f64 {
    let mut best = (f64::INFINITY, slopes.first().copied().unwrap_or(0.0));
    let mut before: Vec<f64> = vec![];
    for slope in slopes {
        let mut round = vec![*slope];
        let mut factor = 1.0;
        for wider in &before {
            factor *= 4.0;
            let narrower = round[round.len() - 1];
            let value = (factor * narrower - wider) / (factor - 1.0);
            let error = (value - narrower).abs().max((value - wider).abs());
            if error < best.0 {
                best = (error, value);
            }
            round.push(value);
        }
        before = round;
    }
    best.1
}

/// A point of the parameter space, and the smooth piece of the loss that it lies on.
struct Point<'a> {
    problem: Problem<'a>,
    params: Vec<f64>,
    branches: Branches,
}

/// One central difference.
struct Central {
    slope: f64,
    crossed: bool,
    off_kink: bool,
}

impl Point<'_> {
    /// `(f(θ + h) − f(θ − h)) / 2h`, with the distance between the two points as rounded.
    fn central(&mut self, coordinate: usize, width: f64) -> Central {
        let centre = self.params[coordinate];
        let (above, below) = (centre + width, centre - width);
        let (mut crossed, mut off_kink) = (false, false);
        let mut loss_at = |value| {
            self.params[coordinate] = value;
            self.branches.replay();
            let loss: f64 = self.problem.loss(&self.params, &mut self.branches).iter().sum();
            crossed |= self.branches.crossed;
            off_kink |= self.branches.off_kink;
            loss
        };
        let slope = (loss_at(above) - loss_at(below)) / (above - below);
        self.params[coordinate] = centre;
        Central { slope, crossed, off_kink }
    }
}
