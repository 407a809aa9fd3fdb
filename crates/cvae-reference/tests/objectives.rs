//! Every part of the objective: gradients against finite differences, and exact oracles of its meaning.

mod common;

use std::sync::Arc;

use common::{Case, columns, compile, state, wide};
use cvae_core::{
    Activation, Batch, Corruption, Entry, Initializer, Jacobian, Latent, LayerSpec, ModelSpec, Objective,
    OptimizerSpec, ParamLayout, Patch, Plan, Reconstruction, Shift, State, Term, fold_linear, fold_spectral_norm,
};
use cvae_reference::{Draw, direct_loss, finite_difference};

/// Relative error of a case's gradients, all of its coordinates, and that its terms equal the direct ones.
fn error(case: &Case) -> f64 {
    let plan = case.plan(OptimizerSpec::default());
    let rows = case.batch();
    let params = plan.params.initial(Initializer::Torch, case.seed);
    let mut model = compile(&plan);
    model.write(State::Params, &params).unwrap();
    model.gradients(&Batch::host(&rows)).unwrap();
    let (params, rows, all) = (wide(&params), wide(&rows), Vec::from_iter(0..params.len()));
    let terms = direct_loss(&case.spec, &case.objective, &plan.params, &params, &rows, case.draw()).unwrap();
    let found = model.losses().unwrap().last;
    for term in Term::ALL {
        let (found, expected) = (found[term.index()], terms[term.index()]);
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1e-2), "{term}: {found} against {expected}");
    }
    let grads = state(model.as_mut(), State::Grads);
    let differences =
        finite_difference(&case.spec, &case.objective, &plan.params, &params, &rows, case.draw(), &all).unwrap();
    assert_eq!(differences.stepped_over, 0, "{case:?}");
    differences.worst_relative_error(&grads)
}

fn assert_gradients(objective: &Objective, activation: Activation, output: Activation, latent: usize) {
    let spec = ModelSpec::mlp_pair(&[7, 5, latent], &[latent, 4, 6, 7], activation, output).unwrap();
    for (rows, seed) in [(1, 1), (5, 2)] {
        let case = Case { spec: spec.clone(), objective: objective.clone(), rows, seed };
        let error = error(&case);
        assert!(error < 2e-9, "relative error {error:e} of {activation} in {objective:?}");
    }
}

/// The objective, on every activation.
fn assert_family(objective: Objective) {
    for activation in Activation::ALL {
        let bce = objective.reconstruction == Reconstruction::Bce;
        let output = if bce { Activation::Sigmoid } else { Activation::Identity };
        assert_gradients(&objective, activation, output, 3);
    }
}

#[test]
fn corruption() {
    let patch = Some(Patch { size: 2, width: 7, channels: 1 });
    for corruption in [
        Corruption::Gaussian { std: 0.3 },
        Corruption::Masking { share: 0.4 },
        Corruption::Permutation { share: 0.4 },
        Corruption::Masked { share: 0.7, patch: None },
        Corruption::Masked { share: 0.6, patch },
        Corruption::Shift { share: 0.6, shift: Shift { distance: 2, width: 7, channels: 1 } },
    ] {
        for missing in [false, true] {
            assert_family(Objective { missing, ..Objective::denoising(corruption) });
        }
    }
}

#[test]
fn sparse_codes() {
    assert_family(Objective::sparse(0.2));
    assert_family(Objective::top_k(2));
    assert_family(Objective { top_k: Some(1), ..Objective::sparse(0.2) });
}

#[test]
fn jacobian_terms() {
    for objective in [Objective::contractive(0.3), Objective::collapsed_gradient_penalty(0.1, 0.3)] {
        assert_family(objective.clone());
        assert_family(Objective { decoder_l2: 0.1, latent: Latent::Variational { beta: 0.3 }, ..objective.clone() });
        assert_family(Objective { reconstruction: Reconstruction::Bce, ..objective.clone() });
        assert_family(Objective { top_k: Some(2), ..objective.clone() });
        for output in Activation::ALL {
            assert_gradients(&objective, Activation::Tanh, output, 2);
        }
    }
}

/// More latent dimensions than are computed exactly: the norm is estimated along random signs.
#[test]
fn estimated_contractive_term() {
    for activation in [Activation::Gelu, Activation::Sigmoid] {
        assert_gradients(&Objective::contractive(0.3), activation, Activation::Identity, 17);
    }
}

#[test]
fn bounded_divergence() {
    for capacity in [0.0, 0.4, 50.0] {
        assert_family(Objective { latent: Latent::Capacity { gamma: 0.5, capacity }, ..Objective::ae() });
    }
    for floor in [0.0, 0.15, 50.0] {
        assert_family(Objective { latent: Latent::FreeBits { beta: 0.5, floor }, ..Objective::ae() });
    }
}

#[test]
fn learnt_variance_and_discrepancy() {
    let sigma = Objective { sigma_floor: Some(1e-4), ..Objective::ae() };
    assert_family(sigma.clone());
    assert_family(Objective { missing: true, ..sigma.clone() });
    assert_family(Objective { corruption: Corruption::Masked { share: 0.5, patch: None }, ..sigma });
    assert_family(Objective::wae_mmd(3.0));
}

#[test]
fn column_groups() {
    for reconstruction in [Reconstruction::MseSum, Reconstruction::MseMean, Reconstruction::Huber { delta: 0.3 }] {
        let mixed = Objective { reconstruction, columns: columns(7), ..Objective::ae() };
        assert_family(mixed.clone());
        assert_family(Objective { missing: true, ..mixed.clone() });
        assert_family(Objective { corruption: Corruption::Masked { share: 0.5, patch: None }, ..mixed });
    }
}

/// Terms and gradients of `objective` for rows under given parameters.
fn evaluate(spec: &ModelSpec, objective: Objective, params: &[f32], rows: &[f32], seed: u64) -> ([f64; 4], Vec<f64>) {
    let count = rows.len() / spec.width();
    let plan = Plan::new(spec.clone(), objective, OptimizerSpec::default(), seed, count).unwrap();
    let mut model = compile(&Arc::new(plan));
    model.write(State::Params, params).unwrap();
    model.gradients(&Batch::host(rows)).unwrap();
    let terms = model.losses().unwrap().last;
    (terms, state(model.as_mut(), State::Grads))
}

/// Rifai et al.'s closed form: `Σ_j (h_j(1 − h_j))²·‖W_j‖²` for an encoder of one sigmoid layer.
#[test]
fn the_contractive_term_of_one_sigmoid_layer() {
    let (width, latent) = (6, 4);
    let mut spec = ModelSpec::mlp(&[width, latent], Activation::Identity, Activation::Identity).unwrap();
    spec.encoder[0] = LayerSpec::Dense { units: latent, activation: Activation::Sigmoid };
    let layout = ParamLayout::new(&spec, false);
    let params = layout.initial(Initializer::Torch, 3);
    let rows = common::uniform_rows(3, width, 8);
    let (terms, _) = evaluate(&spec, Objective::contractive(0.5), &params, &rows, 1);
    let (weights, biases) = (wide(&params[..width * latent]), wide(&params[width * latent..][..latent]));
    let mut expected = 0.0;
    for row in wide(&rows).chunks(width) {
        for (w, b) in weights.chunks(width).zip(&biases) {
            let a: f64 = b + w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>();
            let h = 1.0 / (1.0 + (-a).exp());
            expected += (h * (1.0 - h)).powi(2) * w.iter().map(|w| w * w).sum::<f64>();
        }
    }
    let (found, expected) = (terms[Term::Jacobian.index()], 0.5 * expected / 3.0);
    assert!((found / expected - 1.0).abs() < 1e-13, "{found} against {expected}");
}

/// Over all vectors of signs, the mean of `‖J_Dᵀv‖²` is `‖J_D‖²_F`, and not the `‖J_Dᵀ1‖²` that a backward pass from
/// ones computes. The seeds of a plan run through enough of them to see each of the eight.
#[test]
fn the_gradient_penalty_is_the_squared_norm_of_the_jacobian() {
    let (width, latent) = (3, 2);
    let spec = ModelSpec::mlp_pair(&[width, latent], &[latent, 4, width], Activation::Tanh, Activation::Identity);
    let spec = spec.unwrap();
    let layout = ParamLayout::new(&spec, false);
    let params = layout.initial(Initializer::Torch, 3);
    let row = common::uniform_rows(1, width, 8);
    let objective = Objective::collapsed_gradient_penalty(0.0, 1.0);

    // The Jacobian by central differences of the decoder.
    let plan = Plan::new(spec.clone(), objective.clone(), OptimizerSpec::default(), 0, 1).unwrap();
    let mut model = compile(&Arc::new(plan));
    model.write(State::Params, &params).unwrap();
    let mut code = vec![0.0; latent];
    model.infer(Entry::Encode, &row, &mut code).unwrap();
    let mut jacobian = vec![[0.0; 3]; latent];
    for (i, column) in jacobian.iter_mut().enumerate() {
        let step = 1e-2f32;
        let mut at = |shift: f32| {
            let mut moved = code.clone();
            moved[i] += shift;
            let mut out = [0.0f64; 3];
            model.infer_f64(Entry::Decode, &moved, &mut out).unwrap();
            (moved[i], out)
        };
        let ((high, above), (low, below)) = (at(step), at(-step));
        for ((slope, above), below) in column.iter_mut().zip(above).zip(below) {
            *slope = (above - below) / f64::from(high - low);
        }
    }
    let frobenius: f64 = jacobian.iter().flatten().map(|j| j * j).sum();
    let ones: f64 = jacobian.iter().map(|column| column.iter().sum::<f64>().powi(2)).sum();

    let mut found: Vec<f64> = vec![];
    for seed in 0..200 {
        let term = evaluate(&spec, objective.clone(), &params, &row, seed).0[Term::Jacobian.index()];
        if found.iter().all(|known| (known - term).abs() > 1e-12) {
            found.push(term);
        }
    }
    // v and −v have the same term.
    assert_eq!(found.len(), 4, "{found:?}");
    let mean = found.iter().sum::<f64>() / 4.0;
    assert!((mean / frobenius - 1.0).abs() < 1e-4, "{mean} against {frobenius}");
    assert!((ones / frobenius - 1.0).abs() > 0.1, "the two quantities must differ here: {ones}, {frobenius}");
}

/// The estimate of the contractive term has the exact term as its mean.
#[test]
fn the_estimated_contractive_term_is_without_bias() {
    let (width, latent) = (5, 17);
    let spec = ModelSpec::mlp(&[width, latent], Activation::Identity, Activation::Identity).unwrap();
    let params = ParamLayout::new(&spec, false).initial(Initializer::Torch, 3);
    let exact: f64 = params[..width * latent].iter().map(|w| f64::from(*w).powi(2)).sum();
    let rows = common::uniform_rows(2000, width, 8);
    let found = evaluate(&spec, Objective::contractive(1.0), &params, &rows, 5).0[Term::Jacobian.index()];
    assert!((found / exact - 1.0).abs() < 0.03, "{found} against {exact}");
}

/// With constant heads the divergence of each dimension is known, and so are the bounded terms.
#[test]
fn bounded_divergences_by_hand() {
    let spec = ModelSpec::mlp(&[3, 2], Activation::Identity, Activation::Identity).unwrap();
    let layout = ParamLayout::new(&spec, true);
    let mut params = vec![0.0f32; layout.len()];
    let mean = layout.find("encoder.0.bias").unwrap().1.range();
    params[mean.clone()].copy_from_slice(&[2.0, 1.0]);
    // KL = ½μ²: 2 and ½ nats.
    let rows = common::uniform_rows(4, 3, 1);
    let with = |latent| {
        let (terms, grads) = evaluate(&spec, Objective { latent, ..Objective::ae() }, &params, &rows, 1);
        (terms[Term::Latent.index()], grads[mean.clone()].to_vec())
    };
    let near = |(term, grads): (f64, Vec<f64>), expected: f64, slopes: [f64; 2]| {
        assert!((term - expected).abs() < 1e-12, "{term} against {expected}");
        for (found, expected) in grads.iter().zip(slopes) {
            assert!((found - expected).abs() < 1e-12, "{grads:?} against {slopes:?}");
        }
    };
    near(with(Latent::Variational { beta: 3.0 }), 7.5, [6.0, 3.0]);
    near(with(Latent::Capacity { gamma: 3.0, capacity: 1.0 }), 4.5, [6.0, 3.0]);
    near(with(Latent::Capacity { gamma: 3.0, capacity: 4.0 }), 4.5, [-6.0, -3.0]);
    near(with(Latent::Capacity { gamma: 3.0, capacity: 2.5 }), 0.0, [0.0, 0.0]);
    near(with(Latent::FreeBits { beta: 3.0, floor: 0.75 }), 8.25, [6.0, 0.0]);
    near(with(Latent::FreeBits { beta: 3.0, floor: 0.0 }), 7.5, [6.0, 3.0]);
    near(with(Latent::FreeBits { beta: 3.0, floor: 5.0 }), 30.0, [0.0, 0.0]);
}

/// Whatever stands in a missing cell, nothing changes; and the observed cells count as they would alone.
#[test]
fn missing_values_have_no_part_in_loss_or_gradient() {
    let spec = ModelSpec::mlp(&[4, 3, 2], Activation::Tanh, Activation::Identity).unwrap();
    let params = ParamLayout::new(&spec, false).initial(Initializer::Torch, 3);
    let objective = Objective { missing: true, ..Objective::default() };
    let complete = common::uniform_rows(3, 4, 5);
    let with_missing = evaluate(&spec, objective.clone(), &params, &complete, 1);
    let plain = evaluate(&spec, Objective::default(), &params, &complete, 1);
    assert_eq!(with_missing, plain, "without NaN the option changes nothing");

    let mut holes = complete.clone();
    holes[5] = f32::NAN;
    let (terms, grads) = evaluate(&spec, objective.clone(), &params, &holes, 1);
    assert!(terms.iter().chain(&grads).all(|value| value.is_finite()));
    let mut zeroed = complete;
    zeroed[5] = 0.0;
    let (whole, _) = evaluate(&spec, objective.clone(), &params, &zeroed, 1);
    let plan = Plan::new(spec, objective, OptimizerSpec::default(), 1, 3).unwrap();
    let mut model = compile(&Arc::new(plan));
    model.write(State::Params, &params).unwrap();
    let (mut from_holes, mut from_zeros) = (vec![0.0; 12], vec![0.0; 12]);
    model.infer_f64(Entry::Reconstruct, &holes, &mut from_holes).unwrap();
    model.infer_f64(Entry::Reconstruct, &zeroed, &mut from_zeros).unwrap();
    assert_eq!(from_holes, from_zeros, "a missing value is fed as 0, and reconstructed");
    let cell = 0.5 * from_holes[5].powi(2) / 3.0;
    assert!((whole[0] - terms[0] - cell).abs() < 1e-14, "the term lacks that cell's share alone");
}

/// A masked autoencoder's term lives on the masked cells: with and without them the squared error is whole.
#[test]
fn masked_cells_are_erased_and_counted() {
    let spec = ModelSpec::mlp(&[6, 2], Activation::Identity, Activation::Identity).unwrap();
    let layout = ParamLayout::new(&spec, false);
    let mut params = vec![0.0f32; layout.len()];
    // A constant reconstruction of ½, whatever is fed.
    params[layout.find("decoder.0.bias").unwrap().1.range()].fill(0.5);
    let rows = vec![2.5f32; 6 * 2000];
    let (terms, _) = evaluate(&spec, Objective::masked(0.75), &params, &rows, 4);
    let whole = 6.0 * 0.5 * 4.0;
    assert!((terms[0] / whole - 0.75).abs() < 0.02, "{}", terms[0] / whole);

    // The identity: what is not erased is reconstructed, so that masking costs ½·x² a masked cell.
    let spec = ModelSpec::mlp(&[2, 2], Activation::Identity, Activation::Identity).unwrap();
    let layout = ParamLayout::new(&spec, false);
    let mut params = vec![0.0f32; layout.len()];
    for name in ["encoder.0.weight", "decoder.0.weight"] {
        params[layout.find(name).unwrap().1.range()].copy_from_slice(&[1.0, 0.0, 0.0, 1.0]);
    }
    let rows = vec![2.0f32; 2 * 2000];
    let term = |objective| evaluate(&spec, objective, &params, &rows, 4).0[0];
    let (masked, denoised) =
        (term(Objective::masked(0.5)), term(Objective::denoising(Corruption::Masking { share: 0.5 })));
    assert_eq!(masked, denoised, "the same cells are erased, and the others cost nothing");
    assert!((masked / 4.0 - 0.5).abs() < 0.03, "{masked}");
}

/// Evaluation draws no noise: the entries of a corrupted plan are those of a plain one.
#[test]
fn evaluation_is_not_corrupted() {
    let spec = ModelSpec::mlp(&[4, 2], Activation::Tanh, Activation::Identity).unwrap();
    let plan = |objective| Plan::new(spec.clone(), objective, OptimizerSpec::default(), 1, 3).unwrap().program;
    let plain = plan(Objective::ae());
    for corruption in [
        Corruption::Gaussian { std: 1.0 },
        Corruption::Masking { share: 0.5 },
        Corruption::Permutation { share: 0.5 },
        Corruption::Masked { share: 0.5, patch: None },
    ] {
        let noisy = plan(Objective::denoising(corruption));
        assert_ne!(noisy.train, plain.train);
        assert_eq!(noisy.graphs()[1..], plain.graphs()[1..]);
    }
}

/// The noise depends on seed, epoch and row, and a resident row draws that of its index.
#[test]
fn noise_belongs_to_the_row() {
    let spec = ModelSpec::mlp(&[4, 2], Activation::Tanh, Activation::Identity).unwrap();
    let rows = common::uniform_rows(5, 4, 2);
    for corruption in [Corruption::Gaussian { std: 0.5 }, Corruption::Masking { share: 0.5 }] {
        let plan = Plan::new(spec.clone(), Objective::denoising(corruption), OptimizerSpec::default(), 1, 5).unwrap();
        let mut model = compile(&Arc::new(plan));
        let data = model.upload(cvae_core::Rows::F32 { values: &rows, width: 4 }).unwrap();
        let mut loss = |batch: &Batch<'_>| {
            model.gradients(batch).unwrap();
            model.losses().unwrap().last_total()
        };
        let host = loss(&Batch::host(&rows));
        assert_eq!(loss(&Batch::resident(data, &[0, 1, 2, 3, 4], 0)), host);
        let shuffled = loss(&Batch::resident(data, &[3, 0, 4, 1, 2], 0));
        assert!((shuffled / host - 1.0).abs() < 1e-14);
        assert_ne!(loss(&Batch::resident(data, &[0, 1, 2, 3, 4], 1)), host, "another epoch, other noise");
    }
}

#[test]
fn a_draw_names_the_noise() {
    let spec = ModelSpec::mlp(&[4, 2], Activation::Tanh, Activation::Identity).unwrap();
    let objective = Objective { jacobian: Jacobian::GradientPenalty { weight: 1.0 }, ..Objective::vae(1.0) };
    let layout = ParamLayout::new(&spec, true);
    let (params, rows) = (wide(&layout.initial(Initializer::Torch, 1)), wide(&common::uniform_rows(2, 4, 2)));
    let draw = Draw { seed: 3, epoch: 1, first_row: 7 };
    let loss = |draw| direct_loss(&spec, &objective, &layout, &params, &rows, draw).unwrap();
    assert_eq!(loss(draw), loss(draw));
    for other in [Draw { seed: 4, ..draw }, Draw { epoch: 2, ..draw }, Draw { first_row: 8, ..draw }] {
        assert_ne!(loss(other), loss(draw));
    }
}

/// Linear layers train like any other, and multiplied out they are the same function.
#[test]
fn linear_codes_train_and_fold() {
    for objective in [Objective::ae(), Objective::vae(0.3), Objective::contractive(0.2)] {
        let spec = ModelSpec::mlp_pair(&[7, 5, 3], &[3, 6, 7], Activation::Gelu, Activation::Identity);
        let spec = spec.unwrap().with_linear_code(2).unwrap();
        let case = Case { spec: spec.clone(), objective: objective.clone(), rows: 4, seed: 3 };
        assert!(error(&case) < 1e-8, "{objective:?}");

        let variational = objective.latent.is_variational();
        let params = ParamLayout::new(&spec, variational).initial(Initializer::Torch, 5);
        let (folded, short) = fold_linear(&spec, variational, &params).unwrap();
        assert_eq!(folded.encoder.len(), if variational { 3 } else { 2 });
        let outputs = [(spec, params), (folded, short)].map(|(spec, params)| {
            let plan = Plan::new(spec, objective.clone(), OptimizerSpec::default(), 3, 4).unwrap();
            let mut model = compile(&Arc::new(plan));
            model.write(State::Params, &params).unwrap();
            let mut out = vec![0.0; 28];
            model.infer_f64(Entry::Reconstruct, &case.batch(), &mut out).unwrap();
            out
        });
        for (deep, folded) in outputs[0].iter().zip(&outputs[1]) {
            assert!((deep - folded).abs() < 1e-6, "{deep} against {folded}");
        }
    }
}

#[test]
fn spectral_norm() {
    let objective = Objective::collapsed_spectral_norm(0.1);
    assert_family(objective.clone());
    assert_family(Objective { decoder_l2: 0.1, ..objective.clone() });
    assert_family(Objective { jacobian: Jacobian::Contractive { weight: 0.2 }, ..objective });
}

/// A decoder weight's length has no effect and no gradient, and divided out it is the same function.
#[test]
fn the_spectral_norm_takes_the_length_of_weights_away() {
    let spec = ModelSpec::mlp(&[6, 5, 2], Activation::Tanh, Activation::Identity).unwrap();
    let layout = ParamLayout::new(&spec, false);
    let params = layout.initial(Initializer::Torch, 3);
    let rows = common::uniform_rows(4, 6, 5);
    let objective = Objective { latent: Latent::None, ..Objective::collapsed_spectral_norm(0.0) };
    let (terms, grads) = evaluate(&spec, objective.clone(), &params, &rows, 1);
    let mut longer = params.clone();
    for name in ["decoder.0.weight", "decoder.2.weight"] {
        let range = layout.find(name).unwrap().1.range();
        let along: f64 = range.clone().map(|i| f64::from(params[i]) * grads[i]).sum();
        let length: f64 = range.clone().map(|i| (f64::from(params[i]) * grads[i]).abs()).sum();
        assert!(length > 1e-3 && along.abs() < 1e-12 * length, "{name}: {along} of {length}");
        longer[range].iter_mut().for_each(|w| *w *= 8.0);
    }
    let (scaled, _) = evaluate(&spec, objective.clone(), &longer, &rows, 1);
    assert!((scaled[0] / terms[0] - 1.0).abs() < 1e-14, "{scaled:?} against {terms:?}");

    let folded = fold_spectral_norm(&spec, false, &params).unwrap();
    let outputs = [(objective, params), (Objective::ae(), folded.clone())].map(|(objective, params)| {
        let plan = Plan::new(spec.clone(), objective, OptimizerSpec::default(), 1, 4).unwrap();
        let mut model = compile(&Arc::new(plan));
        model.write(State::Params, &params).unwrap();
        let mut out = vec![0.0; 24];
        model.infer_f64(Entry::Reconstruct, &rows, &mut out).unwrap();
        out
    });
    for (normalized, plain) in outputs[0].iter().zip(&outputs[1]) {
        assert!((normalized - plain).abs() < 1e-6, "{normalized} against {plain}");
    }
    let first = layout.find("decoder.0.weight").unwrap().1.range();
    let matrix = nalgebra::DMatrix::from_row_iterator(5, 2, wide(&folded[first]));
    let largest = matrix.singular_values().max();
    assert!((1.0 - 1e-6..1.02).contains(&largest), "{largest}");
}
