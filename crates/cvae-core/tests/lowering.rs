//! Printed programs, word for word, and invariants of every generated plan.

mod common;

use common::models;
use cvae_core::{
    Activation, ColumnGroup, ColumnKind, Corruption, Jacobian, Latent, ModelSpec, Objective, Op, OptimizerSpec,
    ParamLayout, Part, Plan, Reconstruction, Stream, Term,
};
use proptest::prelude::*;

fn plan(spec: ModelSpec, objective: Objective) -> Plan {
    Plan::new(spec, objective, OptimizerSpec::default(), 0, 4).unwrap()
}

fn mlp(widths: &[usize], output: Activation) -> ModelSpec {
    ModelSpec::mlp(widths, Activation::Relu, output).unwrap()
}

/// Compares a program with the text of `tests/programs/{name}.txt`.
fn assert_prints(name: &str, expected: &str, plan: &Plan) {
    let found = plan.program.to_string();
    assert!(found == expected, "tests/programs/{name}.txt differs; if the change is meant, replace it with\n{found}");
}

macro_rules! assert_prints {
    ($name:literal, $plan:expr) => {
        assert_prints($name, include_str!(concat!("programs/", $name, ".txt")), $plan)
    };
}

#[test]
fn autoencoder() {
    assert_prints!("ae", &plan(mlp(&[8, 6, 3], Activation::Identity), Objective::ae()));
}

#[test]
fn collapsed() {
    assert_prints!("collapsed", &plan(mlp(&[8, 6, 3], Activation::Identity), Objective::collapsed(0.5, 0.25)));
}

#[test]
fn variational() {
    let spec = ModelSpec::mlp(&[8, 6, 3], Activation::Gelu, Activation::Identity).unwrap();
    assert_prints!("vae", &plan(spec, Objective::vae(1.0)));
}

#[test]
fn cross_entropy() {
    let objective = Objective { reconstruction: Reconstruction::Bce, ..Objective::ae() };
    assert_prints!("bce", &plan(mlp(&[8, 6, 3], Activation::Sigmoid), objective));
}

#[test]
fn missing_values_masked_columns_and_a_sparse_code() {
    let objective = Objective { missing: true, top_k: Some(2), ..Objective::masked(0.75) };
    let objective = Objective { latent: Latent::Sparse { weight: 0.1 }, ..objective };
    assert_prints!("masked", &plan(mlp(&[8, 3], Activation::Identity), objective));
}

#[test]
fn permuted_mixed_columns_and_discrepancy() {
    let kinds = [ColumnKind::Numeric, ColumnKind::Categorical, ColumnKind::Binary];
    let columns = kinds.map(|kind| ColumnGroup::new(kind, if kind == ColumnKind::Binary { 2 } else { 3 }));
    let corruption = Corruption::Permutation { share: 0.25 };
    let objective = Objective { columns: columns.to_vec(), corruption, ..Objective::wae_mmd(10.0) };
    assert_prints!("mixed", &plan(mlp(&[8, 3], Activation::Identity), objective));
}

#[test]
fn spectral_norm() {
    assert_prints!("spectral_norm", &plan(mlp(&[8, 3], Activation::Identity), Objective::collapsed_spectral_norm(0.5)));
}

#[test]
fn contractive() {
    let spec = ModelSpec::mlp_pair(&[8, 6, 2], &[2, 8], Activation::Tanh, Activation::Identity).unwrap();
    assert_prints!("contractive", &plan(spec, Objective::contractive(0.5)));
}

#[test]
fn gradient_penalty_of_bounded_divergence_and_learnt_variance() {
    let spec = ModelSpec::mlp_pair(&[8, 2], &[2, 6, 8], Activation::Silu, Activation::Identity).unwrap();
    let latent = Latent::FreeBits { beta: 1.0, floor: 0.5 };
    let jacobian = Jacobian::GradientPenalty { weight: 0.25 };
    let objective = Objective { latent, jacobian, sigma_floor: Some(1e-6), ..Objective::ae() };
    assert_prints!("gradient_penalty", &plan(spec, objective));
}

/// The gradient of the network's own input is needed by nothing, corrupted or not.
#[test]
fn no_gradient_of_the_input() {
    let spec = mlp(&[8, 6, 3], Activation::Identity);
    let products = |objective| {
        let ops = plan(spec.clone(), objective).program.train.ops;
        ops.iter().filter(|op| op.name() == "linear_grad_input").count()
    };
    assert_eq!(products(Objective::ae()), 3);
    assert_eq!(products(Objective { missing: true, ..Objective::masked(0.5) }), 3);
}

#[test]
fn one_layer_each() {
    assert_prints!("depth1", &plan(mlp(&[8, 3], Activation::Tanh), Objective::collapsed(0.5, 0.0)));
}

#[test]
fn one_variational_layer_each() {
    assert_prints!("vae_depth1", &plan(mlp(&[8, 3], Activation::Identity), Objective::vae(0.5)));
}

#[test]
fn terms_of_weight_zero_are_not_lowered() {
    let spec = mlp(&[8, 6, 3], Activation::Identity);
    let ae = plan(spec.clone(), Objective::ae());
    let corrupted = Objective::denoising;
    for nothing in [
        Objective::collapsed(0.0, 0.0),
        Objective::sparse(0.0),
        Objective::wae_mmd(0.0),
        Objective::contractive(0.0),
        Objective::collapsed_gradient_penalty(0.0, 0.0),
        corrupted(Corruption::Gaussian { std: 0.0 }),
        corrupted(Corruption::Masking { share: 0.0 }),
        corrupted(Corruption::Permutation { share: 0.0 }),
    ] {
        assert_eq!(plan(spec.clone(), nothing.clone()).program, ae.program, "{nothing:?}");
    }
    let [capacity, free_bits] =
        [Latent::Capacity { gamma: 0.0, capacity: 3.0 }, Latent::FreeBits { beta: 0.0, floor: 3.0 }];
    for latent in [capacity, free_bits] {
        let none = Objective { latent, ..Objective::ae() };
        assert_eq!(plan(spec.clone(), none).program, plan(spec.clone(), Objective::vae(0.0)).program);
    }
    let vae = plan(spec, Objective::vae(0.0));
    assert!(vae.program.train.ops.iter().all(|op| op.name() != "kl_divergence"));
    assert!(vae.program.train.ops.iter().any(|op| op.name() == "reparameterize"), "it still samples");
}

proptest! {
    #[test]
    fn every_plan_verifies((spec, objective) in models(), max_rows in 1usize..100) {
        let plan = Plan::new(spec, objective, OptimizerSpec::default(), 7, max_rows).unwrap();
        prop_assert_eq!(plan.program.verify(&plan.params), Ok(()), "{}", plan.program);
    }

    #[test]
    fn every_training_graph_has_its_terms_and_one_update((spec, objective) in models()) {
        let plan = plan(spec, objective);
        let (ops, objective) = (&plan.program.train.ops, &plan.objective);
        let count = |term| ops.iter().filter(|op| op.term() == Some(term)).count();
        let probes = match objective.jacobian {
            _ if objective.jacobian.weight() == 0.0 => 0,
            Jacobian::Contractive { .. } if plan.spec.latent() <= Jacobian::EXACT_LATENT => plan.spec.latent(),
            _ => 1,
        };
        prop_assert_eq!(count(Term::Reconstruction), 1);
        prop_assert_eq!(count(Term::Latent), usize::from(objective.latent.weight() > 0.0));
        prop_assert_eq!(count(Term::DecoderL2), usize::from(objective.decoder_l2 > 0.0));
        prop_assert_eq!(count(Term::Jacobian), probes);
        prop_assert_eq!(ops.iter().filter(|op| **op == Op::Update).count(), 1);
        prop_assert_eq!(ops.last(), Some(&Op::Update));
        let draws = |wanted| ops.iter().any(|op| matches!(op, Op::Noise { stream, .. } if *stream == wanted));
        prop_assert_eq!(draws(Stream::Reparameterize), objective.latent.is_variational());
        prop_assert_eq!(draws(Stream::Prior), matches!(objective.latent, Latent::Mmd { weight } if weight > 0.0));
        for graph in [&plan.program.encode, &plan.program.decode, &plan.program.reconstruct] {
            let forward = ["linear", "act", "observe", "top_k", "mixed_output", "spectral_scale", "scale_rows"];
            let forward = graph.ops.iter().all(|op| forward.contains(&op.name()));
            prop_assert!(forward, "no noise, no loss and no gradient:\n{graph}");
        }
    }

    /// The regulariser's value and its gradient cover the same parameters: those of the decoder.
    #[test]
    fn the_regulariser_covers_the_decoder((spec, objective) in models()) {
        let plan = plan(spec, objective);
        for op in &plan.program.train.ops {
            if let Op::LinearGradWeight { weight, decay, .. } = op {
                let decoder = plan.params.get(*weight).unwrap().part == Part::Decoder;
                prop_assert_eq!(*decay, if decoder { plan.objective.decoder_l2 } else { 0.0 });
            }
            if let Op::ParamNorm { params, coefficient } = op {
                prop_assert_eq!(*coefficient, plan.objective.decoder_l2);
                let expected = plan.params.params().iter().filter(|param| param.part == Part::Decoder).count();
                prop_assert_eq!(params.len(), expected);
                prop_assert!(params.iter().all(|id| plan.params.get(*id).unwrap().part == Part::Decoder));
            }
        }
    }

    #[test]
    fn the_layout_has_no_gaps((spec, objective) in models()) {
        let layout = ParamLayout::new(&spec, objective.latent.is_variational());
        let mut offset = 0;
        for (index, param) in layout.params().iter().enumerate() {
            prop_assert_eq!(param.offset, offset);
            prop_assert_eq!(layout.find(&param.name).unwrap().0.index(), index);
            offset += param.size();
        }
        prop_assert_eq!(layout.len(), offset);
    }

    /// No op computes what nothing reads.
    #[test]
    fn every_value_is_used((spec, objective) in models()) {
        let program = plan(spec, objective).program;
        for graph in [&program.train, &program.encode, &program.decode, &program.reconstruct] {
            for (index, last) in graph.last_uses().iter().enumerate() {
                let output = graph.output.is_some_and(|output| output.index() == index);
                prop_assert!(last.is_some() || output, "%{} is never read in\n{}", index, graph);
            }
        }
    }

    #[test]
    fn no_value_is_read_after_its_last_use((spec, objective) in models()) {
        let graph = plan(spec, objective).program.train;
        let last = graph.last_uses();
        for (index, op) in graph.ops.iter().enumerate() {
            prop_assert!(op.reads().iter().all(|value| last[value.index()] >= Some(index)));
        }
        prop_assert!(last.iter().flatten().all(|index| *index < graph.ops.len()));
    }
}
