//! Ops on elements: points of the task that makes their operand, or tasks of their own.

use cvae_core::{ColumnGroup, ColumnKind, Op, Reconstruction, Term, ValueId, rng};

use super::Lowering;
use super::spec::{Extent, LossSpec, Operand, PointSpec, TaskSpec};
use crate::task::{PointOp, TaskKind};

/// The reconstruction term: a mean over rows.
pub(super) const RECONSTRUCTION: LossSpec = LossSpec { term: Term::Reconstruction, weight: 1.0, per_row: true };

impl Lowering<'_> {
    pub(super) fn elementwise_op(&mut self, op: &Op, text: &str) {
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
            Op::Reconstruction { kind, prediction, target, weights, grad } => {
                let (variant, parameter) = self.comparison(kind, prediction);
                let point = new(PointOp::ReconstructionGrad).variant(variant).scale(parameter);
                let others: Vec<ValueId> = std::iter::once(target).chain(weights).collect();
                self.elementwise(text, prediction, &others, point, Some(RECONSTRUCTION), grad);
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
            Op::CodeL1 { weight, code, grad, output } => {
                let point = new(PointOp::CodeL1).scale(weight);
                self.elementwise(text, grad, &[code], point, latent(weight), output);
            }
            Op::Observe { input, output, weights } => {
                if let Some(weights) = weights {
                    self.elementwise(text, input, &[], new(PointOp::Observed), None, weights);
                }
                self.elementwise(text, input, &[], new(PointOp::Observe), None, output);
            }
            Op::Erase { input, mask, output } => {
                self.elementwise(text, mask, &[input], new(PointOp::Erase), None, output);
            }
            // Other rows of the input are read too: another task has stored it, because a task of marks begins
            // with them.
            Op::Permute { input, mask, ref units, output } => {
                let point = new(PointOp::Permute).table(units.clone());
                self.elementwise(text, mask, &[input], point, None, output);
            }
            // Other columns are read too, as above.
            Op::Shift { input, mask, shift, output } => {
                let table = [shift.distance, shift.width, shift.channels].map(|size| size as u32);
                let point = new(PointOp::Shift).table(table.to_vec());
                self.elementwise(text, mask, &[input], point, None, output);
            }
            Op::TopKGrad { code, grad, output } => {
                self.elementwise(text, grad, &[code], new(PointOp::TopKGrad), None, output);
            }
            Op::JacobianNorm { weight, input, output } => {
                let loss = LossSpec { term: Term::Jacobian, weight, per_row: true };
                self.elementwise(text, input, &[], new(PointOp::JacobianNorm).scale(weight), Some(loss), output);
            }
            Op::ActGradGrad { activation, saved, cotangent, adjoint, grad, output } => {
                let point = new(PointOp::ActivateGradGrad).variant(activation as u32);
                self.elementwise(text, grad, &[saved, cotangent, adjoint], point, None, output);
            }
            Op::Multiply { a, b, output } => {
                let (running, other) = if self.fits(b, &[a], &None) { (b, a) } else { (a, b) };
                self.elementwise(text, running, &[other], new(PointOp::Multiply), None, output);
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

    /// Ops that make their values from nothing but positions and random words.
    pub(super) fn source_op(&mut self, op: &Op, text: &str) {
        let new = PointSpec::new;
        let (point, output) = match *op {
            Op::Noise { stream, output } => (new(PointOp::Noise).variant(stream as u32), output),
            Op::Signs { stream, output } => (new(PointOp::Signs).variant(stream as u32), output),
            Op::UnitVector { index, output } => (new(PointOp::UnitVector).variant(index as u32), output),
            Op::Mask { share, ref units, output } => {
                (new(PointOp::Mask).variant(rng::share_threshold(share)).table(units.clone()), output)
            }
            _ => unreachable!("{text} has an operand"),
        };
        let task = TaskSpec::new(TaskKind::Pointwise, Extent::Batch, self.graph.size(output), text.to_owned());
        self.push(task, point, output);
    }

    /// Ops whose elements depend on whole rows of their operand, which another task has stored.
    pub(super) fn row_op(&mut self, op: &Op, text: &str) {
        let new = PointSpec::new;
        let pointwise = |columns| TaskSpec::new(TaskKind::Pointwise, Extent::Batch, columns, text.to_owned());
        match *op {
            Op::TopK { k, input, output } => {
                let mut task = pointwise(self.graph.size(output));
                let rows = self.read(input);
                task.points.push(new(PointOp::Load).with(&[rows]));
                let k = u32::try_from(k).unwrap_or(u32::MAX);
                self.push(task, new(PointOp::TopK).variant(k).with(&[rows]), output);
            }
            Op::MixedReconstruction { kind, ref columns, prediction, target, weights, grad } => {
                let mut task = pointwise(self.graph.size(grad));
                task.a = Some(self.read(prediction));
                task.loss = Some(RECONSTRUCTION);
                let (variant, parameter) = self.comparison(kind, prediction);
                let operands: Vec<Operand> =
                    std::iter::once(target).chain(weights).map(|value| self.read(value)).collect();
                let point = new(PointOp::MixedGrad).variant(variant).scale(parameter);
                self.push(task, point.with(&operands).table(column_table(columns)), grad);
            }
            Op::MixedOutput { ref columns, input, output } => {
                let mut task = pointwise(self.graph.size(output));
                task.a = Some(self.read(input));
                self.push(task, new(PointOp::MixedOutput).table(column_table(columns)), output);
            }
            _ => unreachable!("{text} looks at elements alone"),
        }
    }

    /// The number of a comparison in `kernels/reconstruction.cu`, and its parameter.
    fn comparison(&self, kind: Reconstruction, prediction: ValueId) -> (u32, f64) {
        match kind {
            Reconstruction::MseSum => (0, 0.0),
            Reconstruction::MseMean => (1, 1.0 / self.graph.size(prediction) as f64),
            Reconstruction::Bce => (2, 0.0),
            Reconstruction::L1 => (3, 0.0),
            Reconstruction::Huber { delta } => (4, delta),
        }
    }
}

/// The group of each column, as `ColumnGroup` of `kernels/task.cuh`.
fn column_table(columns: &[ColumnGroup]) -> Vec<u32> {
    let mut table = vec![];
    for (group, range) in ColumnGroup::ranges(columns) {
        let kind = match group.kind {
            ColumnKind::Numeric => 0,
            ColumnKind::Binary => 1,
            ColumnKind::Categorical => 2,
        };
        let entry = [kind, range.start as u32, group.width as u32, (group.weight as f32).to_bits()];
        table.extend(range.flat_map(|_| entry));
    }
    table
}
