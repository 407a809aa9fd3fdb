//! Fitting a mixture by expectation maximisation.

use rayon::prelude::*;

use super::gmm::{Gmm, log_sum_exp};
use super::kmeans::{nearest, spread_centers};
use super::{Covariance, DensityError, FitOptions};
use crate::linalg::{add_transposed_product, cholesky, from_eigen, symmetric_eigen, trace};
use crate::random::{Purpose, indices, stream};

/// Rows handled at a time.
const BLOCK_ROWS: usize = 512;
/// A component that explains fewer codes than this is empty.
const EMPTY: f64 = 1.0;
/// Steps of every start before the starts are compared.
const START_ITERATIONS: usize = 20;
/// Responsibilities whose logarithm is below this count as zero, which spares most of the work.
const NEGLIGIBLE: f64 = -32.0;

/// How a fit went.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trace {
    /// Mean log-likelihood of a standardised row before every step; falls at most at a re-seeding.
    pub(crate) log_likelihoods: Vec<f64>,
    /// Steps after which an empty component was moved.
    pub(crate) reseeded: Vec<usize>,
    /// Whether the last change was below the tolerance.
    pub(crate) converged: bool,
}

/// What stays fixed during a fit.
struct Problem<'a> {
    /// Standardised, `[rows, latent]`.
    rows: &'a [f64],
    latent: usize,
    shape: Covariance,
    /// Smallest eigenvalue of a covariance.
    floor: f64,
    /// Mean variance of a dimension.
    spread: f64,
}

/// Fits `components` Gaussians to standardised rows: short runs from several starts on a subset of the
/// rows, then the best of them on all rows until it settles.
pub(crate) fn fit(
    rows: &[f64],
    latent: usize,
    shape: Covariance,
    components: usize,
    options: &FitOptions,
) -> Result<(Gmm, Trace), DensityError> {
    let count = rows.len() / latent;
    if count < components {
        return Err(DensityError::TooFewRows { needed: components, rows: count });
    }
    let mut chosen = indices(&mut stream(options.seed, Purpose::Rows, 0), count, options.start_rows.max(components));
    chosen.sort_unstable();
    let subset: Vec<f64> = chosen.iter().flat_map(|&row| &rows[row * latent..][..latent]).copied().collect();
    let problem = Problem::new(&subset, latent, shape, options);
    let short = FitOptions { max_iterations: options.max_iterations.min(START_ITERATIONS), ..options.clone() };
    let mut best: Option<(Gmm, Trace)> = None;
    for restart in 0..options.restarts {
        let centers = spread_centers(&subset, latent, components, options.seed, restart as u64);
        let found = problem.iterate(problem.start(&centers)?, &short)?;
        let better = |best: &(Gmm, Trace)| last(&found.1) > last(&best.1);
        if best.as_ref().is_none_or(better) {
            best = Some(found);
        }
    }
    match best {
        Some((gmm, _)) if subset.len() < rows.len() => Problem::new(rows, latent, shape, options).iterate(gmm, options),
        Some(found) => Ok(found),
        None => Err(DensityError::Option { name: "restarts", range: "at least 1" }),
    }
}

/// Mean log-likelihood that a fit ended with.
pub(crate) fn last(trace: &Trace) -> f64 {
    trace.log_likelihoods.last().copied().unwrap_or(f64::NEG_INFINITY)
}

impl<'a> Problem<'a> {
    fn new(rows: &'a [f64], latent: usize, shape: Covariance, options: &FitOptions) -> Self {
        // Standardised rows have mean 0 and variance 1 but for a subset's noise and constant dimensions.
        let spread = rows.iter().map(|value| value * value).sum::<f64>() / rows.len() as f64;
        let spread = if spread > 0.0 { spread } else { 1.0 };
        Self { rows, latent, shape, floor: options.covariance_floor * spread, spread }
    }

    fn count(&self) -> usize {
        self.rows.len() / self.latent
    }

    /// One component round each centre, from the rows nearest to it. Covariances are drawn towards the
    /// spread of all rows, so that a cluster of few rows starts with a regular one.
    fn start(&self, centers: &[f64]) -> Result<Gmm, DensityError> {
        let components = centers.len() / self.latent;
        let mut responsibilities = vec![0.0; self.count() * components];
        for (row, out) in self.rows.chunks_exact(self.latent).zip(responsibilities.chunks_exact_mut(components)) {
            out[nearest(row, centers).0] = 1.0;
        }
        let prior = (self.latent + 1) as f64;
        let parts: Vec<Component> = (0..components)
            .into_par_iter()
            .map(|component| {
                let mut part = self.component(&responsibilities, components, component);
                part.covariance.iter_mut().for_each(|value| *value *= part.weight / (part.weight + prior));
                let shift = self.spread * prior / (part.weight + prior);
                let diagonal_step = self.diagonal_step();
                part.covariance.iter_mut().step_by(diagonal_step).for_each(|value| *value += shift);
                part
            })
            .collect();
        self.assemble(parts)
    }

    /// Alternates expectation and maximisation until the likelihood settles.
    fn iterate(&self, start: Gmm, options: &FitOptions) -> Result<(Gmm, Trace), DensityError> {
        let mut gmm = start;
        let mut trace = Trace { log_likelihoods: Vec::new(), reseeded: Vec::new(), converged: false };
        let mut moves_left = 3 * gmm.components();
        for step in 0..options.max_iterations {
            let (responsibilities, log_densities) = self.expectation(&gmm);
            let mean = log_densities.iter().sum::<f64>() / log_densities.len() as f64;
            let settled = (mean - last(&trace)).abs() < options.tolerance;
            trace.log_likelihoods.push(mean);
            if settled && trace.reseeded.last() != Some(&step.saturating_sub(1)) {
                trace.converged = true;
                return Ok((gmm, trace));
            }
            let before = moves_left;
            gmm = self.maximization(&gmm, &responsibilities, &log_densities, &mut moves_left)?;
            if moves_left < before {
                trace.reseeded.push(step);
            }
        }
        let (_, log_densities) = self.expectation(&gmm);
        trace.log_likelihoods.push(log_densities.iter().sum::<f64>() / log_densities.len() as f64);
        Ok((gmm, trace))
    }

    /// Responsibilities `[rows, components]` and the log-density of every row.
    fn expectation(&self, gmm: &Gmm) -> (Vec<f64>, Vec<f64>) {
        let components = gmm.components();
        let mut responsibilities = vec![0.0; self.count() * components];
        let mut log_densities = vec![0.0; self.count()];
        self.rows
            .par_chunks(BLOCK_ROWS * self.latent)
            .zip(responsibilities.par_chunks_mut(BLOCK_ROWS * components))
            .zip(log_densities.par_chunks_mut(BLOCK_ROWS))
            .for_each(|((rows, responsibilities), log_densities)| {
                responsibilities.copy_from_slice(&gmm.joint_log_densities(rows));
                for (joint, log_density) in responsibilities.chunks_exact_mut(components).zip(log_densities) {
                    *log_density = log_sum_exp(joint);
                    for value in joint {
                        let share = *value - *log_density;
                        *value = if share > NEGLIGIBLE { share.exp() } else { 0.0 };
                    }
                }
            });
        (responsibilities, log_densities)
    }

    /// The mixture of largest likelihood under the responsibilities and the covariance floor. An empty
    /// component moves to the least likely row while moves are left, and keeps its place after that.
    fn maximization(
        &self,
        gmm: &Gmm,
        responsibilities: &[f64],
        log_densities: &[f64],
        moves_left: &mut usize,
    ) -> Result<Gmm, DensityError> {
        let components = gmm.components();
        let mut parts: Vec<Component> = (0..components)
            .into_par_iter()
            .map(|component| self.component(responsibilities, components, component))
            .collect();
        let mut unlikely: Vec<usize> = Vec::new();
        for (component, part) in parts.iter_mut().enumerate().filter(|(_, part)| part.weight < EMPTY) {
            if *moves_left == 0 {
                part.keep(gmm, component);
                continue;
            }
            *moves_left -= 1;
            if unlikely.is_empty() {
                unlikely = (0..self.count()).collect();
                unlikely.sort_by(|&a, &b| log_densities[b].total_cmp(&log_densities[a]));
            }
            if let Some(row) = unlikely.pop() {
                *part = self.seeded(row, components);
            }
        }
        self.assemble(parts)
    }

    /// A round component at one row, with an average share of the weight.
    fn seeded(&self, row: usize, components: usize) -> Component {
        let mut covariance = vec![0.0; self.covariance_len()];
        covariance.iter_mut().step_by(self.diagonal_step()).for_each(|value| *value = self.spread);
        Component {
            weight: self.count() as f64 / components as f64,
            mean: self.rows[row * self.latent..][..self.latent].to_vec(),
            covariance,
        }
    }

    /// Weighted count, mean and covariance of one component.
    fn component(&self, responsibilities: &[f64], components: usize, component: usize) -> Component {
        let members: Vec<(&[f64], f64)> = self
            .rows
            .chunks_exact(self.latent)
            .zip(responsibilities.iter().skip(component).step_by(components).copied())
            .filter(|(_, weight)| *weight > 0.0)
            .collect();
        let weight: f64 = members.iter().map(|(_, weight)| weight).sum();
        let scale = if weight > 0.0 { weight.recip() } else { 0.0 };
        let mut mean = vec![0.0; self.latent];
        for (row, weight) in &members {
            mean.iter_mut().zip(*row).for_each(|(sum, value)| *sum += weight * value);
        }
        mean.iter_mut().for_each(|value| *value *= scale);
        let mut covariance = vec![0.0; self.covariance_len()];
        match self.shape {
            Covariance::Full => {
                let mut scaled = Vec::with_capacity(BLOCK_ROWS * self.latent);
                for members in members.chunks(BLOCK_ROWS) {
                    scaled.clear();
                    for (row, weight) in members {
                        let root = weight.sqrt();
                        scaled.extend(row.iter().zip(&mean).map(|(value, mean)| root * (value - mean)));
                    }
                    let scaled = (scaled.as_slice(), self.latent);
                    add_transposed_product(scaled, scaled, &mut covariance);
                }
            }
            Covariance::Diagonal => {
                for (row, weight) in &members {
                    for ((sum, value), mean) in covariance.iter_mut().zip(*row).zip(&mean) {
                        *sum += weight * (value - mean) * (value - mean);
                    }
                }
            }
        }
        covariance.iter_mut().for_each(|value| *value *= scale);
        Component { weight, mean, covariance }
    }

    fn covariance_len(&self) -> usize {
        match self.shape {
            Covariance::Full => self.latent * self.latent,
            Covariance::Diagonal => self.latent,
        }
    }

    /// Distance between diagonal entries in a component's covariance.
    fn diagonal_step(&self) -> usize {
        match self.shape {
            Covariance::Full => self.latent + 1,
            Covariance::Diagonal => 1,
        }
    }

    fn assemble(&self, parts: Vec<Component>) -> Result<Gmm, DensityError> {
        let total: f64 = parts.iter().map(|part| part.weight).sum();
        let weights = parts.iter().map(|part| part.weight / total).collect();
        let means = parts.iter().flat_map(|part| &part.mean).copied().collect();
        let mut covariances = Vec::with_capacity(parts.len() * self.covariance_len());
        for (component, part) in parts.into_iter().enumerate() {
            let floored = floored(part.covariance, self.shape, self.latent, self.floor);
            covariances.extend(floored.ok_or(DensityError::Factorization { component })?);
        }
        Gmm::from_covariances(self.shape, weights, means, &covariances)
    }
}

/// One component while it is being fitted: weight in rows, mean, covariance or variances.
struct Component {
    weight: f64,
    mean: Vec<f64>,
    covariance: Vec<f64>,
}

impl Component {
    /// Takes mean and covariance of a fitted component, so that an empty one stays where it was.
    fn keep(&mut self, gmm: &Gmm, component: usize) {
        let latent = gmm.latent();
        self.mean = gmm.means()[component * latent..][..latent].to_vec();
        if let Some(covariance) = gmm.covariance(component) {
            self.covariance = match gmm.covariance_shape() {
                Covariance::Full => covariance,
                Covariance::Diagonal => covariance.into_iter().step_by(latent + 1).collect(),
            };
        }
    }
}

/// The covariance with eigenvalues below `floor` raised to it: the one of largest likelihood among those
/// that have no smaller eigenvalue. `None` when the eigenvalue iteration fails.
pub(crate) fn floored(mut covariance: Vec<f64>, shape: Covariance, latent: usize, floor: f64) -> Option<Vec<f64>> {
    if shape == Covariance::Diagonal {
        covariance.iter_mut().for_each(|variance| *variance = variance.max(floor));
        return Some(covariance);
    }
    let mut lowered = covariance.clone();
    lowered.iter_mut().step_by(latent + 1).for_each(|diagonal| *diagonal -= floor);
    if cholesky(&lowered, latent).is_some() {
        return Some(covariance);
    }
    // The floor must be above the rounding of the largest eigenvalue for the result to have a factor.
    let floor = floor.max(1e-13 * trace(&covariance, latent));
    let (mut values, vectors) = symmetric_eigen(covariance, latent)?;
    values.iter_mut().for_each(|value| *value = value.max(floor));
    Some(from_eigen(&values, &vectors, latent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal_rows;
    use proptest::prelude::*;

    /// Three well separated clusters in the plane: weights ½, ¼, ¼.
    fn clusters(rows: usize) -> Vec<f64> {
        let noise = normal_rows(11, Purpose::PriorRows, rows, 2);
        let centers = [[0.0, 0.0], [0.0, 0.0], [8.0, 0.0], [0.0, 8.0]];
        noise
            .chunks_exact(2)
            .enumerate()
            .flat_map(|(row, noise)| {
                let [x, y] = centers[row % 4];
                [x + noise[0], y + 0.5 * noise[0] + noise[1]]
            })
            .collect()
    }

    #[test]
    fn recovers_separated_clusters() {
        let rows = clusters(8000);
        let (gmm, trace) = fit(&rows, 2, Covariance::Full, 3, &FitOptions::default()).unwrap();
        assert!(trace.converged);
        let mut order: Vec<usize> = (0..3).collect();
        order.sort_by(|&a, &b| (gmm.means()[2 * a]).total_cmp(&gmm.means()[2 * b]));
        let right = order[2];
        assert!((gmm.weights()[right] - 0.25).abs() < 0.01);
        assert!((gmm.means()[2 * right] - 8.0).abs() < 0.1);
        let covariance = gmm.covariance(right).unwrap();
        for (found, expected) in covariance.iter().zip([1.0, 0.5, 0.5, 1.25]) {
            assert!((found - expected).abs() < 0.12, "{covariance:?}");
        }
        assert!((gmm.weights().iter().copied().fold(0.0, f64::max) - 0.5).abs() < 0.01);
    }

    #[test]
    fn one_component_is_mean_and_covariance() {
        let rows = clusters(501);
        let (gmm, _) = fit(&rows, 2, Covariance::Full, 1, &FitOptions::default()).unwrap();
        let mean = |column: usize| rows.iter().skip(column).step_by(2).sum::<f64>() / 501.0;
        let means = [mean(0), mean(1)];
        for column in 0..2 {
            assert!((gmm.means()[column] - means[column]).abs() < 1e-12);
            for other in 0..2 {
                let expected =
                    rows.chunks(2).map(|row| (row[column] - means[column]) * (row[other] - means[other])).sum::<f64>()
                        / 501.0;
                assert!((gmm.covariance(0).unwrap()[2 * column + other] - expected).abs() < 1e-10);
            }
        }
    }

    #[test]
    fn components_beyond_the_distinct_rows_do_no_harm() {
        let rows = [0.0, 0.0, 0.0, 5.0, 5.0, 5.0];
        for shape in [Covariance::Full, Covariance::Diagonal] {
            let (gmm, trace) = fit(&rows, 1, shape, 5, &FitOptions::default()).unwrap();
            assert!((gmm.weights().iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(last(&trace).is_finite());
        }
        let identical = [2.0; 8];
        let (gmm, _) = fit(&identical, 2, Covariance::Full, 2, &FitOptions::default()).unwrap();
        assert!(gmm.joint_log_densities(&identical).iter().any(|value| value.is_finite()));
    }

    #[test]
    fn an_empty_component_moves_to_the_least_likely_row() {
        let rows = clusters(400);
        let options = FitOptions::default();
        let problem = Problem::new(&rows, 2, Covariance::Full, &options);
        // The second component starts far from every row and explains none.
        let identity = [1.0, 0.0, 0.0, 1.0];
        let start = Gmm::from_covariances(
            Covariance::Full,
            vec![0.5, 0.5],
            vec![0.0, 0.0, 900.0, 900.0],
            &[identity, identity].concat(),
        )
        .unwrap();
        let (gmm, trace) = problem.iterate(start, &options).unwrap();
        assert_eq!(trace.reseeded.first(), Some(&0));
        assert!(gmm.weights().iter().all(|&weight| weight > 0.1), "{:?}", gmm.weights());
        assert!(gmm.means().iter().all(|mean| mean.abs() < 20.0));
    }

    #[test]
    fn flooring_raises_small_eigenvalues_and_keeps_the_rest() {
        let covariance = vec![1.0, 1.0, 1.0, 1.0];
        let floored_covariance = floored(covariance, Covariance::Full, 2, 0.1).unwrap();
        let (values, _) = symmetric_eigen(floored_covariance, 2).unwrap();
        assert!((values[0] - 2.0).abs() < 1e-12 && (values[1] - 0.1).abs() < 1e-12);
        let regular = vec![2.0, 0.5, 0.5, 1.0];
        assert_eq!(floored(regular.clone(), Covariance::Full, 2, 0.1).unwrap(), regular);
        assert_eq!(floored(vec![0.0, 3.0], Covariance::Diagonal, 2, 0.1).unwrap(), [0.1, 3.0]);
    }

    #[test]
    fn threads_do_not_change_the_fit() {
        let rows = clusters(3000);
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| fit(&rows, 2, Covariance::Full, 4, &FitOptions::default()).unwrap())
        };
        assert_eq!(on(1), on(3));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_likelihood_never_falls(
            seed in any::<u64>(),
            latent in 1usize..5,
            components in 1usize..6,
            diagonal in any::<bool>(),
            discrete in any::<bool>(),
            floor in prop::sample::select(vec![1e-6, 1e-2, 0.5]),
        ) {
            let mut rows = normal_rows(seed, Purpose::PriorRows, 120, latent);
            for (index, value) in rows.iter_mut().enumerate() {
                *value += 4.0 * ((index / latent) % 3) as f64;
                if discrete {
                    *value = value.round();
                }
            }
            let shape = if diagonal { Covariance::Diagonal } else { Covariance::Full };
            let options =
                FitOptions { seed, covariance_floor: floor, tolerance: 1e-9, max_iterations: 60, ..FitOptions::default() };
            let problem = Problem::new(&rows, latent, shape, &options);
            let centers = spread_centers(&rows, latent, components, seed, 0);
            let (_, trace) = problem.iterate(problem.start(&centers).unwrap(), &options).unwrap();
            for (step, pair) in trace.log_likelihoods.windows(2).enumerate().skip(1) {
                if !trace.reseeded.contains(&step) {
                    prop_assert!(pair[1] >= pair[0] - 1e-9, "step {step}: {pair:?}");
                }
            }
        }
    }
}
