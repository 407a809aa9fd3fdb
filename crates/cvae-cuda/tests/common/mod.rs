//! What the tests on the emulated driver share.
#![allow(dead_code, reason = "every test target uses a part")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cvae_core::{
    Activation, Backend, Batch, Executable, Initializer, Latent, ModelSpec, Objective, OptimizerSpec, Plan, State,
};
use cvae_cuda::{CudaBackend, CudaConfig, LaunchPath, Precision};
use cvae_cuda_emu::{Emulator, Options};
use cvae_reference::ReferenceBackend;

/// The emulator's options are the process's, so tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// The emulated driver, for the life of the guard.
pub(crate) struct Turn {
    pub(crate) emulator: Emulator,
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for the test's turn and sets the options.
    pub(crate) fn new(options: Options) -> Self {
        let guard = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let emulator = Emulator::install().expect("the emulated driver loads");
        emulator.configure(options);
        emulator.remove(None);
        Self { emulator, _guard: guard }
    }

    /// As [`Turn::new`] with the default options and another seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::new(Options { seed, ..Options::default() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.emulator.remove(None);
        self.emulator.configure(Options::default());
    }
}

pub(crate) fn backend(precision: Precision, path: LaunchPath) -> CudaBackend {
    let config = CudaConfig { path, steps_per_launch: 4, ..CudaConfig::default() };
    CudaBackend::with_config(precision, config).expect("the emulated GPU")
}

/// A model with one hidden layer of each half.
pub(crate) fn model(width: usize, hidden: usize, latent: usize, activation: Activation) -> ModelSpec {
    ModelSpec::mlp(&[width, hidden, latent], activation, Activation::Identity).expect("a valid model")
}

pub(crate) fn plan(spec: ModelSpec, objective: Objective, optimizer: OptimizerSpec, max_rows: usize) -> Arc<Plan> {
    Arc::new(Plan::new(spec, objective, optimizer, 7, max_rows).expect("a valid plan"))
}

/// A variational objective with a decoder regulariser, so that every op of the lowering occurs.
pub(crate) fn variational() -> Objective {
    Objective { latent: Latent::Variational { beta: 0.7 }, decoder_l2: 1e-2, ..Objective::vae(0.7) }
}

/// Rows of values in [−1, 1) that look like noise.
pub(crate) fn rows(count: usize, width: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..count * width).map(|_| next()).collect()
}

/// Compiles the plan and writes its initial parameters.
pub(crate) fn start(backend: &dyn Backend, plan: &Arc<Plan>) -> Box<dyn Executable> {
    let mut executable = backend.compile(plan.clone()).expect("compiles");
    executable.write(State::Params, &plan.params.initial(Initializer::Torch, 3)).expect("writes");
    executable
}

pub(crate) fn read(executable: &mut dyn Executable, state: State) -> Vec<f32> {
    let mut values = vec![0.0; executable.plan().params.len()];
    executable.read(state, &mut values).expect("reads");
    values
}

pub(crate) fn read_f64(executable: &mut dyn Executable, state: State) -> Vec<f64> {
    let mut values = vec![0.0; executable.plan().params.len()];
    executable.read_f64(state, &mut values).expect("reads");
    values
}

/// The largest difference, relative to the largest value.
pub(crate) fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1e-30, |scale: f64, value| scale.max(value.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs());
    worst.fold(0.0, |worst, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) }) / scale
}

/// Relative error that a precision may show on the small models of these tests.
pub(crate) fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 2e-5,
        Precision::Tf32 => 1e-2,
        Precision::Bf16 => 1e-1,
    }
}

/// Everything that one training step leaves, bit for bit.
pub(crate) fn fingerprint(executable: &mut dyn Executable) -> Vec<u32> {
    let mut bits = vec![];
    for state in [State::Params, State::Moment1, State::Moment2] {
        bits.extend(read(executable, state).iter().map(|value| value.to_bits()));
    }
    let losses = executable.losses().expect("losses");
    bits.extend(losses.sums.iter().flat_map(|sum| [sum.to_bits() as u32, (sum.to_bits() >> 32) as u32]));
    bits
}

/// Checks values, gradients and one update of `plan` on a batch of `count` rows against the reference.
pub(crate) fn agrees(precision: Precision, path: LaunchPath, plan: &Arc<Plan>, count: usize) {
    agrees_on(precision, path, plan, &rows(count, plan.spec.width()));
}

/// As [`agrees`], on the rows `data`.
pub(crate) fn agrees_on(precision: Precision, path: LaunchPath, plan: &Arc<Plan>, data: &[f32]) {
    let backend = backend(precision, path);
    let mut cuda = start(&backend, plan);
    let mut reference = start(&ReferenceBackend, plan);
    let batch = Batch::host(data);
    let limit = tolerance(precision);
    let count = data.len() / plan.spec.width();
    let what = format!("{precision} {path} {count} rows, {:?}, {:?}", plan.spec, plan.objective);

    cuda.gradients(&batch).expect("gradients");
    reference.gradients(&batch).expect("gradients");
    let error = difference(&read(&mut *cuda, State::Grads), &read_f64(&mut *reference, State::Grads));
    assert!(error < limit, "gradients differ by {error:e}: {what}");

    let (found, expected) = (cuda.losses().expect("losses"), reference.losses().expect("losses"));
    for (term, (found, expected)) in found.last.iter().zip(expected.last).enumerate() {
        let error = (found - expected).abs() / expected.abs().max(1e-3);
        assert!(error < limit, "term {term}: {found} against {expected}: {what}");
    }

    cuda.train_step(&batch).expect("a step");
    reference.gradients(&batch).expect("gradients");
    reference.apply().expect("an update");
    for state in [State::Params, State::Moment1, State::Moment2] {
        let error = difference(&read(&mut *cuda, state), &read_f64(&mut *reference, state));
        // Adam divides a gradient by its own size, so a small gradient's rounding shows in full.
        let limit = if state == State::Params { limit.max(1e-4) } else { limit };
        assert!(error < limit, "{state:?} differ by {error:e} after a step: {what}");
    }
}
