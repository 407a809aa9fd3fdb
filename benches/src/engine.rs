//! One of our backends, prepared for a case.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cvae::registry;
use cvae::{BackendConfig, Precision};
use cvae_core::{Backend, Batch, DataId, Entry, Executable, Initializer, OpProfile, Plan, Rows, State, epoch_order};
use cvae_cpu::{Frozen, FrozenModel, Level, Workspace};
use cvae_reference::ReferenceBackend;

use crate::case::{Case, Data, Mode};
use crate::stats;

/// Rows that the check against the reference uses: it is naive, and a few rows show every mistake.
const CHECK_ROWS: usize = 5;
/// Rows of a span of training steps, and most steps of one: long enough to time, short enough for large batches.
const SPAN_ROWS: usize = 2048;
const SPAN_STEPS: usize = 16;
/// Largest error of the check, relative to the largest element.
const CHECK_LIMIT: f64 = 1e-4;
/// Largest error of a backend in bfloat16, relative in the 2-norm: a unit whose sum is near 0 may come out on the other
/// side of it, with a gradient of its own.
const CHECK_LIMIT_BF16: f64 = 0.05;
/// Largest squared error of a frozen model in bf16, relative to the squared output.
const BF16_LIMIT: f64 = 1e-4;
/// The same in int8.
const INT8_LIMIT: f64 = 1e-2;
/// Parameters above which the naive reference would take longer than the measurement.
const CHECK_PARAMS: usize = 8_000_000;

/// What an id of a backend ends in for its frozen models.
pub const FROZEN: &str = "-frozen";

/// A prepared case.
pub struct Engine {
    kernels: BTreeSet<String>,
    work: Work,
}

/// What answers inference calls.
enum Model {
    Executable(Box<dyn Executable>),
    Frozen(Box<Workspace>),
}

enum Work {
    Train {
        executable: Box<dyn Executable>,
        data: DataId,
        order: Vec<u32>,
        epoch: u32,
        batch: usize,
        span: usize,
        at: usize,
    },
    Infer {
        model: Model,
        entry: Entry,
        inputs: Vec<Vec<f32>>,
        out: Vec<f32>,
        turn: usize,
    },
}

impl Engine {
    /// Compiles `case` on the backend `id`, or freezes it for `id` ending in [`FROZEN`], after checking it against
    /// the reference.
    ///
    /// # Errors
    /// An unknown or unavailable backend, an unsupported precision, or a result that is not the reference's.
    pub fn new(id: &str, case: &Case, threads: usize) -> Result<Self> {
        let data = case.data()?;
        if let Some(backend) = id.strip_suffix(FROZEN) {
            return Self::frozen(backend, case, &data, threads);
        }
        let precision = if id.ends_with("-bf16") { Precision::Bf16 } else { Precision::F32 };
        if case.precision != precision.name() {
            bail!("{id} runs in {} only", precision.name());
        }
        let config = BackendConfig { name: id.to_owned(), precision, threads: Some(threads) };
        let backend = registry::select(&config)?.backend;
        let plan = case.plan()?;
        check(&*backend, case, &data)?;
        let mut executable = backend.compile(Arc::clone(&plan))?;
        executable.write(State::Params, &plan.params.initial(Initializer::Glorot, 2))?;
        let kernels = executable.kernels().into_iter().map(|choice| choice.kernel).collect();
        let work = match case.mode {
            Mode::Train => {
                let order = vec![0; data.values.len() / data.width];
                let data = executable.upload(Rows::F32 { values: &data.values, width: data.width })?;
                // A span of S is an epoch with its short batch; other workloads run whole batches.
                let steps = (SPAN_ROWS / case.batch).clamp(1, SPAN_STEPS);
                let span = if case.workload == "S" { order.len() } else { steps * case.batch };
                Work::Train { executable, data, at: order.len(), order, epoch: 0, batch: case.batch, span }
            }
            Mode::Infer(entry) => {
                let rows = inputs(case, entry, &plan, &data, &mut *executable)?;
                calls(case, entry, &plan, &rows, Model::Executable(executable))
            }
        };
        Ok(Self { kernels, work })
    }

    /// A frozen model of the backend `id`.
    fn frozen(id: &str, case: &Case, data: &Data, threads: usize) -> Result<Self> {
        let Mode::Infer(entry) = case.mode else { bail!("a frozen model does not train") };
        let level = Level::ALL.into_iter().chain(Level::BF16).find(|level| level.id().to_string() == id);
        let level = level.with_context(|| format!("{id} has no frozen models"))?;
        let plan = case.plan()?;
        let params = plan.params.initial(Initializer::Glorot, 2);
        let exact = FrozenModel::new(&plan, &params)?;
        let model = match case.precision.as_str() {
            "f32" => exact,
            "bf16" => exact.to_bf16()?,
            "int8" => exact.quantize(&data.values[..data.values.len().min(1000 * data.width)])?,
            other => bail!("frozen models have no {other}"),
        };
        let frozen = Frozen::new(&model, level)?;
        let kernels = frozen.kernels().into_iter().map(|choice| choice.kernel).collect();
        let mut reference = ReferenceBackend.compile(Arc::clone(&plan))?;
        reference.write(State::Params, &params)?;
        let mut workspace = frozen.workspace(threads)?.profiled(registry::profiling());
        let rows = inputs(case, entry, &plan, data, &mut *reference)?;
        check_frozen(case, entry, &plan, &rows, &mut *reference, &mut workspace)?;
        Ok(Self { kernels, work: calls(case, entry, &plan, &rows, Model::Frozen(Box::new(workspace))) })
    }

    /// Kernels in use.
    pub fn kernels(&self) -> &BTreeSet<String> {
        &self.kernels
    }

    /// Where the time of training steps or of a frozen model's calls went, if the environment asks for it
    /// ([`registry::PROFILE`]).
    pub fn profile(&self) -> Vec<OpProfile> {
        match &self.work {
            Work::Train { executable, .. } => executable.profile(),
            Work::Infer { model: Model::Executable(executable), .. } => executable.profile(),
            Work::Infer { model: Model::Frozen(workspace), .. } => workspace.profile(),
        }
    }

    /// Runs one span, waits for its end, and returns its steps or calls.
    fn span(&mut self) -> Result<usize> {
        match &mut self.work {
            Work::Train { executable, data, order, epoch, batch, span, at } => {
                if *at + *span > order.len() {
                    if order.len() < *span && *span != *batch {
                        *span = order.len() / *batch * *batch;
                    }
                    *epoch += 1;
                    epoch_order(1, *epoch, order);
                    *at = 0;
                }
                executable.train_epoch(*data, &order[*at..*at + *span], *batch, *epoch)?;
                executable.synchronize()?;
                *at += *span;
                Ok(span.div_ceil(*batch))
            }
            Work::Infer { model, entry, inputs, out, turn } => {
                *turn = (*turn + 1) % inputs.len();
                match model {
                    Model::Executable(executable) => executable.infer(*entry, &inputs[*turn], out)?,
                    Model::Frozen(workspace) => workspace.infer(*entry, &inputs[*turn], out)?,
                }
                Ok(1)
            }
        }
    }

    /// Median microseconds a step or call over spans that last `length` together.
    ///
    /// # Errors
    /// A failing backend.
    pub fn round(&mut self, length: Duration) -> Result<f64> {
        let mut samples = vec![];
        let begin = Instant::now();
        while begin.elapsed() < length || samples.is_empty() {
            let start = Instant::now();
            let steps = self.span()?;
            samples.push(start.elapsed().as_secs_f64() * 1e6 / steps as f64);
        }
        Ok(stats::median(&samples))
    }
}

/// Rows for calls of `entry`: those of the case, or their codes.
fn inputs(case: &Case, entry: Entry, plan: &Plan, data: &Data, executable: &mut dyn Executable) -> Result<Vec<f32>> {
    if entry != Entry::Decode {
        return Ok(data.values.clone());
    }
    let (_, latent) = Entry::Encode.widths(plan);
    let rows = (data.values.len() / data.width).min(2048.max(case.batch));
    let mut codes = vec![0.0; rows * latent];
    for (rows, codes) in data.values.chunks(case.batch * data.width).zip(codes.chunks_mut(case.batch * latent)) {
        executable.infer(Entry::Encode, &rows[..codes.len() / latent * data.width], codes)?;
    }
    Ok(codes)
}

/// Resident inputs that calls cycle through.
fn calls(case: &Case, entry: Entry, plan: &Plan, rows: &[f32], model: Model) -> Work {
    let (from, to) = entry.widths(plan);
    let count = (2048 / case.batch).clamp(4, 64);
    let total = rows.len() / from;
    let row = |index: usize| &rows[(index % total) * from..][..from];
    let input = |n: usize| (n * case.batch..(n + 1) * case.batch).flat_map(row).copied().collect();
    let inputs = (0..count).map(input).collect();
    Work::Infer { model, entry, inputs, out: vec![0.0; case.batch * to], turn: 0 }
}

/// Compares a frozen model with the reference on a few rows, by the size of the mean squared difference.
fn check_frozen(
    case: &Case,
    entry: Entry,
    plan: &Plan,
    rows: &[f32],
    reference: &mut dyn Executable,
    frozen: &mut Workspace,
) -> Result<()> {
    let (from, to) = entry.widths(plan);
    let count = CHECK_ROWS.min(case.batch);
    let input = &rows[..count * from];
    let (mut expected, mut found) = (vec![0.0; count * to], vec![0.0; count * to]);
    reference.infer(entry, input, &mut expected)?;
    frozen.infer(entry, input, &mut found)?;
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>();
    let size = squares(&mut expected.iter().copied());
    let error = squares(&mut expected.iter().zip(&found).map(|(a, b)| a - b));
    let limit = match case.precision.as_str() {
        "f32" => CHECK_LIMIT.powi(2),
        "bf16" => BF16_LIMIT,
        _ => INT8_LIMIT,
    };
    // Written so that NaN fails.
    ensure!(error <= limit * size, "{case} differs from the reference by {:.1e} of its square", error / size);
    Ok(())
}

/// Compares a step or call of a few rows with the `f64` reference: no time without a right result.
fn check(backend: &dyn Backend, case: &Case, data: &Data) -> Result<()> {
    let rows = CHECK_ROWS.min(case.batch);
    let case = Case { batch: rows, ..case.clone() };
    let plan = case.plan()?;
    if plan.params.len() > CHECK_PARAMS {
        return Ok(());
    }
    let values = &data.values[..rows * data.width];
    let params = plan.params.initial(Initializer::Glorot, 2);
    let outcome = |backend: &dyn Backend| -> Result<Vec<f64>> {
        let mut executable = backend.compile(Arc::clone(&plan))?;
        executable.write(State::Params, &params)?;
        let mut out = vec![0.0; plan.params.len()];
        match case.mode {
            Mode::Train => {
                executable.gradients(&Batch::host(values))?;
                executable.read_f64(State::Grads, &mut out)?;
            }
            Mode::Infer(entry) => {
                let (from, to) = entry.widths(&plan);
                out.resize(rows * to, 0.0);
                executable.infer_f64(entry, &values[..rows * from], &mut out)?;
            }
        }
        Ok(out)
    };
    let expected = outcome(&ReferenceBackend).context("the reference")?;
    let found = outcome(backend)?;
    let errors = || expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    let (error, limit) = if case.precision == "bf16" {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        (norm(&mut errors()) / norm(&mut expected.iter().copied()), CHECK_LIMIT_BF16)
    } else {
        let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
        let worst = errors().fold(0.0, |most: f64, error| if error.is_nan() { f64::INFINITY } else { most.max(error) });
        (worst / largest(&mut expected.iter().map(|value| value.abs())), CHECK_LIMIT)
    };
    // Written so that NaN fails.
    ensure!(error <= limit, "{} differs from the reference by {error:.1e}", backend.id());
    Ok(())
}
