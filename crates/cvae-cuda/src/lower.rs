//! From a core graph to tasks: one task per matrix product or reduction, the elementwise ops fused into the task
//! that makes their operand.

use cvae_core::{Algorithm, Graph, Op, ParamId, Plan, Reconstruction, Term, ValueId};

use crate::layout::PaddedLayout;
use crate::task::{MAX_POINTS, PointOp, TaskKind, TileShape};

/// Memory that tasks read and write; also the unit in which their order is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    /// A value of the graph, `rows × width`.
    Value(ValueId),
    /// A parameter.
    Param(ParamId),
    /// Its first moment.
    Moment1(ParamId),
    /// Its second moment.
    Moment2(ParamId),
    /// Its gradient.
    Grad(ParamId),
    /// The partial sums of a task.
    Partials(usize),
    /// The loss accumulator.
    Losses,
}

/// A length that is fixed, or the number of rows of the batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Batch,
    Fixed(usize),
}

/// One elementwise operation of a task.
#[derive(Clone, Debug)]
pub(crate) struct PointSpec {
    pub(crate) op: PointOp,
    pub(crate) variant: u32,
    pub(crate) scale: f64,
    pub(crate) other: f64,
    pub(crate) operands: [Option<Operand>; 3],
    /// Where the running value goes afterwards.
    pub(crate) store: Option<Operand>,
}

impl PointSpec {
    fn new(op: PointOp) -> Self {
        Self { op, variant: 0, scale: 1.0, other: 0.0, operands: [None; 3], store: None }
    }

    fn with(mut self, operands: &[Operand]) -> Self {
        for (slot, operand) in self.operands.iter_mut().zip(operands) {
            *slot = Some(*operand);
        }
        self
    }

    fn variant(mut self, variant: u32) -> Self {
        self.variant = variant;
        self
    }

    fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    fn storing(mut self, operand: Operand) -> Self {
        self.store = Some(operand);
        self
    }
}

/// What the partial sums of a task are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LossSpec {
    pub(crate) term: Term,
    /// Factor of the sum in the loss.
    pub(crate) weight: f64,
    /// Whether the term is a mean over rows.
    pub(crate) per_row: bool,
}

/// One task, with symbolic operands.
#[derive(Clone, Debug)]
pub(crate) struct TaskSpec {
    /// The ops it computes, as the program prints them.
    pub(crate) ops: Vec<String>,
    pub(crate) kind: TaskKind,
    pub(crate) shape: TileShape,
    pub(crate) rows: Extent,
    pub(crate) columns: usize,
    pub(crate) depth: Extent,
    pub(crate) a: Option<Operand>,
    pub(crate) b: Option<Operand>,
    pub(crate) points: Vec<PointSpec>,
    pub(crate) loss: Option<LossSpec>,
    /// Whether it leaves partial sums of squared gradients.
    pub(crate) measures_norm: bool,
    /// Tasks whose partial sums give the norm that this task clips by.
    pub(crate) clip_by: Vec<usize>,
}

impl TaskSpec {
    fn new(kind: TaskKind, rows: Extent, columns: usize, op: String) -> Self {
        Self {
            ops: vec![op],
            kind,
            shape: TileShape::Small,
            rows,
            columns,
            depth: Extent::Fixed(1),
            a: None,
            b: None,
            points: vec![],
            loss: None,
            measures_norm: false,
            clip_by: vec![],
        }
    }

    /// Whether the task writes partial sums.
    pub(crate) fn has_partials(&self) -> bool {
        self.loss.is_some() || self.measures_norm
    }
}

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
    for op in graph.ops.iter().zip(live).filter_map(|(op, live)| live.then_some(op)) {
        lowering.op(op);
    }
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
            task.measures_norm = true;
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
            Op::LinearGradWeight { input, grad, weight, bias, decay, .. } => {
                self.grad_weight(&text, input, grad, weight, decay);
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
            Op::Noise { stream, output } => {
                let task = TaskSpec::new(TaskKind::Pointwise, Extent::Batch, self.graph.size(output), text);
                self.push(task, PointSpec::new(PointOp::Noise).variant(stream as u32), output);
            }
            Op::Update => {}
            Op::Act { .. }
            | Op::Reparameterize { .. }
            | Op::Reconstruction { .. }
            | Op::CollapsedPrior { .. }
            | Op::KlDivergence { .. }
            | Op::ActGrad { .. }
            | Op::ReparameterizeGrad { .. }
            | Op::AddScaled { .. } => self.elementwise_op(op, &text),
            Op::Mask { .. }
            | Op::Erase { .. }
            | Op::Permute { .. }
            | Op::Observe { .. }
            | Op::Multiply { .. }
            | Op::TopK { .. }
            | Op::TopKGrad { .. }
            | Op::SigmaReconstruction { .. }
            | Op::MixedReconstruction { .. }
            | Op::MixedOutput { .. }
            | Op::KlBounded { .. }
            | Op::CodeL1 { .. }
            | Op::Mmd { .. }
            | Op::Signs { .. }
            | Op::UnitVector { .. }
            | Op::JacobianNorm { .. }
            | Op::ActGradGrad { .. } => unreachable!("{text} is refused by `supports`"),
        }
    }

    fn elementwise_op(&mut self, op: &Op, text: &str) {
        let new = PointSpec::new;
        let latent = |beta: f64| Some(LossSpec { term: Term::Latent, weight: beta, per_row: true });
        match *op {
            Op::Act { activation, input, output } => {
                self.elementwise(text, input, &[], new(PointOp::Activate).variant(activation as u32), None, output);
            }
            Op::ActGrad { activation, saved, grad, output } => {
                let point = new(PointOp::ActivateGrad).variant(activation as u32);
                self.elementwise(text, grad, &[saved], point, None, output);
            }
            Op::Reconstruction { kind, prediction, target, grad, .. } => {
                let (variant, parameter) = match kind {
                    Reconstruction::MseSum => (0, 0.0),
                    Reconstruction::MseMean => (1, 1.0 / self.graph.size(prediction) as f64),
                    Reconstruction::Bce => (2, 0.0),
                    Reconstruction::L1 => (3, 0.0),
                    Reconstruction::Huber { delta } => (4, delta),
                };
                let point = new(PointOp::ReconstructionGrad).variant(variant).scale(parameter);
                let loss = LossSpec { term: Term::Reconstruction, weight: 1.0, per_row: true };
                self.elementwise(text, prediction, &[target], point, Some(loss), grad);
            }
            Op::CollapsedPrior { beta, code, grad, output } => {
                let point = new(PointOp::CollapsedPrior).scale(beta);
                self.elementwise(text, grad, &[code], point, latent(beta), output);
            }
            Op::KlDivergence { beta, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output } => {
                let point = new(PointOp::KlLogvar).scale(beta);
                self.elementwise(text, logvar_grad, &[logvar], point, latent(beta), logvar_output);
                let point = new(PointOp::KlMean).scale(beta);
                self.elementwise(text, mean_grad, &[mean], point, latent(beta), mean_output);
            }
            Op::Reparameterize { mean, logvar, noise, output } => {
                self.elementwise(text, noise, &[mean, logvar], new(PointOp::Reparameterize), None, output);
            }
            Op::ReparameterizeGrad { grad, logvar, noise, output } => {
                self.elementwise(text, grad, &[logvar, noise], new(PointOp::ReparameterizeGrad), None, output);
            }
            Op::AddScaled { a, b, scale, output } => {
                let point = new(PointOp::AddScaled);
                match self.fits(b, &[a], &None) {
                    true => {
                        let point = PointSpec { scale, other: 1.0, ..point };
                        self.elementwise(text, b, &[a], point, None, output);
                    }
                    false => {
                        let point = PointSpec { scale: 1.0, other: scale, ..point };
                        self.elementwise(text, a, &[b], point, None, output);
                    }
                }
            }
            _ => unreachable!("{text} is not elementwise"),
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
        let one_term = loss.is_none() || self.tasks[task].loss.is_none();
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
            None => {
                let mut task =
                    TaskSpec::new(TaskKind::Pointwise, Extent::Batch, self.graph.size(output), String::new());
                task.ops.clear();
                task.points.push(PointSpec::new(PointOp::Load).with(&[self.read(running)]));
                self.tasks.push(task);
                self.tasks.len() - 1
            }
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

    fn grad_weight(&mut self, text: &str, input: ValueId, grad: ValueId, weight: ParamId, decay: f64) {
        let matrix = self.layout.get(weight);
        let rows = Extent::Fixed(matrix.rows);
        let mut task = TaskSpec::new(TaskKind::GradWeight, rows, matrix.width, text.to_owned());
        task.shape = tile_shape(matrix.rows, matrix.width);
        task.depth = Extent::Batch;
        task.a = Some(self.read(grad));
        task.b = Some(self.read(input));
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
