//! Generated specifications, shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this module")]

use cvae_core::{
    Activation, Algorithm, ColumnGroup, ColumnKind, Corruption, Jacobian, Latent, LayerSpec, ModelSpec, Objective,
    OptimizerSpec, Patch, Reconstruction, Schedule, Shape, Shift,
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
    let weight = || prop_oneof![Just(0.0), 1e-6..1e3];
    prop_oneof![
        Just(Latent::None),
        weight().prop_map(|beta| Latent::Collapsed { beta }),
        weight().prop_map(|beta| Latent::Variational { beta }),
        (weight(), weight()).prop_map(|(gamma, capacity)| Latent::Capacity { gamma, capacity }),
        (weight(), weight()).prop_map(|(beta, floor)| Latent::FreeBits { beta, floor }),
        weight().prop_map(|weight| Latent::Sparse { weight }),
        weight().prop_map(|weight| Latent::Mmd { weight }),
    ]
}

pub fn corruptions() -> impl Strategy<Value = Corruption> {
    let share = || prop_oneof![Just(0.0), 0.01..1.0];
    prop_oneof![
        Just(Corruption::None),
        (0.0..2.0).prop_map(|std| Corruption::Gaussian { std }),
        share().prop_map(|share| Corruption::Masking { share }),
        share().prop_map(|share| Corruption::Permutation { share }),
        (0.01..1.0).prop_map(|share| Corruption::Masked { share, patch: None }),
        (share(), 1usize..4).prop_map(|(share, distance)| {
            Corruption::Shift { share, shift: Shift { distance, width: 1, channels: 1 } }
        }),
        (0.01..1.0, 1usize..4).prop_map(|(share, size)| {
            Corruption::Masked { share, patch: Some(Patch { size, width: 1, channels: 1 }) }
        }),
    ]
}

pub fn jacobians() -> impl Strategy<Value = Jacobian> {
    let weight = || prop_oneof![Just(0.0), 1e-6..1e3];
    prop_oneof![
        Just(Jacobian::None),
        weight().prop_map(|weight| Jacobian::GradientPenalty { weight }),
        weight().prop_map(|weight| Jacobian::Contractive { weight }),
    ]
}

/// Models of one- to three-dimensional rows, and an objective that fits them.
pub fn models() -> impl Strategy<Value = (ModelSpec, Objective)> {
    let hidden = || proptest::collection::vec((1usize..20, activations()), 0..4);
    let input = proptest::collection::vec(1usize..5, 1..4);
    let ends = (prop_oneof![1usize..9, Just(17)], activations(), activations(), 0usize..3);
    let terms = (reconstructions(), latents(), prop_oneof![Just(0.0), 1e-6..10.0]);
    let kinds = [ColumnKind::Numeric, ColumnKind::Binary, ColumnKind::Categorical];
    let parts = (
        corruptions(),
        jacobians(),
        any::<bool>(),
        proptest::option::of(1usize..9),
        proptest::option::of(1e-6..1.0),
        proptest::option::of(proptest::sample::select(kinds.to_vec())),
    );
    (input, hidden(), hidden(), ends, terms, parts).prop_map(|(input, encoder, decoder, ends, terms, parts)| {
        let (latent, code, output, linear) = ends;
        let (reconstruction, latent_term, decoder_l2) = terms;
        let (corruption, jacobian, missing, top_k, sigma_floor, columns) = parts;
        let input = Shape::new(input);
        let width = input.size();
        let columns = match columns {
            // A group of the chosen kind, and the other columns numeric.
            Some(kind) if reconstruction != Reconstruction::Bce => {
                let groups = [(kind, width.div_ceil(2)), (ColumnKind::Numeric, width / 2)];
                groups.into_iter().filter(|(_, width)| *width > 0).map(|(k, w)| ColumnGroup::new(k, w)).collect()
            }
            _ => vec![],
        };
        let output = match reconstruction {
            _ if !columns.is_empty() => Activation::Identity,
            Reconstruction::Bce => Activation::Sigmoid,
            _ => output,
        };
        let objective = Objective {
            reconstruction,
            latent: latent_term,
            decoder_l2,
            spectral_norm: linear == 2 && !matches!(jacobian, Jacobian::GradientPenalty { .. }),
            sigma_floor: sigma_floor.filter(|_| reconstruction == Reconstruction::MseSum && columns.is_empty()),
            missing,
            top_k: top_k.filter(|k| *k <= latent && !latent_term.is_variational()),
            corruption,
            jacobian,
            columns,
        };
        let stack = |hidden: Vec<(usize, Activation)>, last| {
            hidden.into_iter().chain([last]).map(|(units, activation)| dense(units, activation)).collect()
        };
        let (encoder, decoder) = (stack(encoder, (latent, code)), stack(decoder, (width, output)));
        let spec = ModelSpec { input, encoder, decoder };
        (spec.with_linear_code(linear).expect("a few parameters more"), objective)
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
