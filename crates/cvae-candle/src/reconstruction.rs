//! Reconstruction terms, averaged over rows and differentiated by candle. Formulas: docs/MATH.md.

use candle_core::{Result, Tensor};
use cvae_core::{ColumnGroup, ColumnKind, Reconstruction};

use crate::Precision;
use crate::activation::sigmoid;

/// What a reconstruction term compares, each `rows × width`.
pub(crate) struct Compared<'a> {
    /// The decoder's output; logits where the term takes them.
    pub(crate) prediction: &'a Tensor,
    /// The clean rows.
    pub(crate) target: &'a Tensor,
    /// Factor of each element, 0 or 1; absent for 1 everywhere.
    pub(crate) weights: Option<&'a Tensor>,
}

impl Compared<'_> {
    /// The term with one comparison for all columns.
    pub(crate) fn whole(&self, precision: Precision, kind: Reconstruction) -> Result<Tensor> {
        let Self { prediction, target, weights } = self;
        let (rows, width) = prediction.dims2()?;
        match (precision, weights) {
            (Precision::F32, None) => idiomatic(kind, prediction, target),
            _ => self.weighted(elements(kind, prediction, target, width)?)?.sum_all()? / rows as f64,
        }
    }

    /// The term of a learnt variance; `None` if nothing was observed.
    pub(crate) fn learnt_variance(&self, floor: f64) -> Result<Option<Tensor>> {
        let (rows, width) = self.prediction.dims2()?;
        let count = match self.weights {
            Some(weights) => weights.to_dtype(candle_core::DType::F64)?.sum_all()?.to_scalar::<f64>()?,
            None => (rows * width) as f64,
        };
        if count == 0.0 {
            return Ok(None);
        }
        let squares = self.weighted((self.prediction - self.target)?.sqr()?)?.sum_all()?;
        let variance = squares.affine(1.0 / count, floor)?;
        (variance.log()? * (0.5 * count / rows as f64)).map(Some)
    }

    /// The term of groups of columns; `kind` compares the numeric ones.
    pub(crate) fn groups(&self, kind: Reconstruction, columns: &[ColumnGroup]) -> Result<Tensor> {
        let (rows, width) = self.prediction.dims2()?;
        let mut total = Tensor::zeros((), self.prediction.dtype(), self.prediction.device())?;
        for (group, range) in ColumnGroup::ranges(columns) {
            let part = |tensor: &Tensor| tensor.narrow(1, range.start, range.len());
            let (prediction, target) = (part(self.prediction)?, part(self.target)?);
            let weights = self.weights.map(part).transpose()?;
            let group_of = Compared { prediction: &prediction, target: &target, weights: weights.as_ref() };
            let sum = match group.kind {
                ColumnKind::Numeric => group_of.weighted(elements(kind, &prediction, &target, width)?)?,
                ColumnKind::Binary => group_of.weighted(elements(Reconstruction::Bce, &prediction, &target, width)?)?,
                ColumnKind::Categorical => group_of.surprise()?,
            };
            total = (total + (sum.sum_all()? * (group.weight / rows as f64))?)?;
        }
        Ok(total)
    }

    /// `t·(ln Σ e^u − u)` of each element of a categorical group, in rows where all of its elements count.
    fn surprise(&self) -> Result<Tensor> {
        let losses = (self.target * log_normalizer(self.prediction)?.broadcast_sub(self.prediction)?)?;
        match self.weights {
            Some(weights) => losses.broadcast_mul(&weights.min_keepdim(1)?),
            None => Ok(losses),
        }
    }

    fn weighted(&self, losses: Tensor) -> Result<Tensor> {
        self.weights.map_or(Ok(losses.clone()), |weights| losses * weights)
    }
}

/// `ln Σ e^u` of each row, `rows × 1`, shifted by the row's largest logit, which is a constant to autograd.
fn log_normalizer(logits: &Tensor) -> Result<Tensor> {
    let largest = logits.max_keepdim(1)?.detach();
    logits.broadcast_sub(&largest)?.exp()?.sum_keepdim(1)?.log()? + largest
}

/// From the decoder's output to rows: numeric columns as they are, the sigmoid of binary ones, the softmax of each
/// categorical group.
pub(crate) fn mixed_output(columns: &[ColumnGroup], output: &Tensor) -> Result<Tensor> {
    if columns.iter().all(|group| group.kind == ColumnKind::Numeric) {
        return Ok(output.clone());
    }
    let group = |(group, range): (ColumnGroup, std::ops::Range<usize>)| {
        let part = output.narrow(1, range.start, range.len())?;
        match group.kind {
            ColumnKind::Numeric => Ok(part),
            ColumnKind::Binary => sigmoid(&part),
            ColumnKind::Categorical => part.broadcast_sub(&log_normalizer(&part)?)?.exp(),
        }
    };
    let parts = ColumnGroup::ranges(columns).map(group).collect::<Result<Vec<_>>>()?;
    Tensor::cat(&parts, 1)
}

/// The term as a candle user writes it; candle_nn's losses are means over all elements.
fn idiomatic(kind: Reconstruction, prediction: &Tensor, target: &Tensor) -> Result<Tensor> {
    let (rows, width) = prediction.dims2()?;
    let (rows, width) = (rows as f64, width as f64);
    match kind {
        Reconstruction::MseSum => candle_nn::loss::mse(prediction, target)? * (0.5 * width),
        Reconstruction::MseMean => candle_nn::loss::mse(prediction, target),
        Reconstruction::L1 => (prediction - target)?.abs()?.sum_all()? / rows,
        Reconstruction::Huber { delta } => candle_nn::loss::huber(prediction, target, delta)? * width,
        // candle_nn's cross-entropy takes the logarithm of a sigmoid and overflows.
        Reconstruction::Bce => cross_entropy(prediction, target)?.sum_all()? / rows,
    }
}

/// Each element's loss, written out, in a row of `width`; for cross-entropy the prediction is the logits.
fn elements(kind: Reconstruction, prediction: &Tensor, target: &Tensor, width: usize) -> Result<Tensor> {
    let error = (prediction - target)?;
    match kind {
        Reconstruction::MseSum => error.sqr()? * 0.5,
        Reconstruction::MseMean => error.sqr()? / width as f64,
        Reconstruction::Bce => cross_entropy(prediction, target),
        // `sign` is a constant to autograd, and 0 at 0.
        Reconstruction::L1 => &error * error.sign()?,
        Reconstruction::Huber { delta } => {
            // ½c² + δ(|e| − |c|) with c = e clamped to ±δ; the clamped part has no gradient of its own.
            let inside = error.abs()?.le(delta)?.to_dtype(error.dtype())?;
            let outside = inside.affine(-1.0, 1.0)?;
            let quadratic = ((&error * inside)?.sqr()? * 0.5)?;
            let linear = (((&error * error.sign()?)? * delta)? - 0.5 * delta * delta)?;
            quadratic + (linear * outside)?
        }
    }
}

/// `max(u, 0) − u·x + ln(1 + e^−|u|)`. At u = 0 candle's derivatives of `relu` (1) and `abs` (1) add up to the
/// right ½ − x.
fn cross_entropy(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
    softplus - (logits * target)?
}
