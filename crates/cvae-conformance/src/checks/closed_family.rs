//! Rung 3 for the objective family: terms and slopes by hand, and Jacobians in closed form.

use cvae_core::{
    Activation, Batch, BatchRows, ColumnGroup, ColumnKind, Entry, Latent, ModelSpec, Noise, Objective, OptimizerSpec,
    Stream, Term,
};

use crate::case::{Case, mlp, with_code_activation};
use crate::check::Check;
use crate::checks::closed::{Biased, all_close, limit};
use crate::compare::relative;
use crate::failure::{Failure, Score, Unit, Verdict, expect};
use crate::target::Target;

/// Adds the family's `closed::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    all.push(Check::new("closed::contractive::one_sigmoid_layer", contractive));
    all.push(Check::new("closed::gradient_penalty::over_all_signs", gradient_penalty));
    all.push(Check::new("closed::mmd::equal_codes", mmd));
    all.push(Check::new("closed::sparse::value_and_slope", sparse));
    for (name, capacity) in [("below", 10.0), ("above", 0.25)] {
        let bounded = move |target: &Target<'_>| bounded(target, Latent::Capacity { gamma: 0.5, capacity });
        all.push(Check::new(format!("closed::capacity::{name}"), bounded));
    }
    all.push(Check::new("closed::free_bits::value_and_slope", |target| {
        bounded(target, Latent::FreeBits { beta: 0.5, floor: 0.4 })
    }));
    all.push(Check::new("closed::learnt_variance::value_and_slope", learnt_variance));
    all.push(Check::new("closed::columns::zero_logits", columns));
    all.push(Check::new("closed::missing::value_and_slope", missing));
}

/// A prediction or code that the biases alone decide.
const BIAS: [f32; 6] = [0.25, -0.5, 1.0, 0.5, -1.25, 2.0];

/// `weight · Σ_j (h_j(1 − h_j))²‖W_j‖²` for the encoder `h = σ(Wx + b)`, averaged over rows.
fn contractive(target: &Target<'_>) -> Verdict {
    let weight = 0.7;
    let spec = with_code_activation(mlp([8, 5, 4, 5], 0, Activation::Tanh, Activation::Identity)?, Activation::Sigmoid);
    let case = Case::new("contractive", spec, Objective::contractive(weight), OptimizerSpec::default(), 5, 83)?;
    let mut probe = case.probe(target.backend)?;
    probe.gradients(&case.batch())?;
    let found = probe.losses()?.last[Term::Jacobian.index()];
    let tensor = |name: &str| &case.params[case.plan.params.find(name).map_or(0..0, |(_, param)| param.range())];
    let mut expected = 0.0;
    for row in case.rows.chunks_exact(8) {
        for (weights, bias) in tensor("encoder.0.weight").chunks_exact(8).zip(tensor("encoder.0.bias")) {
            let products = weights.iter().zip(row).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let h = 1.0 / (1.0 + (-(f64::from(*bias) + products.sum::<f64>())).exp());
            let norm: f64 = weights.iter().map(|w| f64::from(*w).powi(2)).sum();
            expected += weight * (h * (1.0 - h)).powi(2) * norm / case.count() as f64;
        }
    }
    relative("the contractive term", found, expected, limit(target))
}

/// The gradient penalty averaged over all sign vectors is `weight · ‖J_D(z)‖²_F`, here of one tanh layer; no other
/// vector than signs gives that.
fn gradient_penalty(target: &Target<'_>) -> Verdict {
    const WIDTH: usize = 4;
    let weight = 0.6;
    let spec = ModelSpec::mlp(&[WIDTH, 3], Activation::Identity, Activation::Tanh)?;
    let objective = Objective::collapsed_gradient_penalty(0.1, weight);
    let case = Case::new("penalty", spec, objective, OptimizerSpec::default(), 1, 84)?;
    let mut probe = case.probe(target.backend)?;
    let mut terms = [None; 1 << WIDTH];
    // Rows at other positions draw other signs.
    for first_row in 0..400 {
        let mut signs = [0.0f32; WIDTH];
        Noise::new(case.plan.seed, Stream::Probe, 0).signs(first_row, &mut signs);
        let drawn = signs.iter().fold(0, |bits, sign| 2 * bits + usize::from(*sign > 0.0));
        if terms[drawn].is_none() {
            let rows = BatchRows::Host { values: &case.rows, first_row };
            probe.gradients(&Batch { rows, epoch: 0 })?;
            terms[drawn] = Some(probe.losses()?.last[Term::Jacobian.index()]);
        }
    }
    let drawn: Vec<f64> = terms.into_iter().flatten().collect();
    expect(drawn.len() == 1 << WIDTH, "every sign vector to be drawn", || drawn.len().to_string())?;
    let found = drawn.iter().sum::<f64>() / drawn.len() as f64;
    let output = case.expected()?.entries[Entry::Reconstruct as usize].clone();
    let range = case.plan.params.find("decoder.0.weight").map_or(0..0, |(_, param)| param.range());
    let rows = case.params[range].chunks_exact(3).zip(&output);
    let norm = |(weights, y): (&[f32], &f64)| {
        (1.0 - y * y).powi(2) * weights.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>()
    };
    relative("the mean penalty", found, weight * rows.map(norm).sum::<f64>(), limit(target))
}

/// Codes that are all `c`: `k(c, c)` among them is the number of scales, and they move together.
fn mmd(target: &Target<'_>) -> Verdict {
    let (weight, code) = (0.8, [0.5f32, -0.75, 0.25]);
    let biased = Biased::new(Objective::wae_mmd(weight), Activation::Identity)?.set("encoder.0.bias", &code);
    let (terms, gradients) = biased.run(target)?;
    let (case, count) = (&biased.case, biased.case.count());
    let noise = Noise::new(case.plan.seed, Stream::Prior, case.epoch);
    let draw = |row: usize| {
        let mut values = [0.0f32; 3];
        noise.normal(case.first_row + row as u32, &mut values);
        values.map(f64::from)
    };
    let prior: Vec<[f64; 3]> = (0..count).map(draw).collect();
    let code = code.map(f64::from);
    let squared = |a: &[f64; 3], b: &[f64; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
    let scales = || Latent::MMD_SCALES.iter().map(|scale| 6.0 * scale);
    let kernel = |q: f64| scales().map(|c| c / (c + q)).sum::<f64>();
    let slope = |q: f64| scales().map(|c| -c / (c + q).powi(2)).sum::<f64>();
    let rows = count as f64;
    let (mut among, mut between, mut slopes) = (0.0, 0.0, vec![0.0; 3]);
    for (i, p) in prior.iter().enumerate() {
        let others = prior.iter().enumerate().filter(|(j, _)| *j != i);
        among += others.map(|(_, other)| kernel(squared(p, other))).sum::<f64>() / (rows * (rows - 1.0));
        between += kernel(squared(&code, p)) / rows;
        for (out, (c, p_j)) in slopes.iter_mut().zip(code.iter().zip(p)) {
            *out -= weight * 2.0 / rows * slope(squared(&code, p)) * 2.0 * (c - p_j);
        }
    }
    let value = weight * (Latent::MMD_SCALES.len() as f64 + among - 2.0 * between);
    // The term is a difference of numbers of the size of the first.
    let close = limit(target) * 2.0 * Latent::MMD_SCALES.len() as f64 * weight / value.abs();
    let score = relative("the discrepancy", terms[Term::Latent.index()], value, close.max(limit(target)))?;
    Ok(score.worse(all_close(target, "the slope of the code", biased.slope(&gradients, "encoder.0.bias"), &slopes)?))
}

/// `weight · Σ|z|`, with slope `weight · sign(z)`, 0 at 0.
fn sparse(target: &Target<'_>) -> Verdict {
    let (weight, code) = (0.4, [1.5f32, -0.75, 0.0]);
    let biased = Biased::new(Objective::sparse(weight), Activation::Identity)?.set("encoder.0.bias", &code);
    let (terms, gradients) = biased.run(target)?;
    let score = relative("the penalty", terms[Term::Latent.index()], weight * 2.25, limit(target))?;
    let slopes = [weight, -weight, 0.0];
    Ok(score.worse(all_close(target, "the slope of the code", biased.slope(&gradients, "encoder.0.bias"), &slopes)?))
}

/// Divergences that are the same in every row: their means are those of a row.
fn bounded(target: &Target<'_>, latent: Latent) -> Verdict {
    let (mean, logvar) = ([1.5f32, -0.75, 0.25], [0.5f32, -2.0, 0.0]);
    let biased = Biased::new(Objective { latent, ..Objective::ae() }, Activation::Identity)?;
    let biased = biased.set("encoder.0.bias", &mean).set("logvar.bias", &logvar);
    let (terms, gradients) = biased.run(target)?;
    let pairs: Vec<(f64, f64)> = mean.iter().zip(&logvar).map(|(m, s)| (f64::from(*m), f64::from(*s))).collect();
    let divergences: Vec<f64> = pairs.iter().map(|(m, s)| 0.5 * (m * m + s.exp_m1() - s)).collect();
    let total: f64 = divergences.iter().sum();
    let (value, factors): (f64, Vec<f64>) = match latent {
        Latent::Capacity { gamma, capacity } => {
            (gamma * (total - capacity).abs(), vec![gamma * (total - capacity).signum(); 3])
        }
        Latent::FreeBits { beta, floor } => (
            beta * divergences.iter().map(|k| k.max(floor)).sum::<f64>(),
            divergences.iter().map(|k| if *k > floor { beta } else { 0.0 }).collect(),
        ),
        other => {
            return Err(Failure::Expectation { expected: "a bounded term".to_owned(), found: other.to_string() });
        }
    };
    let score = relative("the divergence", terms[Term::Latent.index()], value, limit(target))?;
    let means: Vec<f64> = pairs.iter().zip(&factors).map(|((m, _), f)| f * m).collect();
    let logvars: Vec<f64> = pairs.iter().zip(&factors).map(|((_, s), f)| 0.5 * f * s.exp_m1()).collect();
    let first = all_close(target, "the slope of the mean", biased.slope(&gradients, "encoder.0.bias"), &means)?;
    let second = all_close(target, "the slope of the log-variance", biased.slope(&gradients, "logvar.bias"), &logvars)?;
    Ok(score.worse(first).worse(second))
}

/// With a constant prediction: `(width/2)·ln(MSE + floor)`, with slope `Σ e/(rows·(MSE + floor))`.
fn learnt_variance(target: &Target<'_>) -> Verdict {
    let floor = 0.125;
    let objective = Objective { sigma_floor: Some(floor), ..Objective::ae() };
    let biased = Biased::new(objective, Activation::Identity)?.set("decoder.0.bias", &BIAS);
    let (terms, gradients) = biased.run(target)?;
    let count = biased.case.count() as f64;
    let error = |row: &[f32], j: usize| f64::from(BIAS[j]) - f64::from(row[j]);
    let rows = || biased.case.rows.chunks_exact(6);
    let mse = rows().flat_map(|row| (0..6).map(move |j| error(row, j).powi(2))).sum::<f64>() / (6.0 * count);
    let value = 3.0 * (mse + floor).ln();
    let slope = |j: usize| rows().map(|row| error(row, j)).sum::<f64>() / (count * (mse + floor));
    let slopes: Vec<f64> = (0..6).map(slope).collect();
    let score = relative("the term", terms[Term::Reconstruction.index()], value, limit(target))?;
    Ok(score.worse(all_close(target, "the slopes", biased.slope(&gradients, "decoder.0.bias"), &slopes)?))
}

/// Outputs of 0: `½x²` in numeric columns, `ln 2` in each binary one, `ln 3` for a group of three classes.
fn columns(target: &Target<'_>) -> Verdict {
    let weights = [2.0, 0.5, 3.0];
    let kinds = [(ColumnKind::Numeric, 1), (ColumnKind::Categorical, 3), (ColumnKind::Binary, 2)];
    let group = |((kind, width), weight)| ColumnGroup { kind, width, weight };
    let groups: Vec<ColumnGroup> = kinds.into_iter().zip(weights).map(group).collect();
    let biased = Biased::new(Objective { columns: groups, ..Objective::ae() }, Activation::Identity)?;
    let (terms, gradients) = biased.run(target)?;
    let count = biased.case.count() as f64;
    let squares: f64 = biased.case.rows.chunks_exact(6).map(|row| 0.5 * f64::from(row[0]).powi(2)).sum();
    let value = weights[0] * squares / count + weights[1] * 3f64.ln() + weights[2] * 2.0 * std::f64::consts::LN_2;
    let means = biased.means();
    let at_zero = [0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.5, 0.5];
    let factor = |j: usize| weights[usize::from(j > 0) + usize::from(j > 3)];
    let slopes: Vec<f64> = (0..6).map(|j| factor(j) * (at_zero[j] - means[j])).collect();
    let score = relative("the term", terms[Term::Reconstruction.index()], value, limit(target))?;
    Ok(score.worse(all_close(target, "the slopes", biased.slope(&gradients, "decoder.0.bias"), &slopes)?))
}

/// With a constant prediction: `½e²` over what was observed, still divided by all rows.
fn missing(target: &Target<'_>) -> Verdict {
    let objective = Objective { missing: true, ..Objective::ae() };
    let biased = Biased::new(objective, Activation::Identity)?.set("decoder.0.bias", &BIAS);
    let (terms, gradients) = biased.run(target)?;
    let count = biased.case.count() as f64;
    let (mut value, mut slopes, mut holes) = (0.0, vec![0.0; 6], 0);
    for row in biased.case.rows.chunks_exact(6) {
        for (j, x) in row.iter().enumerate() {
            if x.is_nan() {
                holes += 1;
            } else {
                let error = f64::from(BIAS[j]) - f64::from(*x);
                value += 0.5 * error * error / count;
                slopes[j] += error / count;
            }
        }
    }
    expect((5..30).contains(&holes), "some values to be missing", || holes.to_string())?;
    let score = relative("the term", terms[Term::Reconstruction.index()], value, limit(target))?;
    let found = biased.slope(&gradients, "decoder.0.bias");
    let slopes = all_close(target, "the slopes", found, &slopes)?;
    // What is missing is fed as 0, so that no NaN reaches a weight.
    expect(gradients.iter().all(|g| g.is_finite()), "finite gradients", || "others".to_owned())?;
    Ok(score.worse(slopes).worse(Score { error: 0.0, unit: Unit::Relative }))
}
