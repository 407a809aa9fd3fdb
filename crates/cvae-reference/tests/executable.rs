//! What the traits promise, on the reference.

mod common;

use std::sync::Arc;

use common::{Case, cases, compile, state, uniform_rows, wide};
use cvae_core::{
    Activation, Backend, Batch, BatchRows, CompileError, DataId, Entry, Executable, Latent, ModelSpec, NonFinite,
    Objective, OptimizerSpec, Plan, Rows, RunError, Schedule, State, Term,
};
use cvae_reference::ReferenceBackend;
use proptest::prelude::*;

const WIDTH: usize = 5;

fn case(objective: Objective, rows: usize) -> Case {
    let spec = ModelSpec::mlp(&[WIDTH, 4, 2], Activation::Gelu, Activation::Identity).unwrap();
    Case { spec, objective, rows, seed: 21 }
}

fn model(objective: Objective, rows: usize) -> Box<dyn Executable> {
    compile(&case(objective, rows).plan(OptimizerSpec::adam(0.01)))
}

/// Parameters and both moments.
fn snapshot(model: &mut dyn Executable) -> Vec<Vec<f64>> {
    [State::Params, State::Moment1, State::Moment2].map(|part| state(model, part)).to_vec()
}

fn grads(model: &mut dyn Executable, batch: &Batch<'_>) -> Vec<f64> {
    model.gradients(batch).unwrap();
    state(model, State::Grads)
}

#[test]
fn state_starts_at_zero_and_is_kept() {
    let plan = case(Objective::default(), 3).plan(OptimizerSpec::default());
    let mut model = ReferenceBackend.compile(Arc::clone(&plan)).unwrap();
    let len = plan.params.len();
    assert!(snapshot(model.as_mut()).iter().flatten().all(|value| *value == 0.0));
    let values: Vec<f32> = (0..len).map(|i| i as f32 + 0.5).collect();
    for part in [State::Params, State::Moment1, State::Moment2] {
        model.write(part, &values).unwrap();
        let mut single = vec![0.0; len];
        model.read(part, &mut single).unwrap();
        assert_eq!(single, values);
        assert_eq!(state(model.as_mut(), part), wide(&values));
    }
}

#[test]
fn state_errors() {
    let mut model = model(Objective::default(), 3);
    let len = model.plan().params.len();
    let wrong = |result| matches!(result, Err(RunError::Length { expected, .. }) if expected == len);
    assert!(wrong(model.write(State::Params, &vec![0.0; len - 1])));
    assert!(wrong(model.read(State::Moment1, &mut vec![0.0; len + 1])));
    assert!(wrong(model.read_f64(State::Moment2, &mut [])));
    assert!(matches!(model.write(State::Grads, &vec![0.0; len]), Err(RunError::ReadOnly)));
    assert!(matches!(model.read(State::Grads, &mut vec![0.0; len]), Err(RunError::NoGradients)));
    assert!(matches!(model.apply(), Err(RunError::NoGradients)));
    assert_eq!(model.step(), 0);
}

#[test]
fn a_step_consumes_the_gradients() {
    let rows = uniform_rows(3, WIDTH, 1);
    for fused in [false, true] {
        let mut model = model(Objective::default(), 3);
        model.gradients(&Batch::host(&rows)).unwrap();
        if fused {
            model.train_step(&Batch::host(&rows)).unwrap()
        } else {
            model.apply().unwrap()
        }
        assert_eq!(model.step(), 1);
        assert!(matches!(model.apply(), Err(RunError::NoGradients)));
        assert!(matches!(model.read_f64(State::Grads, &mut []), Err(RunError::NoGradients)));
    }
}

#[test]
fn gradients_update_nothing() {
    let mut model = model(Objective::vae(0.5), 3);
    let before = snapshot(model.as_mut());
    let rows = uniform_rows(3, WIDTH, 1);
    let first = grads(model.as_mut(), &Batch::host(&rows));
    assert_eq!(grads(model.as_mut(), &Batch::host(&rows)), first, "the same call gives the same bits");
    assert_eq!(snapshot(model.as_mut()), before);
    assert_eq!(model.step(), 0);
    let losses = model.losses().unwrap();
    assert_eq!((losses.steps, losses.rows), (2, 6));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn train_step_is_gradients_then_apply(case in cases()) {
        let plan = case.plan(OptimizerSpec { clip_norm: Some(0.1), ..OptimizerSpec::adamw(0.01, 0.1) });
        let rows = case.batch();
        let (mut fused, mut split) = (compile(&plan), compile(&plan));
        for _ in 0..3 {
            fused.train_step(&Batch::host(&rows)).unwrap();
            split.gradients(&Batch::host(&rows)).unwrap();
            split.apply().unwrap();
        }
        prop_assert_eq!(snapshot(fused.as_mut()), snapshot(split.as_mut()));
        prop_assert_eq!(fused.losses().unwrap(), split.losses().unwrap());
        prop_assert_eq!((fused.step(), split.step()), (3, 3));
    }

    /// A short batch is computed as if the plan had been made for exactly that many rows.
    #[test]
    fn a_short_batch_ignores_the_rest_of_its_buffers(case in cases(), spare in 1usize..5) {
        let exact = case.plan(OptimizerSpec::default());
        let larger = Case { rows: case.rows + spare, ..case.clone() };
        let (mut exact, mut larger_model) = (compile(&exact), compile(&larger.plan(OptimizerSpec::default())));
        larger_model.gradients(&Batch::host(&larger.batch())).unwrap();
        larger_model.losses().unwrap();
        let rows = case.batch();
        let batch = Batch::host(&rows);
        prop_assert_eq!(grads(exact.as_mut(), &batch), grads(larger_model.as_mut(), &batch));
        prop_assert_eq!(exact.losses().unwrap(), larger_model.losses().unwrap());
    }

    /// Gradients are means over rows: two equal batches in one have the gradient of one.
    #[test]
    fn duplicated_rows_change_nothing(case in cases()) {
        prop_assume!(case.rows_are_independent());
        let double = Case { rows: 2 * case.rows, ..case.clone() };
        let mut model = compile(&double.plan(OptimizerSpec::default()));
        let rows = case.batch();
        let twice = [rows.clone(), rows.clone()].concat();
        let order: Vec<u32> = (0..case.rows as u32).collect();
        let data = model.upload(Rows::F32 { values: &twice, width: case.spec.width() }).unwrap();
        let one = grads(model.as_mut(), &Batch::resident(data, &order, 0));
        let two = grads(model.as_mut(), &Batch::resident(data, &[&order[..], &order[..]].concat(), 0));
        let largest = one.iter().fold(0.0f64, |largest, g| largest.max(g.abs()));
        for (a, b) in one.iter().zip(&two) {
            prop_assert!((a - b).abs() <= 1e-13 * largest, "{} against {}", a, b);
        }
    }
}

#[test]
fn resident_rows_equal_host_rows() {
    let mut model = model(Objective::vae(1.0), 3);
    let bytes: Vec<u8> = (0..8 * WIDTH as u8).map(|b| b.wrapping_mul(37)).collect();
    let scale = 1.0 / 255.0;
    let values: Vec<f32> = bytes.iter().map(|byte| f32::from(*byte) * scale).collect();
    let floats = model.upload(Rows::F32 { values: &values, width: WIDTH }).unwrap();
    let packed = model.upload(Rows::U8 { values: &bytes, width: WIDTH, scale }).unwrap();
    assert_ne!(floats, packed);
    let rows = BatchRows::Host { values: &values[4 * WIDTH..7 * WIDTH], first_row: 4 };
    let host = grads(model.as_mut(), &Batch { rows, epoch: 9 });
    for data in [floats, packed] {
        assert_eq!(grads(model.as_mut(), &Batch::resident(data, &[4, 5, 6], 9)), host);
    }
    let noise = [Batch::resident(floats, &[4, 5, 6], 10), Batch { rows, epoch: 10 }];
    let [a, b] = noise.map(|batch| grads(model.as_mut(), &batch));
    assert_ne!(a, host, "an epoch has its own noise");
    assert_eq!(a, b);
    let shifted = BatchRows::Host { values: &values[4 * WIDTH..7 * WIDTH], first_row: 5 };
    assert_ne!(grads(model.as_mut(), &Batch { rows: shifted, epoch: 9 }), host, "a row has its own noise");
}

#[test]
fn batch_errors_leave_the_state_alone() {
    let mut model = model(Objective::default(), 3);
    let values = uniform_rows(4, WIDTH, 1);
    let data = model.upload(Rows::F32 { values: &values, width: WIDTH }).unwrap();
    let kept = grads(model.as_mut(), &Batch::resident(data, &[0, 1], 0));
    model.losses().unwrap();
    let before = snapshot(model.as_mut());

    let too_many = [0, 1, 2, 3];
    let unknown = DataId(99);
    let host = Batch::host;
    let table: [(Batch<'_>, &str); 6] = [
        (host(&[]), "a batch of 0 rows; this plan takes 1 to 3"),
        (host(&values), "a batch of 4 rows; this plan takes 1 to 3"),
        (host(&values[..7]), "the batch has 7 elements, expected 10"),
        (Batch::resident(data, &too_many, 0), "a batch of 4 rows; this plan takes 1 to 3"),
        (Batch::resident(data, &[0, 4], 0), "row index 4 is beyond the data set's 4 rows"),
        (Batch::resident(unknown, &[0], 0), "no uploaded data set has the id 99"),
    ];
    for (batch, message) in &table {
        assert_eq!(model.gradients(batch).unwrap_err().to_string(), *message);
        assert_eq!(model.train_step(batch).unwrap_err().to_string(), *message);
    }
    assert!(matches!(model.train_epoch(data, &[0], 0, 0), Err(RunError::Rows { rows: 0, .. })));
    assert_eq!(snapshot(model.as_mut()), before);
    assert_eq!(model.losses().unwrap().steps, 0);
    assert_eq!(state(model.as_mut(), State::Grads), kept);
    model.apply().unwrap();
    assert_eq!(model.step(), 1);
}

#[test]
fn uploads_are_checked_and_released_once() {
    let mut model = model(Objective::default(), 3);
    let rows = |values, width| Rows::F32 { values, width };
    assert!(matches!(model.upload(rows(&[0.0; 8], 4)), Err(RunError::Length { expected: WIDTH, found: 4, .. })));
    assert!(matches!(model.upload(rows(&[0.0; 8], WIDTH)), Err(RunError::Length { expected: 5, found: 8, .. })));
    assert!(matches!(model.upload(rows(&[], WIDTH)), Err(RunError::Rows { rows: 0, .. })));
    let bytes = Rows::U8 { values: &[0; 6], width: WIDTH, scale: 1.0 };
    assert!(matches!(model.upload(bytes), Err(RunError::Length { expected: 5, found: 6, .. })));

    let first = model.upload(rows(&[0.5; WIDTH], WIDTH)).unwrap();
    model.release(first).unwrap();
    assert!(matches!(model.release(first), Err(RunError::UnknownData(_))));
    assert!(matches!(model.gradients(&Batch::resident(first, &[0], 0)), Err(RunError::UnknownData(_))));
    let second = model.upload(rows(&[0.5; WIDTH], WIDTH)).unwrap();
    assert_ne!(first, second, "an id is never given twice");
}

#[test]
fn an_epoch_keeps_its_short_last_batch() {
    let optimizer = OptimizerSpec::adam(0.01);
    let plan = case(Objective::vae(0.3), 3).plan(optimizer);
    let values = uniform_rows(7, WIDTH, 2);
    let order = [6, 2, 0, 5, 1, 3, 4];
    let (mut epoch, mut steps) = (compile(&plan), compile(&plan));
    for model in [&mut epoch, &mut steps] {
        model.upload(Rows::F32 { values: &values, width: WIDTH }).unwrap();
    }
    epoch.train_epoch(DataId(0), &order, 3, 5).unwrap();
    for chunk in [&order[..3], &order[3..6], &order[6..]] {
        steps.train_step(&Batch::resident(DataId(0), chunk, 5)).unwrap();
    }
    assert_eq!(snapshot(epoch.as_mut()), snapshot(steps.as_mut()));
    let losses = epoch.losses().unwrap();
    assert_eq!((epoch.step(), losses.steps, losses.rows), (3, 3, 7));
    assert_eq!(losses, steps.losses().unwrap());
}

#[test]
fn losses_are_weighted_by_rows_and_drained() {
    let objective = Objective { decoder_l2: 0.1, ..Objective::collapsed_gradient_penalty(0.5, 0.2) };
    let plan = case(objective, 4).plan(OptimizerSpec::sgd(0.01, 0.0));
    let mut model = compile(&plan);
    let rows = uniform_rows(4, WIDTH, 3);
    let mut sums = [0.0; Term::COUNT];
    let mut last = sums;
    for count in [4, 1] {
        model.gradients(&Batch::host(&rows[..count * WIDTH])).unwrap();
        last = model.losses().unwrap().last;
        sums.iter_mut().zip(last).for_each(|(sum, term)| *sum += term * count as f64);
    }
    for count in [4, 1] {
        model.gradients(&Batch::host(&rows[..count * WIDTH])).unwrap();
    }
    let losses = model.losses().unwrap();
    assert_eq!((losses.sums, losses.last, losses.steps, losses.rows), (sums, last, 2, 5));
    assert!(Term::ALL.into_iter().all(|term| losses.mean(term) > 0.0));
    assert_eq!(losses.non_finite, None);
    assert_eq!(model.losses().unwrap(), cvae_core::Losses::default());
}

#[test]
fn the_first_non_finite_step_and_term_are_kept() {
    let plan = case(Objective::collapsed(0.5, 0.1), 2).plan(OptimizerSpec::sgd(0.01, 0.0));
    let mut model = compile(&plan);
    let good = [0.5; WIDTH];
    model.train_step(&Batch::host(&good)).unwrap();
    assert!(model.losses().unwrap().check().is_ok());
    let mut bad = good;
    bad[1] = f32::NAN;
    model.train_step(&Batch::host(&bad)).unwrap();
    model.train_step(&Batch::host(&bad)).unwrap();
    let losses = model.losses().unwrap();
    assert_eq!(losses.non_finite, Some(NonFinite { step: 2, term: Term::Reconstruction }));
    assert_eq!(losses.check().unwrap_err().to_string(), "the reconstruction term became non-finite at step 2");

    let mut model = compile(&plan);
    let mut params = plan.params.initial(cvae_core::Initializer::Torch, 1);
    params[plan.params.find("decoder.0.bias").unwrap().1.offset] = f32::INFINITY;
    model.write(State::Params, &params).unwrap();
    model.gradients(&Batch::host(&good)).unwrap();
    assert!(model.losses().unwrap().check().is_err());
}

#[test]
fn the_step_selects_the_learning_rate() {
    let schedule = Schedule::Step { every: 10, factor: 0.5 };
    let plan = case(Objective::ae(), 1).plan(OptimizerSpec { schedule, ..OptimizerSpec::sgd(0.1, 0.0) });
    let row = uniform_rows(1, WIDTH, 4);
    for (step, rate) in [(0, 0.1), (9, 0.1), (10, 0.05), (25, 0.025)] {
        let mut model = compile(&plan);
        model.set_step(step);
        let before = state(model.as_mut(), State::Params);
        let grads = grads(model.as_mut(), &Batch::host(&row));
        model.apply().unwrap();
        assert_eq!(model.step(), step + 1);
        let expected: Vec<f64> = before.iter().zip(grads).map(|(theta, g)| theta - rate * g).collect();
        assert_eq!(state(model.as_mut(), State::Params), expected, "after {step} steps");
    }
}

#[test]
fn inference_takes_any_number_of_rows() {
    for objective in [Objective::default(), Objective::vae(1.0)] {
        let mut model = model(objective, 3);
        let rows = uniform_rows(8, WIDTH, 5);
        let mut codes = vec![f32::NAN; 8 * 2];
        model.infer(Entry::Encode, &rows, &mut codes).unwrap();
        let (mut decoded, mut reconstructed) = (vec![f64::NAN; 8 * WIDTH], vec![f64::NAN; 8 * WIDTH]);
        model.infer_f64(Entry::Decode, &codes, &mut decoded).unwrap();
        model.infer_f64(Entry::Reconstruct, &rows, &mut reconstructed).unwrap();
        for (a, b) in decoded.iter().zip(&reconstructed) {
            assert!((a - b).abs() < 1e-6, "decode after encode: {a} against {b}");
        }
        for (index, row) in rows.chunks(WIDTH).enumerate() {
            let mut single = vec![f64::NAN; WIDTH];
            model.infer_f64(Entry::Reconstruct, row, &mut single).unwrap();
            assert_eq!(single, reconstructed[index * WIDTH..][..WIDTH], "row {index} alone");
            let mut rounded = vec![f32::NAN; WIDTH];
            model.infer(Entry::Reconstruct, row, &mut rounded).unwrap();
            assert_eq!(rounded, single.iter().map(|value| *value as f32).collect::<Vec<_>>());
        }
    }
}

#[test]
fn inference_errors() {
    let mut model = model(Objective::default(), 3);
    let mut out = [0.0; WIDTH];
    let mut wrong =
        |entry, input: &[f32], out: &mut [f32]| matches!(model.infer(entry, input, out), Err(RunError::Length { .. }));
    assert!(wrong(Entry::Encode, &[], &mut []));
    assert!(wrong(Entry::Encode, &[0.0; 6], &mut out[..2]));
    assert!(wrong(Entry::Encode, &[0.0; 5], &mut out[..3]));
    assert!(wrong(Entry::Decode, &[0.0; 3], &mut out));
    assert!(wrong(Entry::Reconstruct, &[0.0; 5], &mut out[..4]));
    assert!(model.infer_f64(Entry::Reconstruct, &[0.0; 5], &mut [0.0; 4]).is_err());
}

/// A variational model encodes to the posterior mean, whatever its log-variance and without noise.
#[test]
fn encoding_draws_no_noise() {
    let plan = case(Objective::vae(1.0), 3).plan(OptimizerSpec::default());
    let mut model = compile(&plan);
    let row = uniform_rows(1, WIDTH, 6);
    let (mut before, mut after) = ([0.0; 2], [0.0; 2]);
    model.infer_f64(Entry::Encode, &row, &mut before).unwrap();
    let mut params = vec![0.0; plan.params.len()];
    model.read(State::Params, &mut params).unwrap();
    params[plan.params.find("logvar.bias").unwrap().1.range()].fill(3.0);
    model.write(State::Params, &params).unwrap();
    model.infer_f64(Entry::Encode, &row, &mut after).unwrap();
    assert_eq!(before, after);
}

#[test]
fn every_op_names_its_kernel() {
    let model = model(Objective { latent: Latent::Variational { beta: 1.0 }, ..Objective::default() }, 3);
    let kernels = model.kernels();
    assert_eq!(kernels.len(), model.plan().program.train.ops.len());
    assert!(kernels.iter().all(|choice| choice.kernel.starts_with("reference ") && !choice.op.is_empty()));
    assert_eq!(ReferenceBackend.id().as_str(), "reference");
    assert!(ReferenceBackend.supports(model.plan()).is_ok());
}

#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let spec = ModelSpec::mlp(&[1000, 2], Activation::Relu, Activation::Identity).unwrap();
    let plan = Plan::new(spec, Objective::ae(), OptimizerSpec::default(), 0, usize::MAX / 4).unwrap();
    assert!(matches!(ReferenceBackend.compile(Arc::new(plan)), Err(CompileError::Memory { .. })));
}
