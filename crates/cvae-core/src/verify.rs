//! The rules that every program keeps.

use crate::columns::ColumnGroup;
use crate::error::{VerifyError, VerifyRule};
use crate::layout::ParamLayout;
use crate::op::Op;
use crate::program::{Graph, ParamId, ValueId};

impl Graph {
    /// Checks shapes, single definition before use and, in a training graph, exactly one gradient per
    /// parameter.
    ///
    /// # Errors
    /// The first op that breaks a rule.
    pub fn verify(&self, layout: &ParamLayout) -> Result<(), VerifyError> {
        let mut defined = vec![false; self.values.len()];
        if let Some(slot) = defined.get_mut(self.input.index()) {
            *slot = true;
        }
        for (index, op) in self.ops.iter().enumerate() {
            let fail = |rule| Err(VerifyError { op: index, rule });
            for value in op.reads() {
                if defined.get(value.index()) != Some(&true) {
                    return fail(VerifyRule::UndefinedValue(value.0));
                }
            }
            for value in op.writes() {
                match defined.get_mut(value.index()) {
                    Some(slot) if !*slot => *slot = true,
                    _ => return fail(VerifyRule::Redefinition(value.0)),
                }
            }
            if let Err(rule) = self.verify_shapes(op, layout) {
                return fail(rule);
            }
        }
        match self.output {
            Some(value) if defined.get(value.index()) != Some(&true) => {
                Err(VerifyError { op: self.ops.len(), rule: VerifyRule::UndefinedValue(value.0) })
            }
            Some(_) => Ok(()),
            None => self.verify_gradients(layout),
        }
    }

    fn verify_shapes(&self, op: &Op, layout: &ParamLayout) -> Result<(), VerifyRule> {
        let expect = |value: ValueId, expected: usize| match self.size(value) {
            found if found == expected => Ok(()),
            found => Err(VerifyRule::Size { value: value.0, expected, found }),
        };
        let linear = |weight: ParamId, bias: Option<ParamId>, input: ValueId, output: ValueId| {
            let shape = layout.get(weight).map(|param| param.shape.as_slice());
            let Some(&[rows, columns]) = shape else {
                return Err(VerifyRule::Param(weight.0));
            };
            if let Some(bias) = bias
                && layout.get(bias).map(|param| param.shape.as_slice()) != Some(&[rows])
            {
                return Err(VerifyRule::Param(bias.0));
            }
            expect(input, columns)?;
            expect(output, rows)
        };
        match *op {
            Op::Linear { input, weight, bias, output } => linear(weight, bias, input, output),
            Op::LinearGradInput { grad, weight, output } => linear(weight, None, output, grad),
            Op::LinearGradWeight { input, grad, weight, bias, ref extra, .. } => {
                linear(weight, bias, input, grad)?;
                extra.iter().try_for_each(|(input, grad)| linear(weight, None, *input, *grad))
            }
            Op::SpectralScale { weight, scale, left, right, .. } => {
                let shape = layout.get(weight).map(|param| param.shape.as_slice());
                let Some(&[rows, columns]) = shape else {
                    return Err(VerifyRule::Param(weight.0));
                };
                expect(scale, 1)?;
                left.map_or(Ok(()), |left| expect(left, rows))?;
                right.map_or(Ok(()), |right| expect(right, columns))
            }
            Op::ScaleRows { input, scale, output } => {
                expect(scale, 1)?;
                expect(output, self.size(input))
            }
            Op::SpectralGrad { grad, input, scale, left, output } => {
                expect(scale, 1)?;
                expect(input, self.size(grad))?;
                expect(output, self.size(left))
            }
            Op::ParamNorm { ref params, .. } => match params.iter().find(|param| layout.get(**param).is_none()) {
                Some(param) => Err(VerifyRule::Param(param.0)),
                None => Ok(()),
            },
            _ => {
                let operands = [op.reads(), op.writes()].concat();
                let size = operands.first().map_or(0, |value| self.size(*value));
                operands.into_iter().try_for_each(|value| expect(value, size))?;
                verify_columns(op, size)
            }
        }
    }

    fn verify_gradients(&self, layout: &ParamLayout) -> Result<(), VerifyError> {
        let mut counts = vec![0usize; layout.params().len()];
        for op in &self.ops {
            if let Op::LinearGradWeight { weight, bias, .. } = op {
                counts[weight.index()] += 1;
                if let Some(bias) = bias {
                    counts[bias.index()] += 1;
                }
            }
        }
        match counts.iter().position(|count| *count != 1) {
            Some(param) => {
                let rule = VerifyRule::GradientCount { param: param as u32, count: counts[param] };
                Err(VerifyError { op: self.ops.len(), rule })
            }
            None => Ok(()),
        }
    }
}

/// The tables of columns and the positions of an op fit rows of `size` elements.
fn verify_columns(op: &Op, size: usize) -> Result<(), VerifyRule> {
    let covered = |columns: &[ColumnGroup]| columns.iter().map(|group| group.width).sum::<usize>();
    let (expected, fits) = match op {
        Op::Mask { units, .. } | Op::Permute { units, .. } => (units.len(), units.len() == size),
        Op::Shift { shift, .. } => (shift.width.saturating_mul(shift.channels), shift.fits(size)),
        Op::MixedReconstruction { columns, .. } | Op::MixedOutput { columns, .. } => {
            (covered(columns), covered(columns) == size)
        }
        Op::TopK { k, .. } => (*k, (1..=size).contains(k)),
        Op::UnitVector { index, .. } => (index + 1, *index < size),
        _ => return Ok(()),
    };
    if fits { Ok(()) } else { Err(VerifyRule::Columns { expected, found: size }) }
}
