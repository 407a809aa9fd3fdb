//! Teacher-forced steps: the same state in, one step, and the same state out.

use std::sync::Arc;

use cvae_core::{Activation, Algorithm, Objective, OptimizerSpec, Schedule};
use cvae_reference::ReferenceBackend;

use crate::case::{Case, mlp};
use crate::check::Check;
use crate::failure::{Failure, Score, Verdict, expect};
use crate::probe::{Snapshot, Start};
use crate::target::Target;

/// Adds `step::*`.
pub(crate) fn add(all: &mut Vec<Check>) {
    for (name, optimizer) in optimizers() {
        for (shape, widths, rows) in [("narrow", [3, 2, 1, 5], 7), ("wide", [67, 40, 9, 33], 33)] {
            let case = move || case(optimizer, widths, rows);
            all.push(Check::new(format!("step::{name}::{shape}_fused"), move |target| step(target, &case()?, true)));
            all.push(Check::new(format!("step::{name}::{shape}_apart"), move |target| step(target, &case()?, false)));
        }
    }
}

fn optimizers() -> Vec<(&'static str, OptimizerSpec)> {
    let adam = OptimizerSpec::adam(3e-2);
    let cosine = Schedule::Cosine { steps: 20, final_factor: 0.1 };
    vec![
        ("adam", adam),
        ("adam_eps", OptimizerSpec { algorithm: Algorithm::Adam { beta1: 0.8, beta2: 0.95, eps: 1e-1 }, ..adam }),
        ("adamw", OptimizerSpec::adamw(3e-2, 0.5)),
        ("sgd", OptimizerSpec::sgd(0.1, 0.0)),
        ("momentum", OptimizerSpec::sgd(0.1, 0.9)),
        ("clip_active", OptimizerSpec { clip_norm: Some(1e-2), ..OptimizerSpec::sgd(0.5, 0.3) }),
        ("clip_active_adam", OptimizerSpec { clip_norm: Some(1e-1), ..adam }),
        ("clip_inactive", OptimizerSpec { clip_norm: Some(1e6), ..OptimizerSpec::sgd(0.1, 0.9) }),
        ("cosine", OptimizerSpec { schedule: cosine, ..adam }),
        ("cosine_warmup", OptimizerSpec { schedule: cosine, warmup_steps: 5, ..adam }),
        ("warmup", OptimizerSpec { warmup_steps: 16, ..adam }),
        ("drops", OptimizerSpec { schedule: Schedule::Step { every: 4, factor: 0.5 }, ..adam }),
    ]
}

fn case(optimizer: OptimizerSpec, widths: [usize; 4], rows: usize) -> Result<Case, Failure> {
    let spec = mlp(widths, 1, Activation::Tanh, Activation::Identity)?;
    let objective = Objective::collapsed(0.3, 0.05);
    Ok(Case::new("step", spec, objective, optimizer, rows, 11)?)
}

/// Three steps, each from the state that the reference had, in single precision.
fn step(target: &Target<'_>, case: &Case, fused: bool) -> Verdict {
    let mut reference = case.probe(&ReferenceBackend)?;
    let mut probe = case.probe(target.backend)?;
    let mut start = case.start()?;
    let mut worst = Score::EXACT;
    for _ in 0..3 {
        reference.start(&start)?;
        reference.train_step(&case.batch())?;
        probe.start(&start)?;
        if fused {
            probe.train_step(&case.batch())?;
        } else {
            probe.gradients(&case.batch())?;
            probe.apply()?;
        }
        let expected = reference.snapshot()?;
        worst = worst.worse(compare(target, case, &probe.snapshot()?, &expected)?);
        start = narrow(&expected);
    }
    Ok(worst)
}

/// Compares two states; the moments too.
pub(crate) fn compare(target: &Target<'_>, case: &Case, found: &Snapshot, expected: &Snapshot) -> Verdict {
    let (measure, layout) = (case.measure(target), &case.plan.params);
    expect(found.step == expected.step, format!("{} steps done", expected.step), || found.step.to_string())?;
    let params = measure.params("the parameters of", layout, &found.params, &expected.params)?;
    let first = measure.params("the first moment of", layout, &found.moment1, &expected.moment1)?;
    let second = measure.params("the second moment of", layout, &found.moment2, &expected.moment2)?;
    Ok(params.worse(first).worse(second))
}

fn narrow(state: &Snapshot) -> Start {
    let narrow = |values: &[f64]| values.iter().map(|value| *value as f32).collect();
    Start {
        params: narrow(&state.params),
        moment1: narrow(&state.moment1),
        moment2: narrow(&state.moment2),
        step: state.step,
    }
}

/// A case that trains: Adam with momentum in every parameter.
pub(crate) fn training_case(rows: usize) -> Result<Arc<Case>, Failure> {
    let spec = mlp([64, 100, 17, 48], 1, Activation::Silu, Activation::Identity)?;
    let objective = Objective { decoder_l2: 0.01, ..Objective::vae(0.1) };
    let optimizer = OptimizerSpec { clip_norm: Some(2.0), ..OptimizerSpec::adam(1e-3) };
    Ok(Arc::new(Case::new("training", spec, objective, optimizer, rows, 12)?))
}
