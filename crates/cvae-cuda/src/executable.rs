//! A plan made runnable on a GPU.

use std::sync::Arc;

use cvae_core::{
    Batch, BatchRows, DataId, Entry, Executable, KernelChoice, Losses, NonFinite, Plan, Rows, RunError, State, Term,
};

use crate::data::{DataSet, Storage, Windows};
use crate::driver::{Buffer, Device, Driven, Event, Fault, Stream};
use crate::inputs::Source;
use crate::launch::{Compiled, Kernels, LaunchPath, Runner};
use crate::layout::{PaddedLayout, leading};
use crate::lower::{self, Gradients, TaskSpec};
use crate::program::{ModelState, Program, Values};
use crate::task::{LossState, Step};

/// Fewest rows that inference takes at a time.
const INFER_ROWS: usize = 256;
/// Largest window of a streamed data set, unless one batch needs more.
const WINDOW_BYTES: usize = 32 << 20;

/// How an executable is to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunOptions {
    pub(crate) path: LaunchPath,
    pub(crate) steps_per_launch: usize,
    pub(crate) data_memory: Option<u64>,
}

/// An inference entry: its program, its values and where its result lies.
struct EntryProgram {
    compiled: Compiled,
    values: Values,
}

pub(crate) struct CudaExecutable {
    plan: Arc<Plan>,
    device: Arc<Device>,
    options: RunOptions,
    path: LaunchPath,
    precision: &'static str,
    runner: Runner,
    state: ModelState,
    /// Forward pass, backward pass and update of a step.
    train: Compiled,
    /// Forward and backward pass into the gradients.
    gradients: Compiled,
    /// The update from the gradients.
    apply: Compiled,
    _values: Values,
    entries: [EntryProgram; 3],
    infer_rows: usize,
    infer_input: Buffer<f32>,
    infer_output: Vec<f32>,
    data: Vec<Option<DataSet>>,
    windows: Option<Windows>,
    epoch_order: Buffer<u32>,
    step: u64,
    has_gradients: bool,
}

impl CudaExecutable {
    pub(crate) fn new(
        plan: Arc<Plan>,
        device: &Arc<Device>,
        kernels: &Arc<Kernels>,
        options: RunOptions,
        precision: &'static str,
    ) -> Driven<Self> {
        let stream = Stream::new(device)?;
        let layout = PaddedLayout::new(&plan.params);
        let graph = &plan.program.train;
        let lower = |gradients| lower::lower(&plan, &layout, graph, plan.max_rows, gradients);
        let store_tasks = lower(Gradients::Store);
        let mut train_tasks = store_tasks.clone();
        if plan.optimizer.clip_norm.is_some() {
            lower::append_apply(&plan, &layout, &mut train_tasks);
        } else {
            train_tasks = lower(Gradients::Update);
        }
        let mut apply_tasks = vec![];
        lower::append_apply(&plan, &layout, &mut apply_tasks);

        let state = ModelState::new(&stream, layout)?;
        let values = Values::new(&stream, graph, plan.max_rows, &[&store_tasks, &train_tasks])?;
        let compile = |tasks: &[TaskSpec]| Program::new(&stream, &plan, tasks, &state, &values).map(Compiled::new);
        let train = compile(&train_tasks)?;
        let gradients = compile(&store_tasks)?;
        let apply = compile(&apply_tasks)?;

        let infer_rows = plan.max_rows.max(INFER_ROWS);
        let entry = |entry| {
            let graph = plan.program.entry(entry);
            let tasks = lower::lower(&plan, &state.layout, graph, infer_rows, Gradients::Store);
            let values = Values::new(&stream, graph, infer_rows, &[&tasks])?;
            let compiled = Compiled::new(Program::new(&stream, &plan, &tasks, &state, &values)?);
            Ok(EntryProgram { compiled, values })
        };
        let entries = [entry(Entry::Encode)?, entry(Entry::Decode)?, entry(Entry::Reconstruct)?];
        let widest = plan.spec.width().max(plan.spec.latent());

        let path = match options.path {
            LaunchPath::Cooperative if kernels.cooperative_blocks == 0 => LaunchPath::Graph,
            path => path,
        };
        let infer_input = Buffer::new(device, infer_rows * widest, "the rows of an inference")?;
        let epoch_order = Buffer::new(device, 1, "the row order of an epoch")?;
        let (steps, rows, width) = (options.steps_per_launch.max(1), plan.max_rows, plan.spec.width());
        let runner = Runner::new(stream, Arc::clone(kernels), path, steps, rows, width)?;
        Ok(Self {
            device: Arc::clone(device),
            options,
            path,
            precision,
            runner,
            state,
            train,
            gradients,
            apply,
            _values: values,
            entries,
            infer_rows,
            infer_input,
            infer_output: vec![0.0; infer_rows * leading(widest)],
            data: vec![],
            windows: None,
            epoch_order,
            step: 0,
            has_gradients: false,
            plan,
        })
    }

    /// The GPU's name.
    pub(crate) fn device_name(&self) -> &str {
        &self.device.name
    }

    /// An event that tells the time.
    pub(crate) fn event(&self) -> Driven<Event> {
        Event::new(&self.device, true)
    }

    /// Moves the event behind everything issued so far.
    pub(crate) fn record(&mut self, event: &Event) -> Result<(), RunError> {
        self.driven(|this| event.record(&this.runner.stream))
    }

    /// Runs driver calls with the context current, and names the device in their error.
    fn driven<T>(&mut self, body: impl FnOnce(&mut Self) -> Driven<T>) -> Result<T, RunError> {
        let result = self.device.bind().and_then(|()| body(self));
        result.map_err(|fault| fault.run(&self.device.name))
    }

    /// The inputs of the step that follows `ahead` more.
    fn step_inputs(&self, ahead: u64, rows: usize, epoch: u32, source: Source) -> Step {
        source.step(&self.plan, self.step + ahead, rows, epoch)
    }

    /// The data set `id`.
    fn data_set(&self, id: DataId) -> Result<&DataSet, RunError> {
        self.data.get(id.0).and_then(Option::as_ref).ok_or(RunError::UnknownData(id.0))
    }

    /// Checks a batch and returns its rows.
    fn check(&self, batch: &Batch<'_>) -> Result<usize, RunError> {
        let rows = batch.check(self.plan.spec.width(), self.plan.max_rows)?;
        if let BatchRows::Resident { data, order } = batch.rows {
            self.data_set(data)?.check(order)?;
        }
        Ok(rows)
    }

    /// Puts a checked batch where the kernels find it.
    fn feed(&mut self, batch: &Batch<'_>) -> Driven<Source> {
        match batch.rows {
            BatchRows::Host { values, first_row } => {
                self.runner.slot()?.rows.as_mut_slice()[..values.len()].copy_from_slice(values);
                self.runner.upload_batch(values.len(), 0)?;
                Ok(Source { data: self.runner.rows.address(0), first_row, ..Source::default() })
            }
            BatchRows::Resident { data, order } => {
                self.runner.slot()?.order.as_mut_slice()[..order.len()].copy_from_slice(order);
                self.runner.upload_batch(0, order.len())?;
                let ids = self.runner.order.address(0);
                self.open(data, order, ids)
            }
        }
    }

    /// The rows `order` of a data set as a source; `ids` is the device's copy of `order`. A streamed set passes
    /// through a window, which [`CudaExecutable::close`] gives back.
    fn open(&mut self, id: DataId, order: &[u32], ids: u64) -> Driven<Source> {
        let Some(set) = self.data.get(id.0).and_then(Option::as_ref) else {
            unreachable!("the batch was checked");
        };
        let source = Source { ids, ..Source::default() }.element(set.element);
        match (&set.storage, &mut self.windows) {
            (Storage::Resident(buffer), _) => Ok(Source { data: buffer.address(0), order: ids, ..source }),
            (Storage::Streamed(bytes), Some(windows)) => {
                let data = windows.fill(&self.runner.stream, bytes, set.row_bytes(), order)?;
                Ok(Source { data, ..source })
            }
            (Storage::Streamed(_), None) => unreachable!("a streamed set comes with windows"),
        }
    }

    /// Gives back the window that `open` filled, if the data set is streamed.
    fn close(&mut self, id: DataId) -> Driven<()> {
        let streamed = matches!(&self.data[id.0], Some(DataSet { storage: Storage::Streamed(_), .. }));
        match &mut self.windows {
            Some(windows) if streamed => windows.release(&self.runner.stream),
            _ => Ok(()),
        }
    }

    /// Runs one step of the training or the gradients program on a checked batch.
    fn run_batch(&mut self, batch: &Batch<'_>, rows: usize, train: bool) -> Driven<()> {
        let source = self.feed(batch)?;
        let step = self.step_inputs(0, rows, batch.epoch, source);
        self.runner.slot()?.steps.as_mut_slice()[0] = step;
        let compiled = if train { &mut self.train } else { &mut self.gradients };
        self.runner.run(compiled, 1)?;
        match batch.rows {
            BatchRows::Resident { data, .. } => self.close(data),
            BatchRows::Host { .. } => Ok(()),
        }
    }

    /// Trains on the batches of `order`, several steps a launch.
    fn run_epoch(&mut self, id: DataId, order: &[u32], rows: usize, epoch: u32) -> Driven<()> {
        if self.epoch_order.len() < order.len() {
            self.epoch_order = Buffer::new(&self.device, order.len(), "the row order of an epoch")?;
        }
        self.runner.stream.upload(&self.epoch_order, 0, order)?;
        let streamed_row = match &self.data[id.0] {
            Some(set @ DataSet { storage: Storage::Streamed(_), .. }) => Some(set.row_bytes()),
            _ => None,
        };
        let windowed = streamed_row.zip(self.windows.as_ref()).map(|(row, windows)| windows.bytes() / (row * rows));
        let steps = self.runner.steps_per_launch().min(windowed.unwrap_or(usize::MAX)).max(1);
        for (group, batches) in order.chunks(steps * rows).enumerate() {
            let first = group * steps * rows;
            let source = self.open(id, batches, self.epoch_order.address(first))?;
            let mut count = 0;
            for (index, batch) in batches.chunks(rows).enumerate() {
                let skipped = index * rows;
                let mut source = source;
                source.ids = self.epoch_order.address(first + skipped);
                match streamed_row {
                    Some(row_bytes) => source.data += (skipped * row_bytes) as u64,
                    None => source.order = source.ids,
                }
                let step = self.step_inputs(index as u64, batch.len(), epoch, source);
                self.runner.slot()?.steps.as_mut_slice()[index] = step;
                count += 1;
            }
            self.runner.run(&mut self.train, count)?;
            self.close(id)?;
            self.step += count as u64;
        }
        Ok(())
    }

    /// The buffer behind a part of the state.
    fn buffer(&self, state: State) -> &Buffer<f32> {
        match state {
            State::Params => &self.state.params,
            State::Moment1 => &self.state.moment1,
            State::Moment2 => &self.state.moment2,
            State::Grads => &self.state.grads,
        }
    }

    fn check_state(&self, found: usize) -> Result<(), RunError> {
        match self.state.layout.flat_len() {
            expected if expected == found => Ok(()),
            expected => Err(RunError::Length { what: "the state", expected, found }),
        }
    }

    /// Bytes of device memory that data sets may take.
    fn data_budget(&self) -> Driven<u64> {
        match self.options.data_memory {
            Some(limit) => {
                let used = self.data.iter().flatten().map(|set| match &set.storage {
                    Storage::Resident(buffer) => buffer.len() as u64,
                    Storage::Streamed(_) => 0,
                });
                Ok(limit.saturating_sub(used.sum()))
            }
            // A sixteenth stays free for the driver and for other programs.
            None => Ok(self.device.free_memory()?.saturating_sub(self.device.memory / 16)),
        }
    }

    /// Makes sure that a batch of the streamed data set fits into a window.
    fn provide_windows(&mut self, row_bytes: usize) -> Driven<()> {
        let batch = self.plan.max_rows * row_bytes;
        let wanted = batch.saturating_mul(self.runner.steps_per_launch()).min(WINDOW_BYTES).max(batch);
        if self.windows.as_ref().is_none_or(|windows| windows.bytes() < wanted) {
            self.windows = None;
            self.windows = Some(Windows::new(&self.runner.stream, wanted)?);
        }
        Ok(())
    }

    fn infer_chunk(&mut self, entry: usize, input: &[f32], out: &mut [f32], rows: usize) -> Driven<()> {
        self.runner.stream.upload(&self.infer_input, 0, input)?;
        let source = Source { data: self.infer_input.address(0), ..Source::default() };
        let step = self.step_inputs(0, rows, 0, source);
        self.runner.slot()?.steps.as_mut_slice()[0] = step;
        let EntryProgram { compiled, values } = &mut self.entries[entry];
        self.runner.run(compiled, 1)?;
        let graph = self.plan.program.entry(Entry::ALL[entry]);
        let Some(result) = graph.output.and_then(|value| values.get(value)) else {
            unreachable!("an inference graph stores its output");
        };
        let width = out.len() / rows;
        let padded = &mut self.infer_output[..rows * leading(width)];
        self.runner.stream.download(result, 0, padded)?;
        for (row, padded) in out.chunks_exact_mut(width).zip(padded.chunks_exact(leading(width))) {
            row.copy_from_slice(&padded[..width]);
        }
        Ok(())
    }
}

impl Drop for CudaExecutable {
    fn drop(&mut self) {
        // Buffers go only when nothing uses them; on a lost device there is nothing to wait for.
        let _: Result<(), Fault> = self.device.bind().and_then(|()| self.runner.stream.synchronize());
    }
}

impl Executable for CudaExecutable {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn kernels(&self) -> Vec<KernelChoice> {
        let per_launch = self.runner.steps_per_launch();
        let mut choices = vec![KernelChoice {
            op: "train".to_owned(),
            kernel: format!("{}, {}, up to {per_launch} steps a launch", self.precision, self.path),
        }];
        choices.extend_from_slice(self.train.program.choices());
        for (index, set) in self.data.iter().enumerate() {
            if let Some(DataSet { storage: Storage::Streamed(_), .. }) = set {
                let kernel = "streamed through two pinned windows".to_owned();
                choices.push(KernelChoice { op: format!("data {index}"), kernel });
            }
        }
        choices
    }

    fn write(&mut self, state: State, src: &[f32]) -> Result<(), RunError> {
        if state == State::Grads {
            return Err(RunError::ReadOnly);
        }
        self.check_state(src.len())?;
        let padded = self.state.layout.pad(src);
        self.driven(|this| this.runner.stream.upload(this.buffer(state), 0, &padded))
    }

    fn read(&mut self, state: State, dst: &mut [f32]) -> Result<(), RunError> {
        if state == State::Grads && !self.has_gradients {
            return Err(RunError::NoGradients);
        }
        self.check_state(dst.len())?;
        let mut padded = vec![0.0; self.state.layout.len()];
        self.driven(|this| this.runner.stream.download(this.buffer(state), 0, &mut padded))?;
        self.state.layout.unpad(&padded, dst);
        Ok(())
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    fn upload(&mut self, rows: Rows<'_>) -> Result<DataId, RunError> {
        let count = rows.check(self.plan.spec.width())?;
        let set = self.driven(|this| {
            let budget = this.data_budget()?;
            let set = DataSet::new(&this.runner.stream, rows, count, budget)?;
            if matches!(set.storage, Storage::Streamed(_)) {
                this.provide_windows(set.row_bytes())?;
            }
            Ok(set)
        })?;
        self.data.push(Some(set));
        Ok(DataId(self.data.len() - 1))
    }

    fn release(&mut self, data: DataId) -> Result<(), RunError> {
        match self.data.get_mut(data.0).and_then(Option::take) {
            Some(_) => Ok(()),
            None => Err(RunError::UnknownData(data.0)),
        }
    }

    fn gradients(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        let rows = self.check(batch)?;
        self.driven(|this| this.run_batch(batch, rows, false))?;
        self.has_gradients = true;
        Ok(())
    }

    fn apply(&mut self) -> Result<(), RunError> {
        if !self.has_gradients {
            return Err(RunError::NoGradients);
        }
        self.driven(|this| {
            let step = this.step_inputs(0, 1, 0, Source::default());
            this.runner.slot()?.steps.as_mut_slice()[0] = step;
            this.runner.run(&mut this.apply, 1)
        })?;
        self.has_gradients = false;
        self.step += 1;
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        let rows = self.check(batch)?;
        self.has_gradients = false;
        self.driven(|this| this.run_batch(batch, rows, true))?;
        self.step += 1;
        Ok(())
    }

    fn train_epoch(&mut self, data: DataId, order: &[u32], rows: usize, epoch: u32) -> Result<(), RunError> {
        if !(1..=self.plan.max_rows).contains(&rows) {
            return Err(RunError::Rows { rows, max_rows: self.plan.max_rows });
        }
        self.data_set(data)?.check(order)?;
        if order.is_empty() {
            return Ok(());
        }
        self.has_gradients = false;
        self.driven(|this| this.run_epoch(data, order, rows, epoch))
    }

    fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError> {
        entry.check(&self.plan, input, out)?;
        let (from, to) = entry.widths(&self.plan);
        let index = Entry::ALL.iter().position(|other| *other == entry).unwrap_or_default();
        let chunks = input.chunks(self.infer_rows * from).zip(out.chunks_mut(self.infer_rows * to));
        for (input, out) in chunks {
            self.driven(|this| this.infer_chunk(index, input, out, input.len() / from))?;
        }
        Ok(())
    }

    fn losses(&mut self) -> Result<Losses, RunError> {
        let mut state = [LossState::default()];
        self.driven(|this| {
            this.runner.stream.download(&this.state.losses, 0, &mut state)?;
            this.runner.stream.clear(&this.state.losses)
        })?;
        let [LossState { steps, rows, sums, last, bad_step, bad_term }] = state;
        let term = Term::ALL.get(bad_term as usize).copied().unwrap_or(Term::Reconstruction);
        let non_finite = (bad_step != 0).then_some(NonFinite { step: bad_step, term });
        Ok(Losses { steps, rows, sums, last, non_finite })
    }

    fn synchronize(&mut self) -> Result<(), RunError> {
        self.driven(|this| this.runner.stream.synchronize())
    }
}
