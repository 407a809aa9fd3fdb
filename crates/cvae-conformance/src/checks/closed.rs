//! Rung 3: closed forms, independent of everything written here (docs/MATH.md, "Exact oracles").

use std::sync::{Arc, OnceLock};

use cvae_core::{
    Activation, Batch, Entry, Latent, ModelSpec, Noise, Objective, OptimizerSpec, Param, Plan, Reconstruction,
    Schedule, State, Stream, Term,
};
use nalgebra::DMatrix;

use crate::case::{Case, mlp};
use crate::check::Check;
use crate::compare::{relative, within};
use crate::failure::{Failure, Score, Verdict, expect};
use crate::probe::Probe;
use crate::target::Target;

/// Rows of the linear models' data.
const ROWS: usize = 40;
/// Width of the linear models' data.
const WIDTH: usize = 7;
/// Width of the linear models' code.
const LATENT: usize = 3;
/// Standard deviation of the data along its principal axes.
const SPREAD: [f64; WIDTH] = [3.0, 2.2, 1.6, 0.7, 0.5, 0.3, 0.2];
/// Steps in which the linear models converge.
const STEPS: u64 = 4000;

/// Adds `closed::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    all.push(Check::new("closed::linear_collapsed::singular_values", linear_collapsed));
    all.push(Check::new("closed::linear_autoencoder::is_pca", linear_autoencoder));
    all.push(Check::new("closed::kl::value_and_slope", kl));
    all.push(Check::new("closed::collapsed_prior::value_and_slope", collapsed_prior));
    all.push(Check::new("closed::cross_entropy::at_zero", cross_entropy_at_zero));
    all.push(Check::new("closed::cross_entropy::saturated", cross_entropy_saturated));
    all.push(Check::new("closed::decoder_l2::value_and_slope", decoder_l2));
    for kind in
        [Reconstruction::MseSum, Reconstruction::MseMean, Reconstruction::L1, Reconstruction::Huber { delta: 0.5 }]
    {
        all.push(Check::new(format!("closed::reconstruction::{}", kind.name()), move |t| reconstruction(t, kind)));
    }
    all.push(Check::new("closed::adam::first_step", adam_first_step));
}

/// Data `X = √rows · U diag(SPREAD) Vᵀ` with centred orthonormal `U`.
fn linear_data() -> &'static [f32] {
    static DATA: OnceLock<Vec<f32>> = OnceLock::new();
    DATA.get_or_init(|| {
        let draw = |rows: usize, columns: usize, row: u32| {
            let mut values = vec![0.0; rows * columns];
            Noise::new(17, Stream::Data, 0).normal(row, &mut values);
            DMatrix::from_row_iterator(rows, columns, values.into_iter().map(f64::from))
        };
        // Orthogonal to the column of ones, hence centred.
        let u = draw(ROWS, WIDTH + 1, 0).map_with_location(|_, j, value| if j == 0 { 1.0 } else { value });
        let (u, v) = (u.qr().q(), draw(WIDTH, WIDTH, 1).qr().q());
        let spread = DMatrix::from_fn(WIDTH, WIDTH, |i, j| if i == j { SPREAD[i] } else { 0.0 });
        let x = u.columns(1, WIDTH) * spread * v.transpose() * (ROWS as f64).sqrt();
        x.transpose().iter().map(|value| *value as f32).collect()
    })
}

/// Trains a linear model on the whole data set until it has converged, and reconstructs the data.
fn train_linear(target: &Target<'_>, objective: Objective) -> Result<DMatrix<f64>, Failure> {
    let spec = ModelSpec::mlp(&[WIDTH, LATENT], Activation::Identity, Activation::Identity)?;
    let schedule = Schedule::Cosine { steps: STEPS, final_factor: 1e-3 };
    let optimizer = OptimizerSpec { schedule, ..OptimizerSpec::sgd(0.02, 0.9) };
    let plan = Arc::new(Plan::new(spec, objective, optimizer, 5, ROWS)?);
    let params = plan.params.initial(cvae_core::Initializer::Torch, 5);
    let mut probe = Probe::with_params(target.backend, &plan, &params)?;
    let data = probe.upload(linear_data())?;
    let order: Vec<u32> = (0..ROWS as u32).collect();
    for _ in 0..STEPS {
        crate::probe::run("train_step", probe.raw().train_step(&Batch::resident(data, &order, 0)))?;
    }
    let found = probe.infer(Entry::Reconstruct, linear_data())?;
    Ok(DMatrix::from_row_iterator(ROWS, WIDTH, found))
}

fn singular_values(matrix: &DMatrix<f64>) -> Vec<f64> {
    let mut values: Vec<f64> = matrix.clone().svd(false, false).singular_values.iter().copied().collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// The linear collapsed model shrinks the data's singular values by `√(βλN)` and keeps the largest.
fn linear_collapsed(target: &Target<'_>) -> Verdict {
    let (beta, lambda) = (0.5, 0.3);
    let objective = Objective { latent: Latent::Collapsed { beta }, decoder_l2: lambda, ..Objective::ae() };
    let found = singular_values(&train_linear(target, objective)?);
    let threshold = (beta * lambda * ROWS as f64).sqrt();
    let mut worst = Score { error: 0.0, unit: crate::Unit::Relative };
    for (index, value) in found.iter().enumerate() {
        let singular = SPREAD[index] * (ROWS as f64).sqrt();
        if index < LATENT {
            let expected = (singular - threshold).max(0.0);
            worst = worst.worse(relative(&format!("singular value {index}"), *value, expected, 1e-4)?);
        } else {
            expect(*value < 1e-4 * found[0], "no further singular value", || format!("{value:e}"))?;
        }
    }
    Ok(worst)
}

/// A linear autoencoder without penalties reconstructs what PCA of the same rank does.
fn linear_autoencoder(target: &Target<'_>) -> Verdict {
    let found = train_linear(target, Objective::ae())?;
    let data = DMatrix::from_row_iterator(ROWS, WIDTH, linear_data().iter().map(|value| f64::from(*value)));
    let svd = data.clone().svd(true, true);
    let (Some(u), Some(v)) = (&svd.u, &svd.v_t) else {
        return Err(Failure::Expectation { expected: "singular vectors".to_owned(), found: "none".to_owned() });
    };
    let mut pca = DMatrix::zeros(ROWS, WIDTH);
    let mut order: Vec<usize> = (0..WIDTH).collect();
    order.sort_by(|a, b| svd.singular_values[*b].total_cmp(&svd.singular_values[*a]));
    for index in &order[..LATENT] {
        pca += u.column(*index) * v.row(*index) * svd.singular_values[*index];
    }
    let (error, floor) = ((&data - &found).norm_squared(), (&data - &pca).norm_squared());
    let value = relative("the squared error beside PCA's", error, floor, 1e-4)?;
    let subspace = (&found - &pca).norm() / pca.norm();
    let same = within("the reconstruction beside PCA's", subspace, 1e-3, || format!("{subspace:e}"))?;
    Ok(value.worse(same))
}

/// All weights zero, so that codes and logits are the biases.
pub(super) struct Biased {
    pub(super) case: Case,
}

impl Biased {
    pub(super) fn new(objective: Objective, output: Activation) -> Result<Self, Failure> {
        let spec = mlp([6, 5, 3, 5], 0, Activation::Tanh, output)?;
        let mut case = Case::new("biased", spec, objective, OptimizerSpec::default(), 9, 81)?;
        case.params.fill(0.0);
        Ok(Self { case })
    }

    pub(super) fn set(mut self, name: &str, values: &[f32]) -> Self {
        let range = self.case.plan.params.find(name).map_or(0..0, |(_, param)| param.range());
        self.case.params[range].copy_from_slice(values);
        self
    }

    /// The terms of the loss, and the gradient of each parameter.
    pub(super) fn run(&self, target: &Target<'_>) -> Result<([f64; Term::COUNT], Vec<f64>), Failure> {
        let mut probe = self.case.probe(target.backend)?;
        let gradients = probe.gradients(&self.case.batch())?;
        Ok((probe.losses()?.last, gradients))
    }

    pub(super) fn slope<'a>(&self, gradients: &'a [f64], name: &str) -> &'a [f64] {
        &gradients[self.case.plan.params.find(name).map_or(0..0, |(_, param)| param.range())]
    }

    /// Column means of the rows.
    pub(super) fn means(&self) -> Vec<f64> {
        let count = self.case.count() as f64;
        (0..6).map(|j| self.case.rows.chunks_exact(6).map(|row| f64::from(row[j])).sum::<f64>() / count).collect()
    }
}

/// Relative error that single and double precision must reach in a closed form.
pub(super) fn limit(target: &Target<'_>) -> f64 {
    if target.is_double() { 1e-12 } else { 32.0 * target.epsilon }
}

/// Compares two arrays within [`limit`], relative to the largest expected magnitude.
pub(super) fn all_close(target: &Target<'_>, what: &str, found: &[f64], expected: &[f64]) -> Result<Score, Failure> {
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |scale, value| scale.max(value.abs()));
    let errors = found.iter().zip(expected).map(|(f, e)| (f - e).abs() / scale);
    let error = errors.fold(0.0, |worst: f64, error| if error.is_nan() { f64::NAN } else { worst.max(error) });
    within(what, error, limit(target), || format!("{found:?}, expected {expected:?}"))
}

/// `KL(N(μ, e^s) ‖ N(0, I)) = ½Σ(μ² + e^s − 1 − s)`, with slopes `βμ` and `β½(e^s − 1)`.
fn kl(target: &Target<'_>) -> Verdict {
    let (mean, logvar, beta) = ([1.5f32, -0.75, 0.25], [0.5f32, -2.0, 0.0], 0.5);
    let biased = Biased::new(Objective::vae(beta), Activation::Identity)?;
    let biased = biased.set("encoder.0.bias", &mean).set("logvar.bias", &logvar);
    let (terms, gradients) = biased.run(target)?;
    let pairs = mean.iter().zip(&logvar).map(|(m, s)| (f64::from(*m), f64::from(*s)));
    let value: f64 = pairs.clone().map(|(m, s)| 0.5 * beta * (m * m + s.exp() - 1.0 - s)).sum();
    let score = relative("the divergence", terms[Term::Latent.index()], value, limit(target))?;
    let means: Vec<f64> = pairs.clone().map(|(m, _)| beta * m).collect();
    let logvars: Vec<f64> = pairs.map(|(_, s)| 0.5 * beta * s.exp_m1()).collect();
    let first = all_close(target, "the slope of the mean", biased.slope(&gradients, "encoder.0.bias"), &means)?;
    let second = all_close(target, "the slope of the log-variance", biased.slope(&gradients, "logvar.bias"), &logvars)?;
    Ok(score.worse(first).worse(second))
}

/// `β½‖z‖²`, with slope `+βz`.
fn collapsed_prior(target: &Target<'_>) -> Verdict {
    let code = [1.5f32, -0.75, 0.25];
    let beta = 0.4;
    let objective = Objective { latent: Latent::Collapsed { beta }, ..Objective::ae() };
    let biased = Biased::new(objective, Activation::Identity)?.set("encoder.0.bias", &code);
    let (terms, gradients) = biased.run(target)?;
    let value = code.iter().map(|z| 0.5 * beta * f64::from(*z).powi(2)).sum();
    let slope: Vec<f64> = code.iter().map(|z| beta * f64::from(*z)).collect();
    let score = relative("the prior", terms[Term::Latent.index()], value, limit(target))?;
    Ok(score.worse(all_close(target, "the slope of the code", biased.slope(&gradients, "encoder.0.bias"), &slope)?))
}

fn cross_entropy() -> Objective {
    Objective { reconstruction: Reconstruction::Bce, ..Objective::ae() }
}

/// Logits of 0: `width · ln 2` whatever the target, with slope `½ − mean(x)`.
fn cross_entropy_at_zero(target: &Target<'_>) -> Verdict {
    let biased = Biased::new(cross_entropy(), Activation::Sigmoid)?;
    let (terms, gradients) = biased.run(target)?;
    let value = 6.0 * std::f64::consts::LN_2;
    let score = relative("the cross-entropy", terms[Term::Reconstruction.index()], value, limit(target))?;
    let slope: Vec<f64> = biased.means().iter().map(|mean| 0.5 - mean).collect();
    Ok(score.worse(all_close(target, "the slope of the logits", biased.slope(&gradients, "decoder.0.bias"), &slope)?))
}

/// Huge logits: `max(u, 0) − u·x` to the last digit, finite, with slope `[u > 0] − x`.
fn cross_entropy_saturated(target: &Target<'_>) -> Verdict {
    let logits = [120.0f32, -120.0, 500.0, -500.0, 90.0, -95.0];
    let biased = Biased::new(cross_entropy(), Activation::Sigmoid)?.set("decoder.0.bias", &logits);
    let (terms, gradients) = biased.run(target)?;
    let means = biased.means();
    let pairs = logits.iter().zip(&means).map(|(u, mean)| (f64::from(*u), *mean));
    let value: f64 = pairs.clone().map(|(u, mean)| u.max(0.0) - u * mean).sum();
    let slope: Vec<f64> = pairs.map(|(u, mean)| f64::from(u8::from(u > 0.0)) - mean).collect();
    let score = relative("the cross-entropy", terms[Term::Reconstruction.index()], value, limit(target))?;
    Ok(score.worse(all_close(target, "the slope of the logits", biased.slope(&gradients, "decoder.0.bias"), &slope)?))
}

/// `(λ/2)‖θ_D‖²` over every parameter of the decoder, biases included, with slope `λθ`.
fn decoder_l2(target: &Target<'_>) -> Verdict {
    let lambda = 0.5;
    let spec = mlp([6, 5, 3, 5], 1, Activation::Tanh, Activation::Identity)?;
    let with = Objective { decoder_l2: lambda, ..Objective::ae() };
    let (spec_again, optimizer) = (spec.clone(), OptimizerSpec::default());
    let with = Case::new("l2", spec, with, optimizer, 9, 82)?;
    let without = Case::new("l2", spec_again, Objective::ae(), optimizer, 9, 82)?;
    let run = |case: &Case| -> Result<(Vec<f64>, f64), Failure> {
        let mut probe = Probe::with_params(target.backend, &case.plan, &with.params)?;
        let gradients = probe.gradients(&case.batch())?;
        Ok((gradients, probe.losses()?.last[Term::DecoderL2.index()]))
    };
    let ((regularised, term), (plain, _)) = (run(&with)?, run(&without)?);
    let in_decoder = |param: &&Param| param.part == cvae_core::Part::Decoder;
    let squares: f64 = with
        .plan
        .params
        .params()
        .iter()
        .filter(in_decoder)
        .flat_map(|param| &with.params[param.range()])
        .map(|theta| f64::from(*theta).powi(2))
        .sum();
    let mut score = relative("the regulariser", term, 0.5 * lambda * squares, limit(target))?;
    for param in with.plan.params.params() {
        let weight = if in_decoder(&param) { lambda } else { 0.0 };
        let range = param.range();
        let expected: Vec<f64> = range.clone().map(|i| plain[i] + weight * f64::from(with.params[i])).collect();
        let what = format!("the slope of {}", param.name);
        score = score.worse(all_close(target, &what, &regularised[range], &expected)?);
    }
    Ok(score)
}

/// With a constant prediction each term and its slope by hand.
fn reconstruction(target: &Target<'_>, kind: Reconstruction) -> Verdict {
    let prediction = [0.25f32, -0.5, 1.0, 0.0, -1.25, 2.0];
    let objective = Objective { reconstruction: kind, ..Objective::ae() };
    let biased = Biased::new(objective, Activation::Identity)?.set("decoder.0.bias", &prediction);
    let (terms, gradients) = biased.run(target)?;
    let count = biased.case.count() as f64;
    let element = |e: f64| match kind {
        Reconstruction::MseMean => (e * e / 6.0, 2.0 * e / 6.0),
        Reconstruction::L1 => (e.abs(), e.signum()),
        Reconstruction::Huber { delta } if e.abs() > delta => (delta * (e.abs() - 0.5 * delta), delta * e.signum()),
        Reconstruction::MseSum | Reconstruction::Bce | Reconstruction::Huber { .. } => (0.5 * e * e, e),
    };
    let (mut value, mut slope) = (0.0, vec![0.0; 6]);
    for row in biased.case.rows.chunks_exact(6) {
        for (j, x) in row.iter().enumerate() {
            let (loss, derivative) = element(f64::from(prediction[j]) - f64::from(*x));
            value += loss / count;
            slope[j] += derivative / count;
        }
    }
    let score = relative("the term", terms[Term::Reconstruction.index()], value, limit(target))?;
    let slopes = biased.slope(&gradients, "decoder.0.bias");
    Ok(score.worse(all_close(target, "the slope of the prediction", slopes, &slope)?))
}

/// From zero moments Adam's first step is `−lr · g/(|g| + ε)` whatever the gradient's size.
fn adam_first_step(target: &Target<'_>) -> Verdict {
    let biased = Biased::new(Objective::ae(), Activation::Identity)?;
    let case = &biased.case;
    let plan = Plan::new(case.plan.spec.clone(), Objective::ae(), OptimizerSpec::adam(0.5), 1, 9)?;
    let mut probe = Probe::with_params(target.backend, &Arc::new(plan), &case.params)?;
    let gradients = probe.gradients(&case.batch())?;
    probe.apply()?;
    let params = probe.read(State::Params)?;
    let slopes = biased.slope(&gradients, "decoder.0.bias");
    let expected: Vec<f64> = slopes.iter().map(|g| -0.5 * g / (g.abs() + 1e-8)).collect();
    all_close(target, "the first step", biased.slope(&params, "decoder.0.bias"), &expected)
}
