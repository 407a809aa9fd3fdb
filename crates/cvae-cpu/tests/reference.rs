//! Every level against the f64 reference, and against itself with other thread counts.

use std::sync::Arc;

use cvae_core::{
    Activation, Algorithm, Backend, Batch, ColumnGroup, ColumnKind, Corruption, Entry, Executable, Initializer,
    Jacobian, Latent, ModelSpec, Noise, Objective, OptimizerSpec, Patch, Plan, Reconstruction, Rows, Shift, State,
    Stream,
};
use cvae_cpu::{CpuBackend, Level};
use cvae_reference::ReferenceBackend;

/// A batch of rows in (0, 1), which every reconstruction term accepts.
fn data(rows: usize, width: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; rows * width];
    for (row, out) in values.chunks_mut(width).enumerate() {
        Noise::new(seed, Stream::Data, 0).uniform(row as u32, out);
    }
    values
}

/// Rows for a plan; where it allows for missing values, every seventh is missing.
fn rows_of(plan: &Plan, rows: usize, seed: u64) -> Vec<f32> {
    let mut values = data(rows, plan.spec.width(), seed);
    if plan.objective.missing {
        values.iter_mut().step_by(7).for_each(|x| *x = f32::NAN);
    }
    values
}

/// Input of an inference entry.
fn input_of(plan: &Plan, entry: Entry, rows: usize) -> Vec<f32> {
    match entry {
        Entry::Decode => data(rows, entry.widths(plan).0, 12),
        Entry::Encode | Entry::Reconstruct => rows_of(plan, rows, 12),
    }
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| {
        let available = level.available();
        if !available {
            eprintln!("skipped: {level} needs {}", level.requirement());
        }
        available
    })
}

fn model(backend: &dyn Backend, plan: &Arc<Plan>) -> Box<dyn Executable> {
    let mut model = backend.compile(Arc::clone(plan)).unwrap();
    model.write(State::Params, &plan.params.initial(Initializer::Torch, 3)).unwrap();
    model
}

/// Largest difference over the largest magnitude.
fn error(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-6f64, |m, x| m.max(x.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    worst.fold(0.0, |m, e| if e.is_nan() { f64::INFINITY } else { f64::max(m, e) }) / scale
}

fn read(model: &mut dyn Executable, state: State) -> Vec<f32> {
    let mut values = vec![f32::NAN; model.plan().params.len()];
    model.read(state, &mut values).unwrap();
    values
}

fn read_f64(model: &mut dyn Executable, state: State) -> Vec<f64> {
    let mut values = vec![f64::NAN; model.plan().params.len()];
    model.read_f64(state, &mut values).unwrap();
    values
}

fn check(plan: &Arc<Plan>, rows: usize, context: &str) {
    let values = rows_of(plan, rows, 11);
    let mut reference = model(&ReferenceBackend, plan);
    reference.gradients(&Batch::host(&values)).unwrap();
    let grads = read_f64(&mut *reference, State::Grads);
    let losses = reference.losses().unwrap();
    reference.apply().unwrap();
    let params = read_f64(&mut *reference, State::Params);
    let moments = read_f64(&mut *reference, State::Moment1);
    let mut expected = [vec![], vec![], vec![]];
    for (entry, out) in Entry::ALL.into_iter().zip(&mut expected) {
        out.resize(rows * entry.widths(plan).1, 0.0);
        reference.infer_f64(entry, &input_of(plan, entry, rows), out).unwrap();
    }
    for level in levels() {
        for threads in [1, 2, 5] {
            let backend = CpuBackend::new(level, threads).unwrap();
            let context = format!("{level} x{threads}: {context}, {rows} rows");
            let mut cpu = model(&backend, plan);
            cpu.gradients(&Batch::host(&values)).unwrap();
            let e = error(&read(&mut *cpu, State::Grads), &grads);
            assert!(e < 3e-5, "{context}: gradients differ by {e:e}");
            let found = cpu.losses().unwrap();
            for (a, b) in found.last.iter().zip(losses.last) {
                assert!((a - b).abs() <= 2e-5 * b.abs().max(1e-3), "{context}: losses {a} against {b}");
            }
            cpu.apply().unwrap();
            let e = error(&read(&mut *cpu, State::Params), &params);
            assert!(e < 2e-4, "{context}: parameters differ by {e:e}");
            let mut fused = model(&backend, plan);
            fused.train_step(&Batch::host(&values)).unwrap();
            let e = error(&read(&mut *fused, State::Moment1), &moments);
            assert!(e < 3e-5, "{context}: first moments differ by {e:e}");
            let e = error(&read(&mut *fused, State::Params), &read_f64(&mut *cpu, State::Params));
            assert!(e < 1e-6, "{context}: a fused step differs by {e:e}");
            for (entry, expected) in Entry::ALL.into_iter().zip(&expected) {
                let mut out = vec![f32::NAN; expected.len()];
                // The first step's parameters: those of the reference after `apply`.
                let exact: Vec<f32> = params.iter().map(|p| *p as f32).collect();
                fused.write(State::Params, &exact).unwrap();
                fused.infer(entry, &input_of(plan, entry, rows), &mut out).unwrap();
                let e = error(&out, expected);
                assert!(e < 1e-5, "{context}: {entry:?} differs by {e:e}");
            }
        }
    }
}

#[test]
fn shapes() {
    let shapes: [&[usize]; 9] = [
        &[1, 1],
        &[2, 3, 1],
        &[7, 5],
        &[17, 31, 3],
        &[31, 8, 64, 2],
        &[64, 100, 17, 16],
        &[100, 16],
        &[784, 100, 33],
        &[260, 300, 20, 5, 3],
    ];
    for widths in shapes {
        for rows in [1, 2, 7, 8, 17, 33, 65] {
            let spec = ModelSpec::mlp(widths, Activation::Tanh, Activation::Identity).unwrap();
            let plan = Plan::new(spec, Objective::collapsed(0.1, 1e-3), OptimizerSpec::adam(1e-3), 5, rows).unwrap();
            check(&Arc::new(plan), rows, &format!("{widths:?}"));
        }
    }
}

/// Weight gradients take 256 rows at a time; layers of 1100 fill what is kept of them with one panel. One thread divides a
/// batch of 600 in contractions, two one of 1100; of weights that contract 4500 they keep a part at a time.
#[test]
fn batches_of_several_blocks() {
    let contractive = Objective { jacobian: Jacobian::Contractive { weight: 0.1 }, ..Objective::default() };
    let check = |widths: &[usize], objective: Objective, rows: usize| {
        let spec = ModelSpec::mlp(widths, Activation::Tanh, Activation::Identity).unwrap();
        let plan = Plan::new(spec, objective, OptimizerSpec::adam(1e-3), 5, rows).unwrap();
        check(&Arc::new(plan), rows, &format!("{widths:?}"));
    };
    for rows in [256, 257, 600, 1100] {
        check(&[70, 300, 20], Objective::collapsed(0.1, 1e-3), rows);
        check(&[70, 300, 20], contractive.clone(), rows);
        check(&[20, 1100, 3], Objective::collapsed(0.1, 1e-3), rows);
    }
    check(&[4500, 80, 5], Objective::collapsed(0.1, 1e-3), 1030);
}

#[test]
fn activations_and_terms() {
    let reconstructions = [
        Reconstruction::MseSum,
        Reconstruction::MseMean,
        Reconstruction::Bce,
        Reconstruction::L1,
        Reconstruction::Huber { delta: 0.2 },
    ];
    let latents = [Latent::None, Latent::Collapsed { beta: 0.3 }, Latent::Variational { beta: 0.7 }];
    for activation in Activation::ALL {
        for reconstruction in reconstructions {
            for latent in latents {
                let output = match reconstruction {
                    Reconstruction::Bce => Activation::Sigmoid,
                    _ => activation,
                };
                let spec = ModelSpec::mlp(&[19, 24, 5], activation, output).unwrap();
                let objective = Objective { reconstruction, latent, decoder_l2: 0.01, ..Objective::ae() };
                let plan = Plan::new(spec, objective, OptimizerSpec::adam(1e-3), 5, 21).unwrap();
                check(&Arc::new(plan), 21, &format!("{activation} {reconstruction} {latent}"));
            }
        }
    }
}

/// Objectives whose ops work on whole rows, whole batches or derivatives, for rows of 27 values.
fn family() -> Vec<Objective> {
    let collapsed = Objective::collapsed(0.05, 0.01);
    let corrupted = |corruption| Objective { corruption, ..collapsed.clone() };
    let latent = |latent| Objective { latent, ..Objective::ae() };
    let jacobian = |jacobian| Objective { jacobian, ..collapsed.clone() };
    let groups = vec![
        ColumnGroup { weight: 2.0, ..ColumnGroup::new(ColumnKind::Numeric, 4) },
        ColumnGroup::new(ColumnKind::Categorical, 17),
        ColumnGroup::new(ColumnKind::Binary, 6),
    ];
    let mixed = Objective { columns: groups, ..collapsed.clone() };
    let masked = Corruption::Masked { share: 0.5, patch: Some(Patch { size: 2, width: 9, channels: 1 }) };
    vec![
        corrupted(Corruption::Gaussian { std: 0.3 }),
        corrupted(Corruption::Masking { share: 0.4 }),
        corrupted(Corruption::Permutation { share: 0.4 }),
        corrupted(masked),
        corrupted(Corruption::Shift { share: 0.6, shift: Shift { distance: 2, width: 9, channels: 1 } }),
        Objective { missing: true, ..corrupted(masked) },
        Objective { missing: true, ..collapsed.clone() },
        Objective { top_k: Some(2), ..collapsed.clone() },
        Objective::collapsed_spectral_norm(0.05),
        Objective { spectral_norm: true, ..jacobian(Jacobian::Contractive { weight: 0.3 }) },
        Objective { sigma_floor: Some(1e-3), ..collapsed.clone() },
        Objective { sigma_floor: Some(1e-3), missing: true, ..collapsed.clone() },
        latent(Latent::Sparse { weight: 0.2 }),
        latent(Latent::Capacity { gamma: 2.0, capacity: 0.1 }),
        latent(Latent::Capacity { gamma: 2.0, capacity: 1e4 }),
        latent(Latent::FreeBits { beta: 0.7, floor: 0.05 }),
        latent(Latent::Mmd { weight: 3.0 }),
        jacobian(Jacobian::GradientPenalty { weight: 0.3 }),
        jacobian(Jacobian::Contractive { weight: 0.3 }),
        Objective { missing: true, ..mixed.clone() },
        Objective { corruption: Corruption::Permutation { share: 0.5 }, ..mixed },
    ]
}

#[test]
fn objective_family() {
    for objective in family() {
        for (code, activation) in [(5, Activation::Silu), (18, Activation::Tanh), (20, Activation::Relu)] {
            let spec = ModelSpec::mlp(&[27, 24, code], activation, Activation::Identity).unwrap();
            let plan = Plan::new(spec, objective.clone(), OptimizerSpec::adam(1e-3), 5, 21).unwrap();
            let plan = Arc::new(plan);
            for rows in [1, 2, 21] {
                check(&plan, rows, &format!("{objective:?} {activation} code {code}"));
            }
        }
    }
}

#[test]
fn bits_of_the_family_do_not_depend_on_threads() {
    for objective in family() {
        // An even and an odd number of layers: input and reconstruction divided alike, and differently.
        for decoder in [&[9, 40, 27][..], &[9, 27]] {
            let spec = ModelSpec::mlp_pair(&[27, 40, 9], decoder, Activation::Elu, Activation::Identity).unwrap();
            let plan = Plan::new(spec, objective.clone(), OptimizerSpec::adam(1e-3), 5, 20).unwrap();
            let plan = Arc::new(plan);
            for level in levels() {
                let first = train(level, 1, &plan, false, 3);
                for threads in [2, 3, 7] {
                    assert!(
                        first == train(level, threads, &plan, false, 3),
                        "{level}, {threads} threads, {:?}",
                        plan.objective
                    );
                }
            }
        }
    }
}

/// Up to two threads divide such a batch, more divide the features.
#[test]
fn bits_of_large_batches_do_not_depend_on_threads() {
    for objective in family() {
        let spec = ModelSpec::mlp(&[27, 160, 9], Activation::Elu, Activation::Identity).unwrap();
        let plan = Arc::new(Plan::new(spec, objective, OptimizerSpec::adam(1e-3), 5, 1100).unwrap());
        for level in levels() {
            let first = train(level, 1, &plan, false, 1);
            for threads in [2, 3, 7] {
                let context = format!("{level}, {threads} threads, {:?}", plan.objective);
                assert!(first == train(level, threads, &plan, false, 1), "{context}");
            }
        }
    }
}

#[test]
fn optimizers() {
    let adam = Algorithm::Adam { beta1: 0.9, beta2: 0.999, eps: 1e-7 };
    let adamw = Algorithm::AdamW { beta1: 0.8, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };
    for algorithm in [adam, adamw, Algorithm::Sgd { momentum: 0.9 }] {
        for clip_norm in [None, Some(0.05)] {
            let spec = ModelSpec::mlp(&[23, 40, 6], Activation::Gelu, Activation::Identity).unwrap();
            let optimizer = OptimizerSpec { algorithm, clip_norm, ..OptimizerSpec::adam(1e-2) };
            let plan = Plan::new(spec, Objective::default(), optimizer, 5, 9).unwrap();
            check(&Arc::new(plan), 9, &format!("{algorithm:?} clip {clip_norm:?}"));
        }
    }
}

/// Trains for some epochs of three batches and a short one, and returns parameters and loss.
fn train(level: Level, threads: usize, plan: &Arc<Plan>, bytes: bool, epochs: u32) -> (Vec<f32>, f64) {
    let backend = CpuBackend::new(level, threads).unwrap();
    let mut cpu = model(&backend, plan);
    let width = plan.spec.width();
    let rows = 3 * plan.max_rows + 17;
    let quantised: Vec<u8> = data(rows, width, 4).iter().map(|x| (x * 255.0) as u8).collect();
    let scale = 1.0 / 255.0;
    let floats: Vec<f32> = quantised.iter().map(|b| f32::from(*b) * scale).collect();
    let data = match bytes {
        true => cpu.upload(Rows::U8 { values: &quantised, width, scale }).unwrap(),
        false => cpu.upload(Rows::F32 { values: &floats, width }).unwrap(),
    };
    let mut order = vec![0; rows];
    for epoch in 0..epochs {
        cvae_core::epoch_order(9, epoch, &mut order);
        cpu.train_epoch(data, &order, plan.max_rows, epoch).unwrap();
    }
    assert_eq!(cpu.step(), 4 * u64::from(epochs));
    let loss = cpu.losses().unwrap().total();
    (read(&mut *cpu, State::Params), loss)
}

#[test]
fn bits_do_not_depend_on_threads_runs_or_storage() {
    for clip_norm in [None, Some(0.1)] {
        for latent in [Latent::Collapsed { beta: 0.01 }, Latent::Variational { beta: 0.1 }] {
            let spec = ModelSpec::mlp(&[300, 150, 70, 9], Activation::Elu, Activation::Identity).unwrap();
            let objective = Objective { latent, ..Objective::default() };
            let optimizer = OptimizerSpec { clip_norm, ..OptimizerSpec::adam(1e-3) };
            let plan = Arc::new(Plan::new(spec, objective, optimizer, 5, 20).unwrap());
            for level in levels() {
                let first = train(level, 1, &plan, false, 3);
                for threads in [1, 2, 3, 4, 7, 12] {
                    for bytes in [false, true] {
                        assert!(
                            first == train(level, threads, &plan, bytes, 3),
                            "{level}, {threads} threads, u8 {bytes}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn inference_bits_do_not_depend_on_threads_or_batch() {
    let spec = ModelSpec::mlp(&[90, 40, 7], Activation::Silu, Activation::Sigmoid).unwrap();
    let plan = Arc::new(Plan::new(spec, Objective::default(), OptimizerSpec::default(), 5, 8).unwrap());
    let input = data(700, 90, 8);
    for level in levels() {
        let mut whole = vec![0.0; 700 * 90];
        model(&CpuBackend::new(level, 1).unwrap(), &plan).infer(Entry::Reconstruct, &input, &mut whole).unwrap();
        for threads in [2, 3, 7] {
            let mut cpu = model(&CpuBackend::new(level, threads).unwrap(), &plan);
            for rows in [1, 5, 33, 700] {
                let mut out = vec![0.0; 700 * 90];
                for (input, out) in input.chunks(rows * 90).zip(out.chunks_mut(rows * 90)) {
                    cpu.infer(Entry::Reconstruct, input, out).unwrap();
                }
                assert!(out == whole, "{level}, {threads} threads, {rows} rows a call");
            }
        }
    }
}
