//! Tasks with symbolic operands.

use cvae_core::{ParamId, Term, ValueId};

use crate::task::{PointOp, TaskKind, TileShape};

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
    /// What a task found of the whole batch or of a weight, from an element on.
    Scratch(usize, usize),
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
    /// Constants, some words per column; they take the place of the third operand.
    pub(crate) table: Vec<u32>,
    /// Where the running value goes afterwards.
    pub(crate) store: Option<Operand>,
}

impl PointSpec {
    pub(crate) fn new(op: PointOp) -> Self {
        Self { op, variant: 0, scale: 1.0, other: 0.0, operands: [None; 3], table: vec![], store: None }
    }

    pub(crate) fn with(mut self, operands: &[Operand]) -> Self {
        for (slot, operand) in self.operands.iter_mut().zip(operands) {
            *slot = Some(*operand);
        }
        self
    }

    pub(crate) fn variant(mut self, variant: u32) -> Self {
        self.variant = variant;
        self
    }

    pub(crate) fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }

    pub(crate) fn table(mut self, table: Vec<u32>) -> Self {
        self.table = table;
        self
    }

    pub(crate) fn storing(mut self, operand: Operand) -> Self {
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
    /// Operands of further products that are added.
    pub(crate) pairs: Vec<(Operand, Operand)>,
    pub(crate) points: Vec<PointSpec>,
    pub(crate) loss: Option<LossSpec>,
    /// Whether it leaves partial sums for another task.
    pub(crate) measures: bool,
    /// Tasks whose partial sums give the norm that this task clips by.
    pub(crate) clip_by: Vec<usize>,
    /// The task whose partial sums this task needs.
    pub(crate) measured_by: Option<usize>,
    /// Floats that the task leaves for others, where it is one that looks at the whole batch or at a weight.
    pub(crate) scratch: usize,
    /// Capacity or floor of a term of the whole batch.
    pub(crate) bound: f64,
    pub(crate) variant: u32,
    /// Iterations of a search.
    pub(crate) iterations: u32,
}

impl TaskSpec {
    pub(crate) fn new(kind: TaskKind, rows: Extent, columns: usize, op: String) -> Self {
        Self {
            ops: vec![op],
            kind,
            shape: TileShape::Small,
            rows,
            columns,
            depth: Extent::Fixed(1),
            a: None,
            b: None,
            pairs: vec![],
            points: vec![],
            loss: None,
            measures: false,
            clip_by: vec![],
            measured_by: None,
            scratch: 0,
            bound: 0.0,
            variant: 0,
            iterations: 0,
        }
    }

    /// Whether the task writes partial sums.
    pub(crate) fn has_partials(&self) -> bool {
        self.loss.is_some() || self.measures
    }
}
