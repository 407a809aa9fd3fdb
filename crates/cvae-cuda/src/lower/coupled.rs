//! Ops whose gradients depend on all rows of the batch: a task that looks at the batch, then one that uses what it
//! found. The second is never fused into an earlier task, because it has to wait for the first.

use cvae_core::{KlBound, Op, Term, ValueId};

use super::Lowering;
use super::elementwise::RECONSTRUCTION;
use super::spec::{Extent, LossSpec, Operand, PointSpec, TaskSpec};
use crate::task::{PointOp, TaskKind};

/// A latent term that is no mean over rows.
fn latent(weight: f64) -> Option<LossSpec> {
    Some(LossSpec { term: Term::Latent, weight, per_row: false })
}

impl Lowering<'_> {
    pub(super) fn coupled_op(&mut self, op: &Op, text: &str) {
        match *op {
            Op::SigmaReconstruction { floor, prediction, target, weights, grad } => {
                let compared: Vec<ValueId> = std::iter::once(target).chain(weights).collect();
                let squares = self.measure(text, prediction, &compared, PointSpec::new(PointOp::SquaredError));
                let columns = self.graph.size(prediction);
                let mut task = TaskSpec::new(TaskKind::SigmaSlope, Extent::Fixed(1), columns, text.to_owned());
                task.a = weights.map(|weights| self.read(weights));
                (task.measured_by, task.bound, task.loss) = (Some(squares), floor, Some(RECONSTRUCTION));
                task.scratch = 1;
                let slope = self.push_scratch(task, PointSpec::new(PointOp::Keep));
                let mut point = PointSpec::new(PointOp::SigmaGrad);
                point.operands = [Some(self.read(target)), weights.map(|weights| self.read(weights)), Some(slope)];
                self.alone(text, prediction, point, grad);
            }
            Op::KlBounded { bound, mean, logvar, mean_grad, logvar_grad, mean_output, logvar_output } => {
                let columns = self.graph.size(mean);
                let mut task = TaskSpec::new(TaskKind::KlSlopes, Extent::Fixed(1), columns, text.to_owned());
                (task.a, task.b) = (Some(self.read(mean)), Some(self.read(logvar)));
                let weight;
                (task.variant, weight, task.bound) = match bound {
                    KlBound::Capacity { gamma, capacity } => (0, gamma, capacity),
                    KlBound::FreeBits { beta, floor } => (1, beta, floor),
                };
                (task.loss, task.scratch) = (latent(weight), columns);
                let slopes = self.push_scratch(task, PointSpec::new(PointOp::Keep).scale(weight));
                for (op, of, grad, output) in [
                    (PointOp::KlMean, mean, mean_grad, mean_output),
                    (PointOp::KlLogvar, logvar, logvar_grad, logvar_output),
                ] {
                    let point = PointSpec::new(op).with(&[self.read(of), slopes]);
                    self.alone(text, grad, point, output);
                }
            }
            Op::Mmd { weight, code, prior, grad, output } => {
                let columns = self.graph.size(code);
                let mut task = TaskSpec::new(TaskKind::Discrepancy, Extent::Batch, columns, text.to_owned());
                (task.a, task.b) = (Some(self.read(code)), Some(self.read(prior)));
                task.loss = latent(weight);
                let point = PointSpec::new(PointOp::Keep).scale(weight).with(&[self.read(grad)]);
                self.push(task, point, output);
                // The task writes its value by itself: nothing can be fused into it.
                self.is_tail[output.index()] = false;
                self.readers[output.index()] += 1;
            }
            _ => unreachable!("{text} does not couple rows"),
        }
    }

    /// Sums `point` on the running value, which it leaves as it is; returns the task with the partial sums.
    fn measure(&mut self, text: &str, running: ValueId, others: &[ValueId], point: PointSpec) -> usize {
        let fits = self.fits(running, others, &Some(RECONSTRUCTION));
        let operands: Vec<Operand> = others.iter().map(|value| self.read(*value)).collect();
        let index = match self.defined[running.index()].filter(|_| fits) {
            Some(index) => index,
            None => self.load(running),
        };
        let task = &mut self.tasks[index];
        task.points.push(point.with(&operands));
        task.measures = true;
        task.ops.push(text.to_owned());
        index
    }

    /// Appends a task that leaves numbers for others, and returns where.
    fn push_scratch(&mut self, mut task: TaskSpec, point: PointSpec) -> Operand {
        let scratch = Operand::Scratch(self.tasks.len(), 0);
        task.points.push(point.storing(scratch));
        self.tasks.push(task);
        scratch
    }

    /// A task of its own for a point on the running value.
    fn alone(&mut self, text: &str, running: ValueId, point: PointSpec, output: ValueId) {
        let index = self.load(running);
        let task = &mut self.tasks[index];
        task.ops.push(text.to_owned());
        task.points.push(point.storing(Operand::Value(output)));
        self.defined[output.index()] = Some(index);
        self.is_tail[output.index()] = true;
    }
}
