//! Frozen models: against the training engine's inference, against plain integer arithmetic, and against
//! themselves on other instruction sets, thread counts and batches.

use std::sync::Arc;

use cvae_core::{
    Activation, Backend, Entry, Initializer, ModelSpec, Noise, Objective, OptimizerSpec, Plan, RunError, State, Stream,
};
use cvae_cpu::{
    Bf16, ByteLevels, CpuBackend, FreezeError, Frozen, FrozenLayer, FrozenModel, FrozenPrecision, FrozenWeights, Level,
};

/// Standard normal rows.
fn data(rows: usize, width: usize, seed: u64) -> Vec<f32> {
    let mut values = vec![0.0; rows * width];
    for (row, out) in values.chunks_mut(width).enumerate() {
        Noise::new(seed, Stream::Data, 0).normal(row as u32, out);
    }
    values
}

fn levels() -> impl Iterator<Item = Level> {
    available(&Level::ALL)
}

fn available(levels: &[Level]) -> impl Iterator<Item = Level> {
    levels.iter().copied().filter(|level| {
        let available = level.available();
        if !available {
            eprintln!("skipped: {level} needs {}", level.requirement());
        }
        available
    })
}

fn plan(widths: &[usize], activation: Activation) -> Arc<Plan> {
    let spec = ModelSpec::mlp(widths, activation, Activation::Identity).unwrap();
    Arc::new(Plan::new(spec, Objective::default(), OptimizerSpec::default(), 5, 64).unwrap())
}

fn frozen_model(plan: &Plan) -> FrozenModel {
    FrozenModel::new(plan, &plan.params.initial(Initializer::Torch, 3)).unwrap()
}

/// Runs an entry in calls of `rows` rows.
fn run(frozen: &Frozen, threads: usize, entry: Entry, input: &[f32], rows: usize) -> Vec<f32> {
    let mut workspace = frozen.workspace(threads).unwrap();
    assert_eq!(workspace.threads(), threads);
    let (from, to) = widths(frozen, entry);
    let mut out = vec![f32::NAN; input.len() / from * to];
    for (input, out) in input.chunks(rows * from).zip(out.chunks_mut(rows * to)) {
        workspace.infer(entry, input, out).unwrap();
    }
    out
}

fn widths(frozen: &Frozen, entry: Entry) -> (usize, usize) {
    match entry {
        Entry::Encode => (frozen.width(), frozen.latent()),
        Entry::Decode => (frozen.latent(), frozen.width()),
        Entry::Reconstruct => (frozen.width(), frozen.width()),
    }
}

/// Largest difference over the largest magnitude.
fn error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-6f64, |m, x| m.max(f64::from(x.abs())));
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs());
    worst.fold(0.0, |m, e| if e.is_nan() { f64::INFINITY } else { f64::max(m, e) }) / scale
}

#[test]
fn floats_agree_with_the_training_engine() {
    let shapes: [&[usize]; 8] = [
        &[1, 1],
        &[2, 3, 1],
        &[17, 31, 3],
        &[31, 8, 64, 2],
        &[64, 100, 17, 16],
        &[300, 40, 33],
        &[784, 100, 20],
        &[600, 256, 5, 3],
    ];
    for (index, shape) in shapes.into_iter().enumerate() {
        let plan = plan(shape, Activation::ALL[index % Activation::ALL.len()]);
        let params = plan.params.initial(Initializer::Torch, 3);
        let model = frozen_model(&plan);
        for level in levels() {
            let frozen = Frozen::new(&model, level).unwrap();
            let mut engine = CpuBackend::new(level, 1).unwrap().compile(Arc::clone(&plan)).unwrap();
            engine.write(State::Params, &params).unwrap();
            for rows in [1, 2, 3, 7, 13, 65, 600] {
                for entry in Entry::ALL {
                    let (from, to) = entry.widths(&plan);
                    let input = data(rows, from, 8);
                    let mut expected = vec![0.0; rows * to];
                    engine.infer(entry, &input, &mut expected).unwrap();
                    let found = run(&frozen, 2, entry, &input, rows);
                    let e = error(&found, &expected);
                    assert!(e < 4e-6, "{level}: {shape:?}, {rows} rows, {entry:?} differs by {e:e}");
                }
            }
        }
    }
}

/// The model with its weights rounded, in floats again.
fn rounded(model: &FrozenModel) -> FrozenModel {
    let mut model = model.clone();
    for layer in model.encoder.iter_mut().chain(&mut model.decoder) {
        let FrozenWeights::F32(weights) = &mut layer.weights else { panic!("a layer of floats") };
        weights.iter_mut().for_each(|w| *w = Bf16::from_f32(*w).to_f32());
    }
    model
}

#[test]
fn halves_are_the_floats_of_rounded_weights() {
    let shapes: [&[usize]; 7] =
        [&[1, 1], &[2, 3, 1], &[17, 31, 3], &[31, 8, 64, 2], &[301, 40, 33], &[784, 100, 20], &[1100, 256, 5, 3]];
    for (index, shape) in shapes.into_iter().enumerate() {
        let plan = plan(shape, Activation::ALL[index % Activation::ALL.len()]);
        let model = frozen_model(&plan);
        let halves = model.to_bf16().unwrap();
        assert_eq!(halves.precision(), FrozenPrecision::Bf16);
        for level in levels() {
            let (found, expected) =
                (Frozen::new(&halves, level).unwrap(), Frozen::new(&rounded(&model), level).unwrap());
            let floats = Frozen::new(&model, level).unwrap();
            for rows in [1, 2, 3, 7, 13, 65, 600] {
                for entry in Entry::ALL {
                    let input = data(rows, entry.widths(&plan).0, 8);
                    let found = run(&found, 2, entry, &input, rows);
                    let e = error(&found, &run(&expected, 2, entry, &input, rows));
                    assert!(e < 4e-6, "{level}: {shape:?}, {rows} rows, {entry:?} differs by {e:e}");
                    // A weight is wrong by 2⁻⁹ of itself at most; three layers of them by little more.
                    let e = error(&found, &run(&floats, 2, entry, &input, rows));
                    assert!(e < 2e-2, "{level}: {shape:?}, {rows} rows, {entry:?} is {e:e} from the floats");
                    assert!(e > 0.0, "{level}: {shape:?}, {rows} rows, {entry:?}: nothing was rounded");
                }
            }
        }
    }
}

/// Layers of bfloat16 weights whose inputs are rounded too, in 64 bits.
fn plain_rounded(layers: &[FrozenLayer], rows: &[f32]) -> Vec<f32> {
    let nearest = |x: f32| f64::from(Bf16::from_f32(x).to_f32());
    let mut x = rows.to_vec();
    for layer in layers {
        let FrozenWeights::Bf16(weights) = &layer.weights else { panic!("a layer of halves") };
        let mut y = vec![];
        for row in x.chunks(layer.inputs) {
            for (weights, bias) in weights.chunks(layer.inputs).zip(&layer.bias) {
                let products = weights.iter().zip(row).map(|(w, x)| f64::from(w.to_f32()) * nearest(*x));
                let a = products.sum::<f64>() + f64::from(*bias);
                y.push(if layer.activation == Activation::Relu { a.max(0.0) } else { a } as f32);
            }
        }
        x = y;
    }
    x
}

#[test]
fn a_level_of_halves_rounds_inputs_too() {
    for shape in [&[1, 1][..], &[2, 3, 1], &[301, 40, 33], &[784, 101, 20], &[1100, 256, 5, 3]] {
        let plan = plan(shape, Activation::Relu);
        let model = frozen_model(&plan);
        let halves = model.to_bf16().unwrap();
        for level in available(&Level::BF16) {
            let (frozen, floats) = (Frozen::new(&halves, level).unwrap(), Frozen::new(&model, level).unwrap());
            assert!(frozen.kernels().iter().all(|choice| choice.kernel == format!("{level}::dense_bf16")));
            for rows in [1, 2, 3, 7, 65] {
                let input = data(rows, shape[0], 8);
                let found = run(&frozen, 2, Entry::Encode, &input, rows);
                // Sums in another order can round an activation to its other neighbour, 2⁻⁸ away: rarely, and little.
                let e = error(&found, &plain_rounded(&halves.encoder, &input));
                assert!(
                    e < if shape.len() == 2 { 1e-6 } else { 2e-3 },
                    "{level}: {shape:?}, {rows} rows differ by {e:e}"
                );
                let e = error(&found, &run(&floats, 2, Entry::Encode, &input, rows));
                assert!(e < 2e-2 && e > 0.0, "{level}: {shape:?}, {rows} rows are {e:e} from the floats");
            }
        }
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_batch() {
    for activation in [Activation::Relu, Activation::Gelu] {
        let plan = plan(&[290, 140, 70, 9], activation);
        let input = data(523, 290, 8);
        let floats = frozen_model(&plan);
        let (halves, bytes) = (floats.to_bf16().unwrap(), floats.quantize(&input).unwrap());
        for level in levels().chain(available(&Level::BF16)) {
            for model in [&floats, &halves, &bytes] {
                let frozen = Frozen::new(model, level).unwrap();
                let whole = run(&frozen, 1, Entry::Reconstruct, &input, 523);
                assert!(whole.iter().all(|value| value.is_finite()));
                for threads in [1, 2, 3, 7] {
                    for rows in [1, 2, 5, 11, 60, 523] {
                        // Calls of a few rows need no more than a few dozen of them.
                        let count = 290 * 523.min(40 * rows);
                        let found = run(&frozen, threads, Entry::Reconstruct, &input[..count], rows);
                        let precision = model.precision();
                        let same = found == whole[..count];
                        assert!(same, "{level}, {precision:?}, {threads} threads, {rows} rows a call");
                    }
                }
                let codes = run(&frozen, 2, Entry::Encode, &input, 523);
                assert!(run(&frozen, 2, Entry::Decode, &codes, 523) == whole, "{level}: decode after encode differs");
            }
        }
    }
}

#[test]
fn bytes_have_the_same_bits_on_every_level() {
    for activation in Activation::ALL {
        for shape in [&[7, 5, 3][..], &[100, 33, 17], &[784, 100, 64, 2]] {
            let plan = plan(shape, activation);
            let input = data(70, shape[0], 4);
            let model = frozen_model(&plan).quantize(&input).unwrap();
            assert_eq!(model.precision(), FrozenPrecision::Int8);
            for entry in Entry::ALL {
                let input = data(70, entry.widths(&plan).0, 4);
                let scalar = run(&Frozen::new(&model, Level::Scalar).unwrap(), 1, entry, &input, 70);
                for level in levels().chain(available(&Level::BF16)) {
                    let found = run(&Frozen::new(&model, level).unwrap(), 2, entry, &input, 70);
                    let same = found.iter().zip(&scalar).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{level}: {activation}, {shape:?}, {entry:?} differs from scalar");
                }
            }
        }
    }
}

#[test]
fn precisions_mix_layer_by_layer() {
    let plan = plan(&[90, 70, 40, 9], Activation::Relu);
    let input = data(50, 90, 3);
    let floats = frozen_model(&plan);
    let (halves, bytes) = (floats.to_bf16().unwrap(), floats.quantize(&input).unwrap());
    let expected = run(&Frozen::new(&floats, Level::best()).unwrap(), 1, Entry::Reconstruct, &input, 50);
    for pattern in (0..3usize.pow(6)).step_by(7) {
        let mut mixed = floats.clone();
        for (index, layer) in mixed.encoder.iter_mut().chain(&mut mixed.decoder).enumerate() {
            let from = [&floats, &halves, &bytes][pattern / 3usize.pow(index as u32) % 3];
            layer.clone_from(from.layers().nth(index).unwrap());
        }
        let frozen = Frozen::new(&mixed, Level::best()).unwrap();
        let whole = run(&frozen, 1, Entry::Reconstruct, &input, 50);
        let e = error(&whole, &expected);
        assert!(e < 0.1, "pattern {pattern}: differs by {e:e}");
        for rows in [1, 7, 50] {
            assert!(run(&frozen, 2, Entry::Reconstruct, &input, rows) == whole, "pattern {pattern}, {rows} rows");
        }
    }
}

/// `docs/MATH.md`, "Eight-bit inference", with sums in 64 bits.
fn plain(layers: &[FrozenLayer], rows: &[f32]) -> Vec<f32> {
    let mut x = rows.to_vec();
    for layer in layers {
        let FrozenWeights::Int8 { values, scales, input } = &layer.weights else { panic!("an int8 layer") };
        let (inverse, zero) = (input.step.recip(), f32::from(input.zero));
        let bytes: Vec<i64> =
            x.iter().map(|v| (v * inverse + zero).clamp(0.0, 127.0).round_ties_even() as i64).collect();
        let mut y = vec![];
        for row in bytes.chunks(layer.inputs) {
            for (unit, weights) in values.chunks(layer.inputs).enumerate() {
                let product = |(w, x): (&i8, &i64)| i64::from(*w) * (x - i64::from(input.zero));
                let sum: i64 = weights.iter().zip(row).map(product).sum();
                let a = sum as f32 * (scales[unit] * input.step) + layer.bias[unit];
                y.push(if layer.activation == Activation::Relu { a.max(0.0) } else { a });
            }
        }
        x = y;
    }
    x
}

#[test]
fn bytes_equal_plain_integer_arithmetic() {
    let plan = plan(&[123, 50, 6], Activation::Relu);
    let input = data(40, 123, 2);
    let model = frozen_model(&plan).quantize(&input).unwrap();
    let expected = plain(&model.encoder, &input);
    for level in levels() {
        let found = run(&Frozen::new(&model, level).unwrap(), 2, Entry::Encode, &input, 40);
        assert!(found == expected, "{level}: encode differs");
    }
}

#[test]
fn the_largest_sums_do_not_saturate() {
    let (inputs, units) = (900, 40);
    let layer = |inputs: usize, units: usize, zero: u8| FrozenLayer {
        inputs,
        units,
        activation: Activation::Identity,
        weights: FrozenWeights::Int8 {
            values: (0..units * inputs).map(|i| if (i / inputs).is_multiple_of(2) { 127 } else { -127 }).collect(),
            scales: vec![1.0; units],
            input: ByteLevels { step: 1.0, zero },
        },
        bias: vec![0.0; units],
    };
    for zero in [0, 127] {
        let model =
            FrozenModel { encoder: vec![layer(inputs, units, zero)], decoder: vec![layer(units, inputs, zero)] };
        let value = if zero == 0 { 127.0 } else { -127.0 };
        let sum = 127.0 * value * inputs as f32;
        for level in levels() {
            let frozen = Frozen::new(&model, level).unwrap();
            let codes = run(&frozen, 2, Entry::Encode, &vec![value; 9 * inputs], 9);
            let expected = |unit: usize| if unit.is_multiple_of(2) { sum } else { -sum };
            assert!(
                codes.iter().enumerate().all(|(i, code)| *code == expected(i % units)),
                "{level}: {:?}",
                &codes[..4]
            );
        }
    }
}

#[test]
fn quantisation_costs_little() {
    let plan = plan(&[200, 120, 24], Activation::Relu);
    let input = data(400, 200, 6);
    let model = frozen_model(&plan);
    let bytes = model.quantize(&input[..200 * 200]).unwrap();
    let level = Level::best();
    // What `quantize` makes takes the fast path.
    let fast = |kernel: &str| ["joint groups", "vpdpbusd", "tdpbusd"].iter().any(|name| kernel.ends_with(name));
    assert!(Frozen::new(&bytes, level).unwrap().kernels().iter().all(|choice| fast(&choice.kernel)));
    for entry in Entry::ALL {
        let input = match entry {
            Entry::Decode => run(&Frozen::new(&model, level).unwrap(), 1, Entry::Encode, &input, 400),
            _ => input.clone(),
        };
        let expected = run(&Frozen::new(&model, level).unwrap(), 1, entry, &input, 400);
        let found = run(&Frozen::new(&bytes, level).unwrap(), 1, entry, &input, 400);
        let energy = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>();
        let mean = expected.iter().map(|v| f64::from(*v)).sum::<f64>() / expected.len() as f64;
        let noise = energy(&mut found.iter().zip(&expected).map(|(a, b)| f64::from(a - b)));
        let signal = energy(&mut expected.iter().map(|v| f64::from(*v) - mean));
        assert!(noise < 4e-3 * signal, "{entry:?}: noise is {:e} of the signal", noise / signal);
        assert!(noise > 0.0, "{entry:?}: nothing was quantised");
    }
}

#[test]
fn equal_weights_are_cut_to_what_meets_in_16_bits() {
    // Without a wider step all of them would be 127, and four of them too much.
    let weights = (0..32 * 5).map(|i| if i % 32 < 16 { 0.5 } else { -0.5 }).collect();
    let (inputs, units, activation) = (32, 5, Activation::Identity);
    let decoder = vec![FrozenLayer {
        inputs: units,
        units: inputs,
        activation,
        weights: FrozenWeights::F32((0..32 * 5).map(|i| (i % 7) as f32 * 0.1).collect()),
        bias: vec![0.0; inputs],
    }];
    let encoder =
        vec![FrozenLayer { inputs, units, activation, weights: FrozenWeights::F32(weights), bias: vec![0.0; 5] }];
    let bytes = FrozenModel { encoder, decoder }.quantize(&data(50, 32, 1)).unwrap();
    let FrozenWeights::Int8 { values, scales, .. } = &bytes.encoder[0].weights else { panic!("bytes") };
    for (row, scale) in values.chunks(inputs).zip(scales) {
        for (k, value) in row.iter().enumerate() {
            let found = f32::from(*value) * scale;
            let expected = if k < 16 { 0.5 } else { -0.5 };
            assert!((found - expected).abs() < 0.01, "{found} instead of {expected}");
        }
    }
}

#[test]
fn callers_share_weights_from_many_threads() {
    let plan = plan(&[90, 40, 7], Activation::Silu);
    let input = data(33, 90, 1);
    let frozen = Frozen::new(&frozen_model(&plan), Level::best()).unwrap();
    let expected = run(&frozen, 1, Entry::Reconstruct, &input, 33);
    std::thread::scope(|scope| {
        for caller in 1..5 {
            let (frozen, input, expected) = (frozen.clone(), &input, &expected);
            scope.spawn(move || {
                for rows in [1, caller, 33] {
                    assert!(run(&frozen, 2, Entry::Reconstruct, input, rows) == *expected);
                }
            });
        }
    });
}

#[test]
fn misuse_is_refused() {
    let plan = plan(&[6, 5, 2], Activation::Relu);
    let model = frozen_model(&plan);
    let mut workspace = Frozen::new(&model, Level::best()).unwrap().workspace(2).unwrap();
    let mut out = [0.0; 6];
    for (entry, input, expected) in
        [(Entry::Encode, 0, 6), (Entry::Encode, 7, 6), (Entry::Encode, 6, 2), (Entry::Decode, 4, 12)]
    {
        match workspace.infer(entry, &vec![0.0; input], &mut out) {
            Err(RunError::Length { expected: found, .. }) => assert_eq!(found, expected, "{entry:?} of {input}"),
            other => panic!("{entry:?} of {input}: {other:?}"),
        }
    }
    assert!(matches!(FrozenModel::new(&plan, &[0.0; 3]), Err(FreezeError::Parameters { found: 3, .. })));
    let mut params = plan.params.initial(Initializer::Torch, 3);
    params[4] = f32::NAN;
    assert!(matches!(FrozenModel::new(&plan, &params), Err(FreezeError::Value { layer: 0, .. })));
    assert!(matches!(model.quantize(&[]), Err(FreezeError::Samples { values: 0, width: 6 })));
    assert!(matches!(model.quantize(&[0.0; 7]), Err(FreezeError::Samples { values: 7, width: 6 })));
    assert!(matches!(model.quantize(&[f32::INFINITY; 6]), Err(FreezeError::Value { .. })));
    let bytes = model.quantize(&[0.5; 6]).unwrap();
    assert!(matches!(bytes.quantize(&[0.5; 6]), Err(FreezeError::NotF32)));
    assert!(matches!(bytes.to_bf16(), Err(FreezeError::NotF32)));
    let halves = model.to_bf16().unwrap();
    assert!(matches!(halves.to_bf16(), Err(FreezeError::NotF32)));
    assert!(matches!(halves.quantize(&[0.5; 6]), Err(FreezeError::NotF32)));
    let mut spoiled = halves;
    let FrozenWeights::Bf16(weights) = &mut spoiled.encoder[1].weights else { panic!("a layer of halves") };
    weights[1] = Bf16::from_f32(f32::INFINITY);
    assert!(matches!(Frozen::new(&spoiled, Level::best()), Err(FreezeError::Value { layer: 1, .. })));
    let FrozenWeights::Bf16(weights) = &mut spoiled.encoder[1].weights else { panic!("a layer of halves") };
    weights.pop();
    assert!(matches!(Frozen::new(&spoiled, Level::best()), Err(FreezeError::Size { layer: 1, .. })));
    params[4] = f32::MAX;
    let large = FrozenModel::new(&plan, &params).unwrap();
    assert!(
        matches!(large.to_bf16(), Err(FreezeError::Value { layer: 0, .. })),
        "the largest float rounds to infinity"
    );
    assert!(matches!(Frozen::new(&model, Level::best()).unwrap().workspace(100_000), Err(FreezeError::Compile(_))));

    type Spoil = fn(&mut FrozenModel);
    let spoils: [(&str, Spoil); 8] = [
        ("no layers", |model| model.decoder.clear()),
        ("the input has", |model| model.decoder.remove(0).units = 1),
        ("the bias has", |model| model.encoder[1].bias.push(0.0)),
        ("the bias is not usable", |model| model.encoder[1].bias[0] = f32::INFINITY),
        ("the weight has", |model| model.encoder[0].inputs = 7),
        ("at least -127", |model| values(model).0[0] = i8::MIN),
        ("a scale is not usable", |model| values(model).1[1] = -1.0),
        ("at most 127", |model| values(model).2.zero = 128),
    ];
    for (message, spoil) in spoils {
        let mut spoiled = bytes.clone();
        spoil(&mut spoiled);
        let error = Frozen::new(&spoiled, Level::best()).unwrap_err().to_string();
        assert!(error.contains(message), "{message}: {error}");
    }
}

fn values(model: &mut FrozenModel) -> (&mut Vec<i8>, &mut Vec<f32>, &mut ByteLevels) {
    match &mut model.encoder[0].weights {
        FrozenWeights::Int8 { values, scales, input } => (values, scales, input),
        FrozenWeights::F32(_) | FrozenWeights::Bf16(_) => panic!("an int8 layer"),
    }
}
