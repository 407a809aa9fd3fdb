//! Weights divided by their largest singular value. The values of a search have equal rows, of which one is kept.

use cvae_core::{Op, ValueId};

use super::Lowering;
use super::spec::{Extent, Operand, PointSpec, TaskSpec};
use crate::layout::leading;
use crate::task::{PointOp, TaskKind};

impl Lowering<'_> {
    pub(super) fn spectral_op(&mut self, op: &Op, text: &str) {
        match *op {
            Op::SpectralScale { weight, iterations, scale, left, right } => {
                let matrix = self.layout.get(weight);
                let mut task = TaskSpec::new(TaskKind::Spectral, Extent::Fixed(1), matrix.width, text.to_owned());
                (task.depth, task.b) = (Extent::Fixed(matrix.rows), Some(Operand::Param(weight)));
                (task.variant, task.iterations) = (weight.0, iterations);
                let (index, first_left) = (self.tasks.len(), leading(1));
                let first_right = first_left + leading(matrix.rows);
                task.scratch = first_right + leading(matrix.width);
                let at = |element| Operand::Scratch(index, element);
                let mut point = PointSpec::new(PointOp::Keep).storing(at(0));
                point.operands = [None, Some(at(first_left)), Some(at(first_right))];
                task.points.push(point);
                self.tasks.push(task);
                self.rows[scale.index()] = Some(at(0));
                if let Some(left) = left {
                    self.rows[left.index()] = Some(at(first_left));
                }
                if let Some(right) = right {
                    // A product reads it row by row.
                    let task = TaskSpec::new(TaskKind::Pointwise, Extent::Batch, matrix.width, text.to_owned());
                    self.push(task, PointSpec::new(PointOp::AddBias).with(&[at(first_right)]), right);
                }
            }
            Op::ScaleRows { input, scale, output } => {
                let mut point = PointSpec::new(PointOp::Scale);
                point.operands[0] = self.row(scale);
                self.elementwise(text, input, &[], point, None, output);
            }
            Op::SpectralGrad { grad, input, scale, left, output } => {
                let columns = self.graph.size(output);
                let mut task = TaskSpec::new(TaskKind::SpectralGrad, Extent::Batch, columns, text.to_owned());
                task.depth = Extent::Fixed(self.graph.size(input));
                (task.a, task.b) = (Some(self.read(grad)), Some(self.read(input)));
                let mut point = PointSpec::new(PointOp::Keep);
                (point.operands[0], point.operands[1]) = (self.row(scale), self.row(left));
                self.push(task, point, output);
                // The task writes its value by itself: nothing can be fused into it.
                self.is_tail[output.index()] = false;
                self.readers[output.index()] += 1;
            }
            _ => unreachable!("{text} is no op of the spectral norm"),
        }
    }

    /// Where the one row of a value lies whose rows are all equal.
    fn row(&self, value: ValueId) -> Option<Operand> {
        match self.rows[value.index()] {
            Some(operand) => Some(operand),
            None => unreachable!("{value} is a value of a search, which was lowered first"),
        }
    }
}
