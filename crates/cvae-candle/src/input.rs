//! What the encoder reads and what it is compared with. Formulas: docs/MATH.md, section "Corruption".

use candle_core::{Result, Tensor};
use cvae_core::{Corruption, Objective, Stream};

use crate::draws::Draws;

/// The input side of a training pass; constants to autograd.
pub(crate) struct Input {
    /// What the encoder reads, `rows × width`.
    pub(crate) fed: Tensor,
    /// The clean rows.
    pub(crate) target: Tensor,
    /// 0 where the reconstruction term leaves an element out, else 1; absent for 1 everywhere.
    pub(crate) weights: Option<Tensor>,
}

impl Input {
    /// The input of `rows` under `objective`.
    pub(crate) fn new(objective: &Objective, rows: &Tensor, draws: &Draws) -> Result<Self> {
        let (target, observed) = match objective.missing {
            true => (observe(rows)?, Some(rows.eq(rows)?.to_dtype(rows.dtype())?)),
            false => (rows.clone(), None),
        };
        let width = rows.dim(1)?;
        let units = objective.corruption.units(width, &objective.columns);
        let only_observed = |value: Tensor| observed.as_ref().map_or(Ok(value.clone()), |observed| value * observed);
        let erased = |share: f64| draws.marks(share, &units)?.where_cond(&target.zeros_like()?, &target);
        let fed = match objective.corruption {
            corruption if !corruption.is_active() => target.clone(),
            Corruption::None => target.clone(),
            Corruption::Gaussian { std } => only_observed((&target + (draws.normal(Stream::Corrupt, width)? * std)?)?)?,
            Corruption::Masking { share } => erased(share)?,
            Corruption::Permutation { share } => {
                let others = target.gather(&draws.donors(&units)?, 0)?;
                only_observed(draws.marks(share, &units)?.where_cond(&others, &target)?)?
            }
            Corruption::Shift { share, shift } => {
                // One column of zeros more, for what comes from outside.
                let padded = target.pad_with_zeros(1, 0, 1)?;
                let moved = padded.gather(&draws.moves(shift, width)?, 1)?;
                draws.marks(share, &units)?.where_cond(&moved, &target)?
            }
            Corruption::Masked { share, .. } => {
                let marks = draws.marks(share, &units)?.to_dtype(rows.dtype())?;
                let weights = Some(only_observed(marks)?);
                return Ok(Self { fed: erased(share)?, target, weights });
            }
        };
        Ok(Self { fed, target, weights: observed })
    }
}

/// `rows` with 0 for NaN.
pub(crate) fn observe(rows: &Tensor) -> Result<Tensor> {
    rows.eq(rows)?.where_cond(rows, &rows.zeros_like()?)
}
