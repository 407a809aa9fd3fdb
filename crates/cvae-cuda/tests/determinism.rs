//! The same bits in two runs, in every order of execution, on every launch path, and however the rows arrive.
#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use common::{Turn, backend, fingerprint, model, plan, rows, start, variational};
use cvae_core::{
    Activation, Backend, Batch, Corruption, Jacobian, Latent, Objective, OptimizerSpec, Plan, Rows, epoch_order,
};
use cvae_cuda::{CudaBackend, CudaConfig, LaunchPath, Precision};
use cvae_cuda_emu::Options;

const PATHS: [LaunchPath; 3] = [LaunchPath::Launches, LaunchPath::Graph, LaunchPath::Cooperative];
const COUNT: usize = 23;
const BATCH: usize = 3;

fn small_plan() -> Arc<Plan> {
    plan(model(37, 18, 5, Activation::Tanh), variational(), OptimizerSpec::adamw(1e-2, 0.1), 5)
}

/// Two epochs of batches of three, the last of two.
fn train(backend: &dyn Backend, plan: &Arc<Plan>) -> Vec<u32> {
    let mut executable = start(backend, plan);
    let values = rows(COUNT, plan.spec.width());
    let data = executable.upload(Rows::F32 { values: &values, width: plan.spec.width() }).expect("uploads");
    for epoch in 0..2 {
        let mut order = vec![0; COUNT];
        epoch_order(9, epoch, &mut order);
        executable.train_epoch(data, &order, BATCH, epoch).expect("trains");
    }
    assert_eq!(executable.step(), 2 * COUNT.div_ceil(BATCH) as u64);
    fingerprint(&mut *executable)
}

#[test]
fn every_schedule_and_path_gives_the_same_bits() {
    for precision in Precision::ALL {
        same_bits(&small_plan(), precision);
    }
    for plan in many_terms() {
        same_bits(&plan, Precision::F32);
    }
}

/// Objectives that together have every kind of task.
fn many_terms() -> [Arc<Plan>; 3] {
    let discrepancy = Objective {
        corruption: Corruption::Permutation { share: 0.5 },
        jacobian: Jacobian::Contractive { weight: 0.01 },
        ..Objective::wae_mmd(1.0)
    };
    let sigma = Objective { sigma_floor: Some(1e-2), missing: true, ..Objective::top_k(3) };
    let bounded = Objective { latent: Latent::FreeBits { beta: 0.5, floor: 0.01 }, ..Objective::default() };
    [discrepancy, sigma, bounded]
        .map(|objective| plan(model(37, 18, 5, Activation::Tanh), objective, OptimizerSpec::adamw(1e-2, 0.1), 5))
}

fn same_bits(plan: &Arc<Plan>, precision: Precision) {
    let mut expected = None;
    for seed in 0..6 {
        for path in PATHS {
            let early_streams = seed % 3 == 0;
            let _turn = Turn::new(Options { seed, early_streams, ..Options::default() });
            let found = train(&backend(precision, path), plan);
            let expected = expected.get_or_insert_with(|| found.clone());
            assert!(found == *expected, "{precision}, {path}, seed {seed}, {:?}", plan.objective);
        }
    }
}

#[test]
fn an_epoch_equals_its_steps_from_the_host() {
    let plan = small_plan();
    let _turn = Turn::seeded(2);
    let backend = backend(Precision::F32, LaunchPath::Cooperative);
    let values = rows(COUNT, plan.spec.width());
    let order: Vec<u32> = (0..COUNT as u32).collect();
    let mut whole = start(&backend, &plan);
    let data = whole.upload(Rows::F32 { values: &values, width: plan.spec.width() }).expect("uploads");
    whole.train_epoch(data, &order, BATCH, 4).expect("trains");

    let mut stepwise = start(&backend, &plan);
    let data = stepwise.upload(Rows::F32 { values: &values, width: plan.spec.width() }).expect("uploads");
    for batch in order.chunks(BATCH) {
        stepwise.train_step(&Batch::resident(data, batch, 4)).expect("trains");
    }

    let mut by_value = start(&backend, &plan);
    for (index, batch) in values.chunks(BATCH * plan.spec.width()).enumerate() {
        let rows = cvae_core::BatchRows::Host { values: batch, first_row: (index * BATCH) as u32 };
        by_value.train_step(&Batch { rows, epoch: 4 }).expect("trains");
    }
    let expected = fingerprint(&mut *whole);
    assert!(fingerprint(&mut *stepwise) == expected, "steps on resident rows");
    assert!(fingerprint(&mut *by_value) == expected, "steps on rows by value");
}

#[test]
fn streamed_rows_give_the_same_bits_as_resident_ones() {
    let plan = small_plan();
    for seed in 0..4 {
        let _turn = Turn::seeded(seed);
        for path in PATHS {
            let config = CudaConfig { path, steps_per_launch: 2, ..CudaConfig::default() };
            let backend = |data_memory| {
                let config = CudaConfig { data_memory, ..config };
                CudaBackend::with_config(Precision::F32, config).expect("the emulated GPU")
            };
            let resident = train(&backend(None), &plan);
            let streamed = train(&backend(Some(100)), &plan);
            assert!(resident == streamed, "{path}, seed {seed}");
        }
    }
}

#[test]
fn gradients_then_apply_equal_a_step_up_to_rounding() {
    let _turn = Turn::seeded(1);
    for clip_norm in [None, Some(0.1)] {
        let optimizer = OptimizerSpec { clip_norm, ..OptimizerSpec::sgd(0.1, 0.9) };
        let plan = plan(model(20, 9, 4, Activation::Silu), variational(), optimizer, 6);
        let backend = backend(Precision::F32, LaunchPath::Graph);
        let (mut fused, mut split) = (start(&backend, &plan), start(&backend, &plan));
        let values = rows(6, 20);
        for _ in 0..3 {
            fused.train_step(&Batch::host(&values)).expect("a step");
            split.gradients(&Batch::host(&values)).expect("gradients");
            split.apply().expect("an update");
        }
        // The epilogue applies the very same operations to the very same sums.
        assert_eq!(fused.step(), split.step());
        assert!(fingerprint(&mut *fused) == fingerprint(&mut *split), "clip {clip_norm:?}");
    }
}
