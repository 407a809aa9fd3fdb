//! Steps and inference calls allocate nothing, start no thread and know no lock.
//!
//! One test alone, so that nothing else in the process allocates while it counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cvae_core::{
    Activation, Backend, Batch, Entry, Initializer, Latent, ModelSpec, Objective, OptimizerSpec, Plan, Rows, State,
};
use cvae_cpu::{CpuBackend, Frozen, FrozenModel, Level};

/// Calls into the allocator so far, of all threads.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised to this function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as promised to this function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Threads of this process, where the system tells.
fn threads() -> BTreeSet<OsString> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten();
    tasks.map(|task| task.unwrap().file_name()).collect()
}

/// Runs `call` twice to warm up and then counts. Threads of an engine that was dropped before may still be leaving:
/// what counts is that no thread is new.
fn check(what: &str, mut call: impl FnMut()) {
    call();
    call();
    let running = threads();
    let before = CALLS.load(Ordering::Relaxed);
    for _ in 0..10 {
        call();
    }
    let calls = CALLS.load(Ordering::Relaxed) - before;
    assert_eq!(calls, 0, "{what}: calls into the allocator");
    let started: Vec<_> = threads().difference(&running).cloned().collect();
    assert!(started.is_empty(), "{what}: threads {started:?}");
}

#[test]
fn steps_and_inference_allocate_nothing() {
    let counted = CALLS.load(Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(CALLS.load(Ordering::Relaxed), counted + 2, "the counter counts");
    let running = threads();
    std::thread::spawn(move || {
        assert_eq!(threads().difference(&running).count(), usize::from(cfg!(target_os = "linux")))
    })
    .join()
    .expect("a new thread is seen");

    for (latent, clip_norm) in [(Latent::Collapsed { beta: 0.1 }, None), (Latent::Variational { beta: 0.1 }, Some(0.5))]
    {
        let spec = ModelSpec::mlp(&[130, 60, 20, 5], Activation::Relu, Activation::Identity).unwrap();
        let objective = Objective { latent, ..Objective::default() };
        let optimizer = OptimizerSpec { clip_norm, ..OptimizerSpec::adam(1e-3) };
        let plan = Arc::new(Plan::new(spec, objective, optimizer, 5, 32).unwrap());
        for threads in [1, 2, 5] {
            for level in [Level::best(), Level::ScalarBf16] {
                training_engine(&plan, level, threads);
                frozen(&plan, level, threads);
            }
        }
    }
    no_locks(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
}

fn rows(count: usize) -> Vec<f32> {
    (0..count * 130).map(|i| (i % 17) as f32 / 17.0).collect()
}

fn training_engine(plan: &Arc<Plan>, level: Level, threads: usize) {
    let mut engine = CpuBackend::new(level, threads).unwrap().compile(Arc::clone(plan)).unwrap();
    engine.write(State::Params, &plan.params.initial(Initializer::Torch, 1)).unwrap();
    let batch = rows(32);
    check(&format!("{level}: a step on {threads} threads"), || engine.train_step(&Batch::host(&batch)).unwrap());
    check(&format!("{level}: gradients and update on {threads} threads"), || {
        engine.gradients(&Batch::host(&batch)).unwrap();
        engine.apply().unwrap();
    });
    let values = rows(100);
    let data = engine.upload(Rows::F32 { values: &values, width: 130 }).unwrap();
    let order: Vec<u32> = (0..100).rev().collect();
    check(&format!("{level}: an epoch on {threads} threads"), || engine.train_epoch(data, &order, 32, 0).unwrap());
    for count in [1, 40, 700] {
        let (input, mut out) = (rows(count), vec![0.0; count * 130]);
        check(&format!("{level}: inference of {count} rows on {threads} threads"), || {
            engine.infer(Entry::Reconstruct, &input, &mut out).unwrap();
        });
    }
}

fn frozen(plan: &Plan, level: Level, threads: usize) {
    let floats = FrozenModel::new(plan, &plan.params.initial(Initializer::Torch, 1)).unwrap();
    let (halves, bytes) = (floats.to_bf16().unwrap(), floats.quantize(&rows(100)).unwrap());
    for model in [floats, halves, bytes] {
        let mut workspace = Frozen::new(&model, level).unwrap().workspace(threads).unwrap();
        // Few rows leave most threads idle, and one that is still starting allocates: let all take part once.
        workspace.infer(Entry::Reconstruct, &rows(700), &mut vec![0.0; 700 * 130]).unwrap();
        for count in [1, 5, 40, 700] {
            let (input, mut out) = (rows(count), vec![0.0; count * 130]);
            let precision = model.precision();
            check(&format!("{level}: a frozen model, {precision:?}, {count} rows on {threads} threads"), || {
                workspace.infer(Entry::Reconstruct, &input, &mut out).unwrap();
            });
        }
    }
}

/// No file of the crate names a lock: threads meet through the atomic counters of `pool.rs` alone.
fn no_locks(folder: &Path) {
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            no_locks(&path);
            continue;
        }
        files += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        for lock in ["Mutex", "RwLock", "Condvar", "mpsc", "OnceLock", "LazyLock"] {
            assert!(!text.contains(lock), "{}: {lock}", path.display());
        }
    }
    assert!(files > 0, "{}: no files", folder.display());
}
