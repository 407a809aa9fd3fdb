//! Generated models and batches, shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this module")]

use std::sync::Arc;

use cvae_core::{
    Activation, Backend, ColumnGroup, ColumnKind, Corruption, Executable, Initializer, Jacobian, Latent, LayerSpec,
    ModelSpec, Noise, Objective, Op, OptimizerSpec, Patch, Plan, Reconstruction, Shape, Shift, State, Stream,
};
use cvae_reference::{Draw, ReferenceBackend};
use proptest::prelude::*;

/// A model, an objective and the size of a batch.
#[derive(Clone, Debug)]
pub struct Case {
    pub spec: ModelSpec,
    pub objective: Objective,
    pub rows: usize,
    pub seed: u64,
}

impl Case {
    pub fn plan(&self, optimizer: OptimizerSpec) -> Arc<Plan> {
        let plan = Plan::new(self.spec.clone(), self.objective.clone(), optimizer, self.seed, self.rows);
        Arc::new(plan.expect("generated cases are valid"))
    }

    /// Rows in [0, 1), as cross-entropy wants them; about a fifth is missing where the objective allows it.
    pub fn batch(&self) -> Vec<f32> {
        let mut rows = uniform_rows(self.rows, self.spec.width(), self.seed);
        if self.objective.missing {
            let mut draws = vec![0.0; rows.len()];
            Noise::new(self.seed, Stream::Data, 1).uniform(0, &mut draws);
            rows.iter_mut().zip(draws).filter(|(_, draw)| *draw < 0.2).for_each(|(value, _)| *value = f32::NAN);
        }
        rows
    }

    /// Whether the gradient of a row is independent of the other rows of its batch, up to the mean.
    pub fn rows_are_independent(&self) -> bool {
        !self.plan(OptimizerSpec::default()).program.train.ops.iter().any(Op::couples_rows)
    }

    /// The random numbers that a host batch in epoch 0 draws.
    pub fn draw(&self) -> Draw {
        Draw { seed: self.seed, ..Draw::default() }
    }
}

pub fn uniform_rows(rows: usize, width: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; rows * width];
    Noise::new(seed, Stream::Data, 0).uniform(0, &mut values);
    values
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

/// Compiles a plan on the reference with parameters drawn from the plan's seed.
pub fn compile(plan: &Arc<Plan>) -> Box<dyn Executable> {
    let mut model = ReferenceBackend.compile(Arc::clone(plan)).expect("the reference supports every plan");
    let params = plan.params.initial(Initializer::Torch, plan.seed);
    model.write(State::Params, &params).expect("the layout's length");
    model
}

/// The state in full precision.
pub fn state(model: &mut dyn Executable, state: State) -> Vec<f64> {
    let mut values = vec![f64::NAN; model.plan().params.len()];
    model.read_f64(state, &mut values).expect("a readable state");
    values
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
        (0.05..2.0).prop_map(|delta| Reconstruction::Huber { delta }),
    ]
}

pub fn latents() -> impl Strategy<Value = Latent> {
    let weight = || 0.01..2.0;
    prop_oneof![
        Just(Latent::None),
        weight().prop_map(|beta| Latent::Collapsed { beta }),
        weight().prop_map(|beta| Latent::Variational { beta }),
        (weight(), 0.0..3.0).prop_map(|(gamma, capacity)| Latent::Capacity { gamma, capacity }),
        (weight(), 0.0..0.5).prop_map(|(beta, floor)| Latent::FreeBits { beta, floor }),
        weight().prop_map(|weight| Latent::Sparse { weight }),
        weight().prop_map(|weight| Latent::Mmd { weight }),
    ]
}

pub fn corruptions() -> impl Strategy<Value = Corruption> {
    let share = || 0.05..0.95;
    prop_oneof![
        Just(Corruption::None),
        (0.01..1.0).prop_map(|std| Corruption::Gaussian { std }),
        share().prop_map(|share| Corruption::Masking { share }),
        share().prop_map(|share| Corruption::Permutation { share }),
        share().prop_map(|share| Corruption::Masked { share, patch: None }),
        (share(), 1usize..4).prop_map(|(share, distance)| {
            Corruption::Shift { share, shift: Shift { distance, width: 1, channels: 1 } }
        }),
        (share(), 1usize..4)
            .prop_map(|(share, size)| Corruption::Masked { share, patch: Some(Patch { size, width: 1, channels: 1 }) }),
    ]
}

pub fn jacobians() -> impl Strategy<Value = Jacobian> {
    prop_oneof![
        3 => Just(Jacobian::None),
        1 => (0.01..1.0).prop_map(|weight| Jacobian::GradientPenalty { weight }),
        1 => (0.01..1.0).prop_map(|weight| Jacobian::Contractive { weight }),
    ]
}

/// Groups of all three kinds that cover `width` columns.
pub fn columns(width: usize) -> Vec<ColumnGroup> {
    let group = |kind, width, weight| ColumnGroup { weight, ..ColumnGroup::new(kind, width) };
    let (classes, binary) = (width.div_ceil(2), width / 4);
    let groups = [
        group(ColumnKind::Numeric, width - classes - binary, 0.5),
        group(ColumnKind::Categorical, classes, 2.0),
        group(ColumnKind::Binary, binary, 1.0),
    ];
    groups.into_iter().filter(|group| group.width > 0).collect()
}

/// Hidden widths and activations, depth 0 to 3.
fn hidden() -> impl Strategy<Value = Vec<(usize, Activation)>> {
    proptest::collection::vec((1usize..=9, activations()), 0..=3)
}

/// Models of 1 to 12 inputs and 1 to 7 latent dimensions; every layer has its own activation, that of the code
/// included. Every part of the objective, alone and with others.
pub fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..=12, 1usize..=7, hidden(), hidden(), activations(), activations());
    let terms = (reconstructions(), latents(), prop_oneof![Just(0.0), 0.001..0.5], jacobians());
    let rest = (corruptions(), any::<bool>(), 0usize..12, 0u8..6);
    (shape, terms, rest, 1usize..=9, 0u64..1 << 48).prop_map(|(shape, terms, rest, rows, seed)| {
        let (width, latent, encoder, decoder, code, output) = shape;
        let (reconstruction, latent_term, decoder_l2, jacobian) = terms;
        let (corruption, missing, top_k, variant) = rest;
        let bce = reconstruction == Reconstruction::Bce;
        let mixed = variant == 0 && !bce;
        let objective = Objective {
            reconstruction,
            latent: latent_term,
            decoder_l2,
            spectral_norm: variant > 3 && !matches!(jacobian, Jacobian::GradientPenalty { .. }),
            sigma_floor: (variant == 1 && reconstruction == Reconstruction::MseSum).then_some(1e-3),
            missing,
            top_k: Some(top_k).filter(|k| (1..=latent).contains(k) && !latent_term.is_variational()),
            corruption,
            jacobian,
            columns: if mixed { columns(width) } else { vec![] },
        };
        let output = match bce {
            true => Activation::Sigmoid,
            false if mixed => Activation::Identity,
            false => output,
        };
        let stack = |hidden: Vec<(usize, Activation)>, last: (usize, Activation)| {
            let layers = hidden.into_iter().chain([last]);
            layers.map(|(units, activation)| LayerSpec::Dense { units, activation }).collect()
        };
        let spec = ModelSpec {
            input: Shape::flat(width),
            encoder: stack(encoder, (latent, code)),
            decoder: stack(decoder, (width, output)),
        };
        let spec = spec.with_linear_code(if variant == 2 { 2 } else { 0 }).expect("a few parameters more");
        Case { spec, objective, rows, seed }
    })
}
