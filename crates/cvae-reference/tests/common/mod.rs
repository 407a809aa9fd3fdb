//! Generated models and batches, shared by the tests of this crate.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of this module")]

use std::sync::Arc;

use cvae_core::{
    Activation, Backend, Executable, Initializer, Latent, LayerSpec, ModelSpec, Noise, Objective, OptimizerSpec, Plan,
    Reconstruction, Shape, State, Stream,
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

    /// Rows in [0, 1), as cross-entropy wants them.
    pub fn batch(&self) -> Vec<f32> {
        uniform_rows(self.rows, self.spec.width(), self.seed)
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
    prop_oneof![
        Just(Latent::None),
        (0.01..2.0).prop_map(|beta| Latent::Collapsed { beta }),
        (0.01..2.0).prop_map(|beta| Latent::Variational { beta }),
    ]
}

/// Hidden widths and activations, depth 0 to 3.
fn hidden() -> impl Strategy<Value = Vec<(usize, Activation)>> {
    proptest::collection::vec((1usize..=9, activations()), 0..=3)
}

/// Models of 1 to 12 inputs and 1 to 7 latent dimensions; every layer has its own activation, that of the code
/// included.
pub fn cases() -> impl Strategy<Value = Case> {
    let shape = (1usize..=12, 1usize..=7, hidden(), hidden(), activations(), activations());
    let objective = (reconstructions(), latents(), prop_oneof![Just(0.0), 0.001..0.5]);
    (shape, objective, 1usize..=9, 0u64..1 << 48).prop_map(|(shape, objective, rows, seed)| {
        let (width, latent, encoder, decoder, code, output) = shape;
        let (reconstruction, latent_term, decoder_l2) = objective;
        let output = if reconstruction == Reconstruction::Bce { Activation::Sigmoid } else { output };
        let stack = |hidden: Vec<(usize, Activation)>, last: (usize, Activation)| {
            let layers = hidden.into_iter().chain([last]);
            layers.map(|(units, activation)| LayerSpec::Dense { units, activation }).collect()
        };
        let spec = ModelSpec {
            input: Shape::flat(width),
            encoder: stack(encoder, (latent, code)),
            decoder: stack(decoder, (width, output)),
        };
        let objective = Objective { reconstruction, latent: latent_term, decoder_l2, ..Objective::ae() };
        Case { spec, objective, rows, seed }
    })
}
