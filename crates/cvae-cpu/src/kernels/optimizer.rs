//! Optimiser updates, as epilogues of weight gradients and as passes of their own.

use cvae_core::Update;

use crate::simd::Simd;

/// What happens to a finished gradient.
#[derive(Clone, Copy)]
pub(crate) enum Rule {
    /// Kept in the gradient buffer.
    Store,
    /// docs/MATH.md, "Optimisers".
    Adam {
        /// `1 − β₁`.
        rest1: f32,
        /// `1 − β₂`.
        rest2: f32,
        step_size: f32,
        inv_sqrt_correction: f32,
        eps: f32,
        keep: f32,
    },
    /// Gradient descent with momentum.
    Sgd { momentum: f32, learning_rate: f32 },
}

impl From<Update> for Rule {
    fn from(update: Update) -> Self {
        match update {
            Update::Adam { beta1, beta2, eps, step_size, inv_sqrt_correction, keep } => Self::Adam {
                rest1: (1.0 - beta1) as f32,
                rest2: (1.0 - beta2) as f32,
                step_size: step_size as f32,
                inv_sqrt_correction: inv_sqrt_correction as f32,
                eps: eps as f32,
                keep: keep as f32,
            },
            Update::Sgd { momentum, learning_rate } => {
                Self::Sgd { momentum: momentum as f32, learning_rate: learning_rate as f32 }
            }
        }
    }
}

/// Applies `rule` to one vector: gradient `g`, parameters at `w`, first moments at `m`, second at `v`.
///
/// # Safety
/// One writable vector at `w`, `m` and `v`, and at `grad` for [`Rule::Store`]; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn update_vector<S: Simd>(
    rule: &Rule,
    g: S::V,
    w: *mut f32,
    m: *mut f32,
    v: *mut f32,
    grad: *mut f32,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        match *rule {
            Rule::Store => S::store(grad, g),
            Rule::Adam { rest1, rest2, step_size, inv_sqrt_correction, eps, keep } => {
                let (m0, v0) = (S::load(m), S::load(v));
                // `m + (1 − β₁)(g − m)` and `v + (1 − β₂)(g² − v)`: one rounding less and one product fewer
                // than the textbook form.
                let m1 = S::fma(S::splat(rest1), S::sub(g, m0), m0);
                let v1 = S::fma(S::splat(rest2), S::fms(g, g, v0), v0);
                let root = S::fma(S::sqrt(v1), S::splat(inv_sqrt_correction), S::splat(eps));
                let change = S::div(S::mul(S::splat(step_size), m1), root);
                S::store(m, m1);
                S::store(v, v1);
                S::store(w, S::fms(S::splat(keep), S::load(w), change));
            }
            Rule::Sgd { momentum, learning_rate } => {
                let m1 = S::fma(S::splat(momentum), S::load(m), g);
                S::store(m, m1);
                S::store(w, S::fnma(S::splat(learning_rate), m1, S::load(w)));
            }
        }
    }
}

/// Applies `rule` to stored gradients of whole vectors; moments are interleaved `[m; PW][v; PW]` per `PW`
/// parameters.
pub(crate) struct Apply {
    /// Factor of the gradients (1 without clipping).
    pub(crate) scale: f32,
    pub(crate) rule: Rule,
    /// `[count][PW]`.
    pub(crate) w: *mut f32,
    /// `[count][2][PW]`.
    pub(crate) moments: *mut f32,
    /// `[count][PW]`.
    pub(crate) grad: *const f32,
    /// Rows of `PW` parameters.
    pub(crate) count: usize,
}

/// See [`Apply`].
///
/// # Safety
/// Pointers as [`Apply`] documents; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn apply<S: Simd>(q: &Apply) {
    let width = 2 * S::LANES;
    for row in 0..q.count {
        for j in 0..2 {
            let (at, lane) = (row * width + j * S::LANES, j * S::LANES);
            // SAFETY: `at` lies inside every buffer.
            unsafe {
                let g = S::mul(S::splat(q.scale), S::load(q.grad.add(at)));
                let m = q.moments.add(row * 2 * width + lane);
                update_vector::<S>(&q.rule, g, q.w.add(at), m, m.add(width), std::ptr::null_mut());
            }
        }
    }
}

/// Sum of squares of `count` rows of `PW` floats.
///
/// # Safety
/// `count · PW` readable floats at `p`; the instruction set of `S`.
#[inline(always)]
pub(crate) unsafe fn square_sum<S: Simd>(p: *const f32, count: usize) -> f64 {
    let width = 2 * S::LANES;
    let mut total = 0.0f64;
    // Short vector sums keep single precision accurate for any size.
    let mut row = 0;
    while row < count {
        let end = (row + 64).min(count);
        // SAFETY: rows below `count` exist.
        unsafe {
            let mut sum = [S::splat(0.0); 2];
            while row < end {
                for (j, sum) in sum.iter_mut().enumerate() {
                    let x = S::load(p.add(row * width + j * S::LANES));
                    *sum = S::fma(x, x, *sum);
                }
                row += 1;
            }
            total += f64::from(S::sum(S::add(sum[0], sum[1])));
        }
    }
    total
}
