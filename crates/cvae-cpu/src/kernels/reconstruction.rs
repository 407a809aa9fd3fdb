//! The reconstruction term and its gradient. Formulas: docs/MATH.md, "Reconstruction".

use cvae_core::Reconstruction;

use super::element::Block;
use super::math::{exp, ln_1p, sigmoid};
use crate::simd::Simd;

/// Loss and gradient of one vector, before averaging.
#[inline(always)]
unsafe fn compare<S: Simd>(kind: Reconstruction, x: S::V, target: S::V) -> (S::V, S::V) {
    // SAFETY: register operations only.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let e = S::sub(x, target);
        match kind {
            Reconstruction::MseSum => (S::mul(S::splat(0.5), S::mul(e, e)), e),
            Reconstruction::MseMean => (S::mul(e, e), S::add(e, e)),
            Reconstruction::Bce => {
                let log = ln_1p::<S>(exp::<S>(S::sub(zero, S::abs(x))));
                let loss = S::add(S::fnma(x, target, S::max(zero, x)), log);
                (loss, S::sub(sigmoid::<S>(x), target))
            }
            Reconstruction::L1 => {
                let sign = S::select(S::gt(e, zero), one, S::select(S::gt(zero, e), S::splat(-1.0), S::mul(e, zero)));
                (S::abs(e), sign)
            }
            Reconstruction::Huber { delta } => {
                let delta = S::splat(delta as f32);
                let size = S::abs(e);
                let quadratic = S::mul(S::splat(0.5), S::mul(e, e));
                let linear = S::mul(delta, S::fnma(S::splat(0.5), delta, size));
                let slope = S::max(S::sub(zero, delta), S::min(delta, e));
                (S::select(S::gt(size, delta), linear, quadratic), slope)
            }
        }
    }
}

/// Operands of [`reconstruction`].
#[derive(Clone, Copy)]
pub(crate) struct Comparison {
    pub(crate) prediction: *const f32,
    pub(crate) target: *const f32,
    /// Factor of each element; null for 1.
    pub(crate) weights: *const f32,
    pub(crate) grad: *mut f32,
}

/// Writes the gradient of a block and returns its loss, both times `scale`; lanes outside the batch give 0.
///
/// # Safety
/// A block of floats behind each pointer that is not null; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn reconstruction<S: Simd>(block: &Block, kind: Reconstruction, scale: f32, q: &Comparison) -> f64 {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let (scale_v, zero) = (S::splat(scale), S::splat(0.0));
        let valid = block.masks::<S>();
        let mut sum = zero;
        macro_rules! run {
            ($kind:expr) => {
                for at in block.vectors::<S>() {
                    let mask = valid[(at / S::LANES) % 2];
                    let (loss, slope) = compare::<S>($kind, S::load(q.prediction.add(at)), S::load(q.target.add(at)));
                    let mut scaled = S::mul(slope, scale_v);
                    let mut loss = loss;
                    if !q.weights.is_null() {
                        let weight = S::load(q.weights.add(at));
                        loss = S::mul(loss, weight);
                        scaled = S::mul(scaled, weight);
                    }
                    sum = S::add(sum, S::select(mask, loss, zero));
                    S::store(q.grad.add(at), S::select(mask, scaled, zero));
                }
            };
        }
        match kind {
            Reconstruction::MseSum => run!(Reconstruction::MseSum),
            Reconstruction::MseMean => run!(Reconstruction::MseMean),
            Reconstruction::Bce => run!(Reconstruction::Bce),
            Reconstruction::L1 => run!(Reconstruction::L1),
            Reconstruction::Huber { delta } => run!(Reconstruction::Huber { delta }),
        }
        f64::from(S::sum(sum)) * f64::from(scale)
    }
}
