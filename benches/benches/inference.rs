//! Reconstructions of workloads S and F at several batch sizes.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use cvae_bench::case::Case;
use cvae_core::{Backend, Entry, Initializer, State};
use cvae_cpu::CpuBackend;

fn inference(c: &mut Criterion) {
    for workload in ["S", "F"] {
        let mut group = c.benchmark_group(format!("{workload}/reconstruct"));
        group.sample_size(20);
        for batch in [1, 32, 1024] {
            let case: Case = format!("{workload}/reconstruct/{batch}").parse().expect("a valid case");
            let plan = case.plan().expect("a valid plan");
            let data = case.data().expect("data");
            let input: Vec<f32> = data.values.iter().cycle().take(batch * data.width).copied().collect();
            let mut out = vec![0.0; input.len()];
            let mut model = CpuBackend::best(2).compile(Arc::clone(&plan)).expect("compiles");
            model.write(State::Params, &plan.params.initial(Initializer::Glorot, 2)).expect("fits");
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(batch.to_string(), |b| {
                b.iter(|| model.infer(Entry::Reconstruct, black_box(&input), &mut out))
            });
        }
        group.finish();
    }
}

criterion_group!(benches, inference);
criterion_main!(benches);
