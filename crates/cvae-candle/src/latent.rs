//! Latent terms and the decoder regulariser, differentiated by candle. Formulas: docs/MATH.md.

use candle_core::{Result, Tensor, Var};
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
