//! Limited-memory BFGS for smooth convex functions of moderate size (Nocedal, Wright 2006, ch. 7).

/// Number of remembered steps.
const MEMORY: usize = 10;
/// Wolfe constants: sufficient decrease and curvature.
const DECREASE: f64 = 1e-4;
const CURVATURE: f64 = 0.9;

/// Where the iteration ended.
#[derive(Clone, Debug)]
pub(crate) struct Minimum {
    pub(crate) point: Vec<f64>,
    pub(crate) iterations: usize,
    /// Whether every entry of the gradient fell below the tolerance.
    pub(crate) converged: bool,
}

/// Minimises `function`, which returns its value and writes its gradient, from `start` until the largest
/// entry of the gradient is at most `tolerance` or `iterations` steps are made.
pub(crate) fn minimize(
    mut function: impl FnMut(&[f64], &mut [f64]) -> f64,
    start: Vec<f64>,
    tolerance: f64,
    iterations: usize,
) -> Minimum {
    let mut point = start;
    let mut gradient = vec![0.0; point.len()];
    let mut value = function(&point, &mut gradient);
    // (step, change of gradient, 1/⟨step, change⟩), oldest first.
    let mut memory: Vec<(Vec<f64>, Vec<f64>, f64)> = Vec::with_capacity(MEMORY);
    for iteration in 0..iterations {
        if gradient.iter().all(|entry| entry.abs() <= tolerance) {
            return Minimum { point, iterations: iteration, converged: true };
        }
        let direction = descent(&gradient, &memory);
        let Some((next, next_value, next_gradient)) = line_search(&mut function, &point, value, &gradient, &direction)
        else {
            return Minimum { point, iterations: iteration, converged: false };
        };
        let step: Vec<f64> = next.iter().zip(&point).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            if memory.len() == MEMORY {
                memory.remove(0);
            }
            memory.push((step, change, curvature.recip()));
        }
        (point, value, gradient) = (next, next_value, next_gradient);
    }
    let converged = gradient.iter().all(|entry| entry.abs() <= tolerance);
    Minimum { point, iterations, converged }
}

/// The two-loop recursion; minus the normalised gradient without memory.
fn descent(gradient: &[f64], memory: &[(Vec<f64>, Vec<f64>, f64)]) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|entry| -entry).collect();
    let mut weights = Vec::with_capacity(memory.len());
    for (step, change, inverse) in memory.iter().rev() {
        let weight = inverse * dot(step, &direction);
        add_scaled(&mut direction, -weight, change);
        weights.push(weight);
    }
    let scale = match memory.last() {
        Some((_, change, inverse)) => 1.0 / (inverse * dot(change, change)),
        None => 1.0 / dot(gradient, gradient).sqrt(),
    };
    direction.iter_mut().for_each(|entry| *entry *= scale);
    for ((step, change, inverse), weight) in memory.iter().zip(weights.iter().rev()) {
        let correction = weight - inverse * dot(change, &direction);
        add_scaled(&mut direction, correction, step);
    }
    direction
}

/// A step that satisfies the weak Wolfe conditions, by doubling and bisection; `None` when rounding
/// leaves no such step.
fn line_search(
    function: &mut impl FnMut(&[f64], &mut [f64]) -> f64,
    point: &[f64],
    value: f64,
    gradient: &[f64],
    direction: &[f64],
) -> Option<(Vec<f64>, f64, Vec<f64>)> {
    let slope = dot(gradient, direction);
    if slope.is_nan() || slope >= 0.0 {
        return None;
    }
    let (mut low, mut high, mut length) = (0.0, f64::INFINITY, 1.0);
    for _ in 0..40 {
        let mut next = point.to_vec();
        add_scaled(&mut next, length, direction);
        let mut next_gradient = vec![0.0; point.len()];
        let next_value = function(&next, &mut next_gradient);
        if next_value.is_nan() || next_value > value + DECREASE * length * slope {
            high = length;
        } else if dot(&next_gradient, direction) < CURVATURE * slope {
            low = length;
        } else {
            return Some((next, next_value, next_gradient));
        }
        length = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * low };
    }
    None
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(a, b)| a * b).sum()
}

fn add_scaled(target: &mut [f64], scale: f64, source: &[f64]) {
    target.iter_mut().zip(source).for_each(|(target, source)| *target += scale * source);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_minimum_of_an_ill_conditioned_quadratic() {
        let scales: Vec<f64> = (0..30).map(|i| 10.0_f64.powf(i as f64 / 12.0)).collect();
        let function = |x: &[f64], gradient: &mut [f64]| {
            let mut value = 0.0;
            for (i, scale) in scales.iter().enumerate() {
                let offset = x[i] - i as f64;
                gradient[i] = scale * offset;
                value += 0.5 * scale * offset * offset;
            }
            value
        };
        let minimum = minimize(function, vec![0.0; 30], 1e-8, 500);
        assert!(minimum.converged, "{minimum:?}");
        for (i, x) in minimum.point.iter().enumerate() {
            assert!((x - i as f64).abs() < 1e-7);
        }
    }

    #[test]
    fn finds_the_minimum_of_a_curved_valley() {
        let function = |x: &[f64], gradient: &mut [f64]| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            gradient[0] = -2.0 * a - 400.0 * x[0] * b;
            gradient[1] = 200.0 * b;
            a * a + 100.0 * b * b
        };
        let minimum = minimize(function, vec![-1.2, 1.0], 1e-9, 200);
        assert!(minimum.converged);
        assert!((minimum.point[0] - 1.0).abs() < 1e-8 && (minimum.point[1] - 1.0).abs() < 1e-8);
    }

    #[test]
    fn says_when_it_was_stopped_early() {
        let function = |x: &[f64], gradient: &mut [f64]| {
            gradient[0] = x[0].exp();
            x[0].exp()
        };
        // No minimum exists: the gradient shrinks for ever.
        let minimum = minimize(function, vec![0.0], 0.0, 5);
        assert!(!minimum.converged);
        assert_eq!(minimum.iterations, 5);
    }
}
