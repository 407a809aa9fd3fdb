//! One-layer models, each of which isolates a kernel: encoding contracts (`partial` and `reduce`), decoding
//! expands (`expand`), and the gradients add the weight gradient.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cvae_core::{
    Activation, Backend, Batch, Entry, Initializer, ModelSpec, Noise, Objective, OptimizerSpec, Plan, State, Stream,
};
use cvae_cpu::CpuBackend;

fn kernels(c: &mut Criterion) {
    for (width, latent, rows) in [(784, 100, 32), (784, 512, 128), (1024, 1024, 256)] {
        let spec = ModelSpec::mlp(&[width, latent], Activation::Relu, Activation::Identity).expect("valid");
        let plan = Arc::new(Plan::new(spec, Objective::ae(), OptimizerSpec::default(), 1, rows).expect("valid"));
        let mut model = CpuBackend::best(1).compile(Arc::clone(&plan)).expect("compiles");
        model.write(State::Params, &plan.params.initial(Initializer::Glorot, 2)).expect("fits");
        let mut values = vec![0.0; rows * width];
        Noise::new(1, Stream::Data, 0).normal(0, &mut values);
        let mut codes = vec![0.0; rows * latent];
        let mut group = c.benchmark_group(format!("{width}x{latent}, {rows} rows"));
        group.sample_size(20);
        let product = 2 * (rows * width * latent) as u64;
        group.throughput(Throughput::Elements(product));
        group.bench_function("encode: partial", |b| {
            b.iter(|| model.infer(Entry::Encode, black_box(&values), &mut codes));
        });
        let mut out = vec![0.0; rows * width];
        group.bench_function("decode: expand", |b| {
            b.iter(|| model.infer(Entry::Decode, black_box(&codes), &mut out));
        });
        group.throughput(Throughput::Elements(5 * product));
        group.bench_function("gradients: all", |b| b.iter(|| model.gradients(&Batch::host(black_box(&values)))));
        group.bench_function("train_step: all and Adam", |b| {
            b.iter(|| model.train_step(&Batch::host(black_box(&values))));
        });
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
