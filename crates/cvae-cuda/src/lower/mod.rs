//! From a core graph to tasks: one task per matrix product or reduction, the elementwise ops fused into the task
//! that makes their operand.

mod coupled;
mod elementwise;
mod spec;
mod spectral;

use cvae_core::{Algorithm, Graph, Op, ParamId, Plan, Term, ValueId};

use crate::layout::PaddedLayout;
use crate::task::{MAX_POINTS, PointOp, TaskKind, TileShape};

pub(crate) use spec::{Extent, LossSpec, Operand, PointSpec, TaskSpec};

/// What becomes of the parameter gradients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gradients {
    /// They update the parameters at once and never reach memory.
    Update,
    /// They are stored.
    Store,
}

/// Number of output tiles from which on the large tile is used.
const LARGE_TILES: usize = 64;

/// The tile of a `rows × columns` product: large when that gives enough tiles to fill a GPU.
fn tile_shape(rows: usize, columns: usize) -> TileShape {
    let side = TileShape::Large.side();
    match rows.div_ceil(side) * columns.div_ceil(side) >= LARGE_TILES {
        true => TileShape::Large,
        false => TileShape::Small,
    }
}

/// Lowers `graph`, run with up to `max_rows` rows.
pub(crate) fn lower(
    plan: &Plan,
    layout: &PaddedLayout,
    graph: &Graph,
    max_rows: usize,
    gradients: Gradients,
) -> Vec<TaskSpec> {
    let mut lowering = Lowering::new(plan, layout, graph, max_rows, gradients);
    let live = live_ops(graph);
    let ops: Vec<&Op> = graph.ops.iter().zip(live).filter_map(|(op, live)| live.then_some(op)).collect();
    // What depends on parameters alone comes first, so that any later task may use it.
    let (first, later): (Vec<&Op>, Vec<&Op>) = ops.iter().partition(|op| matches!(op, Op::SpectralScale { .. }));
    first.into_iter().chain(later).for_each(|op| lowering.op(op));
    lowering.finish()
}

/// The tasks of one optimiser step from stored gradients, appended to `tasks`.
pub(crate) fn append_apply(plan: &Plan, layout: &PaddedLayout, tasks: &mut Vec<TaskSpec>) {
    let params = || (0..layout.matrices().len()).map(|index| ParamId(index as u32));
    let mut norms = vec![];
    if plan.optimizer.clip_norm.is_some() {
        for param in params() {
            norms.push(tasks.len());
            let mut task = norm_task(layout, param, Operand::Grad(param), format!("clip {param}"));
            task.measures = true;
            tasks.push(task);
        }
    }
    for param in params() {
        let matrix = layout.get(param);
        let op = format!("update {param}");
        let mut task = TaskSpec::new(TaskKind::Pointwise, Extent::Fixed(matrix.rows), matrix.width, op);
        task.points = vec![PointSpec::new(PointOp::Load).with(&[Operand::Grad(param)]), update_point(plan, param)];
        task.clip_by.clone_from(&norms);
        tasks.push(task);
    }
}

fn norm_task(layout: &PaddedLayout, param: ParamId, array: Operand, op: String) -> TaskSpec {
    let mut task = TaskSpec::new(TaskKind::SquaredNorm, Extent::Fixed(1), layout.get(param).padded(), op);
    task.a = Some(array);
    task
}

fn update_point(plan: &Plan, param: ParamId) -> PointSpec {
    let rule = match plan.optimizer.algorithm {
        Algorithm::Adam { .. } | Algorithm::AdamW { .. } => 0,
        Algorithm::Sgd { .. } => 1,
    };
    let operands = [Operand::Param(param), Operand::Moment1(param), Operand::Moment2(param)];
    PointSpec::new(PointOp::Update).variant(rule).with(&operands)
}

/// Which ops contribute to the outputs, the loss or the gradients.
fn live_ops(graph: &Graph) -> Vec<bool> {
    let mut needed = vec![false; graph.values.len()];
    if let Some(output) = graph.output {
        needed[output.index()] = true;
    }
    let mut live = vec![false; graph.ops.len()];
    for (index, op) in graph.ops.iter().enumerate().rev() {
        let writes = op.writes();
        live[index] = writes.is_empty() || op.term().is_some() || writes.iter().any(|value| needed[value.index()]);
        if live[index] {
            op.reads().iter().for_each(|value| needed[value.index()] = true);
        }
    }
    live
}

struct Lowering<'a> {
    plan: &'a Plan,
    layout: &'a PaddedLayout,
    graph: &'a Graph,
    max_rows: usize,
    gradients: Gradients,
    tasks: Vec<TaskSpec>,
    /// Per value: the task that defines it.
    defined: Vec<Option<usize>>,
    /// Per value: whether it is the running value at the end of that task's points.
    is_tail: Vec<bool>,
    /// Per value: how many readers take it from memory.
    readers: Vec<usize>,
    /// Per value whose rows are all equal: where a row lies.
    rows: Vec<Option<Operand>>,
}

impl<'a> Lowering<'a> {
    fn new(plan: &'a Plan, layout: &'a PaddedLayout, graph: &'a Graph, max_rows: usize, gradients: Gradients) -> Self {
        let count = graph.values.len();
        let mut lowering = Self {
            plan,
            layout,
            graph,
            max_rows,
            gradients,
            tasks: vec![],
            defined: vec![None; count],
            is_tail: vec![false; count],
            readers: vec![0; count],
            rows: vec![None; count],
        };
        let op = format!("gather {}", graph.input);
        let mut gather = TaskSpec::new(TaskKind::Gather, Extent::Batch, graph.size(graph.input), op);
        gather.points = vec![PointSpec::new(PointOp::Keep).storing(Operand::Value(graph.input))];
        lowering.defined[graph.input.index()] = Some(0);
        // The gather writes its value by itself: nothing can be fused into it.
        lowering.readers[graph.input.index()] = 1;
        lowering.tasks.push(gather);
        if let Some(output) = graph.output {
            lowering.readers[output.index()] += 1;
        }
        lowering
    }

    fn op(&mut self, op: &Op) {
        let text = op.to_string();
        match *op {
            Op::Linear { input, weight, bias, output } => {
                let mut task = TaskSpec::new(TaskKind::Linear, Extent::Batch, self.graph.size(output), text);
                task.shape = tile_shape(self.max_rows, task.columns);
                task.depth = Extent::Fixed(self.graph.size(input));
                task.a = Some(self.read(input));
                task.b = Some(Operand::Param(weight));
                let point = match bias {
                    Some(bias) => PointSpec::new(PointOp::AddBias).with(&[Operand::Param(bias)]),
                    None => PointSpec::new(PointOp::Keep),
                };
                self.push(task, point, output);
            }
            Op::LinearGradInput { grad, weight, output } => {
                let mut task = TaskSpec::new(TaskKind::GradInput, Extent::Batch, self.graph.size(output), text);
                task.shape = tile_shape(self.max_rows, task.columns);
                task.depth = Extent::Fixed(self.graph.size(grad));
                task.a = Some(self.read(grad));
                task.b = Some(Operand::Param(weight));
                self.push(task, PointSpec::new(PointOp::Keep), output);
            }
            Op::LinearGradWeight { input, grad, weight, bias, decay, ref extra } => {
                self.grad_weight(&text, (input, grad), extra, weight, decay);
                if let Some(bias) = bias {
                    self.grad_bias(&text, grad, bias, decay);
                }
            }
            Op::ParamNorm { coefficient, ref params } => {
                for &param in params {
                    let mut task = norm_task(self.layout, param, Operand::Param(param), format!("param_norm {param}"));
                    task.loss = Some(LossSpec { term: Term::DecoderL2, weight: 0.5 * coefficient, per_row: false });
                    self.tasks.push(task);
                }
            }
            Op::Noise { .. } | Op::Signs { .. } | Op::UnitVector { .. } | Op::Mask { .. } => {
                self.source_op(op, &text);
            }
            Op::TopK { .. } | Op::MixedReconstruction { .. } | Op::MixedOutput { .. } => self.row_op(op, &text),
            Op::SigmaReconstruction { .. } | Op::KlBounded { .. } | Op::Mmd { .. } => self.coupled_op(op, &text),
            Op::SpectralScale { .. } | Op::ScaleRows { .. } | Op::SpectralGrad { .. } => self.spectral_op(op, &text),
            Op::Update => {}
            Op::Act { .. }
            | Op::Reparameterize { .. }
            | Op::Reconstruction { .. }
            | Op::CollapsedPrior { .. }
            | Op::KlDivergence { .. }
            | Op::CodeL1 { .. }
            | Op::ActGrad { .. }
            | Op::ActGradGrad { .. }
            | Op::ReparameterizeGrad { .. }
            | Op::JacobianNorm { .. }
            | Op::TopKGrad { .. }
            | Op::Observe { .. }
            | Op::Erase { .. }
            | Op::Permute { .. }
            | Op::Shift { .. }
            | Op::Multiply { .. }
            | Op::AddScaled { .. } => self.elementwise_op(op, &text),
        }
    }

    /// Notes that a task reads the value from memory.
    fn read(&mut self, value: ValueId) -> Operand {
        self.readers[value.index()] += 1;
        Operand::Value(value)
    }

    /// Appends a task whose first point gives `output`.
    fn push(&mut self, mut task: TaskSpec, point: PointSpec, output: ValueId) {
        task.points.push(point.storing(Operand::Value(output)));
        self.defined[output.index()] = Some(self.tasks.len());
        self.is_tail[output.index()] = true;
        self.tasks.push(task);
    }

    /// Whether a point on `running` that also reads `others` can join the task that makes `running`.
    fn fits(&self, running: ValueId, others: &[ValueId], loss: &Option<LossSpec>) -> bool {
        let Some(task) = self.defined[running.index()].filter(|_| self.is_tail[running.index()]) else {
            return false;
        };
        let earlier = |value: &ValueId| self.defined[value.index()].is_some_and(|defined| defined <= task);
        let one_term = loss.is_none() || !self.tasks[task].has_partials();
        self.tasks[task].points.len() < MAX_POINTS && one_term && others.iter().all(earlier)
    }

    /// Adds an elementwise op on the running value `running`: to the task that makes it, or as a task of its own.
    fn elementwise(
        &mut self,
        text: &str,
        running: ValueId,
        others: &[ValueId],
        point: PointSpec,
        loss: Option<LossSpec>,
        output: ValueId,
    ) {
        let fits = self.fits(running, others, &loss);
        let operands: Vec<Operand> = others.iter().map(|value| self.read(*value)).collect();
        let point = point.with(&operands).storing(Operand::Value(output));
        let index = match self.defined[running.index()].filter(|_| fits) {
            Some(index) => {
                self.is_tail[running.index()] = false;
                index
            }
            None => self.load(running),
        };
        let task = &mut self.tasks[index];
        task.points.push(point);
        task.loss = task.loss.or(loss);
        if task.ops.last().map(String::as_str) != Some(text) {
            task.ops.push(text.to_owned());
        }
        self.defined[output.index()] = Some(index);
        self.is_tail[output.index()] = true;
    }

    /// Appends a task that loads the value, and returns its index.
    fn load(&mut self, value: ValueId) -> usize {
        let mut task = TaskSpec::new(TaskKind::Pointwise, Extent::Batch, self.graph.size(value), String::new());
        task.ops.clear();
        task.points.push(PointSpec::new(PointOp::Load).with(&[self.read(value)]));
        self.tasks.push(task);
        self.tasks.len() - 1
    }

    fn grad_weight(
        &mut self,
        text: &str,
        (input, grad): (ValueId, ValueId),
        extra: &[(ValueId, ValueId)],
        weight: ParamId,
        decay: f64,
    ) {
        let matrix = self.layout.get(weight);
        let rows = Extent::Fixed(matrix.rows);
        let mut task = TaskSpec::new(TaskKind::GradWeight, rows, matrix.width, text.to_owned());
        task.shape = tile_shape(matrix.rows, matrix.width);
        task.depth = Extent::Batch;
        task.a = Some(self.read(grad));
        task.b = Some(self.read(input));
        task.pairs = extra.iter().map(|&(input, grad)| (self.read(grad), self.read(input))).collect();
        task.points = self.gradient_points(weight, decay);
        self.tasks.push(task);
    }

    fn grad_bias(&mut self, text: &str, grad: ValueId, bias: ParamId, decay: f64) {
        let width = self.layout.get(bias).width;
        let mut task = TaskSpec::new(TaskKind::GradBias, Extent::Fixed(1), width, text.to_owned());
        task.a = Some(self.read(grad));
        task.points = self.gradient_points(bias, decay);
        self.tasks.push(task);
    }

    fn gradient_points(&self, param: ParamId, decay: f64) -> Vec<PointSpec> {
        let mut points = vec![];
        if decay != 0.0 {
            let point = PointSpec { other: decay, ..PointSpec::new(PointOp::AddScaled) };
            points.push(point.with(&[Operand::Param(param)]));
        }
        points.push(match self.gradients {
            Gradients::Update => update_point(self.plan, param),
            Gradients::Store => PointSpec::new(PointOp::Keep).storing(Operand::Grad(param)),
        });
        points
    }

    /// Drops the stores that nobody reads and the points that then do nothing, and sums the loss.
    fn finish(mut self) -> Vec<TaskSpec> {
        let readers = &self.readers;
        for task in &mut self.tasks {
            for point in &mut task.points {
                if let Some(Operand::Value(value)) = point.store
                    && readers[value.index()] == 0
                {
                    point.store = None;
                }
            }
            task.points.retain(|point| point.op != PointOp::Keep || point.store.is_some());
        }
        if self.tasks.iter().any(|task| task.loss.is_some()) {
            let op = "sum of the loss terms".to_owned();
            self.tasks.push(TaskSpec::new(TaskKind::FinishStep, Extent::Fixed(1), 1, op));
        }
        self.tasks
    }
}
