//! The Jacobian terms' own operations. Formulas: docs/MATH.md, "Jacobian terms".

use cvae_core::Activation;

use super::activation::{curvature, each_activation};
use super::element::Block;
use crate::simd::Simd;

/// `output = 2·weight·input`; returns `weight·Σ input²` over the batch's lanes.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn norm<S: Simd>(block: &Block, weight: f32, input: *const f32, output: *mut f32) -> f64 {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let zero = S::splat(0.0);
        let valid = block.masks::<S>();
        let mut sum = zero;
        for at in block.vectors::<S>() {
            let u = S::select(valid[(at / S::LANES) % 2], S::load(input.add(at)), zero);
            sum = S::fma(u, u, sum);
            S::store(output.add(at), S::mul(S::splat(2.0 * weight), u));
        }
        f64::from(weight) * f64::from(S::sum(sum))
    }
}

/// Operands of [`act_grad_grad`].
#[derive(Clone, Copy)]
pub(crate) struct Curvature {
    pub(crate) saved: *const f32,
    pub(crate) cotangent: *const f32,
    pub(crate) adjoint: *const f32,
    pub(crate) grad: *const f32,
    pub(crate) output: *mut f32,
}

/// `output = grad + act''(·) ⊙ cotangent ⊙ adjoint`, 0 in lanes outside the batch.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn act_grad_grad<S: Simd>(block: &Block, activation: Activation, q: &Curvature) {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        let zero = S::splat(0.0);
        let valid = block.masks::<S>();
        each_activation!(activation, A => for at in block.vectors::<S>() {
            let product = S::mul(S::load(q.cotangent.add(at)), S::load(q.adjoint.add(at)));
            let grad = S::fma(curvature::<S>(A, S::load(q.saved.add(at))), product, S::load(q.grad.add(at)));
            S::store(q.output.add(at), S::select(valid[(at / S::LANES) % 2], grad, zero));
        });
    }
}
