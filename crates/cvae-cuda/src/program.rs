//! Tasks in device memory, ordered into phases, with their operands' addresses filled in.

use cvae_core::{Graph, KernelChoice, Plan, ValueId};

use crate::driver::{Buffer, Driven, Stream};
use crate::layout::{PaddedLayout, leading};
use crate::lower::{Extent, Operand, TaskSpec};
use crate::schedule;
use crate::task::{BIAS_TILE, LossState, NORM_TILES, POINTWISE_TILE, Pair, Phase, Point, Task, TaskKind, norm_tile};

/// The model's state on the device: four padded buffers of one layout, and the loss accumulator.
#[derive(Debug)]
pub(crate) struct ModelState {
    pub(crate) layout: PaddedLayout,
    pub(crate) params: Buffer<f32>,
    pub(crate) moment1: Buffer<f32>,
    pub(crate) moment2: Buffer<f32>,
    pub(crate) grads: Buffer<f32>,
    pub(crate) losses: Buffer<LossState>,
}

impl ModelState {
    pub(crate) fn new(stream: &Stream, layout: PaddedLayout) -> Driven<Self> {
        let zeroed = |what| Buffer::zeroed(stream, layout.len(), what);
        Ok(Self {
            params: zeroed("the parameters")?,
            moment1: zeroed("the first moments")?,
            moment2: zeroed("the second moments")?,
            grads: zeroed("the gradients")?,
            losses: Buffer::zeroed(stream, 1, "the losses")?,
            layout,
        })
    }
}

/// Buffers for the stored values of a graph, one each.
#[derive(Debug)]
pub(crate) struct Values {
    rows: usize,
    widths: Vec<usize>,
    buffers: Vec<Option<Buffer<f32>>>,
}

impl Values {
    /// Buffers of `rows` rows for the values that some task stores.
    pub(crate) fn new(stream: &Stream, graph: &Graph, rows: usize, programs: &[&[TaskSpec]]) -> Driven<Self> {
        let stored = |value| {
            let stores = |task: &TaskSpec| task.points.iter().any(|point| point.store == Some(Operand::Value(value)));
            programs.iter().any(|tasks| tasks.iter().any(stores))
        };
        let widths: Vec<usize> = graph.values.iter().map(cvae_core::Shape::size).collect();
        let mut buffers = vec![];
        for (index, width) in widths.iter().enumerate() {
            buffers.push(match stored(ValueId(index as u32)) {
                true => Some(Buffer::new(&stream.device, rows * leading(*width), "the activations")?),
                false => None,
            });
        }
        Ok(Self { rows, widths, buffers })
    }

    /// The buffer of a stored value.
    pub(crate) fn get(&self, value: ValueId) -> Option<&Buffer<f32>> {
        self.buffers.get(value.index())?.as_ref()
    }
}

/// A runnable list of tasks.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) tasks: Buffer<Task>,
    pub(crate) phases: Buffer<Phase>,
    /// Per phase: its tasks and the most tiles it can have.
    pub(crate) launches: Vec<(Phase, usize)>,
    choices: Vec<KernelChoice>,
    _auxiliary: Auxiliary,
}

/// Memory that the tasks of a program use besides the values: partial sums, what tasks found of the whole batch,
/// tables of constants, and operands of further products.
#[derive(Debug)]
struct Auxiliary {
    partials: Buffer<f64>,
    scratch: Buffer<f32>,
    tables: Buffer<u32>,
    pairs: Buffer<Pair>,
    /// Per task: where its parts begin.
    first: Vec<First>,
}

/// The first elements of one task in [`Auxiliary`].
#[derive(Clone, Copy, Debug, Default)]
struct First {
    partial: usize,
    scratch: usize,
    table: usize,
    pair: usize,
}

impl Auxiliary {
    /// Allocates for tasks with so many tiles each, and uploads the constants.
    fn new(stream: &Stream, specs: &[TaskSpec], tiles: &[usize]) -> Driven<Self> {
        let mut next = First::default();
        let mut first = vec![];
        let mut words = vec![];
        // Partial sums lie in task order, so that the norms of one clipping are neighbours.
        for (spec, tiles) in specs.iter().zip(tiles) {
            first.push(next);
            next.partial += if spec.has_partials() { *tiles } else { 0 };
            next.scratch += spec.scratch;
            next.pair += spec.pairs.len();
            words.extend(spec.points.iter().flat_map(|point| &point.table));
            next.table = words.len();
        }
        let device = &stream.device;
        let tables = Buffer::new(device, words.len(), "the tables of columns")?;
        stream.upload(&tables, 0, &words)?;
        Ok(Self {
            partials: Buffer::new(device, next.partial, "partial sums")?,
            scratch: Buffer::new(device, next.scratch, "sums over the batch")?,
            tables,
            pairs: Buffer::new(device, next.pair, "the operands of products")?,
            first,
        })
    }
}

impl Program {
    /// Orders the tasks, fills in addresses and copies them to the device.
    pub(crate) fn new(
        stream: &Stream,
        plan: &Plan,
        specs: &[TaskSpec],
        state: &ModelState,
        values: &Values,
    ) -> Driven<Self> {
        let device = &stream.device;
        let phase_of = schedule::phases(specs);
        let mut order: Vec<usize> = (0..specs.len()).collect();
        order.sort_by_key(|index| phase_of[*index]);

        let tiles: Vec<usize> = specs.iter().map(|spec| most_tiles(spec, values.rows)).collect();
        let auxiliary = Auxiliary::new(stream, specs, &tiles)?;
        let tasks = Buffer::<Task>::new(device, specs.len(), "the tasks")?;
        let addresses = {
            let mut addresses = vec![0; specs.len()];
            for (position, &index) in order.iter().enumerate() {
                addresses[index] = tasks.address(position);
            }
            addresses
        };

        let binder = Binder { plan, state, values, specs, auxiliary: &auxiliary, tiles: &tiles, addresses: &addresses };
        let bound: Vec<Task> = order.iter().map(|index| binder.bind(*index, tasks.address(0))).collect();
        let pairs = specs.iter().flat_map(|spec| &spec.pairs);
        let pairs: Vec<Pair> =
            pairs.map(|(a, b)| Pair { a: binder.address(Some(*a)), b: binder.address(Some(*b)) }).collect();
        stream.upload(&auxiliary.pairs, 0, &pairs)?;
        stream.upload(&tasks, 0, &bound)?;

        let mut launches: Vec<(Phase, usize)> = vec![];
        for (position, &index) in order.iter().enumerate() {
            if launches.len() == phase_of[index] {
                launches.push((Phase { first: position as u32, count: 0 }, 0));
            }
            if let Some((phase, count)) = launches.last_mut() {
                phase.count += 1;
                *count += tiles[index];
            }
        }
        let table: Vec<Phase> = launches.iter().map(|(phase, _)| *phase).collect();
        let phases = Buffer::new(device, table.len(), "the phases")?;
        stream.upload(&phases, 0, &table)?;
        let choices = order.iter().map(|index| choice(&specs[*index], phase_of[*index])).collect();
        Ok(Self { tasks, phases, launches, choices, _auxiliary: auxiliary })
    }

    /// Ops and kernels, in the order in which they run.
    pub(crate) fn choices(&self) -> &[KernelChoice] {
        &self.choices
    }
}

fn choice(spec: &TaskSpec, phase: usize) -> KernelChoice {
    let side = spec.shape.side();
    let kernel = match spec.kind {
        TaskKind::Linear => format!("linear {side}x{side}"),
        TaskKind::GradInput => format!("grad_input {side}x{side}"),
        TaskKind::GradWeight => format!("grad_weight {side}x{side}"),
        TaskKind::GradBias => "grad_bias".to_owned(),
        TaskKind::Pointwise => "pointwise".to_owned(),
        TaskKind::Gather => "gather".to_owned(),
        TaskKind::SquaredNorm => "squared_norm".to_owned(),
        TaskKind::FinishStep => "finish_step".to_owned(),
        TaskKind::SigmaSlope => "sigma_slope".to_owned(),
        TaskKind::KlSlopes => "kl_slopes".to_owned(),
        TaskKind::Discrepancy => "discrepancy".to_owned(),
        TaskKind::Spectral => "spectral".to_owned(),
        TaskKind::SpectralGrad => "spectral_grad".to_owned(),
    };
    KernelChoice { op: spec.ops.join("; "), kernel: format!("{kernel}, phase {phase}") }
}

/// The most tiles that a task can have.
fn most_tiles(spec: &TaskSpec, max_rows: usize) -> usize {
    let rows = rows_of(spec, max_rows);
    match spec.kind {
        TaskKind::Linear | TaskKind::GradInput | TaskKind::GradWeight => {
            rows.div_ceil(spec.shape.side()) * spec.columns.div_ceil(spec.shape.side())
        }
        TaskKind::GradBias => spec.columns.div_ceil(BIAS_TILE),
        TaskKind::Pointwise | TaskKind::Gather => (rows * leading(spec.columns)).div_ceil(POINTWISE_TILE),
        TaskKind::SquaredNorm => spec.columns.div_ceil(norm_tile(spec.columns)).min(NORM_TILES),
        TaskKind::Discrepancy | TaskKind::SpectralGrad => rows,
        TaskKind::FinishStep | TaskKind::SigmaSlope | TaskKind::KlSlopes | TaskKind::Spectral => 1,
    }
}

fn rows_of(spec: &TaskSpec, max_rows: usize) -> usize {
    match spec.rows {
        Extent::Batch => max_rows,
        Extent::Fixed(rows) => rows,
    }
}

/// Everything that addresses are made of.
struct Binder<'a> {
    plan: &'a Plan,
    state: &'a ModelState,
    values: &'a Values,
    specs: &'a [TaskSpec],
    auxiliary: &'a Auxiliary,
    tiles: &'a [usize],
    /// Per task: its address.
    addresses: &'a [u64],
}

impl Binder<'_> {
    fn bind(&self, index: usize, tasks: u64) -> Task {
        let spec = &self.specs[index];
        let mut task = Task {
            kind: spec.kind as u32,
            shape: spec.shape as u32,
            rows: fixed(spec.rows),
            columns: spec.columns as i32,
            depth: fixed(spec.depth),
            lda: self.leading(spec.a),
            ldb: self.leading(spec.b),
            ldc: leading(spec.columns) as i32,
            a: self.address(spec.a),
            b: self.address(spec.b),
            points: spec.points.len() as u32,
            pair_count: spec.pairs.len() as u32,
            bound: spec.bound,
            variant: spec.variant,
            count: spec.iterations,
            ..Task::default()
        };
        let first = self.auxiliary.first[index];
        task.pairs = self.auxiliary.pairs.address(first.pair);
        let mut table = first.table;
        for (point, spec) in task.point.iter_mut().zip(&spec.points) {
            *point = Point {
                op: spec.op as u32,
                variant: spec.variant,
                scale: spec.scale as f32,
                other: spec.other as f32,
                operands: spec.operands.map(|operand| self.address(operand)),
                store: self.address(spec.store),
            };
            if !spec.table.is_empty() {
                point.operands[2] = self.auxiliary.tables.address(table);
                table += spec.table.len();
            }
        }
        if spec.has_partials() {
            task.partials = self.auxiliary.partials.address(first.partial);
        }
        if let Some(measured) = spec.measured_by {
            task.tasks = self.addresses[measured];
        }
        if let Some(loss) = spec.loss {
            task.weight = loss.weight;
            task.term = loss.term.index() as u32;
            task.per_row = u32::from(loss.per_row);
        }
        if let (Some(&norm), Some(clip_norm)) = (spec.clip_by.first(), self.plan.optimizer.clip_norm) {
            task.clip_partials = self.auxiliary.partials.address(self.auxiliary.first[norm].partial);
            task.clip_norm = clip_norm;
            task.count = spec.clip_by.iter().map(|norm| self.tiles[*norm] as u32).sum();
        }
        if spec.kind == TaskKind::FinishStep {
            task.partials = self.state.losses.address(0);
            task.tasks = tasks;
            task.count = self.specs.len() as u32;
        }
        task
    }

    fn leading(&self, operand: Option<Operand>) -> i32 {
        let width = match operand {
            Some(Operand::Value(value)) => self.values.widths[value.index()],
            Some(Operand::Param(id) | Operand::Moment1(id) | Operand::Moment2(id) | Operand::Grad(id)) => {
                self.state.layout.get(id).width
            }
            Some(Operand::Partials(_) | Operand::Scratch(..) | Operand::Losses) | None => 0,
        };
        leading(width) as i32
    }

    fn address(&self, operand: Option<Operand>) -> u64 {
        let param = |buffer: &Buffer<f32>, id| buffer.address(self.state.layout.get(id).offset);
        match operand {
            None => 0,
            Some(Operand::Value(value)) => match self.values.get(value) {
                Some(buffer) => buffer.address(0),
                None => unreachable!("a value that is read is stored"),
            },
            Some(Operand::Param(id)) => param(&self.state.params, id),
            Some(Operand::Moment1(id)) => param(&self.state.moment1, id),
            Some(Operand::Moment2(id)) => param(&self.state.moment2, id),
            Some(Operand::Grad(id)) => param(&self.state.grads, id),
            Some(Operand::Partials(task)) => self.auxiliary.partials.address(self.auxiliary.first[task].partial),
            Some(Operand::Scratch(task, element)) => {
                self.auxiliary.scratch.address(self.auxiliary.first[task].scratch + element)
            }
            Some(Operand::Losses) => self.state.losses.address(0),
        }
    }
}

/// A fixed length, or 0 for the batch's rows.
fn fixed(extent: Extent) -> i32 {
    match extent {
        Extent::Batch => 0,
        Extent::Fixed(length) => length as i32,
    }
}
