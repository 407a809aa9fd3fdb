//! The interpreter's loss and gradients against the loss written straight from the specification.

mod common;

use common::{Case, cases, compile, state, wide};
use cvae_core::{
    Activation, Batch, Latent, ModelSpec, Objective, OptimizerSpec, ParamLayout, Reconstruction, State, Term,
};
use cvae_reference::{Differences, DirectError, Draw, direct_loss, finite_difference};
use proptest::prelude::*;

/// Checks terms and gradients of one case with the given parameters; returns how many coordinates have no derivative,
/// and how many there are.
fn check(case: &Case, params: &[f32]) -> (usize, usize) {
    let plan = case.plan(OptimizerSpec::default());
    let (rows, draw) = (case.batch(), case.draw());
    let mut model = compile(&plan);
    model.write(State::Params, params).unwrap();
    model.gradients(&Batch::host(&rows)).unwrap();

    let (params, wide_rows) = (wide(params), wide(&rows));
    let terms = direct_loss(&case.spec, &case.objective, &plan.params, &params, &wide_rows, draw).unwrap();
    let found = model.losses().unwrap().last;
    for term in Term::ALL {
        let (found, expected) = (found[term.index()], terms[term.index()]);
        assert!((found - expected).abs() <= 1e-12 * expected.abs().max(1e-3), "{term}: {found} against {expected}");
    }

    let all: Vec<usize> = (0..params.len()).collect();
    let differences =
        finite_difference(&case.spec, &case.objective, &plan.params, &params, &wide_rows, draw, &all).unwrap();
    let grads = state(model.as_mut(), State::Grads);
    let error = differences.worst_relative_error(&grads);
    assert!(error < 1e-6, "relative error {error:e} in\n{}", plan.program);
    (differences.stepped_over, params.len())
}

fn check_initial(case: &Case) -> (usize, usize) {
    check(case, &case.plan(OptimizerSpec::default()).params.initial(cvae_core::Initializer::Torch, case.seed))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn generated_models_match_finite_differences(case in cases()) {
        let (stepped_over, params) = check_initial(&case);
        prop_assert_eq!(stepped_over, 0, "of {} coordinates", params);
    }
}

/// Every activation with every combination of terms, on one ragged shape.
#[test]
fn every_activation_and_term() {
    let reconstructions = [
        Reconstruction::MseSum,
        Reconstruction::MseMean,
        Reconstruction::Bce,
        Reconstruction::L1,
        Reconstruction::Huber { delta: 0.3 },
    ];
    let latents = [Latent::None, Latent::Collapsed { beta: 0.3 }, Latent::Variational { beta: 0.7 }];
    for activation in Activation::ALL {
        for reconstruction in reconstructions {
            let bce = reconstruction == Reconstruction::Bce;
            let output = if bce { Activation::Sigmoid } else { Activation::Identity };
            let spec = ModelSpec::mlp_pair(&[7, 5, 3], &[3, 4, 6, 7], activation, output).unwrap();
            for latent in latents {
                for decoder_l2 in [0.0, 0.1] {
                    let objective = Objective { reconstruction, latent, decoder_l2, ..Objective::ae() };
                    let case = Case { spec: spec.clone(), objective, rows: 3, seed: 11 };
                    assert_eq!(check_initial(&case).0, 0, "{case:?}");
                }
            }
        }
    }
}

/// A log-variance far outside its bounds: the divergence and the sample are flat there.
#[test]
fn gradients_at_the_clamp_of_the_log_variance() {
    let spec = ModelSpec::mlp(&[3, 2], Activation::Identity, Activation::Identity).unwrap();
    let case = Case { spec, objective: Objective::vae(0.5), rows: 2, seed: 5 };
    let plan = case.plan(OptimizerSpec::default());
    let bias = plan.params.find("logvar.bias").unwrap().1.range();
    let weight = plan.params.find("logvar.weight").unwrap().1.range();
    let mut params = plan.params.initial(cvae_core::Initializer::Torch, 5);
    params[bias.clone()].copy_from_slice(&[-40.0, 3.0]);
    assert_eq!(check(&case, &params).0, 0);

    let mut model = compile(&plan);
    model.write(State::Params, &params).unwrap();
    model.gradients(&Batch::host(&case.batch())).unwrap();
    let grads = state(model.as_mut(), State::Grads);
    assert_eq!(grads[bias.start], 0.0, "the first unit is clamped");
    assert_ne!(grads[bias.start + 1], 0.0, "the second is not");
    assert!(grads[weight.start..weight.start + 3].iter().all(|g| *g == 0.0));
}

/// Logits of ±10⁴ through the whole program: the loss is exact, and no gradient is NaN.
#[test]
fn cross_entropy_at_huge_logits() {
    let spec = ModelSpec::mlp(&[2, 1], Activation::Identity, Activation::Sigmoid).unwrap();
    let objective = Objective { reconstruction: Reconstruction::Bce, ..Objective::ae() };
    let case = Case { spec, objective, rows: 1, seed: 1 };
    let plan = case.plan(OptimizerSpec::default());
    let mut model = compile(&plan);
    let mut params = vec![0.0; plan.params.len()];
    params[plan.params.find("decoder.0.bias").unwrap().1.range()].copy_from_slice(&[1e4, -1e4]);
    model.write(State::Params, &params).unwrap();
    for (row, expected) in [([1.0, 0.0], 0.0), ([0.0, 0.0], 1e4), ([0.0, 1.0], 2e4), ([0.5, 0.5], 1e4)] {
        model.gradients(&Batch::host(&row)).unwrap();
        assert_eq!(model.losses().unwrap().last_total(), expected, "row {row:?}");
        assert!(state(model.as_mut(), State::Grads).iter().all(|g| g.is_finite()));
    }
}

/// `x' = w₂·relu(w₁·1 + b₁) + b₂` through a code of weight 1, with `w₁ + b₁` as given.
fn relu_at(pre_activation: f64) -> Differences {
    let spec = ModelSpec::mlp_pair(&[1, 1, 1], &[1, 1], Activation::Relu, Activation::Identity).unwrap();
    let (objective, layout) = (Objective::ae(), ParamLayout::new(&spec, false));
    let mut params = vec![0.5; layout.len()];
    params[layout.find("encoder.0.weight").unwrap().1.offset] = 1.0;
    params[layout.find("encoder.0.bias").unwrap().1.offset] = pre_activation - 1.0;
    let all: Vec<usize> = (0..params.len()).collect();
    finite_difference(&spec, &objective, &layout, &params, &[1.0], Draw::default(), &all).unwrap()
}

#[test]
fn kinks_are_stepped_over_and_counted() {
    let on = relu_at(0.0);
    assert_eq!((on.stepped_over, on.crossed_kink), (2, 0), "weight and bias of the first layer move it off the kink");
    assert_eq!(on.derivatives[..2], [None, None]);
    assert!(on.derivatives[2..].iter().all(Option::is_some));

    let (above, below) = (relu_at(1e-9), relu_at(-1e-9));
    assert_eq!((above.stepped_over, above.crossed_kink), (0, 2));
    assert_eq!((below.stepped_over, below.crossed_kink), (0, 2));
    assert_eq!(below.derivatives[..2], [Some(0.0), Some(0.0)]);
    // x' = ½(½·relu + ½) + ½ = 0.75, so the slope is (0.75 − 1)·½·½.
    assert!(above.derivatives[..2].iter().all(|slope| (slope.unwrap() + 0.0625).abs() < 1e-8), "{above:?}");
    assert_eq!(relu_at(0.5).crossed_kink, 0);
}

#[test]
fn wrong_gradients_are_told_apart() {
    let spec = ModelSpec::mlp(&[3, 2], Activation::Tanh, Activation::Identity).unwrap();
    let case = Case { spec, objective: Objective::collapsed(0.1, 0.1), rows: 4, seed: 3 };
    let plan = case.plan(OptimizerSpec::default());
    let rows = case.batch();
    let mut model = compile(&plan);
    let params = state(model.as_mut(), State::Params);
    model.gradients(&Batch::host(&rows)).unwrap();
    let mut grads = state(model.as_mut(), State::Grads);
    let all: Vec<usize> = (0..params.len()).collect();
    let differences =
        finite_difference(&case.spec, &case.objective, &plan.params, &params, &wide(&rows), case.draw(), &all).unwrap();
    assert!(differences.worst_relative_error(&grads) < 1e-8);
    grads[4] *= 1.0 + 1e-5;
    assert!(differences.worst_relative_error(&grads) > 1e-6);
    grads[4] = f64::NAN;
    assert!(differences.worst_relative_error(&grads).is_nan());
}

#[test]
fn direct_loss_refuses_what_does_not_fit() {
    let spec = ModelSpec::mlp(&[3, 2], Activation::Tanh, Activation::Identity).unwrap();
    let layout = ParamLayout::new(&spec, false);
    let params = vec![0.1; layout.len()];
    let (ae, vae) = (Objective::ae(), Objective::vae(1.0));
    let draw = Draw::default();
    let length = |what, expected, found| Err(DirectError::Length { what, expected, found });
    assert_eq!(direct_loss(&spec, &ae, &layout, &params[1..], &[0.0; 3], draw), length("the parameters", 17, 16));
    assert_eq!(direct_loss(&spec, &ae, &layout, &params, &[0.0; 4], draw), length("the batch", 3, 4));
    assert_eq!(direct_loss(&spec, &ae, &layout, &params, &[], draw), length("the batch", 3, 0));
    assert_eq!(direct_loss(&spec, &vae, &layout, &params, &[0.0; 3], draw), Err(DirectError::Layout));
    let negative = Objective::collapsed(-1.0, 0.0);
    assert!(matches!(direct_loss(&spec, &negative, &layout, &params, &[0.0; 3], draw), Err(DirectError::Spec(_))));
    assert_eq!(
        finite_difference(&spec, &ae, &layout, &params, &[0.0; 3], draw, &[17]),
        Err(DirectError::Coordinate { coordinate: 17, params: 17 })
    );
}
