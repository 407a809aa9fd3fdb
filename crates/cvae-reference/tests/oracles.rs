//! Closed forms of whole trained models (docs/MATH.md, "Exact oracles").

mod common;

use std::sync::Arc;

use common::compile;
use cvae_core::{
    Activation, Batch, Entry, Executable, ModelSpec, Objective, OptimizerSpec, Plan, Rows, Schedule, State,
};
use nalgebra::DMatrix;

const ROWS: usize = 24;
const WIDTH: usize = 8;
const LATENT: usize = 4;
const STEPS: u64 = 6000;

/// Element `k` of the `i`-th row of the orthonormal cosine basis of `n` points; `k = 0` is constant.
fn cosine(n: usize, i: usize, k: usize) -> f64 {
    let scale = if k == 0 { 1.0 } else { 2.0 };
    let phase = std::f64::consts::PI * (i as f64 + 0.5) * k as f64 / n as f64;
    (scale / n as f64).sqrt() * phase.cos()
}

/// `Σ_k s_k u_k v_kᵀ` with orthonormal `u`, `v`; no `u` has a constant part, so every column has mean 0.
fn data(singular_values: &[f64]) -> Vec<f32> {
    let element = |i: usize, j: usize| -> f64 {
        let term = |(k, s): (usize, &f64)| s * cosine(ROWS, i, k + 1) * cosine(WIDTH, j, k);
        singular_values.iter().enumerate().map(term).sum()
    };
    (0..ROWS * WIDTH).map(|index| element(index / WIDTH, index % WIDTH) as f32).collect()
}

fn matrix(values: impl IntoIterator<Item = f64>) -> DMatrix<f64> {
    DMatrix::from_row_iterator(ROWS, WIDTH, values)
}

/// Singular values, largest first.
fn singular_values(matrix: DMatrix<f64>) -> Vec<f64> {
    matrix.singular_values().iter().copied().collect()
}

/// Trains the linear model on the whole of `rows` at each step, to convergence.
fn train_linear(rows: &[f32], objective: Objective) -> Box<dyn Executable> {
    let spec = ModelSpec::mlp(&[WIDTH, LATENT], Activation::Identity, Activation::Identity).unwrap();
    let schedule = Schedule::Cosine { steps: STEPS, final_factor: 0.0 };
    let optimizer = OptimizerSpec { schedule, ..OptimizerSpec::adam(0.02) };
    let mut model = compile(&Arc::new(Plan::new(spec, objective, optimizer, 4, ROWS).unwrap()));
    let data = model.upload(Rows::F32 { values: rows, width: WIDTH }).unwrap();
    let order: Vec<u32> = (0..ROWS as u32).collect();
    for _ in 0..STEPS {
        model.train_step(&Batch::resident(data, &order, 0)).unwrap();
    }
    model
}

fn reconstruct(model: &mut dyn Executable, rows: &[f32]) -> Vec<f64> {
    let mut out = vec![f64::NAN; rows.len()];
    model.infer_f64(Entry::Reconstruct, rows, &mut out).unwrap();
    out
}

/// Oracle 1: the reconstruction has the data's singular values, each lowered by `√(β·λ·N)` but not below 0.
#[test]
fn the_linear_collapsed_model_soft_thresholds_singular_values() {
    let rows = data(&[12.0, 9.0, 6.5, 2.0, 1.5, 1.0]);
    let (beta, decoder_l2) = (0.8, 0.4);
    let threshold = (beta * decoder_l2 * ROWS as f64).sqrt();
    let singular = singular_values(matrix(common::wide(&rows)));
    assert!(singular[2] > threshold && singular[3] < threshold, "the threshold {threshold} cuts the fourth");

    let mut model = train_linear(&rows, Objective::collapsed(beta, decoder_l2));
    let found = singular_values(matrix(reconstruct(model.as_mut(), &rows)));
    for (i, (found, singular)) in found.iter().zip(&singular).enumerate() {
        let expected = if i < LATENT { (singular - threshold).max(0.0) } else { 0.0 };
        let limit = 1e-4 * if expected > 0.0 { expected } else { *singular };
        assert!((found - expected).abs() < limit, "singular value {i}: {found} against {expected}");
    }

    // The loss at the optimum. A kept direction leaves the error ½t² of the threshold t, and its two penalties
    // come to t·(s − t); a dropped one leaves ½s².
    let shrunk = |s: &f64| 0.5 * s.min(threshold).powi(2) + threshold * (s - threshold).max(0.0);
    let kept: f64 = singular[..LATENT].iter().map(shrunk).sum();
    let beyond_latent: f64 = singular[LATENT..].iter().map(|s| 0.5 * s * s).sum();
    let expected = (kept + beyond_latent) / ROWS as f64;
    model.losses().unwrap();
    model.gradients(&Batch::host(&rows)).unwrap();
    let found = model.losses().unwrap().last_total();
    assert!((found / expected - 1.0).abs() < 1e-6, "loss {found} against {expected}");
}

/// Without a decoder regulariser the prior is free: the reconstruction keeps every singular value, while the
/// code shrinks (docs/MATH.md, "Degeneracy").
#[test]
fn the_prior_alone_is_degenerate() {
    let rows = data(&[12.0, 9.0, 6.5, 5.0]);
    let loss = |model: &mut dyn Executable| {
        model.gradients(&Batch::host(&rows)).unwrap();
        model.losses().unwrap().last
    };
    let objective = Objective::collapsed(0.8, 0.0);
    assert!(objective.is_degenerate());
    let mut model = train_linear(&rows, Objective::ae());
    let layout = model.plan().params.clone();
    let mut params = vec![0.0; layout.len()];
    model.read(State::Params, &mut params).unwrap();
    let plan = Plan::new(model.plan().spec.clone(), objective, OptimizerSpec::default(), 4, ROWS).unwrap();
    let mut scaled = compile(&Arc::new(plan));
    let mut previous = f64::INFINITY;
    for _ in 0..4 {
        scaled.write(State::Params, &params).unwrap();
        let [reconstruction, latent, ..] = loss(scaled.as_mut());
        assert!(reconstruction < 1e-6, "{reconstruction}");
        assert!(latent < previous / 15.0, "a code four times shorter has a sixteenth of the penalty: {latent}");
        previous = latent;
        let decoder = layout.find("decoder.0.weight").unwrap().1.range();
        for param in layout.params().iter().filter(|param| param.name.starts_with("encoder")) {
            params[param.range()].iter_mut().for_each(|value| *value /= 4.0);
        }
        params[decoder].iter_mut().for_each(|value| *value *= 4.0);
    }
}

/// Oracle 2: a linear autoencoder reaches the error of PCA with as many components.
#[test]
fn the_linear_autoencoder_is_pca() {
    let rows = data(&[10.0, 8.0, 6.0, 4.0, 2.5, 2.0, 1.0]);
    let mut model = train_linear(&rows, Objective::ae());
    let reconstruction = reconstruct(model.as_mut(), &rows);
    let squares = common::wide(&rows).iter().zip(&reconstruction).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
    let singular = singular_values(matrix(common::wide(&rows)));
    let floor: f64 = singular[LATENT..].iter().map(|s| s * s).sum();
    let ratio = squares / floor;
    assert!((1.0 - 1e-9..1.001).contains(&ratio), "error {ratio} times PCA's");
    // The same subspace: the reconstruction is the projection on the leading singular vectors.
    for (i, (found, singular)) in singular_values(matrix(reconstruction)).iter().zip(&singular).enumerate() {
        let expected = if i < LATENT { *singular } else { 0.0 };
        assert!((found - expected).abs() < 1e-3 * singular, "singular value {i}: {found} against {expected}");
    }
}
