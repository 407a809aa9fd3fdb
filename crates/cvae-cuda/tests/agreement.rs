//! Values, gradients and optimiser steps on the emulated driver, against the `f64` reference.
#![cfg(target_os = "linux")]

mod common;

use common::{Turn, agrees, backend, difference, model, plan, rows, start, tolerance, variational};
use cvae_core::{Activation, Algorithm, Entry, Latent, ModelSpec, Objective, OptimizerSpec, Reconstruction, Schedule};
use cvae_cuda::{LaunchPath, Precision};
use cvae_reference::ReferenceBackend;

#[test]
fn ragged_shapes_agree_in_every_precision() {
    let _turn = Turn::seeded(1);
    let shapes = [(1, 1, 1, 1), (2, 3, 2, 1), (7, 17, 8, 3), (8, 31, 17, 2), (17, 8, 33, 16), (33, 65, 3, 17)];
    for (count, width, hidden, latent) in shapes {
        for precision in Precision::ALL {
            let optimizer = OptimizerSpec::sgd(0.1, 0.9);
            let plan = plan(model(width, hidden, latent, Activation::Tanh), variational(), optimizer, 40);
            agrees(precision, LaunchPath::Launches, &plan, count);
        }
    }
}

#[test]
fn sums_longer_than_a_slice_agree() {
    let _turn = Turn::seeded(2);
    for precision in Precision::ALL {
        // 300 inputs are three slices of the small tile, 270 rows are three slices of the weight gradient.
        let plan = plan(model(300, 20, 5, Activation::Relu), Objective::default(), OptimizerSpec::sgd(0.1, 0.0), 270);
        agrees(precision, LaunchPath::Launches, &plan, 270);
    }
}

#[test]
fn large_tiles_agree() {
    let _turn = Turn::seeded(3);
    for precision in Precision::ALL {
        // Eight by eight tiles of 64, the last ones ragged, in the forward pass and both gradients.
        let spec = ModelSpec::mlp(&[450, 453, 2], Activation::LeakyRelu, Activation::Identity).expect("a valid model");
        let plan = plan(spec, Objective::default(), OptimizerSpec::sgd(0.1, 0.0), 451);
        agrees(precision, LaunchPath::Launches, &plan, 451);
    }
}

#[test]
fn every_activation_agrees() {
    let _turn = Turn::seeded(4);
    for activation in Activation::ALL {
        let spec = ModelSpec::mlp(&[9, 6, 4], activation, activation).expect("a valid model");
        let plan = plan(spec, Objective::default(), OptimizerSpec::sgd(0.1, 0.5), 5);
        agrees(Precision::F32, LaunchPath::Launches, &plan, 5);
    }
}

#[test]
fn every_reconstruction_and_latent_term_agrees() {
    let _turn = Turn::seeded(5);
    let kinds = [
        Reconstruction::MseSum,
        Reconstruction::MseMean,
        Reconstruction::Bce,
        Reconstruction::L1,
        Reconstruction::Huber { delta: 0.4 },
    ];
    let latents = [
        Latent::None,
        Latent::Collapsed { beta: 0.5 },
        Latent::Collapsed { beta: 0.0 },
        Latent::Variational { beta: 2.0 },
        Latent::Variational { beta: 0.0 },
    ];
    for reconstruction in kinds {
        for latent in latents {
            for decoder_l2 in [0.0, 0.03] {
                let output = if reconstruction == Reconstruction::Bce { Activation::Sigmoid } else { Activation::Silu };
                // Without a hidden layer the two heads of a variational encoder share nothing.
                for widths in [&[6, 3][..], &[6, 5, 3]] {
                    let spec = ModelSpec::mlp(widths, Activation::Gelu, output).expect("a valid model");
                    let objective = Objective { reconstruction, latent, decoder_l2, ..Objective::ae() };
                    let plan = plan(spec, objective, OptimizerSpec::sgd(0.05, 0.0), 3);
                    agrees(Precision::F32, LaunchPath::Launches, &plan, 3);
                }
            }
        }
    }
}

#[test]
fn every_optimizer_agrees() {
    let _turn = Turn::seeded(6);
    let clipped = OptimizerSpec { clip_norm: Some(0.05), ..OptimizerSpec::adam(1e-2) };
    let loose = OptimizerSpec { clip_norm: Some(1e6), ..OptimizerSpec::sgd(1e-2, 0.9) };
    let nesting = OptimizerSpec {
        algorithm: Algorithm::AdamW { beta1: 0.8, beta2: 0.95, eps: 1e-6, weight_decay: 0.1 },
        schedule: Schedule::Cosine { steps: 10, final_factor: 0.1 },
        warmup_steps: 3,
        ..OptimizerSpec::default()
    };
    for optimizer in [OptimizerSpec::adam(1e-2), clipped, loose, nesting] {
        let plan = plan(model(12, 7, 3, Activation::Elu), variational(), optimizer, 6);
        agrees(Precision::F32, LaunchPath::Launches, &plan, 6);
    }
}

#[test]
fn every_entry_agrees_on_any_number_of_rows() {
    let _turn = Turn::seeded(7);
    let spec = ModelSpec::mlp_pair(&[10, 6, 3], &[3, 8, 7, 10], Activation::Silu, Activation::Sigmoid);
    let plan = plan(spec.expect("a valid model"), Objective::default(), OptimizerSpec::default(), 4);
    for precision in Precision::ALL {
        let backend = backend(precision, LaunchPath::Graph);
        let (mut cuda, mut reference) = (start(&backend, &plan), start(&ReferenceBackend, &plan));
        for entry in Entry::ALL {
            let (from, to) = entry.widths(&plan);
            for count in [1, 5, 256, 300] {
                let input = rows(count, from);
                let (mut found, mut expected) = (vec![0.0; count * to], vec![0.0; count * to]);
                cuda.infer(entry, &input, &mut found).expect("infers");
                reference.infer_f64(entry, &input, &mut expected).expect("infers");
                let error = difference(&found, &expected);
                assert!(error < tolerance(precision), "{precision} {entry:?} {count} rows: {error:e}");
            }
        }
    }
}
