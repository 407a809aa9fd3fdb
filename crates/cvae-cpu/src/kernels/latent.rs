//! Latent terms and the reparameterisation. Formulas: docs/MATH.md, "Latent terms".

use cvae_core::Latent;

use super::element::Block;
use super::math::{exp, exp_m1};
use crate::simd::Simd;

const LOW: f32 = Latent::LOG_VARIANCE.0 as f32;
const HIGH: f32 = Latent::LOG_VARIANCE.1 as f32;

#[inline(always)]
unsafe fn clamp<S: Simd>(s: S::V) -> S::V {
    // SAFETY: register operations only. The bounds come first so that NaN passes through.
    unsafe { S::min(S::splat(HIGH), S::max(S::splat(LOW), s)) }
}

/// `v` where the log-variance lies strictly inside its bounds, else 0.
#[inline(always)]
unsafe fn inside<S: Simd>(s: S::V, v: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let zero = S::splat(0.0);
        let v = S::select(S::gt(s, S::splat(HIGH)), zero, v);
        S::select(S::gt(S::splat(LOW), s), zero, v)
    }
}

/// `output = grad + beta·z·inv_rows`; returns `beta·½Σz²·inv_rows`.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn collapsed_prior<S: Simd>(
    block: &Block,
    weight: f32,
    code: *const f32,
    grad: *const f32,
    output: *mut f32,
) -> f64 {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let zero = S::splat(0.0);
        let valid = block.masks::<S>();
        let mut sum = zero;
        for at in block.vectors::<S>() {
            let mask = valid[(at / S::LANES) % 2];
            let z = S::select(mask, S::load(code.add(at)), zero);
            let g = S::select(mask, S::load(grad.add(at)), zero);
            sum = S::fma(z, z, sum);
            S::store(output.add(at), S::fma(S::splat(weight), z, g));
        }
        0.5 * f64::from(weight) * f64::from(S::sum(sum))
    }
}

/// `output = grad + weight·sign(z)`; returns `weight·Σ|z|` over the batch's lanes.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn code_l1<S: Simd>(
    block: &Block,
    weight: f32,
    code: *const f32,
    grad: *const f32,
    output: *mut f32,
) -> f64 {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let zero = S::splat(0.0);
        let valid = block.masks::<S>();
        let mut sum = zero;
        for at in block.vectors::<S>() {
            let mask = valid[(at / S::LANES) % 2];
            let z = S::select(mask, S::load(code.add(at)), zero);
            let g = S::select(mask, S::load(grad.add(at)), zero);
            sum = S::add(sum, S::abs(z));
            // The last case keeps 0 and NaN as they are.
            let below = S::select(S::gt(zero, z), S::splat(-weight), S::mul(z, zero));
            S::store(output.add(at), S::add(g, S::select(S::gt(z, zero), S::splat(weight), below)));
        }
        f64::from(weight) * f64::from(S::sum(sum))
    }
}

/// The operands of the divergence.
#[derive(Clone, Copy)]
pub(crate) struct Kl {
    pub(crate) mean: *const f32,
    pub(crate) logvar: *const f32,
    pub(crate) mean_grad: *const f32,
    pub(crate) logvar_grad: *const f32,
    pub(crate) mean_output: *mut f32,
    pub(crate) logvar_output: *mut f32,
}

/// Adds the divergence's gradients; returns `weight·½Σ(μ² + e^s − 1 − s)`.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn kl_divergence<S: Simd>(block: &Block, weight: f32, q: &Kl) -> f64 {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let zero = S::splat(0.0);
        let valid = block.masks::<S>();
        let mut sum = zero;
        for at in block.vectors::<S>() {
            let mask = valid[(at / S::LANES) % 2];
            let mean = S::load(q.mean.add(at));
            let raw = S::load(q.logvar.add(at));
            let s = clamp::<S>(raw);
            let growth = exp_m1::<S>(s);
            let term = S::fma(mean, mean, S::sub(growth, s));
            sum = S::add(sum, S::select(mask, term, zero));
            let mean_grad = S::fma(S::splat(weight), mean, S::load(q.mean_grad.add(at)));
            let slope = inside::<S>(raw, S::mul(S::splat(0.5 * weight), growth));
            let logvar_grad = S::add(S::load(q.logvar_grad.add(at)), slope);
            S::store(q.mean_output.add(at), S::select(mask, mean_grad, zero));
            S::store(q.logvar_output.add(at), S::select(mask, logvar_grad, zero));
        }
        0.5 * f64::from(weight) * f64::from(S::sum(sum))
    }
}

/// `output = mean + e^(s/2)·noise`
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn reparameterize<S: Simd>(
    block: &Block,
    mean: *const f32,
    logvar: *const f32,
    noise: *const f32,
    output: *mut f32,
) {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        for at in block.vectors::<S>() {
            let s = clamp::<S>(S::load(logvar.add(at)));
            let deviation = exp::<S>(S::mul(S::splat(0.5), s));
            S::store(output.add(at), S::fma(deviation, S::load(noise.add(at)), S::load(mean.add(at))));
        }
    }
}

/// `output = grad·noise·½e^(s/2)` inside the bounds of `s`, else 0.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn reparameterize_grad<S: Simd>(
    block: &Block,
    grad: *const f32,
    logvar: *const f32,
    noise: *const f32,
    output: *mut f32,
) {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        for at in block.vectors::<S>() {
            let raw = S::load(logvar.add(at));
            let half = S::mul(S::splat(0.5), exp::<S>(S::mul(S::splat(0.5), clamp::<S>(raw))));
            let slope = S::mul(S::mul(S::load(grad.add(at)), S::load(noise.add(at))), half);
            S::store(output.add(at), inside::<S>(raw, slope));
        }
    }
}
