//! Fitting a density and choosing the number of components.

use super::em::{fit as fit_mixture, floored};
use super::{
    Components, Covariance, Density, DensityError, DensitySpec, FitOptions, Gmm, Model, Standardized, Standardizer,
    flow,
};
use crate::Matrix;
use crate::linalg::covariance;
use crate::random::{Purpose, fill_normal, indices, stream};

/// Numbers of components that an automatic choice tries, in this order.
const CANDIDATES: [usize; 9] = [1, 2, 3, 5, 7, 10, 15, 20, 30];

/// Fewest codes that can be divided into some to fit and some to judge by.
const FEWEST_TO_SPLIT: usize = 4;

/// One number of components that was tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Number of components.
    pub components: usize,
    /// Mean log-likelihood of the codes it was fitted on, in nats.
    pub train_log_likelihood: f64,
    /// Mean log-likelihood of the held-out codes, in nats.
    pub held_out_log_likelihood: f64,
    /// Bayesian information criterion on the codes it was fitted on (smaller is better).
    pub bic: f64,
}

/// How a density was fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct FitReport {
    /// Mean log-likelihood of the training codes, in nats.
    pub train_log_likelihood: f64,
    /// Mean log-likelihood of the held-out codes given, in nats.
    pub held_out_log_likelihood: Option<f64>,
    /// Bayesian information criterion `parameters·ln rows − 2·log-likelihood` on the training codes.
    pub bic: f64,
    /// Number of free parameters.
    pub parameters: usize,
    /// Steps of expectation maximisation or of a flow's training, 0 where none is needed.
    pub iterations: usize,
    /// Whether the likelihood settled before the last of the allowed steps.
    pub converged: bool,
    /// Number of steps at which an empty component was moved.
    pub reseeded: usize,
    /// What an automatic choice compared; empty for a fixed number of components.
    pub candidates: Vec<Candidate>,
}

/// A density and how it was fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// The density.
    pub density: Density,
    /// How the fit went.
    pub report: FitReport,
}

impl Density {
    /// Fits the named density to training codes.
    ///
    /// `held_out` codes are reported on, and choose the number of components of `gmm:auto`: the smallest
    /// whose mean log-likelihood is within two standard errors of the largest. Where they are missing,
    /// `gmm:auto` holds out a share of the codes for the choice and fits the chosen number on all.
    /// Candidates, up to 30 components, have one start each; the search stops after two in a row that are
    /// worse than the best. Of fewer than four codes none can be held out: one component is the choice.
    ///
    /// # Errors
    ///
    /// [`DensityError::Option`] for options outside their range, [`DensityError::WidthMismatch`] when the
    /// held-out codes have another latent size, [`DensityError::TooFewRows`] for fewer codes than
    /// components (or fewer than two), [`DensityError::Factorization`] when a covariance has no factor.
    pub fn fit(
        spec: DensitySpec,
        codes: Matrix<'_>,
        held_out: Option<Matrix<'_>>,
        options: &FitOptions,
    ) -> Result<Fitted, DensityError> {
        options.validate()?;
        if let Some(held_out) = held_out.filter(|held_out| held_out.width() != codes.width()) {
            return Err(DensityError::WidthMismatch { expected: codes.width(), found: held_out.width() });
        }
        let mut fitted = match spec {
            DensitySpec::Prior => Fit::without_steps(Self::prior(codes.width())?, 0),
            DensitySpec::Gaussian => gaussian(codes, options)?,
            DensitySpec::Gmm { components: Components::Fixed(components), covariance } => {
                mixture(codes, covariance, components, options)?
            }
            DensitySpec::Gmm { components: Components::Auto, covariance } => {
                automatic(codes, held_out, covariance, options)?
            }
            DensitySpec::Flow => flow(codes, held_out, options)?,
        };
        fitted.report.train_log_likelihood = fitted.density.mean_log_prob(codes)?;
        fitted.report.bic = bic(fitted.report.parameters, codes.rows(), fitted.report.train_log_likelihood);
        if let Some(held_out) = held_out {
            fitted.report.held_out_log_likelihood = Some(fitted.density.mean_log_prob(held_out)?);
        }
        Ok(fitted)
    }
}

/// Shorthand for building a [`Fitted`] before its likelihoods are known.
struct Fit;

impl Fit {
    fn without_steps(density: Density, parameters: usize) -> Fitted {
        let report = FitReport {
            train_log_likelihood: f64::NAN,
            held_out_log_likelihood: None,
            bic: f64::NAN,
            parameters,
            iterations: 0,
            converged: true,
            reseeded: 0,
            candidates: Vec::new(),
        };
        Fitted { density, report }
    }
}

fn bic(parameters: usize, rows: usize, mean_log_likelihood: f64) -> f64 {
    let rows = rows as f64;
    parameters as f64 * rows.ln() - 2.0 * rows * mean_log_likelihood
}

/// Mean and covariance, the latter with the floor.
fn gaussian(codes: Matrix<'_>, options: &FitOptions) -> Result<Fitted, DensityError> {
    at_least(2, codes.rows())?;
    let standardizer = Standardizer::fit(codes);
    let latent = codes.width();
    let mut covariance = covariance(codes, standardizer.mean());
    standardizer.standardize_covariance(&mut covariance);
    let covariance = floored(covariance, Covariance::Full, latent, options.covariance_floor)
        .ok_or(DensityError::Factorization { component: 0 })?;
    let gmm = Gmm::from_covariances(Covariance::Full, vec![1.0], vec![0.0; latent], &covariance)?;
    let parameters = gmm.parameters();
    Ok(Fit::without_steps(Model::Gaussian(Standardized { standardizer, model: gmm }).into(), parameters))
}

fn mixture(
    codes: Matrix<'_>,
    shape: Covariance,
    components: usize,
    options: &FitOptions,
) -> Result<Fitted, DensityError> {
    at_least(2, codes.rows())?;
    let standardizer = Standardizer::fit(codes);
    let rows = standardizer.forward(codes.values());
    let (gmm, trace) = fit_mixture(&rows, codes.width(), shape, components.max(1), options)?;
    let parameters = gmm.parameters();
    let mut fitted = Fit::without_steps(Model::Gmm(Standardized { standardizer, model: gmm }).into(), parameters);
    fitted.report.iterations = trace.log_likelihoods.len() - 1;
    fitted.report.converged = trace.converged;
    fitted.report.reseeded = trace.reseeded.len();
    Ok(fitted)
}

/// Tries growing numbers of components on part of the codes and fits the best on all.
fn automatic(
    codes: Matrix<'_>,
    held_out: Option<Matrix<'_>>,
    shape: Covariance,
    options: &FitOptions,
) -> Result<Fitted, DensityError> {
    if codes.rows() < FEWEST_TO_SPLIT {
        let mut fitted = mixture(codes, shape, 1, options)?;
        fitted.density.automatic = true;
        return Ok(fitted);
    }
    let split = Split::new(codes, held_out.is_some(), options)?;
    let shown = split.train.len().min(options.start_rows.max(2) * codes.width());
    let train = Matrix::new(&split.train[..shown], codes.width())?;
    let held_out = split.held_out(held_out, codes.width())?;
    let single = FitOptions { restarts: 1, ..options.clone() };
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut log_densities: Vec<Vec<f64>> = Vec::new();
    let (mut best, mut worse) = (0, 0);
    for components in CANDIDATES.into_iter().filter(|&components| 2 * components <= train.rows()) {
        let tried = mixture(train, shape, components, &single)?;
        let train_log_likelihood = tried.density.mean_log_prob(train)?;
        let held_out_log_likelihood = tried.density.mean_log_prob(held_out)?;
        let bic = bic(tried.report.parameters, train.rows(), train_log_likelihood);
        log_densities.push(tried.density.log_prob(held_out)?);
        candidates.push(Candidate { components, train_log_likelihood, held_out_log_likelihood, bic });
        if held_out_log_likelihood >= candidates[best].held_out_log_likelihood {
            (best, worse) = (candidates.len() - 1, 0);
        } else {
            worse += 1;
        }
        if worse == 2 {
            break;
        }
    }
    let chosen = log_densities
        .iter()
        .position(|values| indistinguishable(values, &log_densities[best]))
        .map_or(1, |index| candidates[index].components);
    let mut fitted = mixture(codes, shape, chosen, options)?;
    fitted.report.candidates = candidates;
    fitted.density.automatic = true;
    Ok(fitted)
}

/// Trains a flow on part of the codes and keeps the step that is best for the others.
fn flow(codes: Matrix<'_>, held_out: Option<Matrix<'_>>, options: &FitOptions) -> Result<Fitted, DensityError> {
    let split = Split::new(codes, held_out.is_some(), options)?;
    let held_out = split.held_out(held_out, codes.width())?;
    let standardizer = Standardizer::fit(codes);
    let noisy = |codes: &[f32], source: u64| {
        let mut rows = standardizer.forward(codes);
        let mut noise = vec![0.0; rows.len()];
        fill_normal(&mut stream(options.seed, Purpose::Noise, source), &mut noise);
        rows.iter_mut().zip(noise).for_each(|(value, noise)| *value += options.covariance_floor.sqrt() * noise);
        rows
    };
    let (rows, held_out) = (noisy(&split.train, 0), noisy(held_out.values(), 1));
    let (flow, steps, settled) = flow::train(&rows, &held_out, codes.width(), options);
    let parameters = flow.parameters();
    let model = Model::Flow(Standardized { standardizer, model: flow });
    let mut fitted = Fit::without_steps(model.into(), parameters);
    fitted.report.iterations = steps;
    fitted.report.converged = settled;
    Ok(fitted)
}

/// The codes in random order, without the part held out.
struct Split {
    train: Vec<f32>,
    held_out: Vec<f32>,
}

impl Split {
    /// Holds out a share of the codes unless there are held-out codes already.
    fn new(codes: Matrix<'_>, given: bool, options: &FitOptions) -> Result<Self, DensityError> {
        at_least(FEWEST_TO_SPLIT, codes.rows())?;
        let width = codes.width();
        let share = (codes.rows() as f64 * options.held_out_share).ceil() as usize;
        let held_out = if given { 0 } else { share.clamp(1, codes.rows() - 2) };
        let order = indices(&mut stream(options.seed, Purpose::Rows, 1), codes.rows(), codes.rows());
        let (held_out, train) = order.split_at(held_out);
        let gather = |rows: &[usize]| -> Vec<f32> {
            rows.iter().flat_map(|&row| &codes.values()[row * width..][..width]).copied().collect()
        };
        Ok(Self { train: gather(train), held_out: gather(held_out) })
    }

    /// The held-out codes given, or else the part held out.
    fn held_out<'a>(&'a self, given: Option<Matrix<'a>>, width: usize) -> Result<Matrix<'a>, DensityError> {
        match given {
            Some(given) => Ok(given),
            None => Ok(Matrix::new(&self.held_out, width)?),
        }
    }
}

/// Whether the mean of `values` falls short of that of `best` by at most two standard errors of their
/// differences.
fn indistinguishable(values: &[f64], best: &[f64]) -> bool {
    let rows = best.len() as f64;
    let differences = || best.iter().zip(values).map(|(best, value)| best - value);
    let mean = differences().sum::<f64>() / rows;
    let variance = differences().map(|difference| (difference - mean).powi(2)).sum::<f64>() / rows;
    mean <= 2.0 * (variance / rows).sqrt()
}

fn at_least(needed: usize, rows: usize) -> Result<(), DensityError> {
    if rows >= needed { Ok(()) } else { Err(DensityError::TooFewRows { needed, rows }) }
}
