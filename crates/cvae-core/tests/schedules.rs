//! Learning rates and update coefficients at chosen steps.

use cvae_core::{OptimizerSpec, Schedule, Update};

fn rates(spec: &OptimizerSpec, steps: &[u64]) -> Vec<f64> {
    steps.iter().map(|step| spec.learning_rate_at(*step)).collect()
}

fn assert_rates(spec: &OptimizerSpec, steps: &[u64], expected: &[f64]) {
    for ((step, found), expected) in steps.iter().zip(rates(spec, steps)).zip(expected) {
        assert!((found - expected).abs() < 1e-15, "after {step} steps: {found}, expected {expected}");
    }
}

#[test]
fn constant() {
    assert_eq!(rates(&OptimizerSpec::adam(0.5), &[0, 1, u64::MAX]), [0.5; 3]);
}

#[test]
fn cosine_descends_to_its_final_factor_and_stays() {
    let schedule = Schedule::Cosine { steps: 4, final_factor: 0.1 };
    let spec = OptimizerSpec { schedule, ..OptimizerSpec::adam(2.0) };
    let quarter = 0.9 * 0.5 * (1.0 + 0.5f64.sqrt());
    let steps = [0, 1, 2, 3, 4, 5, u64::MAX];
    assert_rates(&spec, &steps, &[2.0, 0.2 + 2.0 * quarter, 1.1, 0.2 + 2.0 * (0.9 - quarter), 0.2, 0.2, 0.2]);
}

#[test]
fn steps_fall_at_multiples() {
    let spec = OptimizerSpec { schedule: Schedule::Step { every: 3, factor: 0.5 }, ..OptimizerSpec::adam(8.0) };
    assert_eq!(rates(&spec, &[0, 2, 3, 5, 6, 9]), [8.0, 8.0, 4.0, 4.0, 2.0, 1.0]);
}

#[test]
fn warm_up_rises_linearly_and_then_the_schedule_starts() {
    let schedule = Schedule::Step { every: 2, factor: 0.5 };
    let spec = OptimizerSpec { schedule, warmup_steps: 4, ..OptimizerSpec::adam(1.0) };
    assert_eq!(rates(&spec, &[0, 1, 2, 3, 4, 5, 6, 8]), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 0.5, 0.25]);
}

#[test]
fn coefficients_carry_the_bias_correction() {
    let Update::Adam { beta1, beta2, eps, step_size, inv_sqrt_correction, keep } =
        OptimizerSpec::adam(0.1).coefficients(0)
    else {
        panic!("Adam updates as Adam");
    };
    assert_eq!((beta1, beta2, eps, keep), (0.9, 0.999, 1e-8, 1.0));
    assert!((step_size - 1.0).abs() < 1e-15, "0.1 / (1 − 0.9): {step_size}");
    assert!((inv_sqrt_correction - 1e3f64.sqrt()).abs() < 1e-11, "1/√(1 − 0.999): {inv_sqrt_correction}");

    let Update::Adam { step_size, inv_sqrt_correction, keep, .. } =
        OptimizerSpec::adamw(0.1, 0.5).coefficients(1_000_000)
    else {
        panic!("AdamW updates as Adam");
    };
    assert_eq!((step_size, inv_sqrt_correction, keep), (0.1, 1.0, 0.95), "corrections fade");
    assert_eq!(OptimizerSpec::sgd(0.1, 0.9).coefficients(7), Update::Sgd { momentum: 0.9, learning_rate: 0.1 });
}

/// The decay of AdamW follows the schedule.
#[test]
fn decay_is_scaled_by_the_scheduled_rate() {
    let schedule = Schedule::Step { every: 1, factor: 0.5 };
    let spec = OptimizerSpec { schedule, ..OptimizerSpec::adamw(0.1, 1.0) };
    let keep = |step| match spec.coefficients(step) {
        Update::Adam { keep, .. } => keep,
        Update::Sgd { .. } => f64::NAN,
    };
    assert_eq!([keep(0), keep(1), keep(2)], [0.9, 0.95, 0.975]);
}
