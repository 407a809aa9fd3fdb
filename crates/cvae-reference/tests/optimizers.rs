//! Optimiser steps against the textbook formulas, and objectives and optimisers that must coincide.

mod common;

use common::{Case, activations, cases, compile, state};
use cvae_core::{
    Activation, Algorithm, Batch, Corruption, Executable, Jacobian, Latent, LayerSpec, ModelSpec, Objective,
    OptimizerSpec, Reconstruction, Schedule, Shape, State,
};
use proptest::prelude::*;

fn algorithms() -> impl Strategy<Value = Algorithm> {
    let (beta1, beta2, eps) = (0.0..0.99, 0.5..0.9999, 1e-9..1e-3);
    let adam = (beta1, beta2, eps);
    prop_oneof![
        adam.clone().prop_map(|(beta1, beta2, eps)| Algorithm::Adam { beta1, beta2, eps }),
        (adam, 0.0..0.5).prop_map(|((beta1, beta2, eps), weight_decay)| Algorithm::AdamW {
            beta1,
            beta2,
            eps,
            weight_decay
        }),
        prop_oneof![Just(0.0), 0.1..0.99].prop_map(|momentum| Algorithm::Sgd { momentum }),
    ]
}

fn schedules() -> impl Strategy<Value = Schedule> {
    prop_oneof![
        Just(Schedule::Constant),
        (1u64..6, 0.0..0.5).prop_map(|(steps, final_factor)| Schedule::Cosine { steps, final_factor }),
        (1u64..4, 0.1..1.0).prop_map(|(every, factor)| Schedule::Step { every, factor }),
    ]
}

fn optimizers() -> impl Strategy<Value = OptimizerSpec> {
    let clip = proptest::option::of(1e-3..10.0);
    (algorithms(), 1e-4..0.1, schedules(), 0u64..4, clip).prop_map(
        |(algorithm, learning_rate, schedule, warmup_steps, clip_norm)| OptimizerSpec {
            algorithm,
            learning_rate,
            schedule,
            warmup_steps,
            clip_norm,
        },
    )
}

/// The rate of step `t`, counted from 1.
fn rate(spec: &OptimizerSpec, t: u64) -> f64 {
    if t <= spec.warmup_steps {
        return spec.learning_rate * t as f64 / spec.warmup_steps as f64;
    }
    let done = (t - 1 - spec.warmup_steps) as f64;
    spec.learning_rate
        * match spec.schedule {
            Schedule::Constant => 1.0,
            Schedule::Cosine { steps, .. } if done >= steps as f64 => final_factor(spec),
            Schedule::Cosine { steps, final_factor } => {
                let cosine = (std::f64::consts::PI * done / steps as f64).cos();
                0.5 * (1.0 + final_factor) + 0.5 * (1.0 - final_factor) * cosine
            }
            Schedule::Step { every, factor } => (0..(done as u64 / every)).fold(1.0, |product, _| product * factor),
        }
}

fn final_factor(spec: &OptimizerSpec) -> f64 {
    match spec.schedule {
        Schedule::Cosine { final_factor, .. } => final_factor,
        _ => 1.0,
    }
}

/// One step as the papers write it: corrected moments `m̂` and `v̂`, decay first.
fn textbook(spec: &OptimizerSpec, t: u64, grads: &[f64], params: &mut [f64], m: &mut [f64], v: &mut [f64]) {
    let norm = grads.iter().map(|g| g.powi(2)).sum::<f64>().sqrt();
    let clip = spec.clip_norm.map_or(1.0, |limit| (limit / norm).min(1.0));
    let lr = rate(spec, t);
    for i in 0..grads.len() {
        let g = clip * grads[i];
        match spec.algorithm {
            Algorithm::Adam { beta1, beta2, eps } | Algorithm::AdamW { beta1, beta2, eps, .. } => {
                if let Algorithm::AdamW { weight_decay, .. } = spec.algorithm {
                    params[i] *= 1.0 - lr * weight_decay;
                }
                m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                v[i] = beta2 * v[i] + (1.0 - beta2) * g.powi(2);
                let corrected = m[i] / (1.0 - beta1.powi(t as i32));
                params[i] -= lr * corrected / ((v[i] / (1.0 - beta2.powi(t as i32))).sqrt() + eps);
            }
            Algorithm::Sgd { momentum } => {
                m[i] = momentum * m[i] + g;
                params[i] -= lr * m[i];
            }
        }
    }
}

fn assert_close(what: &str, found: &[f64], expected: &[f64]) {
    for (i, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-12 * b.abs().max(1e-3), "{what} {i}: {a} against {b}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn steps_follow_the_textbook(case in cases(), optimizer in optimizers()) {
        let mut model = compile(&case.plan(optimizer));
        let rows = case.batch();
        let [mut params, mut m, mut v] =
            [State::Params, State::Moment1, State::Moment2].map(|part| state(model.as_mut(), part));
        for t in 1..=8 {
            model.gradients(&Batch::host(&rows)).unwrap();
            let grads = state(model.as_mut(), State::Grads);
            model.apply().unwrap();
            textbook(&optimizer, t, &grads, &mut params, &mut m, &mut v);
            assert_close("parameter", &state(model.as_mut(), State::Params), &params);
            assert_close("first moment", &state(model.as_mut(), State::Moment1), &m);
            assert_close("second moment", &state(model.as_mut(), State::Moment2), &v);
            // Teacher-forced: both go on from the same bits.
            params = state(model.as_mut(), State::Params);
            m = state(model.as_mut(), State::Moment1);
            v = state(model.as_mut(), State::Moment2);
        }
    }

    /// A term of weight 0 equals its absence bit for bit, over several steps.
    #[test]
    fn a_weight_of_zero_is_absence(case in cases()) {
        let optimizer = OptimizerSpec::adam(0.01);
        let with = |objective| trained(&Case { objective, ..case.clone() }, optimizer);
        let plain = Objective {
            latent: Latent::None,
            jacobian: Jacobian::None,
            corruption: Corruption::None,
            ..case.objective.clone()
        };
        let absent = with(plain.clone());
        for latent in
            [Latent::Collapsed { beta: 0.0 }, Latent::Sparse { weight: 0.0 }, Latent::Mmd { weight: 0.0 }]
        {
            prop_assert_eq!(&with(Objective { latent, ..plain.clone() }), &absent);
        }
        for jacobian in [Jacobian::GradientPenalty { weight: 0.0 }, Jacobian::Contractive { weight: 0.0 }] {
            prop_assert_eq!(&with(Objective { jacobian, ..plain.clone() }), &absent);
        }
        for corruption in [Corruption::Gaussian { std: 0.0 }, Corruption::Permutation { share: 0.0 }] {
            prop_assert_eq!(&with(Objective { corruption, ..plain.clone() }), &absent);
        }
    }

    /// Optimisers that must coincide bit for bit where one generalises the other.
    #[test]
    fn special_cases_of_optimizers_coincide(case in cases()) {
        let adam = OptimizerSpec::adam(0.01);
        let expected = trained(&case, adam);
        prop_assert_eq!(&trained(&case, OptimizerSpec::adamw(0.01, 0.0)), &expected);
        prop_assert_eq!(&trained(&case, OptimizerSpec { clip_norm: Some(1e30), ..adam }), &expected);
        let schedule = Schedule::Step { every: 3, factor: 1.0 };
        prop_assert_eq!(&trained(&case, OptimizerSpec { schedule, ..adam }), &expected);
    }

    /// Without errors beyond `delta`, Huber's loss is half the squared error; far beyond, a scaled L1.
    #[test]
    fn special_cases_of_reconstruction_coincide(
        width in 1usize..9, latent in 1usize..4, rows in 1usize..6, activation in activations(), seed in 0u64..1000,
    ) {
        let layer = |units, activation| LayerSpec::Dense { units, activation };
        let spec = ModelSpec {
            input: Shape::flat(width),
            encoder: vec![layer(latent, activation)],
            decoder: vec![layer(width, Activation::Tanh)],
        };
        let with = |reconstruction| Case {
            spec: spec.clone(),
            objective: Objective { reconstruction, ..Objective::ae() },
            rows,
            seed,
        };
        let sgd = OptimizerSpec::sgd(0.01, 0.0);
        let half_square = trained(&with(Reconstruction::MseSum), sgd);
        prop_assert_eq!(&trained(&with(Reconstruction::Huber { delta: 100.0 }), sgd), &half_square);
        let mean = trained(&with(Reconstruction::MseMean), OptimizerSpec::sgd(0.01 * width as f64 / 2.0, 0.0));
        assert_close("parameter", &mean, &half_square);
        let narrow = trained(&with(Reconstruction::Huber { delta: 1e-7 }), OptimizerSpec::sgd(1e5, 0.0));
        let absolute = trained(&with(Reconstruction::L1), sgd);
        for (a, b) in narrow.iter().zip(&absolute) {
            prop_assert!((a - b).abs() < 1e-6, "{} against {}", a, b);
        }
    }
}

/// Parameters after six steps on one batch.
fn trained(case: &Case, optimizer: OptimizerSpec) -> Vec<f64> {
    let mut model = compile(&case.plan(optimizer));
    let rows = case.batch();
    for _ in 0..6 {
        model.train_step(&Batch::host(&rows)).unwrap();
    }
    params_of(model.as_mut())
}

fn params_of(model: &mut dyn Executable) -> Vec<f64> {
    state(model, State::Params)
}

#[test]
fn clipping_scales_the_whole_gradient() {
    let spec = ModelSpec::mlp(&[6, 4, 2], Activation::Tanh, Activation::Identity).unwrap();
    let case = Case { spec, objective: Objective::collapsed(0.1, 0.3), rows: 4, seed: 8 };
    let rows = case.batch();
    for limit in [1e-3, 1e3] {
        let optimizer = OptimizerSpec { clip_norm: Some(limit), ..OptimizerSpec::sgd(1.0, 0.0) };
        let mut model = compile(&case.plan(optimizer));
        let before = params_of(model.as_mut());
        model.gradients(&Batch::host(&rows)).unwrap();
        let grads = state(model.as_mut(), State::Grads);
        let norm = grads.iter().map(|g| g * g).sum::<f64>().sqrt();
        assert!(norm > 1e-2 && norm < 1e2, "the limits lie on both sides of {norm}");
        model.apply().unwrap();
        let after = params_of(model.as_mut());
        let moved = before.iter().zip(&after).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        assert!((moved / norm.min(limit) - 1.0).abs() < 1e-9, "moved by {moved}, limit {limit}");
    }
}
