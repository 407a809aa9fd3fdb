//! Training steps of workloads S and F: fused, and as gradients and update.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use cvae_bench::case::Case;
use cvae_core::{Backend, Batch, Initializer, State};
use cvae_cpu::CpuBackend;

fn steps(c: &mut Criterion) {
    for name in ["S/train/32", "F/train/128"] {
        let case: Case = name.parse().expect("a valid case");
        let plan = case.plan().expect("a valid plan");
        let data = case.data().expect("data");
        let rows = &data.values[..case.batch * data.width];
        for threads in [1, 2] {
            let mut group = c.benchmark_group(format!("{name} x{threads}"));
            group.sample_size(20);
            let mut model = CpuBackend::best(threads).compile(Arc::clone(&plan)).expect("compiles");
            model.write(State::Params, &plan.params.initial(Initializer::Glorot, 2)).expect("fits");
            group.bench_function("train_step", |b| b.iter(|| model.train_step(&Batch::host(black_box(rows)))));
            group.bench_function("gradients", |b| b.iter(|| model.gradients(&Batch::host(black_box(rows)))));
            group.finish();
        }
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
