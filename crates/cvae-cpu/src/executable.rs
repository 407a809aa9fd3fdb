//! A plan made runnable on the CPU.

use std::sync::Arc;
use std::time::Instant;

use cvae_core::{
    Batch, BatchRows, CompileError, DataId, Entry, Executable, KernelChoice, Losses, Op, OpProfile, ParamId, Plan,
    Rows, RunError, State, Term,
};

use crate::arena::Arena;
use crate::backend::Level;
use crate::elements::Class;
use crate::infer::Inference;
use crate::kernels::gather::Source;
use crate::kernels::optimizer::{Apply, Rule};
use crate::kernels::table::Kernels;
use crate::params::Params;
use crate::pool::{Barrier, Pool};
use crate::profile::{self, Clock};
use crate::run::{Pass, Worker};
use crate::schedule::Schedule;
use crate::split::assign_split;
use crate::team::{Member, part};

/// A resident data set.
enum Data {
    F32(Vec<f32>),
    U8(Vec<u8>, f32),
}

impl Data {
    fn source(&self) -> Source {
        match self {
            Self::F32(values) => Source::F32(values.as_ptr()),
            Self::U8(values, scale) => Source::U8(values.as_ptr(), *scale),
        }
    }
}

/// What a call does with its batches.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    /// Whole steps.
    Train,
    /// Gradients alone.
    Gradients,
}

/// The CPU executable.
pub(crate) struct CpuExecutable {
    plan: Arc<Plan>,
    level: Level,
    kernels: &'static Kernels,
    pool: Pool,
    barrier: Barrier,
    params: Params,
    schedule: Schedule,
    arena: Arena,
    /// Two sets of loss slots: one is summed while the next step fills the other.
    slots: Vec<f64>,
    /// Square sums of the gradients, a slot per panel of a parameter.
    norms: Vec<f64>,
    inference: Inference,
    data: Vec<Option<Data>>,
    losses: Losses,
    step: u64,
    has_gradients: bool,
    clock: Option<Clock>,
}

/// A pointer that threads may share; what they do with it is ordered by the barrier.
#[derive(Clone, Copy)]
struct Shared<T>(*mut T);

// SAFETY: see `Shared`.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn get(self) -> *mut T {
        self.0
    }
}

impl CpuExecutable {
    pub(crate) fn new(
        plan: Arc<Plan>,
        level: Level,
        kernels: &'static Kernels,
        threads: usize,
        profiled: bool,
    ) -> Result<Self, CompileError> {
        let width = kernels.panel();
        let mut contracts = vec![false; plan.params.params().len()];
        let split = assign_split(&plan.program.train, &mut contracts, false);
        let mut params = Params::new(&plan.params, &contracts, width)?;
        if plan.optimizer.clip_norm.is_some() {
            params.ensure_grads()?;
        }
        let panels = |id| params.slot(id).panels;
        let mut schedule = Schedule::new(&plan.program.train, &split, &panels, width, threads, plan.max_rows);
        if let Some(rounded) = kernels.rounded {
            schedule.round_values(threads);
            params.add_rounded(&schedule, rounded)?;
        }
        let arena = Arena::new(schedule.arena, "the activations")?;
        let inference = Inference::new(&plan, &contracts, &params, width, threads)?;
        let norms = params.slots.iter().map(|slot| slot.panels).sum();
        Ok(Self {
            slots: vec![0.0; 2 * schedule.slots.max(1)],
            norms: vec![0.0; norms],
            pool: Pool::new(threads)?,
            barrier: Barrier::new(threads),
            level,
            kernels,
            clock: profiled.then(|| Clock::new(threads, profile::parts(&schedule))),
            params,
            schedule,
            arena,
            inference,
            data: vec![],
            losses: Losses::default(),
            step: 0,
            has_gradients: false,
            plan,
        })
    }

    /// Runs batches of `rows` rows; `count` rows in all, from `order` or consecutive.
    fn run(&mut self, source: Source, order: Option<&[u32]>, count: usize, rows: usize, at: (u32, u32), mode: Mode) {
        let (first_noise, epoch) = at;
        let plan = &*self.plan;
        let clip = plan.optimizer.clip_norm;
        let fused = mode == Mode::Train && clip.is_none();
        let steps = count.div_ceil(rows);
        let (first_step, threads) = (self.step, self.pool.threads());
        let (slots, norms) = (Shared(self.slots.as_mut_ptr()), Shared(self.norms.as_mut_ptr()));
        let losses = Shared(&raw mut self.losses);
        let order = order.map_or(std::ptr::null(), <[u32]>::as_ptr);
        let source = SharedSource(source, order);
        let (kernels, schedule, params, arena, barrier) =
            (self.kernels, &self.schedule, &self.params, &self.arena, &self.barrier);
        let clock = self.clock.as_ref();
        self.pool.run(&|thread| {
            let SharedSource(source, order) = source.get();
            let member = Member { thread, threads };
            let worker = Worker { kernels, schedule, params, arena: arena.at(0), barrier, member, clock };
            let mut turn = barrier.turn(thread);
            for index in 0..steps {
                let first = index * rows;
                let coefficients = Rule::from(plan.optimizer.coefficients(first_step + index as u64));
                // SAFETY: two sets of slots exist.
                let slots = unsafe { slots.get().add((index % 2) * schedule.slots) };
                let pass = Pass {
                    source,
                    // SAFETY: the order holds `count` indices.
                    order: if order.is_null() { order } else { unsafe { order.add(first) } },
                    first,
                    first_noise: first_noise.wrapping_add(first as u32),
                    rows: rows.min(count - first),
                    seed: plan.seed,
                    epoch,
                    rule: if fused { coefficients } else { Rule::Store },
                    losses: slots,
                    output: std::ptr::null_mut(),
                };
                // SAFETY: every thread runs the same passes; indices and sizes were checked by the caller.
                unsafe { worker.run(&pass, &mut turn) };
                let begin = clock.map(|_| Instant::now());
                barrier.arrive(thread, &mut turn);
                barrier.wait(&mut turn);
                worker.measured(profile::end_of_step(schedule), begin);
                let begin = clock.map(|_| Instant::now());
                if !fused && mode == Mode::Train {
                    // SAFETY: gradients are complete, and every thread runs the same.
                    unsafe {
                        apply(&worker, norms.get(), clip, coefficients, || {
                            barrier.arrive(thread, &mut turn);
                            barrier.wait(&mut turn);
                        });
                    }
                    barrier.arrive(thread, &mut turn);
                    barrier.wait(&mut turn);
                    worker.measured(profile::update(schedule), begin);
                }
                if thread == 0 {
                    if let Some(clock) = clock {
                        clock.count(pass.rows);
                    }
                    // SAFETY: all slots of this step are written, the next step writes the other set, and only
                    // this thread touches the losses.
                    unsafe {
                        let terms = sum_terms(schedule, slots, pass.rows, kernels.panel());
                        (*losses.get()).push(first_step + index as u64 + 1, pass.rows, terms);
                    }
                }
            }
        });
        if mode == Mode::Train {
            self.step += steps as u64;
        }
        self.has_gradients = mode == Mode::Gradients;
    }

    /// Checks a batch and runs it.
    fn batch(&mut self, batch: &Batch<'_>, mode: Mode) -> Result<(), RunError> {
        let rows = batch.check(self.plan.spec.width(), self.plan.max_rows)?;
        match batch.rows {
            BatchRows::Host { values, first_row } => {
                self.run(Source::F32(values.as_ptr()), None, rows, rows, (first_row, batch.epoch), mode);
            }
            BatchRows::Resident { data, order } => {
                let source = self.resident(data, order)?;
                self.run(source, Some(order), rows, rows, (0, batch.epoch), mode);
            }
        }
        Ok(())
    }

    /// The source of a resident data set, after checking that it holds every row of `order`.
    fn resident(&self, data: DataId, order: &[u32]) -> Result<Source, RunError> {
        let data = self.data.get(data.0).and_then(Option::as_ref).ok_or(RunError::UnknownData(data.0))?;
        let len = match data {
            Data::F32(values) => values.len(),
            Data::U8(values, _) => values.len(),
        };
        let rows = len / self.plan.spec.width();
        match order.iter().find(|index| **index as usize >= rows) {
            Some(index) => Err(RunError::RowIndex { index: *index, rows }),
            None => Ok(data.source()),
        }
    }
}

/// A source and its row order, read by every thread of a job.
#[derive(Clone, Copy)]
struct SharedSource(Source, *const u32);

// SAFETY: only read while the job runs, and the caller holds the borrow for as long.
unsafe impl Sync for SharedSource {}

impl SharedSource {
    fn get(self) -> Self {
        self
    }
}

/// Sums the slots of a step, in their order, into loss terms.
///
/// # Safety
/// `slots` holds the schedule's slots, written by the pass over `rows` rows.
unsafe fn sum_terms(schedule: &Schedule, slots: *const f64, rows: usize, width: usize) -> [f64; Term::COUNT] {
    let mut terms = [0.0; Term::COUNT];
    let batch_panels = schedule.padded_rows / width;
    for loss in &schedule.losses {
        for panel in 0..loss.panels {
            for batch_panel in 0..rows.div_ceil(width) {
                // SAFETY: inside the slots of this term.
                terms[loss.term.index()] += unsafe { *slots.add(loss.first + panel * batch_panels + batch_panel) };
            }
        }
    }
    let mut squares = 0.0;
    for norm in &schedule.norms {
        for panel in 0..norm.panels {
            // SAFETY: inside the slots of this parameter.
            squares += unsafe { *slots.add(norm.first + panel) };
        }
    }
    terms[Term::DecoderL2.index()] = 0.5 * schedule.norm_coefficient * squares;
    terms
}

/// Clips stored gradients by their global norm and applies the optimiser to this thread's panels.
///
/// # Safety
/// Gradients are stored and complete; `norms` has a slot per panel; every thread calls this together, and
/// `meet` is a barrier.
unsafe fn apply(worker: &Worker<'_>, norms: *mut f64, clip: Option<f64>, rule: Rule, meet: impl FnOnce()) {
    let (params, width) = (worker.params, worker.params.width);
    let Some(grads) = params.grads.as_ref() else { return };
    let mut scale = 1.0;
    if let Some(limit) = clip {
        let mut first = 0;
        for slot in &params.slots {
            for panel in part(slot.panels, worker.member) {
                // SAFETY: the panel's gradients are complete; its slot is this thread's.
                unsafe {
                    *norms.add(first + panel) =
                        (worker.kernels.square_sum)(grads.at(slot.row(panel, 0, width)), slot.rows);
                }
            }
            first += slot.panels;
        }
        meet();
        // SAFETY: every slot is written; every thread sums them in the same order.
        let norm = unsafe { std::slice::from_raw_parts(norms, first) }.iter().sum::<f64>().sqrt();
        if norm > limit {
            scale = (limit / norm) as f32;
        }
    }
    for (index, slot) in params.slots.iter().enumerate() {
        for panel in part(slot.panels, worker.member) {
            // SAFETY: each panel falls to one thread.
            unsafe {
                (worker.kernels.apply)(&Apply {
                    scale,
                    rule,
                    w: params.w.at(slot.row(panel, 0, width)),
                    moments: params.moments.at(slot.moment_row(panel, 0, width)),
                    grad: grads.at(slot.row(panel, 0, width)),
                    count: slot.rows,
                });
                params.round(worker.kernels, ParamId(index as u32), panel);
            }
        }
    }
}

impl Executable for CpuExecutable {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn kernels(&self) -> Vec<KernelChoice> {
        let fused = self.plan.optimizer.clip_norm.is_none();
        let kernel = |op: &Op| match op {
            Op::Linear { weight, .. } if self.params.slot(*weight).contracts => "partial+reduce",
            Op::Linear { .. } => "expand",
            Op::LinearGradInput { weight, .. } if self.params.slot(*weight).contracts => "expand",
            Op::LinearGradInput { .. } => "partial+reduce",
            Op::LinearGradWeight { .. } if fused => "weight_grad+update",
            Op::LinearGradWeight { .. } => "weight_grad",
            Op::ParamNorm { .. } => "weight_grad epilogue",
            Op::Update if fused => "weight_grad epilogue",
            Op::Update => "clip+apply",
            _ => match Class::of(op) {
                Class::Drawn => "philox",
                Class::Coupled => "coupled",
                Class::Elementwise | Class::Structural => "element",
            },
        };
        let choice = |op: &Op| KernelChoice { op: op.to_string(), kernel: format!("{}::{}", self.level, kernel(op)) };
        self.plan.program.train.ops.iter().map(choice).collect()
    }

    fn profile(&self) -> Vec<OpProfile> {
        let found = |clock| profile::phases(clock, &self.schedule, &self.params, &self.plan.params);
        self.clock.as_ref().map(found).unwrap_or_default()
    }

    fn write(&mut self, state: State, src: &[f32]) -> Result<(), RunError> {
        let expected = self.params.flat_len();
        if state == State::Grads {
            return Err(RunError::ReadOnly);
        }
        if src.len() != expected {
            return Err(RunError::Length { what: "the state", expected, found: src.len() });
        }
        self.params.clear(state);
        self.params.for_each(state, |index, element| *element = src[index]);
        if state == State::Params {
            self.params.round_all(self.kernels);
        }
        Ok(())
    }

    fn read(&mut self, state: State, dst: &mut [f32]) -> Result<(), RunError> {
        let expected = self.params.flat_len();
        if dst.len() != expected {
            return Err(RunError::Length { what: "the state", expected, found: dst.len() });
        }
        if state == State::Grads && !self.has_gradients {
            return Err(RunError::NoGradients);
        }
        self.params.for_each(state, |index, element| dst[index] = *element);
        Ok(())
    }

    fn step(&self) -> u64 {
        self.step
    }

    fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    fn upload(&mut self, rows: Rows<'_>) -> Result<DataId, RunError> {
        rows.check(self.plan.spec.width())?;
        let memory = |bytes: usize| move |_| RunError::Memory { bytes, what: "the data set" };
        let data = match rows {
            Rows::F32 { values, .. } => {
                let mut copy = Vec::new();
                copy.try_reserve_exact(values.len()).map_err(memory(size_of_val(values)))?;
                copy.extend_from_slice(values);
                Data::F32(copy)
            }
            Rows::U8 { values, scale, .. } => {
                let mut copy = Vec::new();
                copy.try_reserve_exact(values.len()).map_err(memory(values.len()))?;
                copy.extend_from_slice(values);
                Data::U8(copy, scale)
            }
        };
        self.data.push(Some(data));
        Ok(DataId(self.data.len() - 1))
    }

    fn release(&mut self, data: DataId) -> Result<(), RunError> {
        match self.data.get_mut(data.0).and_then(Option::take) {
            Some(_) => Ok(()),
            None => Err(RunError::UnknownData(data.0)),
        }
    }

    fn gradients(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        self.params.ensure_grads().map_err(|error| match error {
            CompileError::Memory { bytes, what } => RunError::Memory { bytes, what },
            _ => RunError::NoGradients,
        })?;
        self.batch(batch, Mode::Gradients)
    }

    fn apply(&mut self) -> Result<(), RunError> {
        if !self.has_gradients {
            return Err(RunError::NoGradients);
        }
        let (clip, threads) = (self.plan.optimizer.clip_norm, self.pool.threads());
        let rule = Rule::from(self.plan.optimizer.coefficients(self.step));
        let norms = Shared(self.norms.as_mut_ptr());
        let (kernels, schedule, params, arena, barrier) =
            (self.kernels, &self.schedule, &self.params, &self.arena, &self.barrier);
        self.pool.run(&|thread| {
            let member = Member { thread, threads };
            let worker = Worker { kernels, schedule, params, arena: arena.at(0), barrier, member, clock: None };
            let mut turn = barrier.turn(thread);
            // SAFETY: gradients are complete, and every thread runs the same.
            unsafe {
                apply(&worker, norms.get(), clip, rule, || {
                    barrier.arrive(thread, &mut turn);
                    barrier.wait(&mut turn);
                });
            }
        });
        self.step += 1;
        self.has_gradients = false;
        Ok(())
    }

    fn train_step(&mut self, batch: &Batch<'_>) -> Result<(), RunError> {
        self.batch(batch, Mode::Train)
    }

    fn train_epoch(&mut self, data: DataId, order: &[u32], rows: usize, epoch: u32) -> Result<(), RunError> {
        let max_rows = self.plan.max_rows;
        if !(1..=max_rows).contains(&rows) {
            return Err(RunError::Rows { rows, max_rows });
        }
        let source = self.resident(data, order)?;
        if !order.is_empty() {
            self.run(source, Some(order), order.len(), rows, (0, epoch), Mode::Train);
        }
        Ok(())
    }

    fn infer(&mut self, entry: Entry, input: &[f32], out: &mut [f32]) -> Result<(), RunError> {
        let rows = entry.check(&self.plan, input, out)?;
        self.inference.run(entry, input, out, rows, self.kernels, &self.params, &mut self.pool);
        Ok(())
    }

    fn losses(&mut self) -> Result<Losses, RunError> {
        Ok(std::mem::take(&mut self.losses))
    }

    fn synchronize(&mut self) -> Result<(), RunError> {
        Ok(())
    }
}
