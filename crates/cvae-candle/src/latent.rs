//! Latent terms and the decoder regulariser, differentiated by candle. Formulas: docs/MATH.md.

use candle_core::{DType, Result, Tensor, Var};
use cvae_core::Latent;

/// `beta · ½‖z‖²`, averaged over rows.
pub(crate) fn collapsed_prior(beta: f64, code: &Tensor) -> Result<Tensor> {
    let rows = code.dim(0)? as f64;
    code.sqr()?.sum_all()? * (0.5 * beta / rows)
}

/// `beta · ½Σ(μ² + e^s − 1 − s)`, averaged over rows; `logvar` is already clamped.
pub(crate) fn kl_divergence(beta: f64, mean: &Tensor, logvar: &Tensor) -> Result<Tensor> {
    let rows = mean.dim(0)? as f64;
    let excess = ((logvar.exp()? - 1.0)? - logvar)?;
    (mean.sqr()? + excess)?.sum_all()? * (0.5 * beta / rows)
}

/// The divergence of each dimension, averaged over rows: `[latent]`. `logvar` is already clamped.
fn divergences(mean: &Tensor, logvar: &Tensor) -> Result<Tensor> {
    let excess = ((logvar.exp()? - 1.0)? - logvar)?;
    ((mean.sqr()? + excess)? * 0.5)?.mean(0)
}

/// `gamma · |K − capacity|` with `K` the divergence averaged over rows; slope 0 at the capacity itself.
pub(crate) fn capacity(gamma: f64, capacity: f64, mean: &Tensor, logvar: &Tensor) -> Result<Tensor> {
    let excess = (divergences(mean, logvar)?.sum_all()? - capacity)?;
    (&excess * excess.sign()?)? * gamma
}

/// `beta · Σ_j max(floor, K_j)`; no gradient where the floor decides.
pub(crate) fn free_bits(beta: f64, floor: f64, mean: &Tensor, logvar: &Tensor) -> Result<Tensor> {
    let divergences = divergences(mean, logvar)?;
    let above = divergences.gt(floor)?.to_dtype(divergences.dtype())?;
    let floors = above.affine(-floor, floor)?;
    ((divergences * above)? + floors)?.sum_all()? * beta
}

/// `weight · Σ|z|`, averaged over rows; slope 0 at 0.
pub(crate) fn sparse(weight: f64, code: &Tensor) -> Result<Tensor> {
    let rows = code.dim(0)? as f64;
    (code * code.sign()?)?.sum_all()? * (weight / rows)
}

/// `weight · MMD²` between the rows of `code` and of `prior`, without bias; `None` for one row, which has no pairs.
pub(crate) fn mmd(weight: f64, code: &Tensor, prior: &Tensor) -> Result<Option<Tensor>> {
    let (rows, _) = code.dims2()?;
    if rows < 2 {
        return Ok(None);
    }
    let pairs = (rows * (rows - 1)) as f64;
    let others = Tensor::eye(rows, code.dtype(), code.device())?.affine(-1.0, 1.0)?;
    let among = |points: &Tensor| (kernel(points, points)? * &others)?.sum_all()? / pairs;
    let between = (kernel(code, prior)?.sum_all()? * (2.0 / (rows * rows) as f64))?;
    let discrepancy = ((among(code)? + among(prior)?)? - between)?;
    (discrepancy * weight).map(Some)
}

/// `Σ_s C/(C + ‖a − b‖²)`, `C = 2·latent·s`, for every row of `a` and every row of `b`.
fn kernel(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let latent = a.dim(1)? as f64;
    let squared = a.unsqueeze(1)?.broadcast_sub(&b.unsqueeze(0)?)?.sqr()?.sum(2)?;
    let mut total = squared.zeros_like()?;
    for scale in Latent::MMD_SCALES {
        total = (total + squared.affine(1.0 / (2.0 * latent * scale), 1.0)?.recip()?)?;
    }
    Ok(total)
}

/// The `k` elements of each row with the largest magnitudes, 0 elsewhere; ties go to the lower column. Also 1
/// where an element that is not 0 was kept, else 0, which is a constant to autograd.
pub(crate) fn top_k(k: usize, code: &Tensor) -> Result<(Tensor, Tensor)> {
    let (rows, latent) = code.dims2()?;
    let mut kept = vec![0u8; rows * latent];
    for (row, kept) in code.to_dtype(DType::F64)?.to_vec2::<f64>()?.iter().zip(kept.chunks_exact_mut(latent)) {
        let mut order: Vec<usize> = (0..latent).collect();
        // A stable sort, so that equal magnitudes stay in the order of their columns.
        order.sort_by(|a, b| row[*b].abs().total_cmp(&row[*a].abs()));
        order.iter().take(k).for_each(|column| kept[*column] = u8::from(row[*column] != 0.0));
    }
    let kept = Tensor::from_vec(kept, (rows, latent), code.device())?;
    let sparse = kept.where_cond(code, &code.zeros_like()?)?;
    Ok((sparse, kept.to_dtype(code.dtype())?))
}

/// `mean + e^(s/2) · noise`; `logvar` is already clamped.
pub(crate) fn reparameterize(mean: &Tensor, logvar: &Tensor, noise: &Tensor) -> Result<Tensor> {
    mean + ((logvar * 0.5)?.exp()? * noise)?
}

/// The log-variance within its bounds; no gradient flows where it was clamped.
pub(crate) fn clamp_logvar(logvar: &Tensor) -> Result<Tensor> {
    let (low, high) = Latent::LOG_VARIANCE;
    let inside = (logvar.ge(low)? * logvar.le(high)?)?.to_dtype(logvar.dtype())?;
    let outside = inside.affine(-1.0, 1.0)?;
    let bound = (logvar.detach().clamp(low, high)? * outside)?;
    (logvar * inside)? + bound
}

/// `(coefficient/2) · Σ‖θ‖²`.
pub(crate) fn param_norm<'a>(coefficient: f64, params: impl Iterator<Item = &'a Var>) -> Result<Option<Tensor>> {
    let mut total: Option<Tensor> = None;
    for param in params {
        let norm = (param.sqr()?.sum_all()? * (0.5 * coefficient))?;
        total = Some(match total {
            None => norm,
            Some(sum) => (sum + norm)?,
        });
    }
    Ok(total)
}
