//! The whole family of objectives on the emulated driver, against the `f64` reference: corruption, missing values,
//! sparse codes, terms of the whole batch, mixed columns, Jacobian terms, normalised weights.
#![cfg(target_os = "linux")]

mod common;

use common::{Turn, agrees, agrees_on, backend, difference, model, plan, rows, start, tolerance};
use cvae_core::{
    Activation, Backend, ColumnGroup, ColumnKind, Corruption, Entry, Jacobian, Latent, Objective, OptimizerSpec, Patch,
    Reconstruction, Shift,
};
use cvae_cuda::{LaunchPath, Precision};
use cvae_reference::ReferenceBackend;

/// Checks the objective on small ragged models, with and without hidden layers.
fn check(objective: &Objective, activation: Activation, width: usize, latent: usize, counts: &[usize]) {
    let most = counts.iter().copied().max().unwrap_or(1);
    let deep = model(width, 5, latent, activation);
    let flat = cvae_core::ModelSpec::mlp(&[width, latent], activation, Activation::Identity).expect("a valid model");
    for spec in [deep, flat] {
        let plan = plan(spec, objective.clone(), OptimizerSpec::sgd(0.1, 0.5), most);
        for &count in counts {
            agrees(Precision::F32, LaunchPath::Launches, &plan, count);
            let data = holes(count, width);
            if objective.missing {
                agrees_on(Precision::F32, LaunchPath::Graph, &plan, &data);
            }
        }
    }
}

/// Rows of which about every fourth value is missing.
fn holes(count: usize, width: usize) -> Vec<f32> {
    let hole = |(index, value): (usize, f32)| if index * 7 % 4 == 1 { f32::NAN } else { value };
    rows(count, width).into_iter().enumerate().map(hole).collect()
}

fn corruptions() -> [Corruption; 6] {
    let patch = Some(Patch { size: 2, width: 3, channels: 1 });
    [
        Corruption::Gaussian { std: 0.3 },
        Corruption::Masking { share: 0.4 },
        Corruption::Permutation { share: 0.5 },
        Corruption::Masked { share: 0.5, patch: None },
        Corruption::Masked { share: 0.5, patch },
        Corruption::Shift { share: 0.7, shift: Shift { distance: 2, width: 3, channels: 1 } },
    ]
}

#[test]
fn corrupted_rows_agree() {
    let _turn = Turn::seeded(1);
    for corruption in corruptions() {
        for missing in [false, true] {
            let objective = Objective { missing, ..Objective::denoising(corruption) };
            check(&objective, Activation::Tanh, 9, 3, &[1, 2, 19]);
        }
    }
}

#[test]
fn missing_values_agree_in_every_comparison() {
    let _turn = Turn::seeded(2);
    for reconstruction in [Reconstruction::MseMean, Reconstruction::L1, Reconstruction::Huber { delta: 0.4 }] {
        let objective = Objective { reconstruction, missing: true, ..Objective::default() };
        check(&objective, Activation::Relu, 7, 2, &[5]);
    }
    let objective = Objective { missing: true, reconstruction: Reconstruction::Bce, ..Objective::vae(0.3) };
    let spec = cvae_core::ModelSpec::mlp(&[6, 4, 2], Activation::Relu, Activation::Sigmoid).expect("a valid model");
    let plan = plan(spec, objective, OptimizerSpec::sgd(0.1, 0.0), 4);
    agrees_on(Precision::F32, LaunchPath::Cooperative, &plan, &holes(4, 6));
}

#[test]
fn sparse_codes_agree() {
    let _turn = Turn::seeded(3);
    check(&Objective::sparse(0.2), Activation::Relu, 8, 5, &[1, 4]);
    for k in [1, 3, 5] {
        let both = Objective { latent: Latent::Sparse { weight: 0.1 }, ..Objective::top_k(k) };
        check(&Objective::top_k(k), Activation::Tanh, 8, 5, &[1, 9]);
        check(&both, Activation::Elu, 8, 5, &[3]);
    }
}

#[test]
fn terms_of_the_whole_batch_agree() {
    let _turn = Turn::seeded(4);
    for missing in [false, true] {
        let objective = Objective { sigma_floor: Some(1e-3), missing, ..Objective::default() };
        check(&objective, Activation::Tanh, 9, 3, &[1, 2, 33]);
    }
    for latent in [
        Latent::Capacity { gamma: 0.7, capacity: 0.0 },
        Latent::Capacity { gamma: 0.7, capacity: 25.0 },
        Latent::FreeBits { beta: 0.5, floor: 0.02 },
        Latent::FreeBits { beta: 0.5, floor: 5.0 },
    ] {
        check(&Objective { latent, ..Objective::ae() }, Activation::Silu, 6, 3, &[1, 10]);
        // More dimensions than a warp has lanes.
        check(&Objective { latent, ..Objective::ae() }, Activation::Silu, 40, 35, &[10]);
    }
}

#[test]
fn the_discrepancy_agrees() {
    let _turn = Turn::seeded(5);
    check(&Objective::wae_mmd(3.0), Activation::Tanh, 6, 3, &[1, 2, 9]);
    check(&Objective { decoder_l2: 0.01, ..Objective::wae_mmd(3.0) }, Activation::Relu, 6, 2, &[300]);
}

#[test]
fn mixed_columns_agree() {
    let _turn = Turn::seeded(6);
    let group = |kind, width, weight| ColumnGroup { weight, ..ColumnGroup::new(kind, width) };
    let columns = vec![
        group(ColumnKind::Numeric, 3, 1.0),
        group(ColumnKind::Categorical, 4, 0.5),
        group(ColumnKind::Binary, 2, 2.0),
        group(ColumnKind::Categorical, 1, 1.0),
    ];
    for reconstruction in [Reconstruction::MseSum, Reconstruction::MseMean, Reconstruction::Huber { delta: 0.3 }] {
        for (missing, corruption) in [(false, Corruption::None), (true, Corruption::Permutation { share: 0.4 })] {
            let columns = columns.clone();
            let objective = Objective { reconstruction, missing, corruption, columns, ..Objective::default() };
            check(&objective, Activation::Relu, 10, 3, &[1, 7]);
        }
    }
}

#[test]
fn jacobian_terms_agree_for_every_activation() {
    let _turn = Turn::seeded(7);
    for activation in Activation::ALL {
        check(&Objective::contractive(0.3), activation, 6, 3, &[1, 5]);
        check(&Objective::collapsed_gradient_penalty(0.1, 0.2), activation, 6, 3, &[5]);
    }
    // Beyond the exact limit: one random vector in the space of codes.
    check(&Objective::contractive(0.3), Activation::Tanh, 20, 17, &[4]);
    let sparse = Objective { jacobian: Jacobian::Contractive { weight: 0.2 }, ..Objective::top_k(2) };
    check(&sparse, Activation::Sigmoid, 6, 4, &[4]);
}

#[test]
fn weights_divided_by_their_norm_agree() {
    let _turn = Turn::seeded(10);
    for activation in [Activation::Relu, Activation::Tanh] {
        check(&Objective::collapsed_spectral_norm(0.1), activation, 9, 3, &[1, 6]);
    }
    // Wider than a warp and than a block.
    let wide = plan(
        model(300, 40, 3, Activation::Relu),
        Objective::collapsed_spectral_norm(0.1),
        OptimizerSpec::sgd(0.1, 0.5),
        4,
    );
    for path in [LaunchPath::Launches, LaunchPath::Graph, LaunchPath::Cooperative] {
        agrees(Precision::F32, path, &wide, 4);
    }
    let backend = backend(Precision::F32, LaunchPath::Graph);
    let (mut cuda, mut reference) = (start(&backend, &wide), start(&ReferenceBackend as &dyn Backend, &wide));
    let input = rows(5, 300);
    let (mut found, mut expected) = (vec![0.0; 5 * 300], vec![0.0; 5 * 300]);
    cuda.infer(Entry::Reconstruct, &input, &mut found).expect("infers");
    reference.infer_f64(Entry::Reconstruct, &input, &mut expected).expect("infers");
    let error = difference(&found, &expected);
    assert!(error < tolerance(Precision::F32), "{error:e}");
}

#[test]
fn every_precision_and_path_agrees_on_all_of_it_together() {
    let _turn = Turn::seeded(8);
    let objective = Objective {
        missing: true,
        decoder_l2: 0.01,
        corruption: Corruption::Masked { share: 0.5, patch: None },
        jacobian: Jacobian::Contractive { weight: 0.01 },
        ..Objective::wae_mmd(1.0)
    };
    let plan = plan(model(19, 17, 5, Activation::Tanh), objective, OptimizerSpec::sgd(0.1, 0.5), 18);
    for precision in Precision::ALL {
        for path in [LaunchPath::Launches, LaunchPath::Graph, LaunchPath::Cooperative] {
            agrees_on(precision, path, &plan, &holes(18, 19));
        }
    }
}

#[test]
fn inference_keeps_the_largest_fills_in_and_normalises() {
    let _turn = Turn::seeded(9);
    let columns = vec![ColumnGroup::new(ColumnKind::Categorical, 4), ColumnGroup::new(ColumnKind::Binary, 3)];
    let objective = Objective { missing: true, columns, ..Objective::top_k(2) };
    let plan = plan(model(7, 6, 4, Activation::Silu), objective, OptimizerSpec::default(), 4);
    let backend = backend(Precision::F32, LaunchPath::Graph);
    let (mut cuda, mut reference) = (start(&backend, &plan), start(&ReferenceBackend as &dyn Backend, &plan));
    for entry in Entry::ALL {
        let (from, to) = entry.widths(&plan);
        let input = if entry == Entry::Decode { rows(5, from) } else { holes(5, from) };
        let (mut found, mut expected) = (vec![0.0; 5 * to], vec![0.0; 5 * to]);
        cuda.infer(entry, &input, &mut found).expect("infers");
        reference.infer_f64(entry, &input, &mut expected).expect("infers");
        let error = difference(&found, &expected);
        assert!(error < tolerance(Precision::F32), "{entry:?}: {error:e}");
        let kept = |row: &[f32]| row.iter().filter(|value| **value != 0.0).count();
        assert!(entry != Entry::Encode || found.chunks_exact(4).all(|row| kept(row) == 2), "{found:?}");
    }
}
