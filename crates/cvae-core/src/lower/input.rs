//! From the batch to what the encoder reads, what it is compared with, and where.

use crate::corruption::Corruption;
use crate::lower::builder::Builder;
use crate::objective::Objective;
use crate::op::Op;
use crate::program::ValueId;
use crate::rng::Stream;

/// The input side of a training graph.
pub(super) struct Input {
    /// What the encoder reads.
    pub(super) fed: ValueId,
    /// What the reconstruction is compared with.
    pub(super) target: ValueId,
    /// Which elements the reconstruction term counts; all if absent.
    pub(super) weights: Option<ValueId>,
}

/// Emits the handling of missing values and the corruption.
pub(super) fn training(b: &mut Builder<'_>, objective: &Objective) -> Input {
    let rows = b.graph.input;
    let (target, observed) = match objective.missing {
        true => {
            let (output, weights) = (b.like(rows), b.like(rows));
            b.push(Op::Observe { input: rows, output, weights: Some(weights) });
            (output, Some(weights))
        }
        false => (rows, None),
    };
    if !objective.corruption.is_active() {
        return Input { fed: target, target, weights: observed };
    }
    let units = objective.corruption.units(b.graph.size(rows), &objective.columns);
    let mut mask = |share, units| b.emit(target, |output| Op::Mask { share, units, output });
    match objective.corruption {
        Corruption::None => Input { fed: target, target, weights: observed },
        Corruption::Gaussian { std } => {
            let noise = b.emit(target, |output| Op::Noise { stream: Stream::Corrupt, output });
            let fed = b.emit(target, |output| Op::AddScaled { a: target, b: noise, scale: std, output });
            Input { fed: only_observed(b, fed, observed), target, weights: observed }
        }
        Corruption::Masking { share } => {
            let mask = mask(share, units);
            let fed = b.emit(target, |output| Op::Erase { input: target, mask, output });
            Input { fed, target, weights: observed }
        }
        Corruption::Permutation { share } => {
            let mask = mask(share, units.clone());
            let fed = b.emit(target, |output| Op::Permute { input: target, mask, units, output });
            Input { fed: only_observed(b, fed, observed), target, weights: observed }
        }
        Corruption::Shift { share, shift } => {
            let mask = mask(share, units);
            let fed = b.emit(target, |output| Op::Shift { input: target, mask, shift, output });
            Input { fed, target, weights: observed }
        }
        Corruption::Masked { share, .. } => {
            let mask = mask(share, units);
            let fed = b.emit(target, |output| Op::Erase { input: target, mask, output });
            Input { fed, target, weights: Some(only_observed(b, mask, observed)) }
        }
    }
}

/// `value` with 0 where nothing was observed.
fn only_observed(b: &mut Builder<'_>, value: ValueId, observed: Option<ValueId>) -> ValueId {
    match observed {
        Some(weights) => b.emit(value, |output| Op::Multiply { a: value, b: weights, output }),
        None => value,
    }
}
