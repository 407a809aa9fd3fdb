//! Training with the two crates alone: the model and its mathematics from `cvae-core`, the kernels from here.
//!
//! `cargo run --release -p cvae-cpu --example minimal`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::Arc;

use cvae_core::{
    Activation, Backend, Entry, Executable, Initializer, ModelSpec, Objective, OptimizerSpec, Plan, Rows, State,
    epoch_order,
};
use cvae_cpu::CpuBackend;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // 1000 rows of 16 values that two numbers determine.
    let values: Vec<f32> = (0..16_000).map(|i| ((i / 16) as f32 * 0.011 * (1 + i % 4) as f32).sin()).collect();

    let spec = ModelSpec::mlp(&[16, 64, 2], Activation::Gelu, Activation::Identity)?;
    let plan = Arc::new(Plan::new(spec, Objective::default(), OptimizerSpec::adam(2e-3), 42, 32)?);
    let mut model: Box<dyn Executable> = CpuBackend::best(2).compile(Arc::clone(&plan))?;
    model.write(State::Params, &plan.params.initial(Initializer::Torch, plan.seed))?;
    let data = model.upload(Rows::F32 { values: &values, width: 16 })?;

    let mut order = vec![0; 1000];
    for epoch in 0..50 {
        epoch_order(plan.seed, epoch, &mut order);
        model.train_epoch(data, &order, 32, epoch)?;
        let losses = model.losses()?;
        losses.check()?;
        if epoch % 10 == 9 {
            println!("epoch {:2}: loss {:.5}", epoch + 1, losses.total());
        }
    }

    let mut codes = vec![0.0; 1000 * 2];
    model.infer(Entry::Encode, &values, &mut codes)?;
    println!("the first code: {:?}", &codes[..2]);
    Ok(())
}
