//! One of our backends, prepared for a case.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cvae::BackendConfig;
use cvae::registry;
use cvae_core::{Backend, Batch, DataId, Entry, Executable, Initializer, Plan, Rows, State, epoch_order};
use cvae_reference::ReferenceBackend;

use crate::case::{Case, Data, Mode};
use crate::stats;

/// Rows that the check against the reference uses: it is naive, and a few rows show every mistake.
const CHECK_ROWS: usize = 5;
/// Largest error of the check, relative to the largest element.
const CHECK_LIMIT: f64 = 1e-4;
/// Parameters above which the naive reference would take longer than the measurement.
const CHECK_PARAMS: usize = 8_000_000;

/// A prepared case.
pub struct Engine {
    executable: Box<dyn Executable>,
    case: Case,
    work: Work,
}

enum Work {
    Train { data: DataId, order: Vec<u32>, epoch: u32, span: usize, at: usize },
    Infer { entry: Entry, inputs: Vec<Vec<f32>>, out: Vec<f32>, turn: usize },
}

impl Engine {
    /// Compiles `case` on the backend `id`, after checking it against the reference.
    ///
    /// # Errors
    /// An unknown or unavailable backend, an unsupported precision, or a result that is not the reference's.
    pub fn new(id: &str, case: &Case, threads: usize) -> Result<Self> {
        if case.precision != "f32" {
            bail!("{id} runs in f32 only");
        }
        let config = BackendConfig { name: id.to_owned(), threads: Some(threads), ..BackendConfig::default() };
        let backend = registry::select(&config)?.backend;
        let plan = case.plan()?;
        let data = case.data()?;
        check(&*backend, case, &data)?;
        let mut executable = backend.compile(Arc::clone(&plan))?;
        executable.write(State::Params, &plan.params.initial(Initializer::Glorot, 2))?;
        let work = match case.mode {
            Mode::Train => {
                let order = vec![0; data.values.len() / data.width];
                let data = executable.upload(Rows::F32 { values: &data.values, width: data.width })?;
                // A span of S is an epoch with its short batch; other workloads run whole batches.
                let span = if case.workload == "S" { order.len() } else { 16 * case.batch };
                Work::Train { data, at: order.len(), order, epoch: 0, span }
            }
            Mode::Infer(entry) => infer_work(case, entry, &plan, &data, &mut *executable)?,
        };
        Ok(Self { executable, case: case.clone(), work })
    }

    /// Kernels in use.
    pub fn kernels(&self) -> BTreeSet<String> {
        self.executable.kernels().into_iter().map(|choice| choice.kernel).collect()
    }

    /// Runs one span, waits for its end, and returns its steps or calls.
    fn span(&mut self) -> Result<usize> {
        match &mut self.work {
            Work::Train { data, order, epoch, span, at } => {
                if *at + *span > order.len() {
                    if order.len() < *span && *span != self.case.batch {
                        *span = order.len() / self.case.batch * self.case.batch;
                    }
                    *epoch += 1;
                    epoch_order(1, *epoch, order);
                    *at = 0;
                }
                self.executable.train_epoch(*data, &order[*at..*at + *span], self.case.batch, *epoch)?;
                self.executable.synchronize()?;
                *at += *span;
                Ok(span.div_ceil(self.case.batch))
            }
            Work::Infer { entry, inputs, out, turn } => {
                *turn = (*turn + 1) % inputs.len();
                self.executable.infer(*entry, &inputs[*turn], out)?;
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

/// Resident inputs that calls cycle through.
fn infer_work(case: &Case, entry: Entry, plan: &Plan, data: &Data, executable: &mut dyn Executable) -> Result<Work> {
    let (from, to) = entry.widths(plan);
    let rows: Vec<f32> = if entry == Entry::Decode {
        let mut codes = vec![0.0; data.values.len() / data.width * from];
        executable.infer(Entry::Encode, &data.values, &mut codes)?;
        codes
    } else {
        data.values.clone()
    };
    let count = (2048 / case.batch).clamp(4, 64);
    let total = rows.len() / from;
    let row = |index: usize| &rows[(index % total) * from..][..from];
    let input = |n: usize| (n * case.batch..(n + 1) * case.batch).flat_map(row).copied().collect();
    Ok(Work::Infer { entry, inputs: (0..count).map(input).collect(), out: vec![0.0; case.batch * to], turn: 0 })
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
    let scale = expected.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let worst = found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most: f64, error| if error.is_nan() { f64::INFINITY } else { most.max(error) });
    ensure!(worst / scale <= CHECK_LIMIT, "{} differs from the reference by {:.1e}", backend.id(), worst / scale);
    Ok(())
}
