//! Activation functions and their derivatives. Formulas: docs/MATH.md, "Activations".

use cvae_core::Activation;

use super::element::Block;
use super::math::{exp, exp_m1, normal_cdf, sigmoid, tanh};
use crate::simd::Simd;

/// `act(a)`
///
/// # Safety
/// The instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn value<S: Simd>(activation: Activation, a: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let zero = S::splat(0.0);
        match activation {
            Activation::Identity => a,
            // The zero comes first so that NaN passes through.
            Activation::Relu => S::max(zero, a),
            Activation::LeakyRelu => S::select(S::gt(a, zero), a, S::mul(a, S::splat(Activation::LEAKY_SLOPE as f32))),
            Activation::Elu => S::select(S::gt(a, zero), a, exp_m1::<S>(a)),
            Activation::Gelu => S::mul(a, normal_cdf::<S>(a)),
            Activation::Silu => S::mul(a, sigmoid::<S>(a)),
            Activation::Tanh => tanh::<S>(a),
            Activation::Sigmoid => sigmoid::<S>(a),
        }
    }
}

/// The derivative, from the output where [`Activation::derivative_from_output`], else from the input.
#[inline(always)]
unsafe fn slope<S: Simd>(activation: Activation, saved: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        match activation {
            Activation::Identity => one,
            Activation::Relu => S::select(S::gt(saved, zero), one, zero),
            Activation::LeakyRelu => S::select(S::gt(saved, zero), one, S::splat(Activation::LEAKY_SLOPE as f32)),
            Activation::Elu => S::select(S::gt(saved, zero), one, S::add(saved, one)),
            Activation::Gelu => S::fma(saved, normal_density::<S>(saved), normal_cdf::<S>(saved)),
            Activation::Silu => {
                let s = sigmoid::<S>(saved);
                S::mul(s, S::fma(saved, S::sub(one, s), one))
            }
            Activation::Tanh => S::fnma(saved, saved, one),
            Activation::Sigmoid => S::mul(saved, S::sub(one, saved)),
        }
    }
}

/// The second derivative, from the same value as [`slope`].
#[inline(always)]
pub(super) unsafe fn curvature<S: Simd>(activation: Activation, saved: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe {
        let (zero, one, two) = (S::splat(0.0), S::splat(1.0), S::splat(2.0));
        match activation {
            Activation::Identity | Activation::Relu | Activation::LeakyRelu => zero,
            Activation::Elu => S::select(S::gt(saved, zero), zero, S::add(saved, one)),
            Activation::Gelu => S::mul(normal_density::<S>(saved), S::fnma(saved, saved, two)),
            Activation::Silu => {
                let s = sigmoid::<S>(saved);
                let inner = S::fma(saved, S::fnma(two, s, one), two);
                S::mul(S::mul(s, S::sub(one, s)), inner)
            }
            Activation::Tanh => S::mul(S::mul(S::splat(-2.0), saved), S::fnma(saved, saved, one)),
            Activation::Sigmoid => S::mul(S::mul(saved, S::sub(one, saved)), S::fnma(two, saved, one)),
        }
    }
}

/// `e^(−a²/2)/√(2π)`
#[inline(always)]
unsafe fn normal_density<S: Simd>(a: S::V) -> S::V {
    // SAFETY: register operations only.
    unsafe { S::mul(S::splat(0.398_942_3), exp::<S>(S::mul(S::mul(S::splat(-0.5), a), a))) }
}

/// Runs `$body` once per activation with `$a` a constant, so that the choice stays outside the loop.
macro_rules! each_activation {
    ($activation:expr, $a:ident => $body:expr) => {
        match $activation {
            Activation::Identity => {
                const $a: Activation = Activation::Identity;
                $body
            }
            Activation::Relu => {
                const $a: Activation = Activation::Relu;
                $body
            }
            Activation::LeakyRelu => {
                const $a: Activation = Activation::LeakyRelu;
                $body
            }
            Activation::Elu => {
                const $a: Activation = Activation::Elu;
                $body
            }
            Activation::Gelu => {
                const $a: Activation = Activation::Gelu;
                $body
            }
            Activation::Silu => {
                const $a: Activation = Activation::Silu;
                $body
            }
            Activation::Tanh => {
                const $a: Activation = Activation::Tanh;
                $body
            }
            Activation::Sigmoid => {
                const $a: Activation = Activation::Sigmoid;
                $body
            }
        }
    };
}
pub(super) use each_activation;

/// `output = act(input)` over a block.
///
/// # Safety
/// A block of floats behind either pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn act<S: Simd>(block: &Block, activation: Activation, input: *const f32, output: *mut f32) {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        each_activation!(activation, A => for at in block.vectors::<S>() {
            S::store(output.add(at), value::<S>(A, S::load(input.add(at))));
        });
    }
}

/// `output = grad · act'(saved)` over a block.
///
/// # Safety
/// A block of floats behind each pointer; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn act_grad<S: Simd>(
    block: &Block,
    activation: Activation,
    saved: *const f32,
    grad: *const f32,
    output: *mut f32,
) {
    // SAFETY: `block.vectors` stays inside the block.
    unsafe {
        if activation == Activation::Relu {
            // A select, so that an infinite gradient of a dead unit stays dead.
            let zero = S::splat(0.0);
            for at in block.vectors::<S>() {
                let alive = S::gt(S::load(saved.add(at)), zero);
                S::store(output.add(at), S::select(alive, S::load(grad.add(at)), zero));
            }
            return;
        }
        each_activation!(activation, A => for at in block.vectors::<S>() {
            let slope = slope::<S>(A, S::load(saved.add(at)));
            S::store(output.add(at), S::mul(S::load(grad.add(at)), slope));
        });
    }
}
