//! The device's noise equals core's bit for bit.
#![cfg(target_os = "linux")]

mod common;

use common::{Turn, backend, plan, read};
use cvae_core::{
    Activation, Backend, Batch, BatchRows, ModelSpec, Noise, Objective, OptimizerSpec, Rows, State, Stream,
};
use cvae_cuda::{LaunchPath, Precision};

const WIDTH: usize = 67;

/// With zero heads the sampled code is the noise itself; through an identity decoder and against a zero target, the
/// gradient of the decoder's bias on one row is the code.
#[test]
fn normal_variates_have_the_same_bits() {
    let _turn = Turn::seeded(3);
    let spec = ModelSpec::mlp(&[WIDTH, WIDTH], Activation::Identity, Activation::Identity).expect("a valid model");
    let plan = plan(spec, Objective::vae(0.0), OptimizerSpec::default(), 1);
    let mut executable = backend(Precision::F32, LaunchPath::Launches).compile(plan.clone()).expect("compiles");
    let mut params = vec![0.0; plan.params.len()];
    let (_, weight) = plan.params.find("decoder.0.weight").expect("the decoder");
    for i in 0..WIDTH {
        params[weight.offset + i * WIDTH + i] = 1.0;
    }
    executable.write(State::Params, &params).expect("writes");
    let (_, bias) = plan.params.find("decoder.0.bias").expect("the decoder");
    let zeros = [0.0; WIDTH];
    let data = executable.upload(Rows::F32 { values: &[0.0; 5 * WIDTH], width: WIDTH }).expect("uploads");

    let mut check = |batch: &Batch<'_>, row: u32| {
        executable.gradients(batch).expect("gradients");
        let grads = read(&mut *executable, State::Grads);
        let mut expected = [0.0; WIDTH];
        Noise::new(plan.seed, Stream::Reparameterize, batch.epoch).normal(row, &mut expected);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&grads[bias.range()]), bits(&expected), "row {row}, epoch {}", batch.epoch);
    };
    for first_row in [0, 1, 77, 123_456_789, u32::MAX] {
        for epoch in [0, 1, 9_999] {
            check(&Batch { rows: BatchRows::Host { values: &zeros, first_row }, epoch }, first_row);
        }
    }
    for row in 0..5 {
        check(&Batch::resident(data, &[row], 3), row);
    }
}
