//! Generated specifications, shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this module")]

use cvae_core::{
    Activation, Algorithm, Latent, LayerSpec, ModelSpec, Objective, OptimizerSpec, Reconstruction, Schedule, Shape,
};
use proptest::prelude::*;

pub fn dense(units: usize, activation: Activation) -> LayerSpec {
    LayerSpec::Dense { units, activation }
}

pub fn activations() -> impl Strategy<Value = Activation> {
    proptest::sample::select(Activation::ALL.to_vec())
}

pub fn reconstructions() -> impl Strategy<Value = Reconstruction> {
    prop_oneof![
        Just(Reconstruction::MseSum),
        Just(Reconstruction::MseMean),
        Just(Reconstruction::Bce),
        Just(Reconstruction::L1),
        (1e-3..1e3).prop_map(|delta| Reconstruction::Huber { delta }),
    ]
}

pub fn latents() -> impl Strategy<Value = Latent> {
    let beta = || prop_oneof![Just(0.0), 1e-6..1e3];
    prop_oneof![
        Just(Latent::None),
        beta().prop_map(|beta| Latent::Collapsed { beta }),
        beta().prop_map(|beta| Latent::Variational { beta }),
    ]
}

/// Models of one- to three-dimensional rows, and an objective that fits them.
pub fn models() -> impl Strategy<Value = (ModelSpec, Objective)> {
    let hidden = || proptest::collection::vec((1usize..20, activations()), 0..4);
    let input = proptest::collection::vec(1usize..5, 1..4);
    let ends = (1usize..9, activations(), activations());
    let terms = (reconstructions(), latents(), prop_oneof![Just(0.0), 1e-6..10.0]);
    (input, hidden(), hidden(), ends, terms).prop_map(|(input, encoder, decoder, ends, terms)| {
        let (latent, code, output) = ends;
        let (reconstruction, latent_term, decoder_l2) = terms;
        let output = if reconstruction == Reconstruction::Bce { Activation::Sigmoid } else { output };
        let input = Shape::new(input);
        let stack = |hidden: Vec<(usize, Activation)>, last| {
            hidden.into_iter().chain([last]).map(|(units, activation)| dense(units, activation)).collect()
        };
        let (encoder, decoder) = (stack(encoder, (latent, code)), stack(decoder, (input.size(), output)));
        (ModelSpec { input, encoder, decoder }, Objective { reconstruction, latent: latent_term, decoder_l2 })
    })
}

pub fn optimizers() -> impl Strategy<Value = OptimizerSpec> {
    let adam = || (0.0..1.0, 0.0..1.0, 1e-12..1e-2);
    let algorithm = prop_oneof![
        adam().prop_map(|(beta1, beta2, eps)| Algorithm::Adam { beta1, beta2, eps }),
        (adam(), 0.0..10.0).prop_map(|((beta1, beta2, eps), weight_decay)| Algorithm::AdamW {
            beta1,
            beta2,
            eps,
            weight_decay
        }),
        (0.0..1.0).prop_map(|momentum| Algorithm::Sgd { momentum }),
    ];
    let schedule = prop_oneof![
        Just(Schedule::Constant),
        (1u64..1 << 40, 0.0..2.0).prop_map(|(steps, final_factor)| Schedule::Cosine { steps, final_factor }),
        (1u64..1 << 40, 1e-3..2.0).prop_map(|(every, factor)| Schedule::Step { every, factor }),
    ];
    (algorithm, 1e-9..10.0, schedule, 0u64..1 << 40, proptest::option::of(1e-6..1e6)).prop_map(
        |(algorithm, learning_rate, schedule, warmup_steps, clip_norm)| OptimizerSpec {
            algorithm,
            learning_rate,
            schedule,
            warmup_steps,
            clip_norm,
        },
    )
}
