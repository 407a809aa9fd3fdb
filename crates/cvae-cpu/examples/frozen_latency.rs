//! Median times of a reconstruction: the training engine's inference beside frozen models, measured in turns.
//!
//! `cargo run --release -p cvae-cpu --example frozen_latency [THREADS [ROUNDS]]`
#![allow(clippy::print_stdout, reason = "an example shows its results")]

use std::sync::Arc;
use std::time::Instant;

use cvae_core::{
    Activation, Backend, Entry, Initializer, ModelSpec, Noise, Objective, OptimizerSpec, Plan, State, Stream,
};
use cvae_cpu::{CpuBackend, Frozen, FrozenModel, Level};

/// Sets of rows that calls take in turn, so that none stays in the first-level cache by itself.
const SETS: usize = 4;
/// Seconds that an engine runs in one turn.
const TURN: f64 = 0.05;

/// Runs a call and returns nothing but its effect on the output.
type Call<'a> = Box<dyn FnMut(&[f32], &mut [f32]) -> Result<(), Box<dyn std::error::Error>> + 'a>;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let threads = arguments.next().transpose()?.unwrap_or(2);
    let rounds = arguments.next().transpose()?.unwrap_or(7).max(1);
    let workloads: [(&str, &[usize]); 2] = [("S", &[784, 100, 784]), ("F", &[784, 512, 256, 32])];
    println!("{}, {threads} threads, medians of {rounds} rounds in turns, microseconds", Level::best());
    println!("{:<22} {:>10} {:>10} {:>10} {:>10}", "reconstruct", "training", "frozen f32", "bf16", "int8");
    for (name, widths) in workloads {
        let spec = ModelSpec::mlp(widths, Activation::Relu, Activation::Identity)?;
        for rows in [1, 32, 1024] {
            let plan = Arc::new(Plan::new(spec.clone(), Objective::default(), OptimizerSpec::default(), 1, rows)?);
            let width = plan.spec.width();
            let mut input = vec![0.0; SETS * rows * width];
            for (row, values) in input.chunks_mut(width).enumerate() {
                match name {
                    "S" => Noise::new(1, Stream::Data, 0).normal(row as u32, values),
                    _ => Noise::new(1, Stream::Data, 0).uniform(row as u32, values),
                }
            }
            let times = measure(&plan, &input, threads, rounds)?;
            let [training, frozen, halves, bytes] = times;
            let call = format!("{name}, batch {rows}");
            println!("{call:<22} {training:>10.1} {frozen:>10.1} {halves:>10.1} {bytes:>10.1}");
        }
    }
    Ok(())
}

/// Medians of the four engines.
fn measure(
    plan: &Arc<Plan>,
    input: &[f32],
    threads: usize,
    rounds: usize,
) -> Result<[f64; 4], Box<dyn std::error::Error>> {
    let params = plan.params.initial(Initializer::Torch, 1);
    let mut executable = CpuBackend::best(threads).compile(Arc::clone(plan))?;
    executable.write(State::Params, &params)?;
    let model = FrozenModel::new(plan, &params)?;
    let bytes = model.quantize(&input[..input.len().min(256 * plan.spec.width())])?;
    let mut frozen = Frozen::new(&model, Level::best())?.workspace(threads)?;
    let mut halves = Frozen::new(&model.to_bf16()?, Level::best())?.workspace(threads)?;
    let mut bytes = Frozen::new(&bytes, Level::best())?.workspace(threads)?;
    let mut calls: [Call<'_>; 4] = [
        Box::new(|rows, out| Ok(executable.infer(Entry::Reconstruct, rows, out)?)),
        Box::new(|rows, out| Ok(frozen.infer(Entry::Reconstruct, rows, out)?)),
        Box::new(|rows, out| Ok(halves.infer(Entry::Reconstruct, rows, out)?)),
        Box::new(|rows, out| Ok(bytes.infer(Entry::Reconstruct, rows, out)?)),
    ];
    let set = input.len() / SETS;
    let mut out = vec![0.0; set];
    let mut times = [vec![], vec![], vec![], vec![]];
    for round in 0..rounds + 1 {
        for (call, times) in calls.iter_mut().zip(&mut times) {
            let (begin, mut turns) = (Instant::now(), 0);
            let mut samples = vec![];
            while begin.elapsed().as_secs_f64() < TURN || turns < 3 {
                let rows = &input[turns % SETS * set..][..set];
                let start = Instant::now();
                call(rows, &mut out)?;
                samples.push(start.elapsed().as_secs_f64() * 1e6);
                turns += 1;
            }
            // The first round warms up.
            if round > 0 {
                times.push(median(samples));
            }
        }
    }
    Ok(times.map(median))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
