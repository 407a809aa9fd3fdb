//! Data sets: bytes and floats, resident and streamed, and what happens to bad requests.
#![cfg(target_os = "linux")]

mod common;

use common::{Turn, agrees, backend, difference, fingerprint, model, plan, read, read_f64, rows, start, tolerance};
use cvae_core::{
    Activation, Backend, Batch, CompileError, DataId, Entry, Executable, Objective, OptimizerSpec, Rows, RunError,
    State,
};
use cvae_cuda::{CudaBackend, CudaConfig, LaunchPath, Precision};
use cvae_cuda_emu::Options;
use cvae_reference::ReferenceBackend;

#[test]
fn bytes_are_scaled_as_the_reference_scales_them() {
    let _turn = Turn::seeded(1);
    let plan = plan(model(13, 6, 2, Activation::Relu), Objective::default(), OptimizerSpec::sgd(0.1, 0.0), 4);
    let bytes: Vec<u8> = (0..9 * 13).map(|i| (i * 37 % 256) as u8).collect();
    let data = Rows::U8 { values: &bytes, width: 13, scale: 1.0 / 255.0 };
    let backend = backend(Precision::F32, LaunchPath::Graph);
    let (mut cuda, mut reference) = (start(&backend, &plan), start(&ReferenceBackend, &plan));
    let order = [8, 0, 3, 3, 7, 1];
    for executable in [&mut cuda, &mut reference] {
        let id = executable.upload(data).expect("uploads");
        executable.train_epoch(id, &order, 4, 0).expect("trains");
    }
    let error = difference(&read(&mut *cuda, State::Params), &read_f64(&mut *reference, State::Params));
    assert!(error < tolerance(Precision::F32), "{error:e}");
}

#[test]
fn data_larger_than_the_device_is_streamed() {
    let plan = plan(model(64, 8, 2, Activation::Relu), Objective::default(), OptimizerSpec::sgd(0.1, 0.0), 8);
    let bytes: Vec<u8> = (0..40_000 * 64).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let order: Vec<u32> = (0..100).map(|i| i * 397 % 40_000).collect();
    let train = |memory| {
        let turn = Turn::new(Options { memory, ..Options::default() });
        let mut executable = start(&backend(Precision::F32, LaunchPath::Cooperative), &plan);
        let data = Rows::U8 { values: &bytes, width: 64, scale: 1.0 / 255.0 };
        let id = executable.upload(data).expect("uploads");
        executable.train_epoch(id, &order, 8, 0).expect("trains");
        executable.train_step(&Batch::resident(id, &order[..5], 1)).expect("a step");
        let streamed = executable.kernels().iter().any(|choice| choice.op.starts_with("data"));
        assert!(turn.emulator.statistics().device_bytes <= memory);
        (fingerprint(&mut *executable), streamed)
    };
    // The set has 2.5 MB; the second device has 2.
    let (resident, streamed) = train(64 << 20);
    assert!(!streamed);
    let (found, streamed) = train(2 << 20);
    assert!(streamed, "kernels() says that the data is streamed");
    assert!(found == resident);
}

#[test]
fn bad_requests_are_errors_and_change_nothing() {
    let _turn = Turn::seeded(0);
    let plan = plan(model(6, 4, 2, Activation::Relu), Objective::default(), OptimizerSpec::default(), 3);
    let mut executable = start(&backend(Precision::F32, LaunchPath::Graph), &plan);
    let values = rows(5, 6);
    let data = executable.upload(Rows::F32 { values: &values, width: 6 }).expect("uploads");
    let before = read(&mut *executable, State::Params);

    let four = rows(4, 6);
    assert!(matches!(executable.train_step(&Batch::host(&four)), Err(RunError::Rows { rows: 4, max_rows: 3 })));
    assert!(matches!(executable.train_step(&Batch::host(&four[..7])), Err(RunError::Length { .. })));
    assert!(matches!(executable.train_step(&Batch::host(&[])), Err(RunError::Rows { rows: 0, .. })));
    let beyond = Batch::resident(data, &[1, 5], 0);
    assert!(matches!(executable.gradients(&beyond), Err(RunError::RowIndex { index: 5, rows: 5 })));
    assert!(matches!(executable.train_epoch(data, &[0, 9], 2, 0), Err(RunError::RowIndex { index: 9, .. })));
    assert!(matches!(executable.train_epoch(data, &[0], 0, 0), Err(RunError::Rows { rows: 0, .. })));
    assert!(matches!(executable.train_epoch(data, &[0], 4, 0), Err(RunError::Rows { rows: 4, .. })));
    assert!(matches!(executable.train_epoch(DataId(7), &[0], 1, 0), Err(RunError::UnknownData(7))));
    assert!(matches!(executable.upload(Rows::F32 { values: &values, width: 5 }), Err(RunError::Length { .. })));
    assert!(matches!(executable.apply(), Err(RunError::NoGradients)));
    assert!(matches!(executable.write(State::Grads, &before), Err(RunError::ReadOnly)));
    assert!(matches!(executable.write(State::Params, &before[1..]), Err(RunError::Length { .. })));
    let mut short = vec![0.0; 3];
    assert!(matches!(executable.read(State::Params, &mut short), Err(RunError::Length { .. })));
    assert!(matches!(executable.read(State::Grads, &mut before.clone()), Err(RunError::NoGradients)));
    assert!(matches!(executable.infer(Entry::Encode, &four, &mut short), Err(RunError::Length { .. })));

    executable.release(data).expect("releases");
    assert!(matches!(executable.release(data), Err(RunError::UnknownData(0))));
    assert!(matches!(executable.train_step(&Batch::resident(data, &[0], 0)), Err(RunError::UnknownData(0))));
    assert_eq!(executable.step(), 0);
    assert_eq!(read(&mut *executable, State::Params), before);
}

#[test]
fn ten_thousand_steps_leak_nothing() {
    let turn = Turn::new(Options { early_streams: true, multiprocessors: 1, ..Options::default() });
    let at_start = turn.emulator.statistics();
    let plan = plan(model(4, 3, 2, Activation::Relu), Objective::default(), OptimizerSpec::default(), 2);
    {
        let config = CudaConfig { path: LaunchPath::Cooperative, ..CudaConfig::default() };
        let backend = CudaBackend::with_config(Precision::F32, config).expect("the emulated GPU");
        let mut executable = start(&backend, &plan);
        let values = rows(500, 4);
        let data = executable.upload(Rows::F32 { values: &values, width: 4 }).expect("uploads");
        let order: Vec<u32> = (0..500).collect();
        let epoch = |executable: &mut Box<dyn Executable>, epoch| {
            executable.train_epoch(data, &order, 2, epoch).expect("trains");
            executable.train_step(&Batch::host(&values[..8])).expect("a step");
            executable.losses().expect("losses").check().expect("finite losses");
        };
        epoch(&mut executable, 0);
        let after_one = turn.emulator.statistics();
        for number in 1..40 {
            epoch(&mut executable, number);
        }
        assert_eq!(executable.step(), 40 * 251);
        let after_all = turn.emulator.statistics();
        assert_eq!(
            (after_all.device_allocations, after_all.device_bytes),
            (after_one.device_allocations, after_one.device_bytes)
        );
        assert_eq!((after_all.host_allocations, after_all.events), (after_one.host_allocations, after_one.events));
        assert_eq!((after_all.streams, after_all.graphs), (after_one.streams, after_one.graphs));
    }
    let at_end = turn.emulator.statistics();
    let objects = |s: cvae_cuda_emu::Statistics| {
        [s.device_allocations, s.device_bytes, s.host_allocations, s.streams, s.events, s.modules, s.graphs]
    };
    assert_eq!(objects(at_end), objects(at_start), "dropping the backend frees everything");
}

#[test]
fn too_little_memory_is_a_typed_error() {
    let plan = plan(model(200, 50, 2, Activation::Relu), Objective::default(), OptimizerSpec::default(), 8);
    let turn = Turn::new(Options { memory: 200_000, ..Options::default() });
    let before = turn.emulator.statistics();
    let backend = backend(Precision::F32, LaunchPath::Launches);
    match backend.compile(plan).map(|_| ()) {
        Err(CompileError::Memory { bytes, .. }) => assert!(bytes > 0),
        other => panic!("expected an out-of-memory error, got {other:?}"),
    }
    drop(backend);
    assert_eq!(turn.emulator.statistics().device_allocations, before.device_allocations, "nothing stays allocated");
}

#[test]
fn a_lost_device_is_a_typed_error() {
    let plan = plan(model(6, 4, 2, Activation::Relu), Objective::default(), OptimizerSpec::default(), 3);
    for path in [LaunchPath::Launches, LaunchPath::Graph, LaunchPath::Cooperative] {
        let _turn = Turn::new(Options { fail_launch: 12, ..Options::default() });
        let backend = backend(Precision::F32, path);
        let mut executable = start(&backend, &plan);
        let values = rows(3, 6);
        let error = loop {
            let step = executable.train_step(&Batch::host(&values)).and_then(|()| executable.synchronize());
            if let Err(error) = step {
                break error;
            }
            assert!(executable.step() < 20, "the device was to be lost");
        };
        assert!(matches!(&error, RunError::Device(device) if device.device == "emulated GPU"), "{error:?}");
        // Every later call fails alike, and dropping does not.
        assert!(matches!(executable.losses(), Err(RunError::Device(_))));
        assert!(matches!(executable.train_step(&Batch::host(&values)), Err(RunError::Device(_))));
    }
    let _turn = Turn::seeded(0);
    agrees(Precision::F32, LaunchPath::Graph, &plan, 3);
}
